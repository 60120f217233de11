"""Two runs on the same images, side by side: where they differ, how much, and which is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from .evaluation import HEADLINES, Evaluation, badness, headline
from .figures import accuracy, by_distance, calibration, over_time, sentences, text
from .filmstrip import Filmstrip
from .ground_truth import nearest
from .layers import COMPARED, TASKS, difference, painted, shown
from .page import Page, Section, Table
from .report import film_of, notes
from .runs import Run, RunFrame, flicker_section, latency_section, time_section


class Comparison:
    """Takes pairs of frames in their order; gives the page at the end.

    The second run is judged as if the first one were the truth: the share of equal labels, the
    relative difference of depth, the angle between normals, the F of edges. Where there is ground
    truth, both are also judged against that.

    Args:
        bundle: for classes and colours; both runs have its classes.
        names: of the first and the second run.
        expected: about how many frames there will be; 0 if nobody knows.

    Attributes:
        agreement: of the second run with the first.
        runs: by name.
        identical: frames whose outputs are equal bit by bit.
    """

    def __init__(self, bundle: Bundle, names: tuple[str, str], expected: int = 0) -> None:
        classes = [item.name for item in bundle.classes]
        self.bundle = bundle
        self.names = names
        self.runs = {name: Run(classes) for name in names}
        self.agreement = Evaluation(classes)
        self.identical = 0
        self._film = Filmstrip(expected)
        self._lines: dict[str, list[tuple[float, float]]] = {}

    def add(self, first: RunFrame, second: RunFrame) -> None:
        """Take what both runs gave for one image.

        Raises:
            PerceptionError: class ids that are not of the bundle's classes.
        """
        for run, frame in zip(self.runs.values(), (first, second), strict=True):
            run.add(frame)
        figures = self.agreement.add(_without_confidences(second.arrays), as_truth(first.arrays))
        self.identical += _equal(first.arrays, second.arrays)
        seconds = self.runs[self.names[0]].since_start(first.stamp_ns)
        for task, value in headline(figures).items():
            self._lines.setdefault(task, []).append((seconds, value))
        caption = ', '.join(
            f'{task} {HEADLINES[task][2]} {text(v)}' for task, v in headline(figures).items()
        )
        self._film.add(seconds, caption, badness(figures), lambda: self._pictures(first, second))

    def page(self, title: str, facts: Mapping[str, str], problems: Iterable[str] = ()) -> Page:
        """The page; ``facts`` and ``problems`` are about the comparison as a whole."""
        evaluations = {name: run.evaluation for name, run in self.runs.items()}
        judged = any(evaluation.metrics for evaluation in evaluations.values())
        frames = self.runs[self.names[0]].frames
        sections = [
            self._summary(facts, problems, frames),
            self._difference(),
            accuracy(evaluations) if judged else None,
            time_section(self.runs),
            by_distance(evaluations),
            calibration(evaluations),
            flicker_section(self.runs),
            latency_section(self.runs),
        ]
        return Page(
            title,
            f'{frames} frames that both have; {self.names[1]} is compared with {self.names[0]}',
            [section for section in sections if section is not None],
            film_of(self._film, frames, self.bundle),
        )

    def lines(self) -> list[str]:
        """The comparison in sentences, for a terminal."""
        frames = self.runs[self.names[0]].frames
        equal = f'{frames} frames, {self.identical} of them equal bit by bit.'
        return [equal, *sentences(self.agreement)]

    def _summary(self, facts: Mapping[str, str], problems: Iterable[str], frames: int) -> Section:
        rows = [[name, value] for name, value in facts.items()]
        rows.append(['frames equal bit by bit', f'{self.identical} of {frames}'])
        table = Table('The comparison', ('what', 'value'), rows)
        return Section('Summary', ' '.join(notes(problems)), [table])

    def _difference(self) -> Section:
        first, second = self.names
        figures = accuracy({'value': self.agreement})
        distance = by_distance({'value': self.agreement})
        bins = [
            replace(table, title=f'Depth by the distance in {first}')
            for table in (distance.tables if distance else ())
        ]
        note = f'Rows are the classes of {first}; a row says what {second} takes their pixels for.'
        confusion = [replace(p, x_label=second, y_label=first, note=note) for p in figures.plots]
        plots = [
            over_time(f'Agreement of {task}', HEADLINES[task][2], {HEADLINES[task][2]: line})
            for task, line in self._lines.items()
        ]
        return Section(
            'Agreement',
            f'How near {second} is to {first}, which stands for the truth here: a figure that is '
            'perfect says that they are equal, not that they are right.',
            [*figures.tables, *bins],
            [*(plot for plot in plots if plot is not None), *confusion],
        )

    def _pictures(self, first: RunFrame, second: RunFrame) -> dict[str, NDArray[np.uint8]]:
        """The image and, task by task, both runs, their difference, and the truth."""
        layers = {} if first.image is None else {'image': first.image}
        for task in TASKS:
            if task not in first.arrays or task not in second.arrays:
                continue
            found = shown(first.arrays[task])
            other = nearest(second.arrays[task], *found.shape[:2])
            for name, array in zip(self.names, (found, other), strict=True):
                layers[f'{task} {name}'] = painted(task, array, self.bundle)
            if task in COMPARED:
                layers[f'{task} difference'] = difference(task, other, found)
            if task in first.truth and task in COMPARED:
                layers[f'{task} truth'] = painted(task, shown(first.truth[task]), self.bundle)
        return layers


def as_truth(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Outputs in the form of ground truth: what is probable is so."""
    return {
        task: (array > 127).astype(np.uint8) if task in ('edges', 'saliency') else array
        for task, array in arrays.items()
        if task in HEADLINES
    }


def _without_confidences(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """A confidence says how near the truth is, and another run is not the truth."""
    return {name: array for name, array in arrays.items() if not name.endswith('_confidence')}


def _equal(first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]]) -> bool:
    names = first.keys() & second.keys()
    return bool(names) and all(
        np.array_equal(first[name], second[name], equal_nan=first[name].dtype.kind == 'f')
        for name in names
    )
