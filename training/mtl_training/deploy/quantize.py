"""`mtl_training quantize`: a bundle's model in fp16 and int8, checked and judged beside fp32.

Works on the bundle alone: the ONNX graph of fp32 is rewritten, no checkpoint is needed.

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

import argparse
import copy
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from mtl_perception import one_line
from mtl_training import TrainingError
from mtl_training.deploy.bundles import (
    BundleFiles,
    add_variant_probes,
    make_probes,
    open_model,
    read_bundle,
    smooth_noise,
    write_bundle,
)

PRECISIONS = ('fp16', 'int8')
# precision -> variants of the bundle: their files are model_<variant>.onnx
VARIANTS = {'fp16': ('fp16',), 'int8': ('int8', 'int8_u8s8')}
FRAMES = 64

# What has weights: between the first and the last of these is the network proper, before them is
# the normalisation of the picture, after them the meaning of the logits.
_LAYERS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
# Sums over many values, or steep ones: they stay fp32 in fp16 and cost next to nothing.
_DELICATE = ('LayerNormalization', 'Softmax', 'Exp', 'ReduceSum', 'ReduceMean', 'Pow', 'Sqrt')
# Inputs that are float32 whatever the precision of the tensor: Resize's roi and scales.
_ALWAYS_FLOAT = {'Resize': (1, 2)}
# int8 without layers of their own: they carry int8 from one convolution to the next.
_CARRIERS = ('Relu', 'Clip', 'AveragePool', 'MaxPool', 'Concat', 'Add', 'Resize')
# How far a variant may be from fp32 on the probes before it counts as broken: least share of equal
# labels; largest median relative error of depth, mean angle between normals, mean of 0..255.
LIMITS = {
    'fp16': {'labels': 0.97, 'relative': 0.006, 'degrees': 2.0, 'levels': 2.0},
    'int8': {'labels': 0.80, 'relative': 0.05, 'degrees': 12.0, 'levels': 12.0},
}
_MEASURES = {
    'semantic': 'labels', 'human_parts': 'labels', 'depth': 'relative', 'normals': 'degrees',
}  # fmt: skip
_HALF_MAX = float(np.finfo(np.float16).max)


class QuantizeError(TrainingError):
    """A model that cannot be quantised, in one sentence."""


def to_fp16(model: ModelProto) -> ModelProto:
    """A typed fp16 graph, as TensorRT's strongly typed networks want it.

    Inputs and outputs keep their types. fp32 stay: the normalisation of the picture, all that comes
    after the last layers with weights (soft max, exp, unit length, up-sampling), and inside the
    network the sums and exponentials of ``_DELICATE``. Casts stand where the types meet.
    """
    model = fold_constants(model)
    graph = model.graph
    types = _float_tensors(model)
    outside = _preprocessing(graph) | _postprocessing(graph)
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
    return _rebuild(model, nodes)


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
    model = fold_constants(model)
    graph = model.graph
    for index, node in enumerate(graph.node):
        node.name = node.name or f'{node.op_type}_{index}'
    chosen = trunk(graph)
    if not chosen:
        raise QuantizeError('the model has no convolutions to quantise, expected at least two')
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
    return _rebuild(quantised, list(quantised.graph.node))


class _Pictures(CalibrationDataReader):
    def __init__(self, images: Sequence[NDArray[np.uint8]]) -> None:
        self._images: Iterator[NDArray[np.uint8]] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        image = next(self._images, None)
        return None if image is None else {'image': image}


def trunk(graph: GraphProto) -> set[str]:
    """Names of the nodes that become int8, see ``to_int8``."""
    before, after = _preprocessing(graph), _postprocessing(graph)
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
    return _rebuild(model, kept)


def _preprocessing(graph: GraphProto) -> set[str]:
    """Tensors that no layer with weights has touched yet."""
    touched: set[str] = set()
    before = {value.name for value in graph.input}
    for node in graph.node:
        if node.op_type in _LAYERS or touched.intersection(node.input):
            touched.update(node.output)
        else:
            before.update(node.output)
    return before


def _postprocessing(graph: GraphProto) -> set[str]:
    """Tensors from which no layer with weights is fed any more, except the layers' own outputs."""
    feeding: set[str] = set()
    after: set[str] = set()
    for node in reversed(graph.node):
        feeds = bool(feeding.intersection(node.output))
        if node.op_type in _LAYERS or feeds:
            feeding.update(node.input)
        else:
            after.update(node.output)
    return after


def _float_tensors(model: ModelProto) -> set[str]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    return floats | {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}


def _rebuild(model: ModelProto, nodes: Sequence[NodeProto]) -> ModelProto:
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


