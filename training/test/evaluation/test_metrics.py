"""Metrics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from mtl_training.evaluation.metrics import DepthError, EdgeF, MaxF, MeanIoU, Metric, NormalError


def test_mean_iou_pools_frames_and_leaves_absent_classes_out() -> None:
    metric = MeanIoU(4)
    metric.update(np.array([[0, 0], [1, 1]]), np.array([[0, 1], [1, 255]]))
    metric.update(np.array([[2, 0]]), np.array([[2, 2]]))
    # 0: 1 hit of 1 + 2; 1: 1 of 2; 2: 1 of 2; 3 occurs nowhere.
    np.testing.assert_allclose(metric.per_class(), [1 / 3, 1 / 2, 1 / 2, np.nan])
    assert metric.compute() == pytest.approx({'miou': 4 / 9, 'accuracy': 3 / 5})


def test_depth_errors_are_pooled_over_pixels() -> None:
    metric = DepthError()
    metric.update(np.array([2.0, 3.0]), np.array([1.0, 3.0]))
    metric.update(np.array([9.0, 4.4]), np.array([0.0, 4.0]))
    figures = metric.compute()
    assert figures['rmse'] == pytest.approx(np.sqrt((1 + 0 + 0.16) / 3))
    assert figures['absrel'] == pytest.approx((1 + 0 + 0.1) / 3)
    assert figures['delta1'] == pytest.approx(2 / 3)


def test_normal_errors_in_degrees() -> None:
    angles = np.radians([0.0, 10.0, 20.0, 40.0, 77.0])
    prediction = np.stack([np.sin(angles), 0 * angles, -np.cos(angles)], axis=-1)
    target = np.tile([0.0, 0.0, -1.0], (5, 1))
    target[4] = 0
    metric = NormalError()
    metric.update(prediction, target)
    figures = metric.compute()
    assert figures['mean'] == pytest.approx(17.5, abs=1e-6)
    assert figures['within_11'] == pytest.approx(0.5)
    assert figures['median'] == pytest.approx(10, abs=0.1)


def test_edges_within_the_tolerance_count() -> None:
    target = np.zeros((80, 100), np.uint8)  # diagonal 128: tolerance 0.96, so one pixel
    target[:, 50] = 1
    for shift, expected in ((0, 1.0), (1, 0.0)):
        metric = EdgeF()
        prediction = np.zeros((80, 100), np.float32)
        prediction[:, 50 + shift] = 0.7
        metric.update(prediction, target)
        assert metric.compute()['f'] == pytest.approx(expected)
    wide = EdgeF()
    target = np.zeros((256, 320), np.uint8)  # tolerance 3.07 pixels
    target[:, 50] = 1
    prediction = np.zeros((256, 320), np.float32)
    prediction[:, 53] = 0.7
    prediction[:128, 200] = 0.4  # wrong, and below the best threshold
    wide.update(prediction, target)
    assert wide.compute()['f'] == pytest.approx(1.0)
    assert 0.4 < wide.compute()['threshold'] <= 0.7


def test_edges_everywhere_have_full_recall_only() -> None:
    metric = EdgeF()
    target = np.zeros((256, 320), np.uint8)
    target[:, 100] = 1
    metric.update(np.ones((256, 320), np.float32), target)
    precision = 7 / 320
    assert metric.compute()['f'] == pytest.approx(2 * precision / (1 + precision))


def test_unlabelled_edge_pixels_do_not_count() -> None:
    metric = EdgeF()
    target = np.zeros((256, 320), np.uint8)
    target[:, 100] = 1
    target[:, 200:] = 255
    prediction = np.zeros((256, 320), np.float32)
    prediction[:, 100] = prediction[:, 300] = 1
    metric.update(prediction, target)
    assert metric.compute()['f'] == pytest.approx(1.0)


def test_saliency_max_f() -> None:
    metric = MaxF()
    metric.update(np.array([0.9, 0.6, 0.6, 0.1, 0.9]), np.array([1, 1, 0, 0, 255]))
    # At .6: P 2/3, R 1; at .9: P 1, R 1/2.
    low = 1.3 * (2 / 3) / (0.3 * 2 / 3 + 1)
    high = 1.3 * 0.5 / (0.3 + 0.5)
    assert metric.compute()['maxf'] == pytest.approx(max(low, high))


@pytest.mark.parametrize('metric', [MeanIoU(3), DepthError(), NormalError(), EdgeF(), MaxF()])
def test_nothing_seen_is_no_error(metric: Metric) -> None:
    assert all(np.isfinite(value) for value in metric.compute().values())
