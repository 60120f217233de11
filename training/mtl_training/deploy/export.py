"""`mtl_training export`: a checkpoint becomes a bundle, checked before it is there."""

from __future__ import annotations

import argparse
import colorsys
import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtl_training import TrainingError
from mtl_training.deploy.bundles import BundleFiles, smooth_noise, write_bundle
from mtl_training.deploy.quantize import FRAMES, PRECISIONS, add_probes, add_variants, read_pictures
from mtl_training.loop.checkpoint import load_checkpoint
from mtl_training.models import Network
from mtl_training.rooms.labels import NYUD40

OPSET = 18
MAX_RELATIVE = 1e-3  # of float outputs
MAX_LEVELS = 1  # of 0..255: a probability on the edge of two levels may round either way
MIN_AGREEMENT = 0.999  # of labels
# depth_confidence is the probability that depth is within this factor, as delta1 of the papers.
CONFIDENT_FACTOR = 1.25


class ExportError(TrainingError):
    """A checkpoint that cannot become a bundle, in one sentence."""


def _semantic(logits: Tensor) -> dict[str, Tensor]:
    """Arg max, and the softmax there."""
    size, logits = logits.shape[-2:], _classes_last(logits)
    ids = logits.argmax(dim=-1).unflatten(1, size)
    confidence = logits.softmax(dim=-1).amax(dim=-1).unflatten(1, size)
    return {'semantic': ids.to(torch.uint8), 'semantic_confidence': _levels(confidence)}


def _classes_last(logits: Tensor) -> Tensor:
    """[N,C,H,W] -> [N,HW,C], which ONNX Runtime reduces three times as fast as [N,C,H,W].

    Flat, as it would move a transposition that it can see through behind the reduction again.
    """
    return logits.permute(0, 2, 3, 1).flatten(1, 2)


def _depth(logits: Tensor) -> dict[str, Tensor]:
    """exp(mu), and P(|log d - mu| < log 1.25) of a Laplace distribution with scale b = exp(s).

    With one channel the logits are canonical metres, and there is no confidence.
    """
    if logits.shape[1] == 1:
        return {'depth': logits[:, 0].clamp(min=0)}
    mean, log_scale = logits.unbind(dim=1)
    within = 1 - torch.exp(-math.log(CONFIDENT_FACTOR) * torch.exp(-log_scale))
    return {'depth': mean.exp(), 'depth_confidence': _levels(within)}


def _normals(logits: Tensor) -> dict[str, Tensor]:
    """Unit length; of logits that are all zero, (0, 0, -1).

    A surface that is seen looks towards the camera: n . ray < 0. The graph does not know the rays,
    and n_z < 0 is another thing: at the border of a wide picture a surface that is seen may look
    slightly away from the optical axis.
    """
    x, y, z = logits.unbind(dim=1)
    length = (x * x + y * y + z * z).sqrt()
    tiny = length < 1e-6
    inverse = torch.where(tiny, 1.0, length.reciprocal())
    unit = torch.stack([x * inverse, y * inverse, torch.where(tiny, -1.0, z * inverse)], dim=1)
    return {'normals': unit.permute(0, 2, 3, 1)}


def _probability(name: str) -> Callable[[Tensor], dict[str, Tensor]]:
    return lambda logits: {name: _levels(logits[:, 0].sigmoid())}


def _labels(name: str) -> Callable[[Tensor], dict[str, Tensor]]:
    def labels(logits: Tensor) -> dict[str, Tensor]:
        ids = _classes_last(logits).argmax(dim=-1).unflatten(1, logits.shape[-2:])
        return {name: ids.to(torch.uint8)}

    return labels


def _levels(probability: Tensor) -> Tensor:
    return (255 * probability).round().to(torch.uint8)


# task -> logits [N,C,H,W] to the output tensors of the bundle
HEADS: dict[str, Callable[[Tensor], dict[str, Tensor]]] = {
    'semantic': _semantic,
    'depth': _depth,
    'normals': _normals,
    'edges': _probability('edges'),
    'saliency': _probability('saliency'),
    'human_parts': _labels('human_parts'),
}
LABELS = ('semantic', 'human_parts')