def differences(
    reference: bytes, model: bytes, variant: str, images: NDArray[np.uint8]
) -> dict[str, float]:
    """How far a variant of a model is from the fp32 model, output by output, see ``LIMITS``.

    Raises:
        QuantizeError: onnxruntime cannot open it, or its outputs are of another name, dtype or
            shape, or not finite.
    """
    try:
        sessions = [
            open_model(reference, threads=1),
            open_model(model, threads=1, variant=variant),
        ]
    except Exception as error:  # onnxruntime's classes are not public
        raise QuantizeError(
            f'onnxruntime cannot open the quantised model: {one_line(error)}'
        ) from error
    names = [[output.name for output in session.get_outputs()] for session in sessions]
    if names[0] != names[1]:
        raise QuantizeError(f'the quantised model has outputs {names[1]}, expected {names[0]}')
    expected, found = (session.run(names[0], {'image': images}) for session in sessions)
    result = {}
    for name, e, f in zip(names[0], expected, found, strict=True):
        if (f.dtype, f.shape) != (e.dtype, e.shape) or not np.isfinite(f).all():
            raise QuantizeError(
                f'{name} of the quantised model is {f.dtype} {list(f.shape)} or not finite, '
                f'expected finite {e.dtype} {list(e.shape)}'
            )
        result[name] = _MEASURE[_MEASURES.get(name, 'levels')](e, f)
    return result


_MEASURE: dict[str, Callable[[NDArray[Any], NDArray[Any]], float]] = {
    'labels': lambda e, f: float((e == f).mean()),
    'relative': lambda e, f: float(np.median(np.abs(f - e) / np.maximum(np.abs(e), 1e-6))),
    'degrees': lambda e, f: float(np.degrees(np.arccos((e * f).sum(-1).clip(-1, 1))).mean()),
    'levels': lambda e, f: float(np.abs(f.astype(np.float32) - e).mean()),
}


def _check(variant: str, precision: str, found: dict[str, float]) -> None:
    limits = LIMITS[precision]
    for name, value in found.items():
        measure = _MEASURES.get(name, 'levels')
        limit = limits[measure]
        if value < limit if measure == 'labels' else value > limit:
            raise QuantizeError(
                f'{variant} is too far from fp32 on the probes: {name} {measure} {value:.3g}, '
                f'expected {"at least" if measure == "labels" else "at most"} {limit:g}'
            )


def add_variants(
    bundle: BundleFiles, precisions: Sequence[str], calibration: Sequence[NDArray[np.uint8]]
) -> list[str]:
    """Make variants, check them on the bundle's probes' kind of pictures, and add them.

    Args:
        bundle: is added to; as it was if something is raised.
        precisions: of ``PRECISIONS``.
        calibration: uint8 [1, H, W, 3] each, at the network's size; only int8 needs them.

    Returns:
        The names of the variants, in the order in which they were made.

    Raises:
        QuantizeError: no pictures for int8, or a model that cannot be quantised or comes out wrong.
    """
    if 'int8' in precisions and not calibration:
        raise QuantizeError('int8 needs pictures to calibrate on, expected --data')
    model = onnx.load_from_string(bundle.model)
    pictures = np.concatenate(calibration[:2]) if calibration else smooth_noise(bundle.size, 2)
    made: dict[str, bytes] = {}
    notes: dict[str, Any] = {}
    for precision in precisions:
        for variant in VARIANTS[precision]:
            if precision == 'fp16':
                graph = to_fp16(model)
            else:
                graph = to_int8(model, calibration, unsigned=variant == 'int8_u8s8')
            content = graph.SerializeToString(deterministic=True)
            found = differences(bundle.model, content, variant, pictures)
            _check(variant, precision, found)
            made[variant] = content
            notes[variant] = {
                'onnxruntime': str(onnxruntime.__version__),
                **({'calibration_frames': len(calibration)} if precision == 'int8' else {}),
                'differences': {
                    name: f'{_MEASURES.get(name, "levels")} {value:.3g}'
                    for name, value in found.items()
                },
            }
    for variant, content in made.items():
        variants = bundle.description.setdefault('variants', {})
        bundle.put(variants, variant, f'model_{variant}.onnx', content)
        provenance = bundle.description.setdefault('provenance', {})
        provenance.setdefault('variants', {})[variant] = notes[variant]
    if 'probes' in bundle.description:
        add_int8_probes(bundle)
    return list(made)


