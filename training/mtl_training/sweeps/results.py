"""The tables of a sweep: every trial, the best setting of each variant, the performance profile."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_perception.files import beside
from mtl_training.evaluation.charts import COLORS, scatter
from mtl_training.evaluation.compare import RunLog, read_curves
from mtl_training.protocols.delta import FIGURES, LOWER_IS_BETTER, delta
from mtl_training.sweeps.space import ALONE, Trial


@dataclass(frozen=True)
class Outcome:
    """What a trial came to, at the step of its best quality.

    Attributes:
        step, quality: NaN for trials that were not judged.
        figures: of the tasks that the literature compares, by task.
    """

    trial: Trial
    step: float
    quality: float
    figures: Mapping[str, float]

    @property
    def alone(self) -> bool:
        """Whether it learned a single task."""
        return self.trial.variant.startswith(f'{ALONE} ')

    @property
    def setting(self) -> tuple[tuple[str, Any], ...]:
        """Its setting, to group by."""
        return tuple(self.trial.setting.items())


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds; NaN where there are too few for them."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of those values that are numbers."""
        known = [value for value in values if not math.isnan(value)]
        return cls(
            statistics.fmean(known) if known else math.nan,
            statistics.stdev(known) if len(known) > 1 else math.nan,
        )

    def text(self, digits: str) -> str:
        """Such as ``44.1 ± 0.3``; nothing of nothing."""
        if math.isnan(self.mean):
            return ''
        mean = f'{self.mean:{digits}}'
        return mean if math.isnan(self.deviation) else f'{mean} ± {self.deviation:{digits[-3:]}}'


def read_outcome(trial: Trial, out: Path) -> Outcome:
    """What is in the folder of a trial."""
    tables = {'validation': read_curves(out / trial.name / 'validation.csv')}
    run = RunLog(trial.name, trial.variant, (), tables)
    best = run.best
    return Outcome(trial, best.get('step', math.nan), best.get('quality', math.nan), run.compared)


