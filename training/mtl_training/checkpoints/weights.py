"""The weights of a network in the ONNX file of a bundle, which is a checkpoint, too.

They are there under their names in the network, kernels and matrices in 16 bits where these hold
them exactly, behind a Cast to float32 that engines compute once, when they load the file. Nothing
else is done to them: norms are layers of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from mtl_perception import one_line
from mtl_training.checkpoints.bundles import BundleError

PREFIX = 'net.'  # of the network's tensors in a ``Deployable``, as in checkpoints
_META = 'mtl_training'  # key of the metadata, as in checkpoints
_SMALLEST = 1024  # numbers; fewer are not worth a Cast


def round_to_half(net: nn.Module) -> None:
    """Round kernels and matrices to what 16 bits hold; those with larger numbers stay."""
    with torch.no_grad():
        for weights in net.state_dict().values():
            half = weights.half()
            if weights.is_floating_point() and weights.dim() > 1 and half.isfinite().all():
                weights.copy_(half)


def store_narrow(model: ModelProto) -> None:
    """Store in 16 bits what these hold exactly: what is computed stays the same, bit by bit."""
    graph = model.graph
    wide: dict[str, str] = {}
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over='ignore'):
            half = values.astype(np.float16)
        if values.size >= _SMALLEST and np.array_equal(half.astype(np.float32), values):
            wide[tensor.name] = f'{tensor.name}_fp32'
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = wide.get(name, name)
    nodes = [helper.make_node('Cast', [n], [w], to=TensorProto.FLOAT) for n, w in wide.items()]
    nodes += list(graph.node)
    shapes = [value for value in graph.value_info if value.name not in wide]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.value_info.extend(shapes)
    onnx.checker.check_model(model, full_check=True)


def describe_weights(model: ModelProto, meta: Mapping[str, Any]) -> None:
    """Let a model say what a checkpoint says beside its tensors; paths of teachers are left out."""
    meta = {key: value for key, value in meta.items() if key != 'progress'}
    config = {**meta['config'], 'distill': {**meta['config'].get('distill', {}), 'teachers': []}}
    model.metadata_props.add(key=_META, value=json.dumps({**meta, 'config': config}))


def read_weights(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a model, in the form of ``read_checkpoint``.

    Raises:
        BundleError: it is not an ONNX file, or does not say whose weights it has.
    """
    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # protobuf's class is not public
        raise BundleError(f'the model is not an ONNX file: {one_line(error)}') from error
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if _META not in texts:
        raise BundleError(
            'its model does not say of what network its weights are, expected one that '
            '`mtl_training export` has written since it keeps norms apart'
        )
    tensors = {
        t.name: torch.from_numpy(numpy_helper.to_array(t).copy())
        for t in model.graph.initializer
        if t.name.startswith(PREFIX)
    }
    # What counts batches is of no use to a graph, and of none to norms with a fixed momentum.
    for name in [name for name in tensors if name.endswith('.running_mean')]:
        counter = name.removesuffix('running_mean') + 'num_batches_tracked'
        tensors[counter] = torch.zeros((), dtype=torch.long)
    return tensors, json.loads(texts[_META])
