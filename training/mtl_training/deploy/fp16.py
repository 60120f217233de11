"""A graph in fp16: which tensors are half as wide, and where types meet."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mtl_training.deploy.folding import fold_layers
from mtl_training.deploy.rewriting import (
    float_tensors,
    postprocessing,
    preprocessing,
    rebuild,
)

# Sums over many values, or steep ones: they stay fp32 in fp16 and cost next to nothing.
_DELICATE = ('LayerNormalization', 'Softmax', 'Exp', 'ReduceSum', 'ReduceMean', 'Pow', 'Sqrt')
# Inputs that are float32 whatever the precision of the tensor: Resize's roi and scales.
_ALWAYS_FLOAT = {'Resize': (1, 2)}
_HALF_MAX = float(np.finfo(np.float16).max)


def to_fp16(model: ModelProto) -> ModelProto:
    """A typed fp16 graph, as TensorRT's strongly typed networks want it.

    Inputs and outputs keep their types. fp32 stay: the normalisation of the picture, all that comes
    after the last layers with weights (soft max, exp, unit length, up-sampling), and inside the
    network the sums and exponentials of ``_DELICATE``. Casts stand where the types meet.
    """
    model = fold_layers(model)
    graph = model.graph
    types = float_tensors(model)
    outside = preprocessing(graph) | postprocessing(graph)
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name in types}
    narrow: dict[str, bool] = dict.fromkeys((value.name for value in graph.input), False)
    nodes: list[NodeProto] = []
    cast: dict[tuple[str, bool], str] = {}

    def fetch(name: str, half: bool) -> str:
        """The name of a float tensor in the type that is wanted."""
        if name in constants:
            if not half:
                return name
            if (name, half) not in cast:
                values = numpy_helper.to_array(constants[name]).clip(-_HALF_MAX, _HALF_MAX)
                cast[name, half] = f'{name}_fp16'
                graph.initializer.append(
                    numpy_helper.from_array(values.astype(np.float16), cast[name, half])
                )
            return cast[name, half]
        if narrow[name] == half:
            return name
        if (name, half) not in cast:
            cast[name, half] = f'{name}_{"fp16" if half else "fp32"}'
            to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            nodes.append(helper.make_node('Cast', [name], [cast[name, half]], to=to))
        return cast[name, half]

    for node in graph.node:
        half = not (outside & set(node.output)) and node.op_type not in _DELICATE
        wide = _ALWAYS_FLOAT.get(node.op_type, ())
        for index, name in enumerate(node.input):
            if name in types:
                node.input[index] = fetch(name, half and index not in wide)
        for name in node.output:
            narrow[name] = half and name in types
        if half and node.op_type == 'Cast':
            (to,) = (a for a in node.attribute if a.name == 'to')
            to.i = TensorProto.FLOAT16 if to.i == TensorProto.FLOAT else to.i
        nodes.append(node)
    for value in graph.output:  # an output right behind a layer: the graph's name must be fp32
        if narrow.get(value.name, False):
            for node in nodes:
                for names in (node.input, node.output):
                    for index, name in enumerate(names):
                        names[index] = f'{name}_narrow' if name == value.name else name
            nodes.append(
                helper.make_node(
                    'Cast', [f'{value.name}_narrow'], [value.name], to=TensorProto.FLOAT
                )
            )
    return rebuild(model, nodes)
