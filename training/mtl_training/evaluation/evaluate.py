"""`mtl_training evaluate`: a network or bundle on held-out frames, beside trivial predictors."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from tqdm import tqdm

from mtl_perception.commands.arguments import refuse_unused
from mtl_perception.offline.evaluation import Calibration
from mtl_training.bounds import Count, Whole, bounded
from mtl_training.checkpoints.bundles import read_bundle
from mtl_training.checkpoints.checkpoint import load_checkpoint
from mtl_training.datasets import open_data, open_labelled
from mtl_training.datasets.batches import Batch, Examples, loader
from mtl_training.datasets.dataset import ClassesError, DataError, DataSet, thin_out
from mtl_training.evaluation.charts import reliability_diagram
from mtl_training.evaluation.judge import judge
from mtl_training.evaluation.native import NativeExamples, at_native
from mtl_training.evaluation.predictors import Judged, in_classes, judged_bundle, judged_network
from mtl_training.evaluation.sheet import sheet, write_sheet
from mtl_training.evaluation.table import markdown
from mtl_training.evaluation.trivial import trivial_predictors
from mtl_training.labels import CLASS_SETS
from mtl_training.protocols import PROTOCOLS
from mtl_training.protocols.judging import judged_by
from mtl_training.tasks import SemanticTask, TaskSet, choose


def frame_batches(
    frames: DataSet,
    judged: Judged,
    title: str,
    *,
    batch_size: int = 8,
    workers: int = 0,
    native: bool = False,
) -> Iterable[Batch]:
    """Batches of frames as what is judged wants them, with a progress bar.

    Args:
        native: one by one, with labels of the frame's own size, see ``NativeExamples``.
    """
    kind, batch_size = (NativeExamples, 1) if native else (Examples, batch_size)
    data = kind(
        frames,
        {name: task for name, task in judged.tasks.items() if name in frames.tasks},
        height=judged.height,
        width=judged.width,
        canonical_focal=judged.canonical_focal,
    )
    return tqdm(
        loader(data, workers, batch_size=batch_size), desc=title, unit='batch', disable=None
    )


def open_judged(
    judged: Judged, folder: Path, split: str, classes: str | None = None
) -> tuple[Judged, DataSet]:
    """A split of a data set, and what is judged on it in terms of the same classes.

    Args:
        classes: a key of ``CLASS_SETS``; None: its own, or, if the data does not tell these apart,
            those that it does, in which its semantic task cannot be judged.

    Raises:
        DataError: data that cannot be read, or does not tell these classes apart.
    """
    semantic = judged.tasks.get('semantic')
    own = semantic.classes if isinstance(semantic, SemanticTask) else None
    chosen = CLASS_SETS[classes] if classes else own
    try:
        data = open_data(folder, split, chosen) if chosen else open_labelled(folder, split)
    except ClassesError:
        if classes:
            raise
        data = open_labelled(folder, split)
    if 'semantic' in data.classes:
        judged = in_classes(judged, data.classes['semantic'])
    return judged, data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtl_training evaluate``."""
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument('--checkpoint', type=Path, help='a file that `mtl_training train` wrote')
    model.add_argument('--bundle', type=Path, help='a bundle folder, run through onnxruntime')
    parser.add_argument(
        '--precision',
        '--variant',
        default='fp32',
        metavar='VARIANT',
        help='of the bundle: fp32, fp16, int8 or int8_u8s8 (default: %(default)s)',
    )
    parser.add_argument('--data', type=Path, required=True, help='folder of a data set')
    parser.add_argument('--split', default='test', choices=('train', 'val', 'test'))
    parser.add_argument(
        '--classes',
        choices=list(CLASS_SETS),
        help='judge semantic labels in these classes, of which the network may have finer ones; '
        "rooms: a robot's groups (default: the network's own)",
    )
    parser.add_argument(
        '--protocol',
        choices=list(PROTOCOLS),
        help='judge as the literature does: its figure of edges and saliency, at its resolution',
    )
    parser.add_argument(
        '--limit', type=bounded(Whole), default=0, help='evenly spaced frames only (0: all)'
    )
    parser.add_argument('--batch-size', type=bounded(Count), default=8)
    parser.add_argument('--workers', type=bounded(Whole), default=1)
    parser.add_argument(
        '--threads', type=bounded(Whole), default=0, help='threads of the network (0: all cores)'
    )
    parser.add_argument('--json', type=Path, help='write the figures there as well')
    parser.add_argument(
        '--reliability',
        type=Path,
        metavar='FILE',
        help='draw how often what the network is sure of is right (.svg)',
    )
    parser.add_argument(
        '--sheet',
        type=Path,
        metavar='FILE',
        help='write a picture (.png, .jpg) of labels, predictions and errors',
    )
    parser.add_argument(
        '--sheet-frames', type=bounded(Count), default=12, help='(default: %(default)s)'
    )
    parser.add_argument('--sheet-tasks', nargs='+', metavar='TASK', help='(default: all judged)')
    parser.add_argument(
        '--sheet-columns', type=bounded(Count), default=1, help='(default: %(default)s)'
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the table.

    Raises:
        CheckpointError, BundleError, DataError: a network or data that cannot be read.
        PerceptionError: an option that would do nothing.
    """
    if args.checkpoint:
        refuse_unused(args, {'precision': 'fp32'}, 'with --checkpoint, only with --bundle')
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.bundle:
        network = judged_bundle(read_bundle(args.bundle), args.precision, args.threads)
    else:
        network = judged_network(*load_checkpoint(args.checkpoint))
    judged, data = open_judged(network, args.data, args.split, args.classes)
    for name in network.tasks.keys() - judged.tasks.keys():
        print(f'{name} is not judged: the data has other classes', file=sys.stderr)
    frames = thin_out(data, args.limit)
    tasks: TaskSet = {name: task for name, task in judged.tasks.items() if name in frames.tasks}
    if not tasks:
        having = ', '.join(data.tasks)
        raise DataError(f'{data.name} has labels of {having} only, and none of them is judged')
    protocol = PROTOCOLS.get(args.protocol)
    native = protocol is not None and protocol.resolution == 'native'
    if protocol:
        tasks = judged_by(protocol, tasks, data)

    def batches(chosen: DataSet, title: str, *, native: bool = False) -> Iterable[Batch]:
        return frame_batches(
            chosen,
            judged,
            title,
            batch_size=args.batch_size,
            workers=args.workers,
            native=native,
        )

    known = thin_out(open_judged(network, args.data, 'train', args.classes)[1], 1000)
    predictors = {'network': judged.predict, **trivial_predictors(known, tasks)}
    confidences = {name: Calibration() for name in predictors}
    reports = {
        name: judge(
            at_native(predict) if native else predict,
            batches(frames, name, native=native),
            tasks,
            judged.canonical_focal,
            confidences[name],
        )
        for name, predict in predictors.items()
    }
    print(markdown(reports, tasks))
    by = f', by the protocol {protocol.name}' if protocol else ''
    print(f'\n{len(frames)} frames of {args.split}{by}.')
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {
                'split': args.split,
                'frames': len(frames),
                'protocol': args.protocol,
                'reports': reports,
            },
            indent=2,
        )
        args.json.write_text(text + '\n', encoding='utf-8')
    if args.reliability:
        args.reliability.parent.mkdir(parents=True, exist_ok=True)
        args.reliability.write_text(curves(confidences['network']), encoding='utf-8')
    if args.sheet:
        few = batches(thin_out(frames, args.sheet_frames), 'sheet')
        shown = choose(tasks, args.sheet_tasks or list(tasks))
        pictures = sheet(judged.predict, few, shown, judged.canonical_focal)
        write_sheet(args.sheet, pictures, args.sheet_columns)
    return 0


def curves(confidences: Calibration) -> str:
    """The curves of the confidences of a network, as SVG.

    Raises:
        DataError: it has none, or nothing is known of what they are about.
    """
    bins = {
        'classes': confidences.semantic.bins(),
        'depth, within a factor of 1.25': confidences.depth.bins(),
    }
    measured = {name: [(b.confidence, b.accuracy) for b in some] for name, some in bins.items()}
    if not any(measured.values()):
        raise DataError('--reliability: the network has no confidence of what the data has')
    return reliability_diagram({name: curve for name, curve in measured.items() if curve})
