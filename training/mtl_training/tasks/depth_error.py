"""Errors of depth: over all pixels, by true distance, and where surfaces end."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_perception.offline.metrics import DepthByDistance, DepthError, known_depth, ratio

DISTANCES = (0.5, 1.0, 2.0, 4.0, 8.0)  # metres, edges of the bins
# Surfaces end where neighbours are farther apart than a tilted one makes them: a floor that is seen
# from 1 m above it changes by 3 % from pixel to pixel at 8 m (fx 277), and depth of 8 bits by 8 %
# at half a metre.
JUMP = 1.1
REACH = 5  # pixels from an end that are near it


def bins() -> list[str]:
    """The names of the bins: ``0.5-1``, ``1-2``, ..."""
    return [f'{near:g}-{far:g}' for near, far in pairwise(DISTANCES)]


class DetailedDepthError:
    """The figures of ``DepthError``, over all pixels and of some of them.

    ``absrel@1-2``, ``rmse@1-2``, ``delta1@1-2``, and ``share@1-2`` of the known pixels: of those
    whose true distance is from 1 to 2 m. ``...@ends``: of those within 5 px of where a surface
    ends in the truth: where two neighbours differ by more than a factor of 1.1.
    """

    def __init__(self) -> None:
        self.by_distance, self.ends = DepthByDistance(DISTANCES), DepthError()

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add depths of a frame in metres, [H, W]; a truth of 0, NaN or infinity is unknown."""
        self.by_distance.update(prediction, truth)
        near = near_ends(truth)
        self.ends.update(prediction[near], truth[near])

    def compute(self) -> dict[str, float]:
        """``rmse``, ``absrel``, ``delta1``, ``coverage``, and those of some pixels."""
        figures = self.by_distance.compute()
        total = sum(errors.known for _, _, errors in self.by_distance.bins)
        parts = {'ends': self.ends}
        parts |= {
            f'{near:g}-{far:g}': errors
            for near, far, errors in self.by_distance.bins
            if near >= DISTANCES[0] and far <= DISTANCES[-1]
        }
        for name, errors in parts.items():
            found = errors.compute()
            figures |= {f'{key}@{name}': found[key] for key in ('absrel', 'rmse', 'delta1')}
            figures[f'share@{name}'] = ratio(errors.known, total)
        return figures


def near_ends(truth: NDArray[Any]) -> NDArray[np.bool_]:
    """Which pixels [H, W] are within ``REACH`` of a jump of true depth."""
    known = known_depth(truth)
    logs = np.log(np.where(known, truth, 1))
    ends = np.zeros(truth.shape, np.uint8)
    for axis in (0, 1):
        here, there = [slice(None)] * 2, [slice(None)] * 2
        here[axis], there[axis] = slice(None, -1), slice(1, None)
        one, other = tuple(here), tuple(there)
        jump = np.abs(logs[one] - logs[other]) > np.log(JUMP)
        jump &= known[one] & known[other]
        ends[one] |= jump
        ends[other] |= jump
    y, x = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1]
    disc = np.asarray(x**2 + y**2 <= REACH**2, np.uint8)
    return np.asarray(cv2.dilate(ends, disc), bool)
