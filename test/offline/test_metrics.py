"""The figures of merit are what their definitions say, on cases small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_perception.offline.metrics import (
    DepthScore,
    EdgeScore,
    NormalsScore,
    SemanticScore,
    nearest,
    truth_array,
)

cv2 = pytest.importorskip('cv2')


def test_miou_counts_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1, 255]], np.uint8)
    prediction = np.array([[0, 1, 1, 255, 7]], np.uint8)
    score = SemanticScore()
    score.update(prediction, truth)
    # class 0: 1 of 2; class 1: hit 1, union = 2 true + 1 more predicted; the void pixel is free
    assert score.compute()['mIoU'] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert score.compute()['pixel_accuracy'] == pytest.approx(2 / 4)


def test_depth_is_compared_without_fitting_a_scale() -> None:
    truth = np.array([[2.0, 4.0, 0.0, 1.0]], np.float32)
    prediction = np.array([[3.0, 4.0, 9.0, np.nan]], np.float32)
    score = DepthScore()
    score.update(prediction, truth)
    figures = score.compute()
    assert figures['AbsRel'] == pytest.approx(0.25)
    assert figures['RMSE'] == pytest.approx(np.sqrt(0.5))
    assert figures['delta1'] == pytest.approx(0.5)
    assert figures['coverage'] == pytest.approx(2 / 3)


def test_normals_are_angles() -> None:
    tilt = np.radians([0.0, 10.0, 40.0])
    prediction = np.stack([np.sin(tilt), 0 * tilt, -np.cos(tilt)], -1)[None].astype(np.float32)
    truth = np.zeros((1, 3, 3), np.float32)
    truth[..., 2] = -1
    score = NormalsScore()
    score.update(prediction, truth)
    figures = score.compute()
    assert figures['mean_deg'] == pytest.approx(50 / 3, abs=1e-3)
    assert figures['median_deg'] == pytest.approx(10, abs=0.1)
    assert figures['within_11'] == pytest.approx(2 / 3)
    score.update(prediction, np.zeros_like(truth))
    assert score.compute() == figures


def test_edges_may_be_off_by_the_tolerance_and_no_more() -> None:
    truth = np.zeros((240, 320), np.uint8)
    truth[:, 100] = 255
    for shift, expected in ((0, 1.0), (3, 1.0), (4, 0.0)):
        prediction = np.zeros_like(truth)
        prediction[:, 100 + shift] = 200
        score = EdgeScore()
        score.update(prediction, truth)
        assert score.compute()['odsF'] == pytest.approx(expected)


def test_nothing_to_compare_is_nan_and_not_a_good_figure() -> None:
    for score in (SemanticScore(), DepthScore(), NormalsScore(), EdgeScore()):
        assert all(np.isnan(value) for value in score.compute().values())


def test_truth_of_another_size_is_sampled_at_the_pixel_centres() -> None:
    truth = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert nearest(truth, 2, 2).tolist() == [[5, 7], [13, 15]]
    assert nearest(truth, 4, 4).tolist() == truth.tolist()
    assert nearest(truth[:2, :2], 4, 2).tolist() == [[0, 1], [0, 1], [4, 5], [4, 5]]


def test_ground_truth_pictures_decode_to_metres_and_unit_vectors() -> None:
    depth = cv2.imencode('.png', np.array([[0, 1500]], np.uint16))[1]
    assert truth_array('depth', depth)[0].tolist() == pytest.approx([0, 1.5])
    towards_right = np.array([[[255, 128, 128], [0, 0, 0]]], np.uint8)  # RGB = x y z
    picture = cv2.imencode('.png', towards_right[..., ::-1])[1]
    normals = truth_array('normals', picture)
    assert normals[0, 0] == pytest.approx([1, 0, 0], abs=0.01)
    assert normals[0, 1].tolist() == [0, 0, 0]