class Deployable(nn.Module):
    """What runs on the robot: camera pixels in, the bundle's tensors out.

    image uint8 [N,H,W,3] RGB -> semantic, semantic_confidence, edges, saliency, human_parts,
    depth_confidence uint8 [N,H,W]; depth float32 [N,H,W], canonical metres; normals float32
    [N,H,W,3]. A task that is not asked for is not in the graph.

    Args:
        net: a trained network; it is copied.
        tasks: which of its tasks, in the order of the outputs.
        mean, std: normalisation of RGB in 0..1 that it was trained with.
    """

    def __init__(
        self, net: Network, tasks: Sequence[str], *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.net = copy.deepcopy(net).eval()
        self.net.keep(tasks)
        self.net.fold()
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float32))
        self.register_buffer('scale', scale.view(3, 1, 1))
        self.register_buffer('offset', (-torch.tensor(mean) * 255 * scale).view(3, 1, 1))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Image uint8 [N,H,W,3] -> outputs by tensor name."""
        # Numbers first: of uint8, TensorRT takes nothing but casts.
        logits = self.net(image.float().permute(0, 3, 1, 2) * self.scale + self.offset)
        outputs: dict[str, Tensor] = {}
        for task in self.tasks:
            outputs.update(HEADS[task](logits[task]))
        return outputs


def to_onnx(module: Deployable, size: tuple[int, int], opset: int = OPSET) -> onnx.ModelProto:
    """Trace to ONNX: batch dynamic, height and width fixed, no trace of the machine inside.

    Raises:
        ExportError: the exporter wrote another opset than asked (its floor is 18).
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
    )
    model = program.model_proto
    written = {entry.domain: entry.version for entry in model.opset_import}
    if written.get('') != opset:
        raise ExportError(f'the exporter wrote opset {written.get("")}, expected {opset}')
    if model.functions or set(written) - {''}:
        raise ExportError(f'the graph needs operators outside of ONNX: {sorted(written)}')
    fix_shapes(model)
    _anonymise(model)
    onnx.checker.check_model(model, full_check=True)
    return model


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


@dataclass(frozen=True)
class Difference:
    """How far an output of onnxruntime is from torch's, and whether that is near enough."""

    output: str
    measure: str
    value: float
    accepted: bool

    def __str__(self) -> str:
        if self.measure == 'agreement':
            return f'{self.output}: {100 * self.value:.4f} % of pixels agree'
        return f'{self.output}: max {self.measure} difference {self.value:.3g}'


