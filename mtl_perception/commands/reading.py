"""What says how an input is read: bags, pictures and videos, with or without a CameraInfo."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..offline.inputs import Reading
from ..offline.pictures import Lens
from .arguments import positive


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add what ``reading`` reads."""
    lens = parser.add_mutually_exclusive_group()
    lens.add_argument(
        '--focal', type=positive, metavar='PX', help='focal length of images without a CameraInfo'
    )
    lens.add_argument('--fov', type=_angle, metavar='DEG', help='or their horizontal field of view')
    parser.add_argument(
        '--rate',
        type=positive,
        metavar='HZ',
        help="of pictures (default: 10), or of a video (default: the video's own times)",
    )


def reading(
    options: argparse.Namespace, cameras: Sequence[str], keep: Sequence[str] = ()
) -> Reading:
    """How an input is read; see ``Reading``."""
    known = options.focal or options.fov
    lens = Lens(options.focal or 0.0, options.fov or 0.0) if known else None
    return Reading(tuple(cameras), tuple(keep), options.rate, lens)


def _angle(text: str) -> float:
    value = positive(text)
    if value >= 180:
        raise argparse.ArgumentTypeError(f'expected degrees below 180, not {text!r}')
    return value
