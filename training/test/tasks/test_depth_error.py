"""Errors of depth of some pixels: by distance, and where surfaces end."""

from __future__ import annotations

import numpy as np
import pytest
from mtl_training.tasks.depth_error import DetailedDepthError, near_ends


def test_errors_count_at_the_true_distance() -> None:
    metric = DetailedDepthError()
    truth = np.array([[0.4, 0.6, 1.0, 3.0, 5.0, 9.0, 0.0]])
    metric.update(truth * [2, 1.1, 1.2, 1.3, 0.5, 2, 1], truth)
    figures = metric.compute()
    found = {name: figures[f'absrel@{name}'] for name in ('0.5-1', '1-2', '2-4', '4-8')}
    assert found == pytest.approx({'0.5-1': 0.1, '1-2': 0.2, '2-4': 0.3, '4-8': 0.5})
    assert figures['rmse@4-8'] == pytest.approx(2.5)
    assert figures['delta1@1-2'] == 1
    assert figures['share@1-2'] == pytest.approx(1 / 6)  # of what is known
    assert figures['absrel'] == pytest.approx((1 + 0.1 + 0.2 + 0.3 + 0.5 + 1) / 6)


def test_ends_are_jumps_and_not_slopes_nor_holes() -> None:
    """A disc of 5 px around both sides of a jump of 11 %."""
    truth = np.full((21, 40), 2.0)
    truth[:, 20:] = 2.22
    near = near_ends(truth)
    assert near.all(axis=0).tolist() == [13 < x < 26 for x in range(40)]
    slope = np.broadcast_to(1.08 ** np.arange(40.0), (21, 40))
    assert not near_ends(slope).any()
    truth[:, 18:22] = 0  # nothing was measured there
    assert not near_ends(truth).any()


def test_errors_at_ends_are_those_of_pixels_near_them() -> None:
    truth = np.full((21, 40), 2.0)
    truth[:, 20:] = 4.0
    prediction = truth.copy()
    prediction[:, 19] = 4.0  # a column of twelve that are near is too far by all of it
    prediction[:, 0] = 4.0
    metric = DetailedDepthError()
    metric.update(prediction, truth)
    figures = metric.compute()
    assert figures['absrel@ends'] == pytest.approx(1 / 12)
    assert figures['rmse@ends'] == pytest.approx((4 / 12) ** 0.5)
    assert figures['share@ends'] == pytest.approx(12 / 40)
    empty = DetailedDepthError()
    empty.update(np.ones((5, 5)), np.ones((5, 5)))
    assert np.isnan(empty.compute()['absrel@ends'])
