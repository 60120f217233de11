"""Figures become tables and plots that say what was measured."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mtl_perception.offline.evaluation import Evaluation
from mtl_perception.offline.figures import (
    MOST_POINTS,
    accuracy,
    by_distance,
    calibration,
    over_time,
    sentences,
    thinned,
)
from mtl_perception.offline.page import Plot

NAMES = ('wall', 'floor', 'door')


def evaluation(predicted: list[int], true: list[int], depth: float = 2.2) -> Evaluation:
    made = Evaluation(NAMES)
    shape = (1, len(predicted))
    found = {
        'semantic': np.array([predicted], np.uint8),
        'semantic_confidence': np.full(shape, 255, np.uint8),
        'depth': np.full(shape, depth, np.float32),
        'depth_confidence': np.full(shape, 51, np.uint8),
    }
    known = {'semantic': np.array([true], np.uint8), 'depth': np.full(shape, 2, np.float32)}
    made.add(found, known)
    return made


def test_confusion_is_read_by_rows_of_true_classes() -> None:
    section = accuracy({'run': evaluation([0, 1, 1, 1], [0, 0, 0, 1])})
    (confusion,) = section.plots
    assert [series.name for series in confusion.series] == ['wall', 'floor']
    assert confusion.series[0].x == ['wall', 'floor']
    assert confusion.series[0].y == pytest.approx([1 / 3, 2 / 3])
    assert confusion.series[1].y == [0, 1]


def test_two_runs_stand_side_by_side_with_their_difference() -> None:
    section = accuracy({'a': evaluation([0, 1], [0, 0]), 'b': evaluation([0, 0], [0, 0])})
    rows = {row[0]: row[1:] for table in section.tables for row in table.rows}
    assert rows['pixel accuracy'] == ['0.5', '1', '+0.5']
    assert rows['RMSE, m'] == ['0.2', '0.2', '+0']
    assert rows['wall'] == ['0.5', '1', '+0.5']
    assert [plot.title for plot in section.plots] == [
        'Confusion of classes, a',
        'Confusion of classes, b',
    ]


def test_depth_is_told_by_distance_and_calibration_by_confidence() -> None:
    runs = {'run': evaluation([0, 1], [0, 0])}
    section = by_distance(runs)
    assert section is not None
    assert section.tables[0].rows == [['2–3 m', '100.0%', '1', '0.1', '0.2', '1']]
    section = calibration(runs)
    assert section is not None
    rows = {row[0]: row[1:] for row in section.tables[0].rows}
    # Always sure and half of the time right; sure by a fifth and always near.
    assert rows['semantic'] == ['0.5', '1', '0.5']
    assert rows['depth'] == ['0.8', '0.2', '1']
    assert section.tables[1].rows == [['51', '1', '0.1', '0.2', '1']]
    nothing = {'run': Evaluation(NAMES)}
    assert by_distance(nothing) is None
    assert calibration(nothing) is None


def test_long_lines_are_meant_and_gaps_stay_gaps() -> None:
    points = [(float(index), float(index % 2)) for index in range(3 * MOST_POINTS)]
    points[:3] = [(0.0, math.nan), (1.0, math.nan), (2.0, math.nan)]
    points[3:6] = [(3.0, math.nan), (4.0, 0.5), (5.0, 0.25)]
    seconds, values = thinned(points)
    assert len(seconds) == len(values) == MOST_POINTS
    assert seconds[:2] == [1, 4]
    assert math.isnan(values[0])
    assert values[1] == pytest.approx(0.375)
    assert thinned(points[10:12]) == ([10, 11], [0, 1])


def test_a_line_of_less_than_two_numbers_is_not_drawn() -> None:
    lone = [(0.0, math.nan), (1.0, 1.0)]
    assert over_time('t', 'y', {'a': lone, 'b': []}) is None
    plot = over_time('t', 'y', {'a': lone, 'b': [(0.0, 1.0), (1.0, 1.0)]})
    assert isinstance(plot, Plot)
    assert [series.name for series in plot.series] == ['b']


def test_sentences_name_task_figures_and_frames() -> None:
    lines = sentences(evaluation([0, 1], [0, 0]))
    assert lines[0] == '  semantic  miou 0.5, accuracy 0.5  (1 frames)'
    assert 'absrel 0.1' in lines[1]
