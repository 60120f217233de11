"""Figures as sections of a report: what was measured, in tables and plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .evaluation import HEADLINES, Evaluation
from .metrics import MeanIoU, ratio
from .page import Plot, Section, Series, Table
from .reliability import ConfidenceBin

MOST_POINTS = 600  # of a line over time; more are meant together
_CLASSES = 40  # of a confusion matrix that can still be read
# What a figure is called on a page, with its unit.
_CALLED = {
    'miou': 'mIoU',
    'accuracy': 'pixel accuracy',
    'rmse': 'RMSE, m',
    'absrel': 'AbsRel',
    'delta1': 'within a factor of 1.25',
    'mean': 'mean angle, degrees',
    'median': 'median angle, degrees',
    'within_11': 'within 11.25 degrees',
    'f': 'F',
    'maxf': 'max F',
}

# Name of a run -> what was measured of it. One run, or two that are compared.
Runs = Mapping[str, Evaluation]
# Name of a line -> (seconds since the start, value).
Lines = Mapping[str, Sequence[tuple[float, float]]]


def text(value: float) -> str:
    """A number for people: three digits, a dash for NaN."""
    return f'{value:.3g}' if math.isfinite(value) else '–'


def sentences(evaluation: Evaluation) -> list[str]:
    """The figures of all tasks for a terminal, one line each."""
    lines = []
    for task, figures in evaluation.compute().items():
        shown = [f'{k} {text(v)}' for k, v in figures.items() if not k.startswith('iou_')]
        lines.append(f'  {task:<9} {", ".join(shown)}  ({evaluation.frames[task]} frames)')
    return lines


def accuracy(runs: Runs) -> Section:
    """All figures of all tasks, with IoU by class and what is taken for what."""
    columns = ('figure', *runs, *(['difference'] if len(runs) == 2 else []))
    computed = {name: run.compute() for name, run in runs.items()}
    tables, plots = [], []
    for task in HEADLINES:
        keys = dict.fromkeys(key for c in computed.values() for key in c.get(task, {}))
        whole = [key for key in keys if not key.startswith('iou_')]
        classes = [key for key in keys if key.startswith('iou_')]
        frames = max((run.frames.get(task, 0) for run in runs.values()), default=0)
        values = [c.get(task, {}) for c in computed.values()]
        for title, part in (
            (f'{task}, {frames} frames', whole),
            ('IoU by class', classes),
        ):
            if part:
                rows = [
                    _row(_CALLED.get(key, key.removeprefix('iou_')), [v.get(key) for v in values])
                    for key in part
                ]
                tables.append(Table(title, columns, rows))
    for name, run in runs.items():
        if run.semantic is not None:
            plots.append(_confusion(run.semantic, name if len(runs) > 1 else ''))
    return Section('Accuracy', _missing(runs), tables, plots)


def _row(name: str, values: Sequence[float | None]) -> list[str]:
    numbers = [math.nan if value is None else value for value in values]
    change = [f'{numbers[1] - numbers[0]:+.3g}'] if len(numbers) == 2 else []
    return [name, *map(text, numbers), *(c if 'nan' not in c else '–' for c in change)]


def _missing(runs: Runs) -> str:
    has = {task for run in runs.values() for task in run.metrics}
    return '' if has else 'There is no ground truth, so accuracy is unknown.'


def _confusion(metric: MeanIoU, name: str) -> Plot:
    """Shares of each true class, of the classes that occur."""
    counts = metric.confusion
    used = np.flatnonzero(counts.sum(axis=1) + counts.sum(axis=0)[:-1])
    if len(used) > _CLASSES:
        used = np.sort(used[np.argsort(counts.sum(axis=1)[used])[-_CLASSES:]])
    names = [metric.classes[index] for index in used]
    rows = [
        Series(names[row], names, [ratio(counts[i, j], counts[i].sum()) for j in used])
        for row, i in enumerate(used)
    ]
    title = 'Confusion of classes' + (f', {name}' if name else '')
    note = 'Rows are true classes; a row says what their pixels are taken for.'
    return Plot(title, 'heat', 'predicted', 'true', rows, note)


def by_distance(runs: Runs) -> Section | None:
    """Errors of depth by true distance; None without true depth."""
    depth = {name: run.depth for name, run in runs.items() if run.depth is not None}
    if not depth:
        return None
    columns = ('distance', 'share of pixels', 'coverage', 'AbsRel', 'RMSE, m', 'delta1')
    tables, bars = [], []
    for name, metric in depth.items():
        bins = metric.occupied()
        known = sum(errors.known for _, _, errors in bins)
        rows, labels, values = [], [], []
        for low, high, errors in bins:
            label = f'{low:g}–{high:g} m' if math.isfinite(high) else f'over {low:g} m'
            figures = errors.compute()
            cells = [figures[key] for key in ('coverage', 'absrel', 'rmse', 'delta1')]
            rows.append([label, f'{errors.known / known:.1%}', *map(text, cells)])
            labels.append(label)
            values.append(figures['absrel'])
        tables.append(Table(_titled('Depth by true distance', name, runs), columns, rows))
        bars.append(Series(_named(name, runs, 'AbsRel'), labels, values))
    plot = Plot('AbsRel by distance', 'bars', 'true distance', 'AbsRel', bars)
    return Section('Depth by distance', '', tables, [plot])


def calibration(runs: Runs) -> Section | None:
    """Whether confidences are what they say; None where nothing has confidences and truth."""
    rows: list[list[str]] = []
    lines: dict[str, list[Series]] = {'semantic': [], 'depth': []}
    curves: list[Series] = []
    thresholds: list[Table] = []
    for name, run in runs.items():
        measured = run.calibration
        for task, found in (('semantic', measured.semantic), ('depth', measured.depth)):
            figures = found.compute()
            if not math.isnan(figures['ece']):
                cells = [figures[key] for key in ('ece', 'confidence', 'accuracy')]
                rows.append([_titled(task, name, runs), *map(text, cells)])
                lines[task].append(_reliability(found.bins(), _named(name, runs, 'measured')))
        points = measured.coverage.points()
        if points:
            some = points[:: max(1, len(points) // 60)]
            curves.append(
                Series(
                    _named(name, runs, 'AbsRel'),
                    [p.coverage for p in some],
                    [p.absrel for p in some],
                )
            )
            thresholds.append(
                Table(
                    _titled('Depth that is left by min_depth_confidence', name, runs),
                    ('from', 'coverage', 'AbsRel', 'RMSE, m', 'delta1'),
                    [
                        [str(p.threshold), *map(text, (p.coverage, p.absrel, p.rmse, p.delta1))]
                        for p in points[:: max(1, len(points) // 8)]
                    ],
                )
            )
    if not rows:
        return None
    columns = ('confidence of', 'ECE', 'mean confidence', 'share that is right')
    plots = [
        Plot(
            f'Reliability of {task} confidence', 'lines', 'confidence', right, series, diagonal=True
        )
        for task, right, series in (
            ('semantic', 'share of right classes', lines['semantic']),
            ('depth', 'share within a factor of 1.25', lines['depth']),
        )
        if series
    ]
    if curves:
        note = 'The surest pixels first: a useful confidence gives a line that rises with coverage.'
        plots.append(Plot('Depth error by coverage', 'lines', 'coverage', 'AbsRel', curves, note))
    return Section(
        'Calibration of confidences',
        'ECE is the mean distance of confidence and truth over 15 bins of confidence. '
        'Below the diagonal a network is surer than it should be.',
        [Table('Expected calibration error', columns, rows), *thresholds],
        plots,
    )


def _reliability(bins: Sequence[ConfidenceBin], name: str) -> Series:
    return Series(name, [b.confidence for b in bins], [b.accuracy for b in bins])


def over_time(title: str, label: str, lines: Lines, note: str = '') -> Plot | None:
    """Lines over time, thinned to what a screen can show; None where no line has two points."""
    series = []
    for name, points in lines.items():
        if sum(math.isfinite(value) for _, value in points) > 1:
            seconds, values = thinned(points)
            series.append(Series(name, seconds, values))
    if not series:
        return None
    return Plot(title, 'lines', 'seconds', label, series, note, over_time=True)


def thinned(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """At most ``MOST_POINTS`` points: means of as many neighbours each, without NaN."""
    size = -(-len(points) // MOST_POINTS)
    seconds, values = [], []
    for start in range(0, len(points), size):
        group = points[start : start + size]
        known = [value for _, value in group if math.isfinite(value)]
        seconds.append(sum(time for time, _ in group) / len(group))
        values.append(ratio(sum(known), len(known)))
    return seconds, values


def _titled(title: str, name: str, runs: Runs) -> str:
    return f'{title}, {name}' if len(runs) > 1 else title


def _named(name: str, runs: Runs, otherwise: str) -> str:
    return name if len(runs) > 1 else otherwise
