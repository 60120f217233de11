"""The part of a model that some of its outputs need, cut out of the bytes of its ONNX file.

The file is a protobuf message, and a part of it is the same message without some of its fields: no
package for ONNX is needed, and what is kept is kept bit by bit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from .engine import EngineError
from .protobuf import BYTES, Field, fields

# Numbers of fields in onnx.proto.
_GRAPH = 7  # of ModelProto
_NODE, _INITIALIZER, _OUTPUT, _VALUE_INFO, _ANNOTATION, _SPARSE = 1, 5, 12, 13, 14, 15  # GraphProto
_NODE_INPUT, _NODE_OUTPUT, _ATTRIBUTE = 1, 2, 5  # NodeProto
_BODY, _BODIES = 6, 11  # AttributeProto
# Where the name is in what a graph holds under a field; a sparse tensor's is in its values.
_NAMES = {_INITIALIZER: (8,), _OUTPUT: (1,), _VALUE_INFO: (1,), _ANNOTATION: (1,), _SPARSE: (1, 8)}


def cut(model: bytes, outputs: Collection[str]) -> bytes:
    """The ONNX file that computes some outputs of a model, and nothing that only others need.

    Args:
        model: an ONNX file with its weights inside.
        outputs: names of outputs of its graph.

    Raises:
        EngineError: it is not an ONNX file, or has no such output.
    """
    try:
        parts = [
            _message(_GRAPH, _cut_graph(field.content, outputs))
            if field.number == _GRAPH
            else field.whole
            for field in fields(model)
        ]
    except ValueError as error:
        raise EngineError('the model is not an ONNX file') from error
    return b''.join(parts)


def _cut_graph(graph: memoryview, outputs: Collection[str]) -> bytes:
    parts = list(fields(graph))
    found = {_name(field) for field in parts if field.number == _OUTPUT}
    if missing := set(outputs) - found:
        raise EngineError(
            f'the model has no output {", ".join(sorted(missing))}, only {", ".join(sorted(found))}'
        )
    needed, nodes = set(outputs), set()
    # Nodes stand behind all that they need.
    for index, field in reversed(list(enumerate(parts))):
        if field.number == _NODE and not needed.isdisjoint(_texts(field.content, _NODE_OUTPUT)):
            nodes.add(index)
            needed.update(_reads(field.content))
    return b''.join(
        field.whole
        for index, field in enumerate(parts)
        if (index in nodes if field.number == _NODE else _kept(field, needed, outputs))
    )


def _kept(field: Field, needed: set[str], outputs: Collection[str]) -> bool:
    """Whether the part computes with what a field holds."""
    if field.number == _OUTPUT:
        return _name(field) in outputs
    return field.number not in _NAMES or _name(field) in needed


def _reads(node: memoryview) -> Iterator[str]:
    """The names that a node needs, also inside of branches and loops."""
    yield from _texts(node, _NODE_INPUT)
    for attribute in _contents(node, _ATTRIBUTE):
        for body in (*_contents(attribute, _BODY), *_contents(attribute, _BODIES)):
            for inner in _contents(body, _NODE):
                yield from _reads(inner)
            yield from (_text(output, 1) for output in _contents(body, _OUTPUT))


def _name(field: Field) -> str:
    content = field.content
    *path, last = _NAMES[field.number]
    for number in path:
        content = next(_contents(content, number), memoryview(b''))
    return _text(content, last)


def _text(message: memoryview, number: int) -> str:
    return next(_texts(message, number), '')


def _texts(message: memoryview, number: int) -> Iterator[str]:
    return (str(content, 'utf-8') for content in _contents(message, number))


def _contents(message: memoryview, number: int) -> Iterator[memoryview]:
    return (field.content for field in fields(message) if field.number == number)


def _message(number: int, content: bytes) -> bytes:
    """A field that holds a message."""
    return _number(number << 3 | BYTES) + _number(len(content)) + content


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
