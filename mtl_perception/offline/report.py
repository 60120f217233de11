"""The report of one run: what came out, how fast, how good, how steady, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from .evaluation import HEADLINES, badness, headline
from .figures import accuracy, by_distance, calibration, text
from .filmstrip import Filmstrip
from .ground_truth import nearest
from .layers import COMPARED, TASKS, difference, legends, painted, shown
from .page import Film, Page, Section, Table
from .runs import Run, RunFrame, flicker_section, latency_section, time_section


class RunReport:
    """Takes the frames of one camera in their order; gives the page at the end.

    Args:
        bundle: that made the outputs.
        expected: about how many frames there will be; 0 if nobody knows.

    Attributes:
        run: its figures.
    """

    def __init__(self, bundle: Bundle, expected: int = 0) -> None:
        self.bundle = bundle
        self.run = Run([item.name for item in bundle.classes])
        self._film = Filmstrip(expected)

    def add(self, frame: RunFrame) -> None:
        """Take a frame.

        Raises:
            PerceptionError: true class ids that are not of the bundle's classes.
        """
        figures, sure = self.run.add(frame)
        # Without truth the frames that the network itself is least sure of come first.
        worse = badness(figures) or {f'{task} confidence': -value for task, value in sure.items()}
        seconds = self.run.since_start(frame.stamp_ns)
        parts = [f'{task} {HEADLINES[task][2]} {text(v)}' for task, v in headline(figures).items()]
        parts += [f'{task} confidence {text(value)}' for task, value in sure.items()]
        self._film.add(seconds, ', '.join(parts), worse, lambda: _pictures(frame, self.bundle))

    def page(self, title: str, facts: Mapping[str, str], problems: Iterable[str] = ()) -> Page:
        """The page; ``facts`` and ``problems`` are about the run as a whole."""
        evaluations, runs = {'value': self.run.evaluation}, {'value': self.run}
        sections = [
            self._summary(facts, problems),
            accuracy(evaluations) if self.run.evaluation.metrics else None,
            time_section(runs),
            by_distance(evaluations),
            calibration(evaluations),
            flicker_section(runs),
            latency_section(runs),
        ]
        subtitle = f'{self.run.frames} frames, {self.run.seconds:.1f} s, {self.bundle.name} '
        subtitle += self.bundle.version
        film = film_of(self._film, self.run.frames, self.bundle)
        return Page(title, subtitle, [s for s in sections if s is not None], film)

    def _summary(self, facts: Mapping[str, str], problems: Iterable[str]) -> Section:
        figures = self.run.evaluation.compute()
        rows = [[name, value] for name, value in facts.items()]
        rows += [
            [f'{task} {label}', text(figures[task][key])]
            for task, (key, _, label) in HEADLINES.items()
            if task in figures
        ]
        unknown = [] if figures else ['There is no ground truth, so accuracy is unknown.']
        note = ' '.join([*unknown, *notes(problems)])
        return Section('Summary', note, [Table('The run', ('what', 'value'), rows)])


def notes(problems: Iterable[str]) -> list[str]:
    """What there is to say of a run beside its figures, as sentences."""
    return [f'Note: {problem}.' for problem in problems]


def film_of(strip: Filmstrip, frames: int, bundle: Bundle) -> Film | None:
    """The filmstrip of a page; None without frames."""
    moments = strip.moments()
    if not moments:
        return None
    layers = list(dict.fromkeys(layer for moment in moments for layer in moment.pictures))
    note = (
        f'{len(moments)} of {frames} frames: evenly spread ones, and the worst ones of every '
        'figure. A click on a plot over time goes to the nearest of them.'
    )
    return Film(layers, moments, legends(bundle, layers), note)


def _pictures(frame: RunFrame, bundle: Bundle) -> dict[str, NDArray[np.uint8]]:
    """The layers of one frame, in the order in which they are shown."""
    layers = {} if frame.image is None else {'image': frame.image}
    for task in TASKS:
        if task not in frame.arrays:
            continue
        found = shown(frame.arrays[task])
        layers[task] = painted(task, found, bundle)
        if task in frame.truth and task in COMPARED:
            known = nearest(frame.truth[task], *found.shape[:2])
            layers[f'{task} truth'] = painted(task, known, bundle)
            layers[f'{task} error'] = difference(task, found, known)
    return layers
