"""`mtl_training rooms`: fetch the furniture, render a data set, record a sample drive."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mtl_training.bounds import Count, Positive, Share, Whole, bounded, image_size
from mtl_training.rooms.catalogue import SPLITS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest='action', required=True, metavar='ACTION')
    fetch = actions.add_parser('assets', help='fetch and index the furniture (about 300 MB)')
    fetch.add_argument('assets', type=Path, help='folder for the assets')
    make = actions.add_parser('render', help='render a data set')
    make.add_argument('out', type=Path, help='folder for the data set')
    make.add_argument('--assets', type=Path, required=True)
    for split, count in zip(SPLITS, (3060, 120, 320), strict=True):
        make.add_argument(f'--{split}', type=bounded(Whole), default=count, metavar='FRAMES')
    make.add_argument('--seed', type=bounded(Whole), default=1)
    make.add_argument(
        '--size', type=image_size, default='256x320', help='HEIGHTxWIDTH (default: %(default)s)'
    )
    make.add_argument(
        '--close',
        type=bounded(Share),
        default=0,
        metavar='SHARE',
        help='of views from 0.3 to 1.5 m',
    )
    make.add_argument('--workers', type=bounded(Count), default=os.cpu_count() or 1)
    drive = actions.add_parser('record', help='record a drive through test rooms as an MCAP bag')
    drive.add_argument('out', type=Path, help='folder of the bag')
    drive.add_argument('--assets', type=Path, required=True)
    drive.add_argument('--seconds', type=bounded(Positive), default=10.8)
    drive.add_argument('--rooms', type=bounded(Count), default=4)
    drive.add_argument('--seed', type=bounded(Whole), default=3)
    drive.add_argument('--workers', type=bounded(Count), default=os.cpu_count() or 1)


def run(args: argparse.Namespace) -> None:
    if args.action == 'assets':
        from mtl_training.rooms.assets import fetch

        fetch(args.assets)
    elif args.action == 'render':
        _render(args)
    else:
        from mtl_training.rooms.recording import record_drive

        record_drive(
            args.assets, args.out, seconds=args.seconds, rooms=args.rooms, seed=args.seed,
            workers=args.workers,
        )  # fmt: skip


def _render(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from mtl_training.rooms.catalogue import credits, read_catalogue
    from mtl_training.rooms.write import render_split

    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'CREDITS.md').write_text(credits(read_catalogue(args.assets)), encoding='utf-8')
    for split in SPLITS:
        wanted = getattr(args, split)
        with tqdm(total=wanted, desc=split, unit='frame') as bar:
            for written in render_split(
                args.assets, args.out, split, wanted,
                seed=args.seed, size=args.size, workers=args.workers, close=args.close,
            ):  # fmt: skip
                bar.update(min(written, wanted) - bar.n)
