"""`mtl_training quantize`: a bundle's model in fp16 and int8, checked and judged beside fp32.

Works on the bundle alone: the ONNX graph of fp32 is rewritten, no checkpoint is needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtl_training.deploy.bundles import BundleFiles, read_bundle, write_bundle
from mtl_training.deploy.probes import add_probes
from mtl_training.deploy.variants import PRECISIONS, add_variants

FRAMES = 64


def read_pictures(
    data: Path, split: str, count: int, size: tuple[int, int]
) -> list[NDArray[np.uint8]]:
    """Evenly spaced frames of a split at the network's size: uint8 [1, H, W, 3] each.

    Raises:
        DataError: data that cannot be read.
    """
    from mtl_training.datasets import open_data
    from mtl_training.datasets.augment import fit
    from mtl_training.datasets.classes import ROBOT_GROUPS
    from mtl_training.datasets.dataset import thin_out

    frames = thin_out(open_data(data, split, ROBOT_GROUPS), count)
    return [
        np.asarray(fit(frames.read(index, ()), {}, *size).arrays['image'][None], np.uint8)
        for index in range(len(frames))
    ]


def judge_variants(
    bundle: BundleFiles, variants: Sequence[str], data: Path, split: str, limit: int, threads: int
) -> dict[str, dict[str, dict[str, float]]]:
    """The figures of fp32 and of variants on the same frames; also written into provenance.

    Returns:
        variant -> task -> figure -> value, without the classes.

    Raises:
        DataError, CheckpointError: data that cannot be read, or a bundle without metric depth.
    """
    from mtl_training.datasets.dataset import thin_out
    from mtl_training.evaluation.evaluate import frame_batches, open_judged
    from mtl_training.evaluation.judge import judge, without_classes
    from mtl_training.evaluation.predictors import judged_bundle

    reports = {}
    for variant in ('fp32', *variants):
        judged, whole = open_judged(judged_bundle(bundle, variant, threads), data, split)
        frames = thin_out(whole, limit)
        batches = frame_batches(frames, judged, variant)
        report = judge(judged.predict, batches, judged.tasks, judged.canonical_focal)
        reports[variant] = {
            task: {key: round(value, 5) for key, value in figures.items()}
            for task, figures in without_classes(report).items()
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
    parser.add_argument('--data', type=Path, help='folder of a data set: calibrates, and judges')
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
        DeployError, DataError, CheckpointError: nothing is written then.
    """
    from mtl_training.evaluation.predictors import bundle_tasks
    from mtl_training.evaluation.table import markdown

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
        print(markdown(reports, bundle_tasks(bundle.description['tasks'])) + '\n')
    write_bundle(args.bundle, bundle)
    notes = bundle.description.get('provenance', {}).get('variants', {})
    for variant in variants:
        size = len(bundle.variant(variant)) / 1e6
        found = ', '.join(f'{k} {v}' for k, v in notes[variant]['differences'].items())
        print(f'{variant}: {size:.1f} MB; against fp32: {found}')
    print(f'{args.bundle}: {", ".join(["fp32", *bundle.description.get("variants", {})])}, probes')
    return 0
