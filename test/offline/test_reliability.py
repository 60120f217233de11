"""Calibration of confidences, on cases small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_perception.offline.metrics import depth_pixels
from mtl_perception.offline.reliability import CoverageCurve, Reliability


def test_ece_is_the_mean_gap_of_bins_by_hand() -> None:
    metric = Reliability()
    # 0.8 * 255 = 204: two of four right; 0.2 * 255 = 51: the one is wrong; one is not known.
    confidence = np.array([[204, 204, 204, 204, 51, 255]], np.uint8)
    right = np.array([[True, True, False, False, False, True]])
    metric.update(confidence, right, np.array([[True] * 5 + [False]]))
    figures = metric.compute()
    assert figures['ece'] == pytest.approx(4 / 5 * 0.3 + 1 / 5 * 0.2)
    assert figures['confidence'] == pytest.approx((4 * 0.8 + 0.2) / 5)
    assert figures['accuracy'] == pytest.approx(2 / 5)
    unsure, sure = metric.bins()
    assert (unsure.confidence, unsure.accuracy, unsure.share) == pytest.approx((0.2, 0, 0.2))
    assert (sure.confidence, sure.accuracy, sure.share) == pytest.approx((0.8, 0.5, 0.8))


def test_bins_hold_their_upper_edge_and_not_their_lower_one() -> None:
    """Guo et al.: ((m - 1) / M, m / M]; with M = 15 an edge is every 17th level."""
    for levels, count in (((17, 18), 2), ((18, 34), 1), ((0, 17), 1), ((254, 255), 1)):
        metric = Reliability()
        metric.update(np.array(levels, np.uint8), np.ones(2, bool), np.ones(2, bool))
        assert len(metric.bins()) == count, levels


def test_gaps_of_one_bin_cancel_and_those_of_two_do_not() -> None:
    metric = Reliability()
    metric.update(np.array([250, 250], np.uint8), np.array([True, False]), np.ones(2, bool))
    assert metric.compute()['ece'] == pytest.approx(250 / 255 - 0.5)


def test_nothing_counted_is_nan() -> None:
    metric = Reliability()
    metric.update(np.zeros(3, np.uint8), np.zeros(3, bool), np.zeros(3, bool))
    assert all(np.isnan(value) for value in metric.compute().values())
    curve = CoverageCurve()
    assert np.isnan(curve.compute()['aurc'])
    assert curve.points() == []


def test_leaving_out_unsure_depth_costs_coverage_and_buys_accuracy() -> None:
    curve = CoverageCurve()
    confidence = np.array([200, 100, 100, 50, 9], np.uint8)
    depth = np.array([2.0, 2.2, 2.6, np.nan, 7.0])
    truth = np.array([2.0, 2.0, 2.0, 2.0, 0.0])
    curve.update(confidence, depth_pixels(depth, truth))
    everything, surest = curve.points()
    assert (everything.threshold, everything.coverage) == (100, pytest.approx(3 / 4))
    assert everything.absrel == pytest.approx((0 + 0.1 + 0.3) / 3)
    assert everything.rmse == pytest.approx(np.sqrt((0.04 + 0.36) / 3))
    assert everything.delta1 == pytest.approx(2 / 3)
    assert (surest.threshold, surest.coverage, surest.absrel) == (200, 0.25, 0)
    # The first quarter costs nothing, the other two the error of all three.
    assert curve.compute()['aurc'] == pytest.approx((0.25 * 0 + 0.5 * 0.4 / 3) / 0.75)


def test_within_a_factor_goes_both_ways() -> None:
    depth = np.array([1.249, 1.251, 0.801, 0.799, np.nan, np.inf])
    assert depth_pixels(depth, np.ones(6)).near.tolist() == [1, 0, 1, 0]