def best_alone(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """The figure of every task alone, mean over seeds, under the setting that is best for it.

    So the survey has it: single-task networks are given the same search as the others.
    """
    found: dict[str, float] = {}
    for (task, _), group in grouped(
        (task, outcome.setting, outcome)
        for outcome in outcomes
        if outcome.alone
        for task in outcome.figures
    ).items():
        value = statistics.fmean(outcome.figures[task] for outcome in group)
        better = min if task in LOWER_IS_BETTER else max
        found[task] = better(found.get(task, value), value)
    return found


def grouped(
    rows: Iterable[tuple[str, tuple[tuple[str, Any], ...], Outcome]],
) -> dict[tuple[str, str], list[Outcome]]:
    """Outcomes by a name and their setting."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for name, setting, outcome in rows:
        groups.setdefault((name, repr(setting)), []).append(outcome)
    return groups


def delta_of(outcome: Outcome, base: Mapping[str, float]) -> float:
    """Delta_MTL in percent against single tasks; NaN where a task is missing on either side."""
    if outcome.alone or not outcome.figures or not outcome.figures.keys() <= base.keys():
        return math.nan
    return delta(outcome.figures, {task: base[task] for task in outcome.figures})


def results_csv(outcomes: Sequence[Outcome], base: Mapping[str, float]) -> str:
    """A row for every trial."""
    keys = list(dict.fromkeys(key for outcome in outcomes for key in outcome.trial.setting))
    tasks = [task for task in FIGURES if any(task in outcome.figures for outcome in outcomes)]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['trial', 'variant', 'seed', *keys, 'step', 'quality', *tasks, 'delta'])
    for outcome in outcomes:
        trial = outcome.trial
        numbers = [outcome.step, outcome.quality, *(outcome.figures.get(t, '') for t in tasks)]
        setting = [trial.setting.get(key, '') for key in keys]
        change = round(delta_of(outcome, base), 4)
        writer.writerow([trial.name, trial.variant, trial.seed, *setting, *numbers, change])
    return file.getvalue()


def table(outcomes: Sequence[Outcome], base: Mapping[str, float]) -> str:
    """Markdown: each variant under its best setting, mean and deviation over seeds.

    The best setting has the highest mean delta, or, without single tasks, quality.
    """
    judged = [outcome for outcome in outcomes if outcome.figures and not outcome.alone]
    tasks = [task for task in FIGURES if any(task in outcome.figures for outcome in judged)]
    lines = [
        f'| variant | best setting | seeds | {" | ".join(tasks)} | delta, % | of all settings |',
        f'|{"---|" * (len(tasks) + 5)}',
    ]
    if base:
        cells = [f'{base[task]:.4g}' if task in base else '' for task in tasks]
        lines.append(f'| alone | each its own | | {" | ".join(cells)} | 0 | |')
    for variant in dict.fromkeys(outcome.trial.variant for outcome in judged):
        mine = [outcome for outcome in judged if outcome.trial.variant == variant]
        groups = list(grouped((variant, outcome.setting, outcome) for outcome in mine).values())

        def score(group: Sequence[Outcome]) -> float:
            return statistics.fmean(delta_of(o, base) if base else o.quality for o in group)

        best = max(groups, key=lambda group: score(group) if not math.isnan(score(group)) else -1e9)
        spreads = [
            Spread.of([outcome.figures[task] for outcome in best if task in outcome.figures])
            for task in tasks
        ]
        change = Spread.of([delta_of(outcome, base) for outcome in best])
        everywhere = Spread.of([delta_of(outcome, base) for outcome in mine])
        setting = ', '.join(f'{key} {value}' for key, value in best[0].setting) or 'the only one'
        lines.append(
            f'| {variant} | {setting} | {len(best)} | '
            f'{" | ".join(spread.text(".4f") for spread in spreads)} | '
            f'{change.text("+.2f")} | {everywhere.text("+.2f")} |'
        )
    return '\n'.join(lines) + '\n'


def profile(outcomes: Sequence[Outcome], tasks: tuple[str, str]) -> tuple[str, str]:
    """The survey's performance profile (Fig. 10) of two tasks: CSV, and SVG.

    A point for every trial, of the colour of its variant. Single tasks are joined by setting and
    seed. For mIoU across and RMSE up, "bottom-right is better".
    """
    points: dict[str, list[tuple[float, float]]] = {}
    alone: dict[tuple[str, int], dict[str, float]] = {}
    rows = []
    for outcome in outcomes:
        key = repr(outcome.setting), outcome.trial.seed
        figures = dict(outcome.figures)
        name = outcome.trial.variant
        if outcome.alone:
            figures = alone.setdefault(key, {})
            figures |= outcome.figures
            name = ALONE
        if all(task in figures for task in tasks):
            point = figures[tasks[0]], figures[tasks[1]]
            points.setdefault(name, []).append(point)
            rows.append([name, *outcome.trial.setting.values(), outcome.trial.seed, *point])
    keys = list(outcomes[0].trial.setting) if outcomes else []
    file = io.StringIO()
    writer = csv.writer(file, lineterminator='\n')
    writer.writerows([['variant', *keys, 'seed', *tasks], *rows])
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(points)}
    return file.getvalue(), scatter(*tasks, points, colors)


def write_results(trials: Sequence[Trial], out: Path) -> str:
    """Write ``results.csv``, ``table.md``, ``profile.csv`` and ``profile.svg``.

    Returns:
        The table.
    """
    outcomes = [read_outcome(trial, out) for trial in trials]
    base = best_alone(outcomes)
    text = table(outcomes, base)
    files = {'results.csv': results_csv(outcomes, base), 'table.md': text}
    both = [t for t in FIGURES if any(t in o.figures for o in outcomes if not o.alone)]
    if len(both) > 1:
        files['profile.csv'], files['profile.svg'] = profile(outcomes, (both[0], both[1]))
    for name, content in files.items():
        with beside(out / name) as partial:
            partial.write_text(content, encoding='utf-8')
    return text
