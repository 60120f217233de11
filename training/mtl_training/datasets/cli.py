"""`mtl_training data`: check data sets, and bring them into a layout that training reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from mtl_training.datasets.check import check
from mtl_training.datasets.prepare_nyud import Official, prepare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtl_training data``."""
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')
    checking = actions.add_parser(
        'check', help='read every file and tell what is wrong, a line for each fault'
    )
    checking.add_argument('path', type=Path, help='folder of a data set, or file of a mixture')
    preparing = actions.add_parser('prepare', help='bring a data set into a layout that is read')
    kinds = preparing.add_subparsers(dest='kind', required=True, metavar='KIND')
    nyud = kinds.add_parser('nyud', help='the official labelled set of NYU Depth V2')
    nyud.add_argument('labeled', type=Path, metavar='FILE', help='nyu_depth_v2_labeled.mat')
    nyud.add_argument('out', type=Path, help='folder to be made')
    nyud.add_argument('--splits', type=Path, help='default: splits.mat beside FILE')
    nyud.add_argument('--mapping', type=Path, help='default: classMapping40.mat beside FILE')


def run(args: argparse.Namespace) -> int:
    """Do as asked.

    Returns:
        1 if something is wrong with the data.

    Raises:
        TrainingError: what was given cannot be used.
    """
    if args.action == 'prepare':
        folder = args.labeled.parent
        splits = args.splits or folder / 'splits.mat'
        mapping = args.mapping or folder / 'classMapping40.mat'
        prepare(Official(args.labeled, splits, mapping), args.out)
        return 0
    frames = faults = 0
    for checked in check(args.path):
        frames += checked.frames
        faults += len(checked.faults)
        for fault in checked.faults:
            print(fault, flush=True)
    print(f'{args.path}: {frames} frames, {faults or "no"} fault{"" if faults == 1 else "s"}')
    return 1 if faults else 0
