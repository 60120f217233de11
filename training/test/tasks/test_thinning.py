"""Thinned borders are lines of one pixel, connected as the borders were."""

from __future__ import annotations

import cv2
import numpy as np
from mtl_training.tasks.thinning import thin


def test_thinning_keeps_what_is_connected() -> None:
    rng = np.random.default_rng(1)
    blobs = cv2.GaussianBlur(rng.random((120, 160)), (0, 0), 4) > 0.5
    thinned = thin(blobs)
    assert not (thinned & ~blobs).any()
    assert np.array_equal(thin(thinned), thinned)
    assert (
        cv2.connectedComponents(thinned.astype(np.uint8))[0]
        == (cv2.connectedComponents(blobs.astype(np.uint8))[0])
    )
    holes = [
        cv2.connectedComponents(np.pad(~mask, 1, constant_values=True).astype(np.uint8), None, 4)[0]
        for mask in (thinned, blobs)
    ]
    assert holes[0] == holes[1]
    blocks = thinned[1:, 1:] & thinned[:-1, 1:] & thinned[1:, :-1] & thinned[:-1, :-1]
    assert blocks.sum() <= 0.01 * thinned.sum()


def test_thinning_comes_from_outside_and_leaves_a_ring_round_a_hole() -> None:
    block = np.zeros((9, 9), bool)
    block[2:7, 2:7] = True
    block[4, 4] = False
    ring = np.zeros_like(block)
    ring[[3, 5, 4, 4], [4, 4, 3, 5]] = True
    assert np.array_equal(thin(block), ring)