def compare(
    model: bytes, module: Deployable, images: NDArray[np.uint8], threads: int = 0
) -> list[Difference]:
    """Run a graph in onnxruntime beside the module in torch, as one batch and image by image.

    Args:
        model: the ONNX file's bytes.
        images: [N,H,W,3] RGB.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    with torch.inference_mode():
        expected = {k: v.numpy() for k, v in module(torch.from_numpy(images)).items()}
    batch = dict(zip(names, session.run(names, {'image': images}), strict=True))
    single = [session.run(names, {'image': image[None]}) for image in images]
    differences = []
    for index, name in enumerate(names):
        found = np.stack([batch[name], np.concatenate([run[index] for run in single])])
        differences.append(_difference(name, found, expected[name]))
    return differences


def _difference(name: str, found: NDArray[Any], expected: NDArray[Any]) -> Difference:
    if found.dtype != expected.dtype or found.shape[1:] != expected.shape:
        raise ExportError(
            f'{name} is {found.dtype} {list(found.shape[1:])} in onnxruntime, '
            f'expected {expected.dtype} {list(expected.shape)}'
        )
    if name in LABELS:
        agreement = float((found == expected).mean())
        return Difference(name, 'agreement', agreement, agreement >= MIN_AGREEMENT)
    distance = np.abs(found.astype(np.float64) - expected)
    if found.dtype == np.uint8:
        levels = float(distance.max())
        return Difference(name, 'level', levels, levels <= MAX_LEVELS)
    size = np.abs(expected) if name == 'depth' else 1.0  # normals are of length 1
    relative = float((distance / np.maximum(size, 1e-6)).max())
    return Difference(name, 'relative', relative, relative <= MAX_RELATIVE)  # False for NaN


def read_images(folder: Path | None, size: tuple[int, int], count: int = 6) -> NDArray[np.uint8]:
    """Photographs of a folder at the network's size, or smooth noise where there is no folder.

    Returns:
        [N,H,W,3] uint8 RGB.

    Raises:
        ExportError: the folder has no image that can be read.
    """
    height, width = size
    if folder is None:
        return smooth_noise(size)
    paths = sorted(p for p in folder.glob('*') if p.suffix.lower() in ('.jpg', '.jpeg'))
    paths = paths or sorted(folder.glob('*.png'))
    paths = paths[:: max(1, len(paths) // count)][:count]
    images = [
        image for path in paths if (image := cv2.imread(str(path), cv2.IMREAD_COLOR)) is not None
    ]
    if not images:
        raise ExportError(f'{folder} has no .jpg or .png that can be read, expected photographs')
    sized = [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images]
    return np.stack([cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in sized])


def class_table(meta: Mapping[str, Any], channels: int) -> list[dict[str, Any]]:
    """The classes of the semantic output: the checkpoint's own, NYUD's 40, or numbers."""
    classes = [dict(entry) for entry in meta.get('classes', ())]
    if len(classes) == channels:
        return classes
    names = NYUD40[1:] if channels == len(NYUD40) - 1 else [f'class_{i}' for i in range(channels)]
    colors = [colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.65, 0.9) for i in range(channels)]
    return [
        {'id': i, 'name': name, 'color': [round(255 * c) for c in color]}
        for i, (name, color) in enumerate(zip(names, colors, strict=True))
    ]


def task_table(
    module: Deployable, meta: Mapping[str, Any], depth_range: tuple[float, float]
) -> dict[str, dict[str, Any]]:
    """The key ``tasks`` of bundle.yaml."""
    with torch.no_grad():
        outputs = module(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    dtypes = {name: str(tensor.dtype).removeprefix('torch.') for name, tensor in outputs.items()}
    extra: dict[str, dict[str, Any]] = {
        'depth': {'unit': 'm', 'range': list(depth_range)},
        'normals': {'frame': 'optical'},
    }
    if 'semantic' in module.tasks:
        extra['semantic'] = {'classes': class_table(meta, meta['tasks']['semantic'])}
    own = {task: (task, f'{task}_confidence') for task in module.tasks}
    return {
        task: {
            'kind': task,
            'outputs': {name: dtypes[name] for name in own[task] if name in dtypes},
            **extra.get(task, {}),
        }
        for task in module.tasks
    }


def export(
    net: Network,
    meta: Mapping[str, Any],
    out: Path,
    *,
    name: str,
    version: str = '1.0.0',
    licence: str = 'Apache-2.0',
    tasks: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    depth_range: tuple[float, float] = (0.3, 10.0),
    check_images: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
    opset: int = OPSET,
    precisions: Sequence[str] = (),
    calibration: Path | None = None,
) -> list[Difference]:
    """Write a bundle, all of it or nothing: it is made beside ``out``, checked, then renamed.

    Its probes, for the self-check of the runtime, are made from ``check_images`` too.

    Args:
        net, meta: as ``load_checkpoint`` gives them.
        out: the bundle's folder; one that is a bundle already is replaced.
        tasks: left out, all of the network's.
        size: height and width; left out, those of the training.
        depth_range: canonical metres in which depth is to be trusted.
        check_images: folder of photographs; without it the check runs on smooth noise.
        precisions: ``fp16``, ``int8``: models in these number formats as well, see ``quantize``.
        calibration: the rooms data, which int8 needs.

    Returns:
        The differences between onnxruntime and torch.

    Raises:
        ExportError: what cannot be exported, or differs too much; nothing is written then.
        BundleError, QuantizeError, DataError: likewise.
    """
    if net.not_exportable:
        raise ExportError(f'{type(net).__name__} cannot be exported: {net.not_exportable}')
    tasks = list(meta['tasks'] if tasks is None else tasks)
    for task in tasks:
        if task not in meta['tasks'] or task not in HEADS:
            raise ExportError(f'no task {task!r}, the checkpoint has {", ".join(meta["tasks"])}')
    height, width = size or (meta['height'], meta['width'])
    if height % 32 or width % 32:
        raise ExportError(f'size is {height}x{width}, expected multiples of 32')
    out = out.absolute()
    if out.exists() and not (out / 'bundle.yaml').is_file():
        raise ExportError(f'{out} exists and is no bundle, expected a new folder or a bundle')
    images = read_images(check_images, (height, width))
    module = Deployable(net, tasks, mean=meta['mean'], std=meta['std'])
    content = to_onnx(module, (height, width), opset).SerializeToString()
    differences = compare(content, module, images)
    refused = [str(difference) for difference in differences if not difference.accepted]
    if refused:
        raise ExportError('onnxruntime differs from torch too much: ' + '; '.join(refused))
    metric = {'canonical_focal': float(meta['canonical_focal'])} if 'depth' in tasks else {}
    description = {
        'schema': 1,
        'name': name,
        'version': version,
        'licence': licence,
        'model': {},
        'input': {
            'tensor': 'image', 'height': height, 'width': width, 'color': 'rgb', 'dtype': 'uint8',
        },
        'metric': 'depth' in tasks,
        **metric,
        'tasks': task_table(module, meta, depth_range),
        'provenance': {
            'parameters': sum(p.numel() for p in net.parameters()),
            'commit': meta.get('commit'),
            'step': meta.get('step'),
            **(provenance or {}),
            'export': {
                'opset': opset,
                'torch': str(torch.__version__),
                'checked_on': f'{len(images)} photographs' if check_images else 'smooth noise',
                'differences': {d.output: f'{d.measure} {d.value:.3g}' for d in differences},
            },
        },
    }  # fmt: skip
    bundle = BundleFiles(description, {})
    bundle.put(description, 'model', 'model.onnx', content)
    add_probes(bundle, images)
    pictures = read_pictures(calibration, 'train', FRAMES, bundle.size) if calibration else []
    add_variants(bundle, precisions, pictures)
    write_bundle(out, bundle)
    return differences


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mtl_training export`."""
    parser.add_argument('--checkpoint', type=Path, required=True, help='file that train wrote')
    parser.add_argument('--out', type=Path, required=True, help='folder of the bundle')
    parser.add_argument('--name', help="the bundle's name (default: the folder's)")
    parser.add_argument('--version', default='1.0.0', help='(default: %(default)s)')
    parser.add_argument('--licence', default='Apache-2.0', help='(default: %(default)s)')
    parser.add_argument('--tasks', nargs='+', metavar='TASK', help='(default: all)')
    parser.add_argument('--size', metavar='HxW', help='(default: that of the training)')
    parser.add_argument(
        '--range',
        type=float,
        nargs=2,
        default=(0.3, 10.0),
        metavar=('NEAR', 'FAR'),
        help='canonical depths, metres, that the data had (default: 0.3 10)',
    )
    parser.add_argument(
        '--check-images', type=Path, metavar='DIR', help='photographs to compare onnxruntime on'
    )
    parser.add_argument('--data', help='one line of provenance: what it was trained on')
    parser.add_argument(
        '--accuracy', type=Path, metavar='JSON', help='what `mtl_training evaluate --json` wrote'
    )
    parser.add_argument(
        '--precision',
        nargs='+',
        choices=PRECISIONS,
        default=[],
        help='models in these number formats as well; `mtl_training quantize` judges them too',
    )
    parser.add_argument(
        '--calibration', type=Path, metavar='DATA', help='the rooms data, which int8 needs'
    )
    parser.add_argument('--opset', type=int, default=OPSET, help='(default: %(default)s)')


