"""Edges of one pixel from borders that are wider."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def thin(mask: Mask) -> Mask:
    """Lines of one pixel that keep the connections of a mask [H, W] (Guo & Hall, CACM 1989, A1).

    Two passes take turns; each deletes at once all pixels whose neighbours allow it.
    """
    image = np.pad(mask, 1).astype(np.uint8)
    while True:
        before = np.count_nonzero(image)
        for stays in THINNING:
            around = cv2.filter2D(image, -1, NEIGHBOURS, borderType=cv2.BORDER_CONSTANT)
            image &= cv2.LUT(around, stays)
        if np.count_nonzero(image) == before:
            return np.asarray(image[1:-1, 1:-1] > 0)


# Bits of the neighbours x1..x8: east, then counter-clockwise.
NEIGHBOURS = np.array([[8, 4, 2], [16, 0, 1], [32, 64, 128]], np.float32)


def _thinning_table(second: bool) -> NDArray[np.uint8]:
    """[256]: 0 where a pixel with these neighbours goes in the first or the second pass, else 1."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1 == 1
    x1, x2, x3, x4, x5, x6, x7, x8 = bits.T
    crossings = sum(
        (~here & (after | beyond)).astype(int)
        for here, after, beyond in ((x1, x2, x3), (x3, x4, x5), (x5, x6, x7), (x7, x8, x1))
    )
    pairs = [((x1, x2), (x3, x4), (x5, x6), (x7, x8)), ((x2, x3), (x4, x5), (x6, x7), (x8, x1))]
    neighbours = np.minimum(*(sum((a | b).astype(int) for a, b in four) for four in pairs))
    side = (x6 | x7 | ~x4) & x5 if second else (x2 | x3 | ~x8) & x1
    gone = (crossings == 1) & (neighbours >= 2) & (neighbours <= 3) & ~side
    return (~gone).astype(np.uint8)


THINNING = (_thinning_table(False), _thinning_table(True))
