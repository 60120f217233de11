"""The report of one run: what came out, how fast, how good, how steady, frame by frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from .evaluation import HEADLINES, Evaluation, badness, headline
from .figures import accuracy, by_distance, calibration, over_time, text
from .filmstrip import Filmstrip
from .flicker import Flicker
from .ground_truth import nearest
from .layers import COMPARED, TASKS, difference, legends, painted
from .page import Film, Page, Plot, Section, Table

_FLICKER = {
    'semantic': 'share of followed points whose class changes',
    'depth': 'mean |log of the ratio| of static points',
    'normals': 'mean angle of static points, degrees',
}


class RunReport:
    """Takes the frames of one camera in their order; gives the page at the end.

    Its memory does not grow with the number of frames, but for some numbers of each.

    Args:
        bundle: that made the outputs.

    Attributes:
        evaluation: figures against ground truth.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.evaluation = Evaluation([item.name for item in bundle.classes])
        self._film = Filmstrip()
        self._flicker = Flicker()
        self._first_ns: int | None = None
        self._last_s = 0.0
        self._frames = 0
        self._lines: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def add(
        self,
        stamp_ns: int,
        image: NDArray[np.uint8],
        arrays: Mapping[str, NDArray[Any]],
        truth: Mapping[str, NDArray[Any]],
        timings_ms: Mapping[str, float],
    ) -> None:
        """Take a frame.

        Args:
            stamp_ns: of its image.
            image: [H, W, 3] RGB on the grid of the outputs.
            arrays: outputs by name.
            truth: by task, what is known, see ``Evaluation.add``; may be empty.
            timings_ms: milliseconds by stage.

        Raises:
            PerceptionError: true class ids that are not of the bundle's classes.
        """
        self._first_ns = stamp_ns if self._first_ns is None else self._first_ns
        seconds = 1e-9 * (stamp_ns - self._first_ns)
        self._frames, self._last_s = self._frames + 1, max(seconds, self._last_s)
        figures = self.evaluation.add(arrays, truth)
        measured: dict[str, Mapping[str, float]] = {
            'accuracy': headline(figures),
            'flicker': self._flicker.add(image, arrays),
            'confidence': _confidence(arrays),
            'latency': timings_ms,
        }
        for kind, values in measured.items():
            for name, value in values.items():
                self._lines[kind][name].append((seconds, value))
        # Without truth the frames that the network itself is least sure of come first.
        worse = badness(figures) or {
            f'{task} confidence': -value for task, value in measured['confidence'].items()
        }
        self._film.add(
            seconds,
            _caption(measured),
            worse,
            lambda: _pictures(image, arrays, truth, self.bundle),
        )

    def page(self, title: str, facts: Mapping[str, str]) -> Page:
        """The page; ``facts`` are about the run as a whole."""
        runs = {'value': self.evaluation}
        sections: list[Section | None] = [
            self._summary(facts),
            accuracy(runs) if self.evaluation.metrics else None,
            self._time(),
            by_distance(runs),
            calibration(runs),
            self._steadiness(),
            self._latency(),
        ]
        moments = self._film.moments()
        film = None
        if moments:
            layers = list(dict.fromkeys(layer for m in moments for layer in m.pictures))
            note = (
                f'{len(moments)} of {self._frames} frames: evenly spread ones, and the worst ones '
                'of every figure. A click on a plot over time goes to the nearest of them.'
            )
            film = Film(layers, moments, legends(self.bundle), note)
        subtitle = f'{self._frames} frames, {self._last_s:.1f} s, {self.bundle.name} '
        subtitle += self.bundle.version
        return Page(title, subtitle, [s for s in sections if s is not None], film)

    def _summary(self, facts: Mapping[str, str]) -> Section:
        figures = self.evaluation.compute()
        rows = [[name, value] for name, value in facts.items()]
        rows += [
            [f'{task} {label}', text(figures[task][key])]
            for task, (key, _, label) in HEADLINES.items()
            if task in figures
        ]
        note = '' if figures else 'There is no ground truth, so accuracy is unknown.'
        return Section('Summary', note, [Table('The run', ('what', 'value'), rows)])

    def _time(self) -> Section | None:
        lines = self._lines['accuracy']
        plots = [
            over_time(f'{task} over time', label, {label: lines[task]})
            for task, (_, _, label) in HEADLINES.items()
            if task in lines
        ]
        sure = over_time('Mean confidence over time', 'confidence', self._lines['confidence'])
        return _section('Over time', [*plots, sure])

    def _steadiness(self) -> Section | None:
        whole = self._flicker.compute()
        plots = [
            over_time(f'Flicker of {task}', label, {task: self._lines['flicker'][task]})
            for task, label in _FLICKER.items()
            if task in whole
        ]
        rows = [[task, text(whole[task]), _FLICKER[task]] for task in _FLICKER if task in whole]
        if not rows:
            return None
        return Section(
            'Flicker',
            'Points are followed from frame to frame by optical flow. Depth and normals are '
            'compared where nothing moves in the image, and not while the camera moves.',
            [Table('Over all frames', ('of', 'mean', 'what it is'), rows)],
            [plot for plot in plots if plot is not None],
        )

    def _latency(self) -> Section | None:
        lines = self._lines['latency']
        rows = []
        for stage, points in lines.items():
            values = np.array([value for _, value in points])
            numbers = [values.mean(), *np.percentile(values, (50, 95, 99)), values.max()]
            rows.append([stage, *map(text, map(float, numbers))])
        if not rows:
            return None
        columns = ('stage', 'mean', 'median', '95 %', '99 %', 'most')
        plot = over_time('Latency over time', 'milliseconds', lines)
        rate = ratio_text(self._frames - 1, self._last_s)
        return Section(
            'Rates and latency',
            f'Images come at {rate} per second of the recording. Milliseconds are of a whole '
            'batch; stages overlap.',
            [Table('Milliseconds', columns, rows)],
            [plot] if plot else [],
        )


def ratio_text(part: float, whole: float) -> str:
    """A quotient for people."""
    return text(part / whole) if whole else '–'


def _section(title: str, plots: Sequence[Plot | None]) -> Section | None:
    drawn = [plot for plot in plots if plot is not None]
    return Section(title, plots=drawn) if drawn else None


def _confidence(arrays: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    return {
        task: float(arrays[f'{task}_confidence'].mean()) / 255
        for task in ('semantic', 'depth')
        if f'{task}_confidence' in arrays
    }


def _caption(measured: Mapping[str, Mapping[str, float]]) -> str:
    parts = [
        f'{task} {HEADLINES[task][2]} {text(value)}' for task, value in measured['accuracy'].items()
    ]
    parts += [f'{task} confidence {text(v)}' for task, v in measured['confidence'].items()]
    return ', '.join(parts)


def _pictures(
    image: NDArray[np.uint8],
    arrays: Mapping[str, NDArray[Any]],
    truth: Mapping[str, NDArray[Any]],
    bundle: Bundle,
) -> dict[str, NDArray[np.uint8]]:
    """The layers of one frame, in the order in which they are shown."""
    layers = {'image': image}
    for task in TASKS:
        if task not in arrays:
            continue
        layers[task] = painted(task, arrays[task], bundle)
        if task in truth and task in COMPARED:
            known = nearest(truth[task], *arrays[task].shape[:2])
            layers[f'{task} truth'] = painted(task, known, bundle)
            layers[f'{task} error'] = difference(task, arrays[task], known)
    return layers
