"""Predictions against ground truth of another size, with confidences, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_perception.offline.evaluation import Evaluation, badness, headline

NAMES = ('wall', 'floor')


def prediction() -> dict[str, np.ndarray]:
    """2x2: the upper row is right, the lower one is not."""
    normals = np.zeros((2, 2, 3), np.float32)
    normals[..., 2] = -1
    return {
        'semantic': np.array([[0, 1], [1, 0]], np.uint8),
        'semantic_confidence': np.array([[255, 255], [51, 51]], np.uint8),
        'depth': np.array([[2, 2], [3, np.nan]], np.float32),
        'depth_confidence': np.array([[255, 255], [0, 255]], np.uint8),
        'normals': normals,
        'edges': np.array([[0, 255], [0, 255]], np.uint8),
    }


def truth() -> dict[str, np.ndarray]:
    """4x4 of the same view."""
    labels = np.array([[0, 1], [0, 1]], np.uint8)
    normals = np.zeros((4, 4, 3), np.float32)
    normals[..., 2] = -1
    return {
        'semantic': labels.repeat(2, 0).repeat(2, 1),
        'depth': np.full((4, 4), 2, np.float32),
        'normals': normals,
        'edges': np.array([[0, 1], [0, 1]], np.uint8).repeat(2, 0).repeat(2, 1),
    }


def test_truth_is_registered_by_size_and_judged_by_task() -> None:
    evaluation = Evaluation(NAMES)
    figures = evaluation.add(prediction(), truth())
    assert figures['semantic']['accuracy'] == 0.5
    assert figures['depth'] == pytest.approx(
        {'absrel': 0.5 / 3, 'rmse': np.sqrt(1 / 3), 'delta1': 2 / 3, 'coverage': 3 / 4}
    )
    assert figures['normals']['mean'] == pytest.approx(0)
    assert figures['edges']['f'] == 1
    assert headline(figures)['depth'] == figures['depth']['absrel']
    assert badness(figures)['semantic'] == -figures['semantic']['miou']


def test_confidences_are_judged_by_what_they_are_of() -> None:
    evaluation = Evaluation(NAMES)
    evaluation.add(prediction(), truth())
    semantic = evaluation.calibration.semantic.compute()
    # Sure and right, and 0.2 where wrong.
    assert semantic['ece'] == pytest.approx(0.5 * 0 + 0.5 * 0.2)
    depth = evaluation.calibration.depth.compute()
    assert (depth['ece'], depth['accuracy']) == pytest.approx((0, 2 / 3))
    assert evaluation.calibration.coverage.points()[-1].coverage == pytest.approx(1 / 2)


def test_frames_are_pooled_and_counted_by_task() -> None:
    evaluation = Evaluation(NAMES)
    evaluation.add(prediction(), truth())
    evaluation.add(prediction(), {'depth': truth()['depth']})
    evaluation.add(prediction(), {})
    assert evaluation.frames == {'semantic': 1, 'depth': 2, 'normals': 1, 'edges': 1}
    assert evaluation.compute()['depth']['absrel'] == pytest.approx(0.5 / 3)
    assert evaluation.semantic is not None
    assert evaluation.semantic.confusion.tolist() == [[1, 1, 0], [1, 1, 0]]


def test_without_confidences_there_is_no_calibration() -> None:
    evaluation = Evaluation(NAMES)
    found = {k: v for k, v in prediction().items() if 'confidence' not in k}
    evaluation.add(found, truth())
    assert np.isnan(evaluation.calibration.semantic.compute()['ece'])
    assert evaluation.calibration.coverage.points() == []
