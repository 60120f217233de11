"""`mtl_training export`: a checkpoint becomes a bundle, checked before it is there."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from mtl_perception.commands.arguments import refuse_unused
from mtl_perception.engines.agreement import Agreement
from mtl_training.bounds import Amount, Whole, bounded, image_size
from mtl_training.checkpoints.bundles import BundleFiles, write_bundle
from mtl_training.checkpoints.checkpoint import load_checkpoint, tasks_of
from mtl_training.checkpoints.weights import describe_weights, round_to_half, store_narrow
from mtl_training.deploy import DeployError
from mtl_training.deploy.comparison import compare_with_torch
from mtl_training.deploy.deployable import Deployable
from mtl_training.deploy.graph import OPSET, Opset, to_onnx
from mtl_training.deploy.pictures import FRAMES, read_images, read_pictures
from mtl_training.deploy.probes import add_probes
from mtl_training.deploy.temperature import fit_temperatures
from mtl_training.deploy.variants import PRECISIONS, add_variants
from mtl_training.labels import CLASS_SETS
from mtl_training.models import Network
from mtl_training.tasks import SemanticTask, TaskSet, choose, grouped


def task_table(tasks: TaskSet, depth_range: tuple[float, float]) -> dict[str, dict[str, Any]]:
    """The key ``tasks`` of bundle.yaml."""
    extra = {'depth': {'range': list(depth_range)}}
    return {
        name: {
            'kind': name,
            'outputs': {
                tensor: str(values.dtype).removeprefix('torch.')
                for tensor, values in task.head(torch.zeros(1, task.channels, 1, 1)).items()
            },
            **task.facts,
            **extra.get(name, {}),
        }
        for name, task in tasks.items()
    }


def export(
    net: Network,
    tasks: TaskSet,
    meta: Mapping[str, Any],
    out: Path,
    *,
    name: str,
    version: str = '1.0.0',
    licence: str = 'Apache-2.0',
    size: tuple[int, int] | None = None,
    depth_range: tuple[float, float] = (0.3, 10.0),
    check_images: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
    opset: int = OPSET,
    half: bool = False,
    precisions: Sequence[str] = (),
    calibration: Path | None = None,
) -> list[Agreement]:
    """Write a bundle, all of it or nothing: it is made beside ``out``, checked, then renamed.

    Its probes, for the self-check of the runtime, are made from ``check_images`` too.

    Args:
        net, meta: as ``load_checkpoint`` gives them.
        tasks: of the network, all of them or some.
        out: the bundle's folder; one that is a bundle already is replaced.
        size: height and width; left out, those of the training.
        depth_range: canonical metres in which depth is to be trusted.
        check_images: folder of photographs; without it the check runs on smooth noise.
        half: round weights to 16 bits first, which halves the file; what 16 bits hold exactly, as
            the weights of a checkpoint in 16 bits, is stored in them anyway.
        precisions: ``fp16``, ``int8``: models in these number formats as well, see ``quantize``.
        calibration: the rooms data, which int8 needs.

    Returns:
        How near onnxruntime is to torch.

    Raises:
        DeployError: what cannot be exported, or differs too much; nothing is written then.
        DataError: likewise.
    """
    if net.not_exportable:
        raise DeployError(f'{type(net).__name__} cannot be exported: {net.not_exportable}')
    height, width = size or (meta['height'], meta['width'])
    if height % 32 or width % 32:
        raise DeployError(f'size is {height}x{width}, expected multiples of 32')
    if not 0 <= depth_range[0] < depth_range[1]:
        near, far = depth_range
        raise DeployError(f'the range of depth is {near:g} to {far:g} m, expected 0 <= near < far')
    out = out.absolute()
    if out.exists() and not (out / 'bundle.yaml').is_file():
        raise DeployError(f'{out} exists and is not a bundle; expected a new folder or a bundle')
    images = read_images(check_images, (height, width))
    if half:
        net = copy.deepcopy(net)
        round_to_half(net)
    module = Deployable(net, tasks, mean=meta['mean'], std=meta['std'])
    model = to_onnx(module, (height, width), opset)
    store_narrow(model)
    describe_weights(model, meta)
    content = model.SerializeToString()
    found = compare_with_torch(content, module, images)
    refused = [str(agreement) for agreement in found if not agreement.ok]
    if refused:
        raise DeployError('onnxruntime differs from torch too much: ' + ', '.join(refused))
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
        'tasks': task_table(tasks, depth_range),
        'provenance': {
            'parameters': sum(p.numel() for p in net.parameters()),
            'commit': meta.get('commit'),
            'step': meta.get('step'),
            **(provenance or {}),
            'export': {
                'opset': opset,
                'torch': str(torch.__version__),
                'checked_on': f'{len(images)} photographs' if check_images else 'smooth noise',
                'differences': {a.output: f'{a.measure} {a.value:.3g}' for a in found},
            },
        },
    }  # fmt: skip
    bundle = BundleFiles(description, {})
    bundle.put(description, 'model', 'model.onnx', content)
    add_probes(bundle, images)
    pictures = read_pictures(calibration, 'train', FRAMES, bundle.size) if calibration else []
    add_variants(bundle, precisions, pictures)
    write_bundle(out, bundle)
    return found


# What frames confidences are fitted on.
FITTING = {'temperature_split': 'val', 'temperature_frames': 200}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mtl_training export`."""
    parser.add_argument('--checkpoint', type=Path, required=True, help='file that train wrote')
    parser.add_argument('--out', type=Path, required=True, help='folder of the bundle')
    parser.add_argument('--name', help="the bundle's name (default: the folder's)")
    parser.add_argument('--version', default='1.0.0', help='(default: %(default)s)')
    parser.add_argument('--licence', default='Apache-2.0', help='(default: %(default)s)')
    parser.add_argument('--tasks', nargs='+', metavar='TASK', help='(default: all)')
    parser.add_argument(
        '--classes',
        choices=list(CLASS_SETS),
        help="gather the network's semantic classes into these, by the sum of their probabilities; "
        "rooms: a robot's groups (default: the network's own)",
    )
    parser.add_argument(
        '--size', type=image_size, metavar='HxW', help='(default: that of the training)'
    )
    parser.add_argument(
        '--range',
        type=bounded(Amount),
        nargs=2,
        default=(0.3, 10.0),
        metavar=('NEAR', 'FAR'),
        help='canonical depths, metres, that the data had (default: 0.3 10)',
    )
    parser.add_argument(
        '--check-images', type=Path, metavar='DIR', help='photographs to compare onnxruntime on'
    )
    parser.add_argument(
        '--temperature',
        type=Path,
        metavar='DATA',
        help='fit the confidences on frames that training has not seen (default: as trained)',
    )
    parser.add_argument('--temperature-split', choices=('train', 'val'), help='(default: val)')
    parser.add_argument(
        '--temperature-frames',
        type=bounded(Whole),
        help='evenly spaced, 0 for all (default: %(default)s)',
    )
    parser.set_defaults(**FITTING)
    parser.add_argument('--data', help='one line of provenance: what it was trained on')
    parser.add_argument(
        '--accuracy', type=Path, metavar='JSON', help='what `mtl_training evaluate --json` wrote'
    )
    parser.add_argument(
        '--store',
        choices=('exact', 'fp16'),
        default='exact',
        help='weights as they are, in 16 bits where these hold them exactly, as they do those of a '
        'checkpoint in 16 bits; or all kernels and matrices rounded to 16 bits, which halves the '
        'file (default: %(default)s)',
    )
    parser.add_argument(
        '--precision',
        nargs='+',
        choices=PRECISIONS,
        default=[],
        help='models in these number formats as well; `mtl_training quantize` judges them too',
    )
    parser.add_argument(
        '--calibration',
        type=Path,
        metavar='DATA',
        help='pictures, of any data set; int8 needs them',
    )
    parser.add_argument(
        '--opset', type=bounded(Opset), default=OPSET, help='(default: %(default)s)'
    )


