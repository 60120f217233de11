"""A graph in int8: which layers are quantised, and for whom.

Which layers are int8 was chosen on 40 validation rooms with the shipped TIF on EfficientNet-Lite0,
u8s8 in onnxruntime; speed is one thread's CPU time against fp32, alternating:

    =============================================  ====  ==========  =====
    int8                                           mIoU  depth RMSE  speed
    =============================================  ====  ==========  =====
    nothing (fp32)                                 40.6  0.454       1.00
    convolutions                                   40.4  0.459       1.15
    convolutions but the first                     40.4  0.457       1.20
    and sums and up-sampling between them          40.4  0.458       1.27
    the same, calibrated on 32 frames, not 16      40.3  0.457
    the same, predictions in float                 40.3  0.457
    the same, moving average instead of extremes   40.4  0.504
    the same, symmetric s8                         40.2  0.459
    =============================================  ====  ==========  =====

So the first convolution stays in float, which is faster too; the predictions need not. Attention is
small here and was left in float without a try.

For CPUs weights use 7 of their 8 bits. All above was measured with VNNI. Without it, on 324 test
frames, depth RMSE is 0.372 in fp32, 0.414 with weights of 8 bits and 0.376 with 7; mIoU 48.2 and,
with 7 bits, 47.7.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from mtl_training.deploy import DeployError
from mtl_training.deploy.folding import fold_layers
from mtl_training.deploy.rewriting import postprocessing, preprocessing, rebuild

# int8 without layers of their own: they carry int8 from one convolution to the next.
_CARRIERS = ('Relu', 'Clip', 'AveragePool', 'MaxPool', 'Concat', 'Add', 'Resize')


def to_int8(
    model: ModelProto, images: Sequence[NDArray[np.uint8]], *, unsigned: bool
) -> ModelProto:
    """A graph with explicit QuantizeLinear / DequantizeLinear, calibrated on pictures.

    int8 are the convolutions but the first, with a scale per output channel, and what carries
    numbers from one to the next (sums, up-sampling, pooling, activations). The first convolution,
    attention (MatMul, soft max, LayerNorm) and all that comes after the logits stay in float.

    Args:
        images: uint8 [1, H, W, 3] each.
        unsigned: activations uint8 with a zero point, int32 biases, as onnxruntime and OpenVINO
            want it on a CPU; otherwise int8 with zero point 0 and float biases, and only the inputs
            of layers quantised, as TensorRT wants it.
    """
    model = fold_layers(model)
    graph = model.graph
    for index, node in enumerate(graph.node):
        node.name = node.name or f'{node.op_type}_{index}'
    chosen = trunk(graph)
    if not chosen:
        raise DeployError('the model has no convolutions to quantise, expected at least two')
    operators = ['Conv', *_CARRIERS]
    options: dict[str, Any] = {
        'ActivationSymmetric': not unsigned,
        'WeightSymmetric': True,
        'QuantizeBias': unsigned,
    }
    if not unsigned:
        operators = [name for name in operators if name not in ('Relu', 'Clip')]
        options['OpTypesToExcludeOutputQuantization'] = operators
    names = {node.name for node in graph.node}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'int8.onnx'
        level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)  # it asks for a step that we did ourselves
        try:
            quantize_static(
                model,
                path,
                _Pictures(images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=operators,
                nodes_to_exclude=sorted(names - chosen),
                per_channel=True,
                activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
                weight_type=QuantType.QInt8,
                # Without VNNI, a pair of products of 8 bits each overflows 16 bits; of 8 and 7 not.
                reduce_range=unsigned,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options=options,
            )
        finally:
            logging.getLogger().setLevel(level)
        quantised = onnx.load(path)
    return rebuild(quantised, list(quantised.graph.node))


class _Pictures(CalibrationDataReader):
    def __init__(self, images: Sequence[NDArray[np.uint8]]) -> None:
        self._images: Iterator[NDArray[np.uint8]] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        image = next(self._images, None)
        return None if image is None else {'image': image}


def trunk(graph: GraphProto) -> set[str]:
    """Names of the nodes that become int8, see ``to_int8``."""
    before, after = preprocessing(graph), postprocessing(graph)
    made = {name for node in graph.node for name in node.output}
    inside: set[str] = set()
    chosen = set()
    for node in graph.node:
        data = [name for name in node.input if name in made]
        if node.op_type == 'Conv':
            fits = data[:1] != [] and data[0] not in before
        else:
            # A sum with a constant is a bias, not a meeting of two branches.
            enough = 2 if node.op_type == 'Add' else 1
            fits = len(data) >= enough and node.op_type in _CARRIERS and inside.issuperset(data)
            fits = fits and not after.intersection(node.output)
        if fits:
            inside.update(node.output)
            chosen.add(node.name)
    return chosen
