"""The pictures of a report's filmstrip: outputs, truth, and where the two differ."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..colors import (
    BEYOND,
    depth_color,
    depth_range,
    normals_color,
    probability_color,
    semantic_color,
)
from .metrics import UNKNOWN
from .page import Legend

_Picture = NDArray[np.uint8]

TASKS = ('semantic', 'depth', 'normals', 'edges', 'saliency')
COMPARED = ('semantic', 'depth', 'normals')  # whose differences are pictures
_WORST_RATIO = 2.0  # of depths, where the colour of their difference is full
_WORST_ANGLE = 60.0  # degrees, likewise
_RIGHT, _WRONG = np.array([225, 225, 225]), np.array([200, 30, 30])
_NEARER = np.array([30, 80, 200])
_NOTHING = np.array([0, 0, 0])


def painted(task: str, array: NDArray[Any], bundle: Bundle) -> _Picture:
    """An output, or its truth, in the colours that the node publishes."""
    if task == 'semantic':
        return semantic_color(array, bundle.classes)
    if task == 'depth':
        near, far = depth_range(bundle)
        return depth_color(np.asarray(array, np.float32), near, far)
    if task == 'normals':
        return np.where((array != 0).any(-1, keepdims=True), normals_color(array), 0).astype(
            np.uint8
        )
    return probability_color(np.asarray(array, np.uint8))


def difference(task: str, found: NDArray[Any], reference: NDArray[Any]) -> _Picture:
    """Where an output differs from a reference of its size: light where it does not.

    Classes: red where another. Depth: blue where nearer, red where farther, full from a factor of
    2 on. Normals: red, full from 60 degrees on. Black where there is nothing to compare.
    """
    with np.errstate(divide='ignore', invalid='ignore'):
        if task == 'semantic':
            change = np.where(reference != UNKNOWN, found != reference, np.nan)
        elif task == 'depth':
            change = np.log(found / reference) / np.float32(np.log(_WORST_RATIO))
        else:
            dot = partial(np.einsum, '...i,...i->...')
            cosine = dot(found, reference) / np.sqrt(dot(found, found) * dot(reference, reference))
            change = np.degrees(np.arccos(np.clip(cosine, -1, 1))) / np.float32(_WORST_ANGLE)
    level = np.where(np.isfinite(change), np.clip(change, -1, 1) * 127 + 128, 0)
    return _lut()[level.astype(np.uint8)]


@lru_cache(maxsize=1)
def _lut() -> _Picture:
    """0: nothing to compare, 1..255: from nearer over equal to farther."""
    share = np.linspace(-1, 1, 255)[:, None]
    full = np.where(share < 0, _NEARER, _WRONG)
    ramp = np.abs(share) * full + (1 - np.abs(share)) * _RIGHT
    return np.concatenate([[_NOTHING], ramp.round()]).astype(np.uint8)


def legends(bundle: Bundle) -> list[Legend]:
    """What the colours of these pictures mean."""
    near, far = depth_range(bundle)
    ramp = depth_color(np.geomspace(near, far, 9).astype(np.float32)[None], near, far)[0]
    unit = ' m' if bundle.metric else ' (relative)'
    made = []
    if bundle.classes:
        made.append(Legend('Classes', [(_css(c.color), c.name) for c in bundle.classes]))
    if bundle.task_of('depth'):
        special = [(_css(_NOTHING), 'unknown'), (_css(BEYOND), 'beyond range')]
        ends = (f'{near:.3g}{unit}', f'{far:.3g}{unit}')
        made.append(Legend('Depth', special, [_css(color) for color in ramp], ends))
    if bundle.task_of('normals'):
        axes = [((255, 127, 127), 'right'), ((127, 255, 127), 'up'), ((127, 127, 255), 'camera')]
        made.append(Legend('Normals towards', [(_css(color), name) for color, name in axes]))
    meanings = [
        (_RIGHT, 'equal'),
        (_WRONG, 'another class, another direction, or farther'),
        (_NEARER, 'nearer'),
        (_NOTHING, 'nothing to compare'),
    ]
    made.append(Legend('Differences', [(_css(color), name) for color, name in meanings]))
    return made


def _css(color: Any) -> str:
    return 'rgb({},{},{})'.format(*map(int, color))
