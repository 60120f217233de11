"""Norms folded into the convolutions before them, as int8 and fp16 models want them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from mtl_training.deploy.rewriting import fold_constants, rebuild


def fold_layers(model: ModelProto) -> ModelProto:
    """A copy of constants and layers only: no norms, nothing that can be computed in advance."""
    model = fold_constants(model)
    graph = model.graph
    folding = _Folding(graph)
    kept = [node for node in graph.node if not folding.fold(node)]
    return rebuild(model, kept)


class _Folding:
    """The norms of a graph whose constants are initializers, one after the other."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.makers = {name: node for node in graph.node for name in node.output}
        self.uses = Counter(name for node in graph.node for name in node.input)
        self.uses.update(value.name for value in graph.output)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}

    def fold(self, node: NodeProto) -> bool:
        """Fold a norm: (x - mean) / sqrt(var + eps) gamma + beta = s x + t; False if it stays."""
        if node.op_type != 'BatchNormalization':
            return False
        convolutions = self.before(node.input[0])
        if not convolutions:
            return False
        gamma, beta, mean, variance = (self.value(name) for name in node.input[1:])
        (epsilon,) = [a.f for a in node.attribute if a.name == 'epsilon'] or [1e-5]
        scale = gamma / np.sqrt(variance + np.float32(epsilon))
        for index, convolution in enumerate(convolutions):
            weight = self.value(convolution.input[1])
            bias = self.value(convolution.input[2]) if len(convolution.input) > 2 else 0 * scale
            bias = bias * scale + (0 if index else beta - mean * scale)
            self.replace(convolution, weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), bias)
        self.rename(node.input[0], node.output[0])
        return True

    def before(self, name: str) -> list[NodeProto]:
        """The convolutions whose sum a tensor is, if nobody else wants them; else none."""
        node = self.makers.get(name)
        if node is None or self.uses[name] > 1:
            return []
        if node.op_type == 'Conv':
            return [node] if node.input[1] in self.constants else []
        # Sums and up-sampling, before which a factor of every channel may come as well.
        parts = {'Add': node.input, 'Resize': node.input[:1]}.get(node.op_type, [])
        found = [self.before(part) for part in parts]
        return [convolution for part in found for convolution in part] if all(found) else []

    def value(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self.constants[name])

    def replace(self, convolution: NodeProto, *values: NDArray[Any]) -> None:
        """Give a convolution other weights and another bias, which nobody shares."""
        del convolution.input[1:]
        for part, value in zip(('weight', 'bias'), values, strict=True):
            name = f'{convolution.output[0]}_{part}'
            self.constants[name] = numpy_helper.from_array(np.asarray(value, np.float32), name)
            self.graph.initializer.append(self.constants[name])
            convolution.input.append(name)

    def rename(self, old: str, new: str) -> None:
        """Let the node that makes a tensor give it the name that others know."""
        node = self.makers.pop(old)
        for index, name in enumerate(node.output):
            node.output[index] = new if name == old else name
        self.makers[new] = node
