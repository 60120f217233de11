"""How much predictions flicker: points of the image that are followed from frame to frame.

A robot does not see a wrong label so much as a label that comes and goes. No ground truth is
needed: a point that a camera sees twice has one class, and where it does not even move in the
image, one depth and one direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .metrics import UNKNOWN, ratio

_POINTS = 20  # that are followed, in a row of the image
_THERE_AND_BACK = 0.5  # a point followed to the next frame and back must be where it was, pixels
_GRAY_LEVELS = 12.0  # and look as it did: mean difference of the patch
_IN_PLACE = 0.5  # a point that moves less is static, pixels
_FEWEST = 30  # points, to say anything: a camera that moves has some static ones by chance
# A tenth of the pixels that decide is near enough, and what has not settled by then seldom does.
_UNTIL = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)
_SEARCH: dict[str, Any] = {'winSize': (11, 11), 'maxLevel': 2, 'criteria': _UNTIL}


class Flicker:
    """Changes between frames that nothing in the image explains.

    Points on a grid are followed by optical flow (pyramidal Lucas-Kanade, there and back).
    ``semantic``: the share of them whose class changes, of all points. ``depth``: the mean of
    |log(d2 / d1)|, and ``normals``: the mean angle in degrees, of static points: those that do not
    move in the image. NaN where there are fewer than 30 of them, since depth changes rightly when
    the camera moves.
    """

    def __init__(self) -> None:
        self._before: tuple[NDArray[np.uint8], Mapping[str, NDArray[Any]]] | None = None
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, image: NDArray[np.uint8], arrays: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """Take the next frame of a camera.

        Args:
            image: [H, W, 3] RGB on the grid of the outputs.
            arrays: outputs by name, [H, W] or [H, W, 3].

        Returns:
            The figures between the frame before and this one; empty for the first frame, where
            frames differ in size, and where fewer than 30 points can be followed.
        """
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        before, self._before = self._before, (gray, arrays)
        if before is None or before[0].shape != gray.shape:
            return {}
        start, end = follow(before[0], gray)
        if len(start) < _FEWEST:
            return {}
        found = {
            name: _change(name, before[1][name][pixels_of(start)], arrays[name][pixels_of(end)])
            for name in ('semantic', 'depth', 'normals')
            if name in arrays and name in before[1]
        }
        static = np.hypot(*(end - start).T) < _IN_PLACE
        if np.count_nonzero(static) < _FEWEST:
            static[:] = False
        figures = {}
        for name, change in found.items():
            known = np.isfinite(change) & (True if name == 'semantic' else static)
            total, count = float(change[known].sum()), int(np.count_nonzero(known))
            figures[name] = ratio(total, count)
            sums = self._sums.get(name, (0.0, 0))
            self._sums[name] = sums[0] + total, sums[1] + count
        return figures

    def compute(self) -> dict[str, float]:
        """The figures over all frames."""
        return {name: ratio(*sums) for name, sums in self._sums.items()}


def follow(
    before: NDArray[np.uint8], after: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points (x, y) of the first image, and where they are in the second, [N, 2] each."""
    height, width = before.shape
    points = _grid(height, width)
    if not len(points):
        return points[:, 0], points[:, 0]
    there, found, difference = cv2.calcOpticalFlowPyrLK(before, after, points, None, **_SEARCH)
    end = there[:, 0]
    good = found.ravel().astype(bool) & (difference.ravel() < _GRAY_LEVELS)
    good &= ((end > -0.5) & (end < (width - 0.5, height - 0.5))).all(axis=-1)
    start, end = points[good, 0], end[good]
    if not len(start):
        return start, end
    # Only what was found is followed back: half of the time is spent here.
    back, returned, _ = cv2.calcOpticalFlowPyrLK(after, before, end[:, None], None, **_SEARCH)
    same = returned.ravel().astype(bool)
    same &= np.hypot(*(back[:, 0] - start).T) < _THERE_AND_BACK
    return start[same], end[same]


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> NDArray[np.float32]:
    """Points (x, y), [N, 1, 2]."""
    step = max(4, width // _POINTS)
    x, y = np.meshgrid(np.arange(step // 2, width, step), np.arange(step // 2, height, step))
    return np.stack([x.ravel(), y.ravel()], -1).astype(np.float32)[:, None]


def pixels_of(points: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column of the pixels that hold points."""
    x, y = np.rint(points).astype(np.intp).T
    return y, x


def _change(name: str, before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.float64]:
    """How much each point has changed; NaN where there is nothing to compare."""
    if name == 'semantic':
        known = (before != UNKNOWN) & (after != UNKNOWN)
        return np.where(known, before != after, np.nan)
    with np.errstate(divide='ignore', invalid='ignore'):
        if name == 'depth':
            both = np.isfinite(before) & np.isfinite(after) & (before > 0) & (after > 0)
            return np.where(both, np.abs(np.log(after / before)), np.nan)
        cosine = (before.astype(np.float64) * after).sum(axis=-1)
        return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