def run(args: argparse.Namespace) -> int:
    """Export and print the differences."""
    from mtl_training.papers.describe import parse_size

    net, meta = load_checkpoint(args.checkpoint)
    model = meta['config']['model']
    provenance = {
        'model': f'{model["system"]} on {model["backbone"]}',
        'data': args.data or f'{meta["config"]["task_set"]} ({meta["config"]["name"]})',
        'accuracy': _accuracy(args.accuracy) if args.accuracy else meta.get('metrics', {}),
    }
    differences = export(
        net,
        meta,
        args.out,
        name=args.name or args.out.absolute().name,
        version=args.version,
        licence=args.licence,
        tasks=args.tasks,
        size=parse_size(args.size) if args.size else None,
        depth_range=tuple(args.range),
        check_images=args.check_images,
        provenance=provenance,
        opset=args.opset,
        precisions=args.precision,
        calibration=args.calibration,
    )
    on = args.check_images or 'smooth noise (give --check-images for photographs)'
    print(f'onnxruntime {onnxruntime.__version__} against torch {torch.__version__} on {on}:')
    for difference in differences:
        print(f'  {difference}')
    size = (args.out / 'model.onnx').stat().st_size / 1e6
    tasks = ', '.join(args.tasks or meta['tasks'])
    print(f'{args.out}: {size:.1f} MB, opset {args.opset}, {tasks}')
    return 0


def _accuracy(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding='utf-8'))
        return {
            'split': report['split'],
            'frames': report['frames'],
            **report['reports']['network'],
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f'{path} is not what evaluate --json writes: {error!r}') from error
