"""The figures of merit are what their definitions say, on cases small enough to count by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from mtl_perception import PerceptionError
from mtl_perception.offline.metrics import (
    DepthByDistance,
    DepthError,
    EdgeF,
    MaxF,
    MeanIoU,
    Mergeable,
    Metric,
    NormalError,
)

NAMES = ('wall', 'floor', 'door', 'lamp')


def column(place: int, value: float = 1, width: int = 1) -> NDArray[np.float32]:
    """[256, 320] with a vertical line; 0.75 % of the diagonal are 3.07 pixels."""
    picture = np.zeros((256, 320), np.float32)
    picture[:, place : place + width] = value
    return picture


def test_miou_counts_by_hand() -> None:
    metric = MeanIoU(NAMES)
    metric.update(np.array([[0, 1, 1, 255, 3]], np.uint8), np.array([[0, 0, 1, 1, 255]], np.uint8))
    # wall: 1 of 2; floor: hit 1, union = 2 true + 1 more predicted; the unknown pixel is free.
    assert metric.compute() == pytest.approx({
        'miou': (1 / 2 + 1 / 3) / 2, 'accuracy': 2 / 4, 'iou_wall': 1 / 2, 'iou_floor': 1 / 3,
    })  # fmt: skip


def test_miou_pools_frames_and_means_over_the_classes_of_the_truth() -> None:
    metric = MeanIoU(NAMES)
    metric.update(np.array([0, 1]), np.array([0, 0]))
    metric.update(np.array([0, 2]), np.array([0, 1]))
    figures = metric.compute()
    # wall: 2 of 3 and not the mean of 1/2 and 1; floor: none of 2; door is predicted only.
    assert figures['iou_wall'] == pytest.approx(2 / 3)
    assert figures['miou'] == pytest.approx((2 / 3 + 0) / 2)
    assert 'iou_door' not in figures


@pytest.mark.parametrize(
    ('prediction', 'truth', 'what'),
    [(4, 0, 'prediction'), (0, 4, 'truth'), (39, 255, 'prediction')],
)
def test_ids_of_another_label_set_are_an_error(prediction: int, truth: int, what: str) -> None:
    """A 40-class network judged on four classes must not get a figure, not even a bad one."""
    wrong = prediction if what == 'prediction' else truth
    expected = rf'the {what} has the class id {wrong}, but there are 4 classes \(0..3'
    with pytest.raises(PerceptionError, match=expected):
        MeanIoU(NAMES).update(np.full((2, 2), prediction), np.full((2, 2), truth))


def test_depth_is_compared_without_fitting_a_scale() -> None:
    metric = DepthError()
    metric.update(np.array([3.0, 4.0, 9.0]), np.array([2.0, 4.0, 0.0]))
    metric.update(np.array([4.4, 9.0]), np.array([4.0, np.nan]))
    figures = metric.compute()
    assert figures['rmse'] == pytest.approx(np.sqrt((1 + 0 + 0.16) / 3))
    assert figures['absrel'] == pytest.approx((0.5 + 0 + 0.1) / 3)
    assert figures['delta1'] == pytest.approx(2 / 3)
    assert figures['coverage'] == 1


@pytest.mark.parametrize('depth', [0.1, 5.5, 40.0, 300.0])
def test_no_depth_is_too_near_or_too_far_to_count(depth: float) -> None:
    metric = DepthError()
    metric.update(np.array([1.2 * depth, 1.3 * depth]), np.array([depth, depth]))
    figures = metric.compute()
    assert figures['absrel'] == pytest.approx(0.25)
    assert figures['rmse'] == pytest.approx(depth * np.sqrt((0.04 + 0.09) / 2))
    assert figures['delta1'] == pytest.approx(0.5)


def test_limits_are_those_of_the_literature() -> None:
    """Within a factor of 1.25, both ways; within 11.25 degrees."""
    depth, normals = DepthError(), NormalError()
    depth.update(np.array([1.249, 1 / 1.249, 1.251, 1 / 1.251]), np.ones(4))
    assert depth.compute()['delta1'] == 0.5
    angles = np.radians([11.2, 11.3, 20.0, 11.24])
    vectors = np.stack([np.sin(angles), np.zeros(4), np.cos(angles)], axis=-1)
    normals.update(vectors, np.tile([0.0, 0.0, 1.0], (4, 1)))
    assert normals.compute()['within_11'] == 0.5


def test_what_a_prediction_leaves_unlabelled_is_not_of_the_last_class() -> None:
    metric = MeanIoU(NAMES)
    metric.update(np.array([255, 3]), np.array([3, 3]))
    assert metric.compute() == pytest.approx({'miou': 0.5, 'accuracy': 0.5, 'iou_lamp': 0.5})


@pytest.mark.parametrize('hole', [np.nan, np.inf, -np.inf])
def test_holes_in_depth_are_said_and_not_dropped_in_silence(hole: float) -> None:
    metric = DepthError()
    metric.update(np.array([2.0, hole, hole, 3.0]), np.array([1.0, 2.0, 0.0, 3.0]))
    assert metric.compute() == pytest.approx(
        {'rmse': np.sqrt(1 / 2), 'absrel': 1 / 2, 'delta1': 1 / 2, 'coverage': 2 / 3}
    )


def test_depth_that_is_not_positive_is_wrong_and_not_a_hole() -> None:
    metric = DepthError()
    metric.update(np.array([-3.0, 0.0]), np.array([2.0, 2.0]))
    assert metric.compute() == pytest.approx(
        {'rmse': 2, 'absrel': 1, 'delta1': 0, 'coverage': 1}, abs=1e-5
    )


def test_normals_are_angles_whatever_their_length() -> None:
    tilt = np.radians([0.0, 10.0, 40.0, 77.0])
    prediction = np.stack([np.sin(tilt), 0 * tilt, -np.cos(tilt)], -1).astype(np.float32)
    truth = np.tile(np.float32([0, 0, -1]), (4, 1))
    truth[3] = 0
    for lengths in (1, np.array([[0.2], [5], [1e-3], [1]], np.float32)):
        for scaled, true in ((prediction * lengths, truth), (prediction, truth * lengths)):
            metric = NormalError()
            metric.update(scaled, true)
            figures = metric.compute()
            assert figures['mean'] == pytest.approx(50 / 3, abs=1e-3)
            assert figures['median'] == pytest.approx(10, abs=0.1)
            assert figures['within_11'] == pytest.approx(2 / 3)
            assert figures['coverage'] == 1


def test_normals_without_direction_are_not_covered() -> None:
    metric = NormalError()
    prediction = np.array([[0.0, 0, -1], [0, 0, 0], [np.nan, 0, -1], [0, 0, 1]])
    metric.update(prediction, np.array([[0.0, 0, -1]] * 3 + [[0, 0, 0]]))
    figures = metric.compute()
    assert (figures['mean'], figures['coverage']) == pytest.approx((0, 1 / 3))


def test_edges_may_be_off_by_the_tolerance_and_no_more() -> None:
    for shift, expected in ((0, 1.0), (3, 1.0), (-3, 1.0), (4, 0.0)):
        metric = EdgeF()
        metric.update(column(100 + shift, 0.7), column(100))
        assert metric.compute()['f'] == pytest.approx(expected)


def test_edges_are_cut_at_one_threshold_for_all_frames() -> None:
    metric = EdgeF()
    metric.update(np.maximum(column(53, 0.7), column(200, 0.4)), column(50))
    assert metric.compute() == pytest.approx({'f': 1.0, 'threshold': 0.45})
    metric.update(column(50, 0.3), column(50))
    # At .3: 3 lines predicted, 2 right, both found; at .45: 1 of 1 right, 1 of 2 found.
    assert metric.compute()['f'] == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))


def test_edges_everywhere_have_full_recall_only() -> None:
    metric = EdgeF()
    metric.update(np.ones((256, 320), np.float32), column(100))
    precision = 7 / 320
    assert metric.compute()['f'] == pytest.approx(2 * precision / (1 + precision))


def test_edges_where_the_truth_is_unknown_do_not_count() -> None:
    truth = np.maximum(column(100), column(200, 255, width=120))
    metric = EdgeF()
    metric.update(np.maximum(column(100), column(300)), truth)
    assert metric.compute()['f'] == pytest.approx(1.0)


def test_saliency_is_judged_at_the_threshold_that_suits_it_best() -> None:
    metric = MaxF()
    metric.update(np.array([0.9, 0.6, 0.6]), np.array([1, 1, 0]))
    metric.update(np.array([0.1, 0.9]), np.array([0, 255]))
    # At .6: P 2/3, R 1; at .9: P 1, R 1/2.
    low = 1.3 * (2 / 3) / (0.3 * 2 / 3 + 1)
    high = 1.3 * 0.5 / (0.3 + 0.5)
    assert high > low
    assert metric.compute()['maxf'] == pytest.approx(high)


@pytest.mark.parametrize('metric', [MeanIoU(NAMES), DepthError(), NormalError(), EdgeF(), MaxF()])
def test_nothing_to_compare_is_nan_and_not_a_good_figure(metric: Metric) -> None:
    unknown = np.zeros((4, 4, 3)) if isinstance(metric, NormalError) else np.full((4, 4), 255)
    metric.update(unknown / 255, unknown if not isinstance(metric, DepthError) else 0 * unknown)
    assert all(np.isnan(value) for value in metric.compute().values())


def test_depth_is_judged_in_the_bin_of_its_true_distance() -> None:
    metric = DepthByDistance((1.0, 2.0, 4.0, 8.0))
    metric.update(np.array([0.6, 1.5, 2.2, np.nan, 3]), np.array([0.5, 1.0, 2.0, 3.9, 0]))
    bins = [(low, high, errors.compute()) for low, high, errors in metric.occupied()]
    assert [(low, high) for low, high, _ in bins] == [(0, 1), (1, 2), (2, 4)]
    assert [figures['absrel'] for _, _, figures in bins] == pytest.approx([0.2, 0.5, 0.1])
    assert [figures['coverage'] for _, _, figures in bins] == pytest.approx([1, 1, 0.5])
    assert metric.compute()['absrel'] == pytest.approx((0.2 + 0.5 + 0.1) / 3)
    metric.update(np.array([100.0]), np.array([50.0]))
    low, high, errors = metric.occupied()[-1]
    assert (low, high, errors.compute()['absrel']) == (8, np.inf, 1)
    assert [errors.known for _, _, errors in metric.occupied()] == [1, 1, 2, 0, 1]


@pytest.mark.parametrize(
    'new',
    [lambda: MeanIoU(NAMES), DepthError, DepthByDistance, NormalError, EdgeF, MaxF],
)
def test_frames_judged_apart_are_merged_to_the_figures_of_all(new: Callable[[], Mergeable]) -> None:
    noise = np.random.default_rng(0)
    together, merged = new(), new()
    for _ in range(3):
        if isinstance(together, MeanIoU):
            frame = noise.integers(0, 4, (2, 16, 16))
        elif isinstance(together, NormalError):
            frame = noise.normal(size=(2, 16, 16, 3))
        elif isinstance(together, (EdgeF, MaxF)):
            frame = np.stack([noise.random((16, 16)), noise.integers(0, 2, (16, 16))])
        else:
            frame = noise.uniform(0.1, 30, (2, 16, 16))
            frame[0, 0] = np.nan
        together.update(*frame)
        alone = new()
        alone.update(*frame)
        merged.merge(alone)
    assert merged.compute() == pytest.approx(together.compute())
