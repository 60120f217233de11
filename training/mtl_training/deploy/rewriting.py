"""What all rewrites of an ONNX graph need: where the network proper begins and ends in it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

# What has weights: between the first and the last of these is the network proper, before them is
# the normalisation of the picture, after them the meaning of the logits.
_LAYERS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')


def with_weights(graph: GraphProto) -> set[str]:
    """Outputs of the layers that have learnt something, or weigh by what they see.

    A product with zeros and ones only adds up: the classes of a group.
    """
    sums = {
        tensor.name
        for tensor in graph.initializer
        if np.isin(numpy_helper.to_array(tensor), (0, 1)).all()
    }
    return {
        name
        for node in graph.node
        if node.op_type in _LAYERS
        and not (node.op_type == 'MatMul' and sums.intersection(node.input))
        for name in node.output
    }


def fold_constants(model: ModelProto) -> ModelProto:
    """A copy in which what depends on no input is computed already, such as slices of weights."""
    model = copy.deepcopy(model)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if any(name not in constants for name in inputs):
            kept.append(node)
            continue
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
        alone = helper.make_graph([node], 'alone', [], outputs, [constants[i] for i in inputs])
        evaluator = ReferenceEvaluator(
            helper.make_model(alone, opset_imports=model.opset_import, ir_version=model.ir_version)
        )
        for name, value in zip(node.output, evaluator.run(None, {}), strict=True):
            constants[name] = numpy_helper.from_array(np.asarray(value, order='C'), name)
    del graph.initializer[:]
    graph.initializer.extend(constants.values())
    return rebuild(model, kept)


def preprocessing(graph: GraphProto) -> set[str]:
    """Tensors that no layer with weights has touched yet."""
    layers = with_weights(graph)
    touched: set[str] = set()
    before = {value.name for value in graph.input}
    for node in graph.node:
        if layers.intersection(node.output) or touched.intersection(node.input):
            touched.update(node.output)
        else:
            before.update(node.output)
    return before


def postprocessing(graph: GraphProto) -> set[str]:
    """Tensors from which no layer with weights is fed any more, except the layers' own outputs."""
    layers = with_weights(graph)
    feeding: set[str] = set()
    after: set[str] = set()
    for node in reversed(graph.node):
        feeds = bool(feeding.intersection(node.output))
        if layers.intersection(node.output) or feeds:
            feeding.update(node.input)
        else:
            after.update(node.output)
    return after


def float_tensors(model: ModelProto) -> set[str]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    return floats | {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}


def rebuild(model: ModelProto, nodes: Sequence[NodeProto]) -> ModelProto:
    """The model with other nodes: without unused weights and names of tools, shapes inferred."""
    graph = model.graph
    nodes = [copy.deepcopy(node) for node in nodes]
    used = {name for node in nodes for name in node.input} | {o.name for o in graph.output}
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    clean = helper.make_model(
        helper.make_graph(nodes, graph.name, graph.input, graph.output, initializers),
        opset_imports=[entry for entry in model.opset_import if entry.domain in ('', 'ai.onnx')],
        ir_version=model.ir_version,
    )
    for item in (clean.graph, *clean.graph.node, *clean.graph.initializer):
        item.ClearField('doc_string')
        item.ClearField('metadata_props')
    clean = onnx.shape_inference.infer_shapes(clean, strict_mode=True, data_prop=True)
    onnx.checker.check_model(clean, full_check=True)
    return clean
