"""What a network says as colours for people: one function per kind of tensor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, SemanticClass

_Picture = NDArray[np.uint8]

NEAR, FAR = 0.3, 10.0  # metres, where a bundle gives no range
_STEEPEST = 1000.0  # far / near at most, since the scale is logarithmic
BEYOND = (225, 225, 225)  # of +Inf depth; black is for NaN. Neither occurs in the colour map


def semantic_color(ids: NDArray[np.uint8], classes: Sequence[SemanticClass]) -> _Picture:
    """Class ids [H, W] to RGB [H, W, 3] in the classes' colours; black where unlabelled."""
    return look_up(ids, _class_lut(tuple(classes)))


def depth_range(bundle: Bundle) -> tuple[float, float]:
    """The nearest and the farthest depth that a bundle's colours tell apart, metres."""
    task = bundle.task_of('depth')
    near, far = task.range if task and task.range else (NEAR, FAR)
    return max(near, far / _STEEPEST), far


def depth_color(depth: NDArray[np.float32], near: float = NEAR, far: float = FAR) -> _Picture:
    """Depth [H, W] in metres to RGB [H, W, 3], from red (near) over green to blue (far).

    The colour map is Turbo over the logarithm of depth: equal ratios look equally different.
    Black where unknown (NaN, or not positive), light grey beyond the range (+Inf).
    """
    near = max(near, far / _STEEPEST)
    # Levels 1 (far) to 254 (near); what the logarithm makes of special values is overwritten.
    slope = 253 / (np.log(near) - np.log(far))
    level = np.asarray(cv2.log(depth)) * np.float32(slope)
    level += np.float32(1.5 - np.log(far) * slope)
    level = cv2.min(cv2.max(level, 1.0), 254.0)
    level[~(depth > 0)] = 0
    level[depth == np.inf] = 255
    return look_up(level.astype(np.uint8), _depth_lut())


def normals_color(normals: NDArray[np.float32]) -> _Picture:
    """Unit normals [H, W, 3] in the optical frame to RGB [H, W, 3].

    Red grows to the right, green upwards, blue towards the camera, as in normal maps of graphics:
    rgb = (n * [1, -1, -1] + 1) / 2. A wall ahead is bluish, a floor green. Black where NaN.
    """
    axes = np.array([[127.5, 0, 0], [0, -127.5, 0], [0, 0, -127.5]])
    shifted = cv2.transform(normals, np.hstack([axes, np.full((3, 1), 127.5)]))
    cv2.patchNaNs(shifted, 0)
    return np.asarray(cv2.convertScaleAbs(shifted), np.uint8)


def probability_color(probability: NDArray[np.uint8]) -> _Picture:
    """Probability x 255 [H, W] to RGB [H, W, 3], from white (0) to black (255), as a drawing."""
    return np.asarray(cv2.cvtColor(255 - probability, cv2.COLOR_GRAY2RGB), np.uint8)


def overlay(image: _Picture, colors: _Picture, strength: float = 0.65) -> _Picture:
    """Colours laid over the gray of an image, both [H, W, 3], so that outlines shine through."""
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(colors, strength, gray, 1 - strength, 0), np.uint8)


# --- colour tables ---------------------------------------------------------------------------


def look_up(ids: NDArray[np.uint8], lut: NDArray[np.uint32]) -> _Picture:
    """[H, W] through a table of 256 packed colours (half the time of cv2.LUT, a third of rows)."""
    rgba = np.take(lut, ids, mode='wrap').view(np.uint8).reshape(*ids.shape, 4)
    return np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), np.uint8)


def packed(colors: NDArray[Any]) -> NDArray[np.uint32]:
    """[256, 3] RGB to 256 numbers whose bytes are r, g, b, 0."""
    rgba = np.zeros((256, 4), np.uint8)
    rgba[:, :3] = colors
    return rgba.view(np.uint32)[:, 0]


@lru_cache(maxsize=8)
def _class_lut(classes: tuple[SemanticClass, ...]) -> NDArray[np.uint32]:
    colors = np.zeros((256, 3), np.uint8)
    for item in classes:
        colors[item.id] = item.color
    return packed(colors)


@lru_cache(maxsize=1)
def _depth_lut() -> NDArray[np.uint32]:
    """0: unknown, 1..254: far to near, 255: beyond. Turbo's nearly black ends are left out."""
    levels = np.linspace(20, 240, 254).round().astype(np.uint8)[None]
    turbo = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return packed(np.concatenate([[(0, 0, 0)], turbo[0], [BEYOND]]))
