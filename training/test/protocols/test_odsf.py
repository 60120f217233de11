"""odsF punishes what the literature's punishes, and counts as it counts."""

from __future__ import annotations

import numpy as np
import pytest
from mtl_training.protocols.odsf import OdsF, matched, suppress_non_maxima
from mtl_training.tasks.thinning import thin
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

SIZE = (60, 80)  # the diagonal is 100 pixels


def lines(*rows: int) -> NDArray[np.uint8]:
    image = np.zeros(SIZE, np.uint8)
    image[list(rows)] = 1
    return image


def odsf(prediction: NDArray[np.generic], truth: NDArray[np.uint8], **options: float) -> float:
    metric = OdsF(**options)  # type: ignore[arg-type]
    metric.update(prediction.astype(np.float32), truth)
    return metric.compute()['odsf']


def test_the_truth_itself_is_perfect_and_nothing_is_worthless() -> None:
    assert odsf(lines(30), lines(30)) == 1
    assert odsf(np.zeros(SIZE), lines(30)) == 0
    assert np.isnan(odsf(lines(30), lines()))


@pytest.mark.parametrize(('row', 'expected'), [(33, 1.0), (34, 0.0)])
def test_the_tolerance_is_a_share_of_the_diagonal(row: int, expected: float) -> None:
    assert odsf(lines(row), lines(30), max_distance=0.035) == expected  # 3.5 pixels


def test_three_lines_for_one_cost_precision() -> None:
    # P = 1/3, R = 1.
    assert odsf(lines(28, 30, 32), lines(30), max_distance=0.035) == pytest.approx(0.5)


def test_one_line_for_two_costs_recall() -> None:
    # P = 1, R = 1/2.
    assert odsf(lines(30), lines(28, 32), max_distance=0.035) == pytest.approx(2 / 3)


def test_a_band_is_matched_one_to_one() -> None:
    # All its pixels but those of one line are too many: P = 1/13, R = 1.
    band = lines(*range(24, 37))
    assert odsf(band, lines(30), max_distance=0.075, thin=False) == pytest.approx(1 / 7)


def test_a_border_that_is_marked_on_both_sides_is_one_line() -> None:
    """As NYUD's, which are derived from labels: the truth is perfect, and so is one side."""
    border = lines(29, 30)
    border[31:, [19, 20, 49, 50]] = 1
    assert border.sum() > 2 * thin(border == 1).sum()
    assert odsf(border, border) == 1
    assert odsf(lines(29), lines(29, 30), max_distance=0.035) > 0.99  # a pixel at an end is lost


def test_thinning_makes_a_band_the_line_in_its_middle() -> None:
    band = lines(*range(24, 37))
    assert odsf(band, lines(30)) > 0.9
    assert odsf(band, lines(24, 36)) == 0


def test_a_wide_band_hides_detail() -> None:
    assert odsf(lines(*range(24, 37)), lines(24, 30, 36)) < 0.55


def test_the_best_threshold_is_of_the_set_and_counts_are_pooled() -> None:
    metric = OdsF(thresholds=9)
    metric.update(0.35 * lines(30) + 0.05 * lines(10), lines(30))
    metric.update(0.95 * lines(30) + 0.35 * lines(10), lines(30))
    # At .1: 160 matched, 240 predicted, 160 true; at .4: 80, 80, 160.
    assert metric.compute() == pytest.approx({'odsf': 0.8, 'threshold': 0.1})


def test_edges_in_an_image_without_any_cost_precision() -> None:
    metric = OdsF()
    metric.update(lines(30), lines(30))
    metric.update(lines(30), lines())
    assert metric.compute()['odsf'] == pytest.approx(2 / 3)


def test_pixels_of_unknown_truth_do_not_count() -> None:
    truth = lines(30)
    truth[:20] = 255
    assert odsf(lines(10, 30), truth) == 1


def test_pairs_are_as_many_as_of_the_assignment_of_bsds() -> None:
    """With outliers 100 times the tolerance, by a solver of another kind."""
    rng = np.random.default_rng(0)
    for reach in (1.0, 1.5, 2.9):
        for share in (0.05, 0.2, 0.4):
            predicted, true = (rng.random((12, 15)) < share for _ in range(2))
            distance = np.linalg.norm(
                np.argwhere(predicted)[:, None] - np.argwhere(true)[None], axis=-1
            )
            cost = np.where(distance <= reach, distance, 100 * reach)
            chosen = cost[linear_sum_assignment(cost)]
            assert matched(predicted, true, reach) == (chosen <= reach).sum()


def test_nothing_matches_nothing() -> None:
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    assert [matched(empty, full, 2), matched(full, empty, 2), matched(empty, empty, 2)] == [0] * 3


@pytest.mark.parametrize('degrees', [0, 30, 45, 60, 90, 120, 150])
def test_suppression_leaves_the_ridge(degrees: int) -> None:
    y, x = np.mgrid[:120, :160]
    turn = np.radians(degrees)
    distance = np.abs((x - 80) * np.sin(turn) + (y - 60) * np.cos(turn))
    ridge = np.exp(-(distance**2) / 18).astype(np.float32)
    kept = suppress_non_maxima(ridge) > 0.01
    inside = np.zeros_like(kept)
    inside[10:-10, 10:-10] = True
    assert distance[kept & inside].max() <= 1.0
    assert (kept & inside).sum() >= 0.8 * ((distance < 0.5) & inside).sum()


def test_suppression_trusts_the_border_less() -> None:
    column = np.zeros((40, 40), np.float32)
    column[:, 20] = 1
    kept = suppress_non_maxima(column)
    assert kept[:8, 20] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1])
    assert not np.delete(kept, 20, axis=1).any()


def test_suppressing_tells_ridges_that_touch_apart() -> None:
    """Two blurred lines with so little between them that thresholds above .2 make them one band."""
    y = np.arange(SIZE[0])[:, None]
    ridges = np.exp(-((y - 26) ** 2) / 18) + np.exp(-((y - 34) ** 2) / 18)
    image, truth = np.broadcast_to(ridges / 1.1, SIZE), lines(26, 34)
    once = {'thresholds': 1, 'max_distance': 0.02}  # at .5
    assert image[30].min() > 0.5
    assert odsf(image, truth, **once) == 0
    assert odsf(image, truth, **once, suppress=True) > 0.9