def run(args: argparse.Namespace) -> int:
    """Export and print how near onnxruntime is to torch.

    Raises:
        DeployError, CheckpointError: what was given cannot be used.
        PerceptionError: an option that would do nothing.
    """
    if not args.temperature:
        refuse_unused(args, FITTING, 'without --temperature')
    if not args.precision:
        refuse_unused(args, {'calibration': None}, 'without --precision')
    net, meta = load_checkpoint(args.checkpoint)
    known = tasks_of(meta)
    tasks = choose(known, args.tasks or list(known))
    accuracy = _accuracy(args.accuracy) if args.accuracy else dict(meta.get('metrics', {}))
    semantic = tasks.get('semantic')
    if args.classes and isinstance(semantic, SemanticTask):
        tasks['semantic'] = grouped(semantic, CLASS_SETS[args.classes])
        if tasks['semantic'] is not semantic and not args.accuracy:
            accuracy.pop('semantic', None)  # of other classes
    model = meta['config']['model']
    provenance: dict[str, Any] = {
        'model': f'{model["system"]} on {model["backbone"]}',
        'data': args.data or f'{meta["config"]["task_set"]} ({meta["config"]["name"]})',
        'accuracy': accuracy,
    }
    if args.temperature:
        tasks, provenance['temperature'] = fit_temperatures(
            net, tasks, meta, args.temperature, args.temperature_split, args.temperature_frames
        )
    found = export(
        net,
        tasks,
        meta,
        args.out,
        name=args.name or args.out.absolute().name,
        version=args.version,
        licence=args.licence,
        size=args.size,
        depth_range=tuple(args.range),
        check_images=args.check_images,
        provenance=provenance,
        opset=args.opset,
        half=args.store == 'fp16',
        precisions=args.precision,
        calibration=args.calibration,
    )
    on = args.check_images or 'smooth noise (give --check-images for photographs)'
    print(f'onnxruntime {onnxruntime.__version__} against torch {torch.__version__} on {on}:')
    for agreement in found:
        print(f'  {agreement}')
    size = (args.out / 'model.onnx').stat().st_size / 1e6
    print(f'{args.out}: {size:.1f} MB, opset {args.opset}, {", ".join(tasks)}')
    for name, notes in provenance.get('temperature', {}).items():
        if isinstance(notes, dict):
            before, after = (100 * value for value in notes['ece'])
            print(
                f'{name}: temperature {notes["temperature"]}, ECE {before:.1f} % -> {after:.1f} %'
            )
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
        raise DeployError(f'{path} is not what evaluate --json writes: {error!r}') from error
