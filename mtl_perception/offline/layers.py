"""The pictures of a report's filmstrip: outputs, truth, and where the two differ."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..colors import (
    BEYOND,
    depth_color,
    depth_range,
    look_up,
    normals_color,
    packed,
    probability_color,
    semantic_color,
)
from .filmstrip import WIDTH
from .ground_truth import nearest
from .metrics import UNKNOWN, angles_between
from .page import Legend

_Picture = NDArray[np.uint8]

TASKS = ('semantic', 'depth', 'normals', 'edges', 'saliency')
COMPARED = ('semantic', 'depth', 'normals')  # whose differences are pictures
_WORST_RATIO = 2.0  # of depths, where the colour of their difference is full
_WORST_ANGLE = 60.0  # degrees, likewise
_EQUAL, _STEPS = np.uint8(128), np.uint8(127)  # of levels of a difference
_RIGHT, _WRONG = np.array([225, 225, 225]), np.array([200, 30, 30])
_NEARER = np.array([30, 80, 200])
_NOTHING = np.array([0, 0, 0])


def shown(array: NDArray[Any]) -> NDArray[Any]:
    """An array of the size in which it is shown, so that no more is painted than that."""
    height, width = array.shape[:2]
    if width <= WIDTH:
        return array
    return nearest(array, max(1, round(height * WIDTH / width)), WIDTH)


def painted(task: str, array: NDArray[Any], bundle: Bundle) -> _Picture:
    """An output, or its truth, in the colours that the node publishes."""
    if task == 'semantic':
        return semantic_color(array, bundle.classes)
    if task == 'depth':
        near, far = depth_range(bundle)
        return depth_color(np.asarray(array, np.float32), near, far)
    if task == 'normals':
        picture = normals_color(array)
        nothing = (0.0, 0.0, 0.0)
        picture[cv2.inRange(array, nothing, nothing) > 0] = 0
        return picture
    return probability_color(np.asarray(array, np.uint8))


def difference(task: str, found: NDArray[Any], reference: NDArray[Any]) -> _Picture:
    """Where an output differs from a reference of its size: light where it does not.

    Classes: red where another. Depth: blue where nearer, red where farther, full from a factor of
    2 on. Normals: red, full from 60 degrees on. Black where there is nothing to compare.
    """
    if task == 'semantic':
        level = np.where(found == reference, _EQUAL, _EQUAL + _STEPS)
        level[reference == UNKNOWN] = 0
        return look_up(level, _lut())
    with np.errstate(divide='ignore', invalid='ignore'):
        if task == 'depth':
            change = np.log2(found / reference) / np.log2(_WORST_RATIO)
        else:
            degrees, _ = angles_between(found, reference)
            change = degrees.reshape(found.shape[:2]) / _WORST_ANGLE
        level = np.clip(change, -1, 1) * _STEPS + _EQUAL
        level[~np.isfinite(change)] = 0
    return look_up(level.astype(np.uint8), _lut())


@lru_cache(maxsize=1)
def _lut() -> NDArray[np.uint32]:
    """0: nothing to compare, 1..255: from nearer over equal to farther."""
    share = np.linspace(-1, 1, 2 * _STEPS + 1)[:, None]
    full = np.where(share < 0, _NEARER, _WRONG)
    ramp = np.abs(share) * full + (1 - np.abs(share)) * _RIGHT
    return packed(np.concatenate([[_NOTHING], ramp.round()]).astype(np.uint8))


def legends(bundle: Bundle, layers: Sequence[str]) -> list[Legend]:
    """What the colours of these layers mean; a layer's name begins with its task."""
    tasks = {layer.partition(' ')[0] for layer in layers}
    near, far = depth_range(bundle)
    ramp = depth_color(np.geomspace(near, far, 9).astype(np.float32)[None], near, far)[0]
    unit = ' m' if bundle.metric else ' (relative)'
    made = []
    if 'semantic' in tasks:
        made.append(Legend('Classes', [(_css(c.color), c.name) for c in bundle.classes]))
    if 'depth' in tasks:
        special = [(_css(_NOTHING), 'unknown'), (_css(BEYOND), 'beyond range')]
        ends = (f'{near:.3g}{unit}', f'{far:.3g}{unit}')
        made.append(Legend('Depth', special, [_css(color) for color in ramp], ends))
    if 'normals' in tasks:
        axes = [((255, 127, 127), 'right'), ((127, 255, 127), 'up'), ((127, 127, 255), 'camera')]
        made.append(Legend('Normals towards', [(_css(color), name) for color, name in axes]))
    if not any(layer.endswith((' error', ' difference')) for layer in layers):
        return made
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
