"""A deployable network as ONNX: traced, its shapes fixed, and no trace of the machine inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from mtl_training.bounds import Bounds
from mtl_training.checkpoints.weights import PREFIX
from mtl_training.deploy import DeployError
from mtl_training.deploy.deployable import Deployable

OPSET = 18
# What the exporter writes: from 18 on, and what ONNX knows how to turn back.
Opset = Annotated[int, Bounds(17, onnx.defs.onnx_opset_version())]


def to_onnx(module: Deployable, size: tuple[int, int], opset: int = OPSET) -> onnx.ModelProto:
    """Trace to ONNX: batch dynamic, height and width fixed, no trace of the machine inside.

    Weights and norms are in the graph as they are in the network, under their names there: what a
    norm and a convolution have in common, engines find out when they load it.

    Raises:
        DeployError: the exporter wrote another opset than asked.
    """
    example = torch.zeros(2, *size, 3, dtype=torch.uint8)
    with torch.no_grad():
        names = list(module(example))
    program = torch.onnx.export(
        module.eval(),
        (example,),
        dynamo=True,
        opset_version=opset,
        input_names=['image'],
        output_names=names,
        dynamic_shapes={'image': {0: torch.export.Dim('batch', min=1, max=64)}},
        external_data=False,
        verbose=False,
        optimize=False,
    )
    assert program is not None  # as it is with dynamo
    with _kept_weights(program.model.graph):
        program.optimize()
    model = program.model_proto
    written = {entry.domain: entry.version for entry in model.opset_import}
    if written.get('') != opset:
        raise DeployError(f'the exporter wrote opset {written.get("")}, expected {opset}')
    if model.functions or set(written) - {''}:
        raise DeployError(f'the graph needs operators outside of ONNX: {sorted(written)}')
    fix_shapes(model)
    _anonymise(model)
    onnx.checker.check_model(model, full_check=True)
    return model


@contextmanager
def _kept_weights(graph: Any) -> Iterator[None]:
    """While open, weights are inputs, of which nothing is computed in advance."""
    values = {name: v for name, v in graph.initializers.items() if name.startswith(PREFIX)}
    constants = {name: value.const_value for name, value in values.items()}
    for name, value in values.items():
        graph.initializers.pop(name)
        value.const_value = None
        graph.inputs.append(value)
    yield
    for name, value in values.items():
        graph.inputs.remove(value)
        value.const_value = constants[name]
        graph.initializers[name] = value


def fix_shapes(model: onnx.ModelProto) -> None:
    """Write the shapes that are known into Resize and Reshape, instead of computing them.

    With a dynamic batch the exporter computes every target size from the input's shape, some
    hundred tiny nodes that engines have to see through. Only the batch is unknown: Resize gets
    scales, Reshape gets a constant that begins with 0, which means "as it was".
    """
    graph = model.graph
    shapes = {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output, *graph.value_info)
    }
    constants: dict[bytes, str] = {}

    def constant(value: NDArray[Any]) -> str:
        key = value.dtype.str.encode() + value.tobytes()
        if key not in constants:
            constants[key] = f'fixed_{len(constants)}'
            graph.initializer.append(onnx.numpy_helper.from_array(value, constants[key]))
        return constants[key]

    for node in graph.node:
        before = shapes.get(node.input[0] if node.input else '', [])
        after = shapes.get(node.output[0], [])
        sides = [*before[1:], *after[1:]]
        if before[:1] != after[:1] or not sides or any(isinstance(side, str) for side in sides):
            continue
        if node.op_type == 'Resize' and len(node.input) == 4:
            sizes = np.array(before[2:], np.float32), np.array(after[2:], np.float32)
            scales = sizes[1] / sizes[0]
            if np.array_equal(np.floor(sizes[0] * scales), sizes[1]):
                del node.input[2:]
                node.input.append(constant(np.concatenate([np.ones(2, np.float32), scales])))
        elif node.op_type == 'Reshape':
            node.input[1] = constant(np.array([0, *after[1:]], np.int64))
            del node.attribute[:]  # allowzero, with which the 0 would be an empty batch
    _drop_unused(graph)


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):  # nodes are sorted: users come later
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)


def _anonymise(model: onnx.ModelProto) -> None:
    """Drop the stack traces and file names that the exporter leaves at every node."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        item.ClearField('metadata_props')
        item.ClearField('doc_string')
    for tensor in graph.initializer:
        tensor.ClearField('metadata_props')
        tensor.ClearField('doc_string')
