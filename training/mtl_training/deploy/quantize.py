"""`mtl_training quantize`: a bundle's model in fp16 and int8, checked and judged beside fp32.

Works on the bundle alone: the ONNX graph of fp32 is rewritten, no checkpoint is needed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from mtl_perception.commands.arguments import refuse_unused
from mtl_training.bounds import Count, Whole, bounded
from mtl_training.checkpoints.bundles import read_bundle, write_bundle
from mtl_training.deploy.judging import judge_variants
from mtl_training.deploy.pictures import FRAMES, read_pictures
from mtl_training.deploy.probes import add_probes
from mtl_training.deploy.variants import PRECISIONS, add_variants
from mtl_training.evaluation.predictors import bundle_tasks
from mtl_training.evaluation.table import markdown


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
        '--frames',
        type=bounded(Count),
        default=FRAMES,
        help='of train, to calibrate on (%(default)s)',
    )
    parser.add_argument(
        '--split', default='test', choices=('val', 'test', 'none'), help='judges (%(default)s)'
    )
    parser.add_argument(
        '--limit', type=bounded(Whole), default=0, help='judge on so many frames (0: all)'
    )
    parser.add_argument(
        '--threads', type=bounded(Whole), default=0, help='of the judged network (0: all)'
    )


def run(args: argparse.Namespace) -> int:
    """Quantise and print what it cost.

    Raises:
        DeployError, BundleError, DataError, CheckpointError: nothing is written then.
        PerceptionError: an option that would do nothing.
    """
    if not args.data:
        refuse_unused(args, {'frames': FRAMES, 'limit': 0, 'threads': 0}, 'without --data')
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
