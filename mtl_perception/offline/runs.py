"""One run, frame by frame: its figures over time, and what a report says of them.

A report has one run, or two on the same images that are compared; what is drawn of the one is drawn
of both side by side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .evaluation import HEADLINES, Evaluation, headline
from .figures import over_time, text
from .flicker import Flicker
from .page import Section, Table

_FLICKER = {
    'semantic': 'share of points of another class',
    'depth': 'mean |log ratio| of static points',
    'normals': 'mean angle of static points (degrees)',
}


@dataclass(frozen=True)
class RunFrame:
    """What a run gave for one image.

    Attributes:
        stamp_ns: of the image.
        image: [H, W, 3] RGB on the grid of the outputs; None where it is not known.
        arrays: outputs by name, as the node gives them.
        truth: by task, see ``Evaluation.add``; empty where nothing is known.
        timings_ms: milliseconds by stage; empty where they are not known.
    """

    stamp_ns: int
    image: NDArray[np.uint8] | None
    arrays: Mapping[str, NDArray[Any]] = field(repr=False)
    truth: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    timings_ms: Mapping[str, float] = field(default_factory=dict)


class Run:
    """Figures of a run, over all frames and frame by frame.

    Its memory does not grow with the number of frames, but for some numbers of each.

    Args:
        classes: names of the classes by id.

    Attributes:
        evaluation: against ground truth.
        flicker: between frames.
        frames, seconds: how many there were, and from the first to the last.
        lines: kind (``accuracy``, ``flicker``, ``confidence``, ``latency``) -> name -> (seconds
            since the first frame, value).
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.evaluation = Evaluation(classes)
        self.flicker = Flicker()
        self.frames = 0
        self.seconds = 0.0
        self.lines: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self._first_ns: int | None = None

    def since_start(self, stamp_ns: int) -> float:
        """Seconds from the first frame to a stamp."""
        return 0.0 if self._first_ns is None else 1e-9 * (stamp_ns - self._first_ns)

    def add(self, frame: RunFrame) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Take the next frame.

        Returns:
            Its figures against the truth, and its mean confidence, by task.

        Raises:
            PerceptionError: true class ids that are not of the classes.
        """
        self._first_ns = frame.stamp_ns if self._first_ns is None else self._first_ns
        seconds = self.since_start(frame.stamp_ns)
        self.frames, self.seconds = self.frames + 1, max(seconds, self.seconds)
        figures = self.evaluation.add(frame.arrays, frame.truth)
        steady = {} if frame.image is None else self.flicker.add(frame.image, frame.arrays)
        sure = confidences(frame.arrays)
        measured: dict[str, Mapping[str, float]] = {
            'accuracy': headline(figures),
            'flicker': steady,
            'confidence': sure,
            'latency': frame.timings_ms,
        }
        for kind, values in measured.items():
            for name, value in values.items():
                self.lines[kind][name].append((seconds, value))
        return figures, sure


def confidences(arrays: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """The mean confidence of a frame, 0..1, by task."""
    return {
        task: cv2.mean(arrays[f'{task}_confidence'])[0] / 255
        for task in ('semantic', 'depth')
        if f'{task}_confidence' in arrays
    }


# Name of a run -> the run.
Runs = Mapping[str, Run]


def time_section(runs: Runs) -> Section | None:
    """Accuracy and confidence over time."""
    plots = [
        over_time(f'{task} over time', label, _lines(runs, 'accuracy', task, label))
        for task, (_, _, label) in HEADLINES.items()
    ]
    plots += [
        over_time(
            f'Mean confidence of {task} over time',
            'confidence',
            _lines(runs, 'confidence', task, 'confidence'),
        )
        for task in ('semantic', 'depth')
    ]
    drawn = [plot for plot in plots if plot is not None]
    return Section('Over time', plots=drawn) if drawn else None


def flicker_sentence(run: Run) -> str:
    """How steady the outputs were, as a line for a terminal; empty where nothing was followed."""
    figures = run.flicker.compute()
    shown = [
        f'{task} {text(figures[task])} {unit}'
        for task, unit in _FLICKER.items()
        if not np.isnan(figures.get(task, np.nan))
    ]
    return f'  {"flicker":<9} {", ".join(shown)}' if shown else ''


def flicker_section(runs: Runs) -> Section | None:
    """How steady the outputs were."""
    found = {name: run.flicker.compute() for name, run in runs.items()}
    tasks = [task for task in _FLICKER if any(task in figures for figures in found.values())]
    if not tasks:
        return None
    rows = [
        [task, *(text(figures.get(task, np.nan)) for figures in found.values()), _FLICKER[task]]
        for task in tasks
    ]
    plots = [
        over_time(f'Flicker of {task}', _FLICKER[task], _lines(runs, 'flicker', task, task))
        for task in tasks
    ]
    return Section(
        'Flicker',
        'Points are followed from frame to frame by optical flow. Depth and normals are compared '
        'where nothing moves in the image, and not while the camera moves.',
        [Table('Over all frames', ('of', *_headings(runs, 'mean'), 'what it is'), rows)],
        [plot for plot in plots if plot is not None],
    )


def latency_section(runs: Runs) -> Section | None:
    """How long every stage took."""
    rows, plots = [], []
    for name, run in runs.items():
        for stage, points in run.lines['latency'].items():
            values = np.array([value for _, value in points])
            numbers = [values.mean(), *np.percentile(values, (50, 95, 99)), values.max()]
            label = stage if len(runs) == 1 else f'{name} {stage}'
            rows.append([label, *map(text, map(float, numbers))])
        title = 'Latency over time' if len(runs) == 1 else f'Latency of {name} over time'
        plots.append(over_time(title, 'milliseconds', run.lines['latency']))
    if not rows:
        return None
    run = next(iter(runs.values()))
    rate = text((run.frames - 1) / run.seconds) if run.seconds else '–'
    return Section(
        'Rates and latency',
        f'Images come at {rate} per second of the recording. Milliseconds are of a whole batch; '
        'stages overlap.',
        [Table('Milliseconds', ('stage', 'mean', 'median', '95 %', '99 %', 'most'), rows)],
        [plot for plot in plots if plot is not None],
    )


def _headings(runs: Runs, otherwise: str) -> list[str]:
    return list(runs) if len(runs) > 1 else [otherwise]


def _lines(
    runs: Runs, kind: str, name: str, otherwise: str
) -> dict[str, Sequence[tuple[float, float]]]:
    """A line of every run, called after it where there are several."""
    headings = _headings(runs, otherwise)
    return {
        heading: run.lines[kind][name]
        for heading, run in zip(headings, runs.values(), strict=True)
        if name in run.lines[kind]
    }