def add_probes(bundle: BundleFiles, images: NDArray[np.uint8] | None = None) -> None:
    """Add probes made from pictures of the network's size, or from smooth noise."""
    if images is None:
        images = smooth_noise(bundle.size, 2)
    content = make_probes(bundle.model, images)
    bundle.put(bundle.description, 'probes', 'probes.npz', content)


def add_int8_probes(bundle: BundleFiles) -> None:
    """Let the probes have what the int8 models give: engines are compared with their own model."""
    variants = [name for name in bundle.description.get('variants', {}) if name.startswith('int8')]
    models = {name: bundle.variant(name) for name in variants}
    probes = bundle.files[bundle.description['probes']['file']]
    bundle.put(bundle.description, 'probes', 'probes.npz', add_variant_probes(probes, models))


def read_pictures(
    data: Path, split: str, count: int, size: tuple[int, int]
) -> list[NDArray[np.uint8]]:
    """Evenly spaced frames of a split at the network's size: uint8 [1, H, W, 3] each.

    Raises:
        DataError: data that cannot be read.
    """
    from mtl_training.datasets.augment import fit
    from mtl_training.datasets.rooms import list_frames, read_sample
    from mtl_training.evaluation.evaluate import thin_out

    frames = thin_out(list_frames(data / split), count)
    return [fit(read_sample(frame, ()), *size).arrays['image'][None] for frame in frames]


def judge_variants(
    bundle: BundleFiles, variants: Sequence[str], data: Path, split: str, limit: int, threads: int
) -> dict[str, dict[str, dict[str, float]]]:
    """The figures of fp32 and of variants on the same frames; also written into provenance.

    Returns:
        variant -> task -> figure -> value, without the classes.

    Raises:
        DataError, CheckpointError: data that cannot be read, or a bundle without metric depth.
    """
    from mtl_training.evaluation import evaluate

    frames = evaluate.thin_out(evaluate.list_frames(data / split), limit)
    reports = {}
    for variant in ('fp32', *variants):
        predict, meta = evaluate.onnx_predictor(bundle, variant, threads)
        batches = evaluate.frame_batches(frames, meta, variant)
        report = evaluate.figures(evaluate.judge(predict, batches, meta['canonical_focal']))
        reports[variant] = {
            task: {k: round(v, 5) for k, v in values.items() if not k.startswith('iou_')}
            for task, values in report.items()
        }
        if variant != 'fp32':
            bundle.description['provenance']['variants'][variant]['accuracy'] = {
                'split': split,
                'frames': len(frames),
                'before': reports['fp32'],
                'after': reports[variant],
            }
    return reports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mtl_training quantize`."""
    parser.add_argument('bundle', type=Path, help='the folder; it is replaced when all is done')
    parser.add_argument(
        '--precision',
        nargs='+',
        choices=PRECISIONS,
        default=[],
        help='(left out, only the probes of the self-check are added)',
    )
    parser.add_argument('--data', type=Path, help='the rooms data: calibrates, and judges')
    parser.add_argument(
        '--frames', type=int, default=FRAMES, help='of train, to calibrate on (%(default)s)'
    )
    parser.add_argument(
        '--split', default='test', choices=('val', 'test', 'none'), help='judges (%(default)s)'
    )
    parser.add_argument('--limit', type=int, default=0, help='judge on so many frames (0: all)')
    parser.add_argument('--threads', type=int, default=0, help='of the judged network (0: all)')


def run(args: argparse.Namespace) -> int:
    """Quantise and print what it cost.

    Raises:
        BundleError, QuantizeError, DataError, CheckpointError: nothing is written then.
    """
    from mtl_training.evaluation.evaluate import markdown

    bundle = read_bundle(args.bundle)
    calibration = []
    if args.data and args.precision:
        calibration = read_pictures(args.data, 'train', args.frames, bundle.size)
    if 'probes' not in bundle.description:
        pictures = read_pictures(args.data, 'val', 2, bundle.size) if args.data else []
        add_probes(bundle, np.concatenate(pictures) if pictures else None)
    variants = add_variants(bundle, args.precision, calibration)
    if args.data and variants and args.split != 'none':
        reports = judge_variants(bundle, variants, args.data, args.split, args.limit, args.threads)
        print(markdown(reports) + '\n')
    write_bundle(args.bundle, bundle)
    notes = bundle.description.get('provenance', {}).get('variants', {})
    for variant in variants:
        size = len(bundle.variant(variant)) / 1e6
        found = ', '.join(f'{k} {v}' for k, v in notes[variant]['differences'].items())
        print(f'{variant}: {size:.1f} MB; against fp32: {found}')
    print(f'{args.bundle}: {", ".join(["fp32", *bundle.description.get("variants", {})])}, probes')
    return 0
