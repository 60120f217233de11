"""Whether an ONNX file quantises to unsigned numbers, read without the package onnx."""

from __future__ import annotations

from .protobuf import fields as read_fields

# Field numbers of onnx.proto and the code of a data type.
_GRAPH = 7
_NODE, _INITIALIZER = 1, 5
_INPUT, _OUTPUT, _NAME, _OPERATOR, _ATTRIBUTE = 1, 2, 3, 4, 5
_TENSOR_DTYPE, _TENSOR_NAME = 2, 8
_ATTRIBUTE_NAME, _ATTRIBUTE_TENSOR = 1, 5
_UINT8 = 2

Message = dict[int, list[bytes | int]]


def unsigned_node(model: bytes) -> str:
    """The name of a node that quantises to uint8, or from it; empty where there is none.

    ONNX takes a QuantizeLinear without a zero point for an unsigned one, unless it says otherwise.

    Raises:
        ValueError: it is not an ONNX file.
    """
    graph = _message(_bytes(_message(model), _GRAPH))
    nodes = [_message(node) for node in graph.get(_NODE, []) if isinstance(node, bytes)]
    dtypes: dict[bytes | int, bytes | int] = {}
    for tensor in graph.get(_INITIALIZER, []):
        if isinstance(tensor, bytes):
            fields = _message(tensor)
            dtypes[_bytes(fields, _TENSOR_NAME)] = fields.get(_TENSOR_DTYPE, [0])[0]
    for node in nodes:
        if _bytes(node, _OPERATOR) == b'Constant':
            tensor = _bytes(_attributes(node).get(b'value', {}), _ATTRIBUTE_TENSOR)
            dtypes[_bytes(node, _OUTPUT)] = _message(tensor).get(_TENSOR_DTYPE, [0])[0]
    for node in nodes:
        operator = _bytes(node, _OPERATOR)
        if operator not in (b'QuantizeLinear', b'DequantizeLinear'):
            continue
        inputs = node.get(_INPUT, [])
        dtype = dtypes.get(inputs[2] if len(inputs) > 2 else b'')
        if operator == b'QuantizeLinear' and dtype is None:
            unsigned = b'output_dtype' not in _attributes(node)
        else:
            unsigned = _UINT8 in (dtype, dtypes.get(inputs[0]))
        if unsigned:
            return (_bytes(node, _NAME) or _bytes(node, _OUTPUT)).decode(errors='replace')
    return ''


def _attributes(node: Message) -> dict[bytes, Message]:
    found = (_message(item) for item in node.get(_ATTRIBUTE, []) if isinstance(item, bytes))
    return {_bytes(attribute, _ATTRIBUTE_NAME): attribute for attribute in found}


def _bytes(message: Message, field: int) -> bytes:
    value = message.get(field, [b''])[0]
    if not isinstance(value, bytes):
        raise ValueError(f'field {field} is a number')
    return value


def _message(content: bytes) -> Message:
    """The fields of a protobuf message, by number."""
    fields: Message = {}
    for field in read_fields(content):
        value = field.value if isinstance(field.value, int) else bytes(field.value)
        fields.setdefault(field.number, []).append(value)
    return fields
