"""`mtl_training compare`: training runs side by side, on one page that needs nothing else."""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from mtl_perception.files import beside
from mtl_training import TrainingError
from mtl_training.checkpoints.checkpoint import read_checkpoint
from mtl_training.evaluation.charts import COLORS, Curve, chart, thinned
from mtl_training.protocols.delta import FIGURES, delta

STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif }
body { max-width: 1340px; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse } td, th { padding: .2rem .8rem; text-align: right }
td:first-child, th:first-child, td:nth-child(2), th:nth-child(2) { text-align: left }
tbody tr { border-top: 1px solid #8884 }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(380px, 1fr)); gap: 1rem }
svg { width: 100% } svg text { font-size: 11px; fill: currentColor; opacity: .8 }
svg .title { font-size: 13px; opacity: 1 } svg .x { text-anchor: middle }
svg .y { text-anchor: end } svg .grid { stroke: #8884 }
svg .curve { fill: none; stroke-width: 1.6 }
.swatch { display: inline-block; width: .8rem; height: .8rem; margin-right: .5rem }
"""
# Sections of the page: title, what is said of it, file, beginnings of columns.
SECTIONS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ('Losses', 'Unweighted, of the final predictions; total is weighted.', 'log', ()),
    (
        'Weights of the tasks',
        "What each task's loss was multiplied by, its own weight included.",
        'log',
        ('weight_',),
    ),
    (
        "Angles between the tasks' gradients",
        'Cosines; below 0 tasks are at odds. Measured where run.gradients_every is set.',
        'gradients',
        ('cosine_',),
    ),
    ("Sizes of the tasks' gradients", 'Weighted losses.', 'gradients', ('norm_',)),
)


class CompareError(TrainingError):
    """A folder that is not that of a training run, or nothing to compare."""


@dataclass(frozen=True)
class RunLog:
    """What a run said about itself.

    Attributes:
        name: of its folder.
        method: of balancing.
        tables: curves by column, by file: ``log``, ``validation``, ``gradients``.
    """

    name: str
    method: str
    tasks: tuple[str, ...]
    tables: Mapping[str, Mapping[str, Curve]]

    @property
    def best(self) -> dict[str, float]:
        """The figures at the step of the best quality, and that step; empty if never judged."""
        table = self.tables['validation']
        if 'quality' not in table:
            return {}
        step = max(table['quality'], key=lambda point: point[1])[0]
        figures = {
            column: dict(curve)[step] for column, curve in table.items() if step in dict(curve)
        }
        return {'step': step, **figures}

    @property
    def compared(self) -> dict[str, float]:
        """The figure of every task that the literature compares."""
        best = self.best
        columns = {
            task: next((f'{task}.{key}' for key in keys if f'{task}.{key}' in best), '')
            for task, keys in FIGURES.items()
        }
        return {task: best[column] for task, column in columns.items() if column}


def read_run(folder: Path, name: str) -> RunLog:
    """The tables in the folder of a run.

    Raises:
        CompareError: it has no log.
        CheckpointError: it has no checkpoint that can be read.
    """
    if not (folder / 'log.csv').exists():
        raise CompareError(f'{folder} has no log.csv, expected a folder that train wrote')
    _, meta = read_checkpoint(folder / 'last.safetensors')
    config = meta['config']
    options = ', '.join(f'{k} {v}' for k, v in config['balancing']['options'].items())
    method = config['balancing']['method'] + (f' ({options})' if options else '')
    files = ('log', 'validation', 'gradients')
    tables = {file: read_curves(folder / f'{file}.csv') for file in files}
    return RunLog(name, method, tuple(config['tasks']), tables)


def read_curves(path: Path) -> dict[str, Curve]:
    """Every column of a table over its steps; none if there is no such table."""
    if not path.exists():
        return {}
    with path.open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for column, text in row.items():
            value = float(text or 'nan')
            if column != 'step' and math.isfinite(value):
                curves.setdefault(column, []).append((float(row['step']), value))
    return dict(curves)


def read_runs(folders: Sequence[Path]) -> list[RunLog]:
    """Runs by the shortest ends of their paths that tell them apart.

    Raises:
        CompareError: a folder twice, or one that is not a run's.
    """
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise CompareError('a run is given twice')
    depth = next(
        depth for depth in range(1, 99) if len({p.parts[-depth:] for p in paths}) == len(paths)
    )
    return [read_run(path, '/'.join(path.parts[-depth:])) for path in paths]


def reference(singles: Iterable[RunLog], first: RunLog) -> tuple[str, dict[str, float]]:
    """What deltas are relative to: single-task runs, or the first of all.

    Raises:
        CompareError: a task is learned by several single-task runs.
    """
    figures: dict[str, float] = {}
    for single in singles:
        again = figures.keys() & single.compared.keys()
        if again:
            raise CompareError(f'{single.name} has {min(again)} once more')
        figures |= single.compared
    return ('single tasks', figures) if figures else (first.name, first.compared)


def delta_of(run: RunLog, base: Mapping[str, float]) -> float | None:
    """Delta_MTL in percent over the tasks that both have; None if there are none."""
    common = {task: value for task, value in run.compared.items() if base.get(task)}
    return delta(common, {task: base[task] for task in common}) if common else None


def page(runs: Sequence[RunLog], singles: Sequence[RunLog] = ()) -> str:
    """The whole page."""
    colors = {run.name: COLORS[i % len(COLORS)] for i, run in enumerate(runs)}
    name, base = reference(singles, runs[0])
    body = [
        '<h1>Training runs</h1>',
        f'<p>Figures at the step of the best quality; delta against {escape(name)}.</p>',
        overview(runs, base, colors),
        charts('Validation', 'Quality is the mean of one figure per task.', runs, colors,
               'validation', compared_columns(runs)),
    ]  # fmt: skip
    for title, text, file, beginnings in SECTIONS:
        known = dict.fromkeys(column for run in runs for column in run.tables[file])
        if beginnings:
            columns = [column for column in known if column.startswith(beginnings)]
        else:
            tasks = dict.fromkeys(task for run in runs for task in run.tasks)
            columns = [column for column in (*tasks, 'total') if column in known]
        body.append(charts(title, text, runs, colors, file, columns))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Training runs</title>'
        f'<style>{STYLE}</style><body>{"".join(body)}</body></html>\n'
    )


def compared_columns(runs: Sequence[RunLog]) -> list[str]:
    """Quality, and the figure of every task that is compared."""
    known = dict.fromkeys(column for run in runs for column in run.tables['validation'])
    wanted = ['quality', *(f'{task}.{key}' for task, keys in FIGURES.items() for key in keys)]
    return [column for column in wanted if column in known]


def overview(runs: Sequence[RunLog], base: Mapping[str, float], colors: Mapping[str, str]) -> str:
    """A row for every run."""
    columns = compared_columns(runs)
    head = ''.join(
        f'<th>{escape(x)}</th>' for x in ('run', 'balancing', 'delta, %', 'step', *columns)
    )
    rows = []
    for run in runs:
        change, best = delta_of(run, base), run.best
        cells = [
            f'<td><span class="swatch" style="background:{colors[run.name]}"></span>'
            f'{escape(run.name)}</td><td>{escape(run.method)}</td>',
            '<td></td>' if change is None else f'<td>{change:+.2f}</td>',
            *(f'<td>{best[c]:.5g}</td>' if c in best else '<td></td>' for c in ('step', *columns)),
        ]
        rows.append(f'<tr>{"".join(cells)}</tr>')
    return f'<table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def charts(
    title: str,
    text: str,
    runs: Sequence[RunLog],
    colors: Mapping[str, str],
    file: str,
    columns: Sequence[str],
) -> str:
    """A section: a chart for each column that some run has."""
    drawn = []
    for column in columns:
        tables = {run.name: run.tables[file] for run in runs}
        curves = {n: thinned(t[column]) for n, t in tables.items() if column in t}
        drawn.append(chart(column.replace('_', ' '), curves, colors))
    if not drawn:
        return ''
    return (
        f'<section><h2>{escape(title)}</h2><p>{escape(text)}</p>'
        f'<div class="charts">{"".join(drawn)}</div></section>'
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtl_training compare``."""
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN', help='folders of `train`')
    parser.add_argument(
        '--single',
        nargs='+',
        type=Path,
        default=[],
        metavar='RUN',
        help='single-task runs, together all tasks, that deltas are relative to '
        '(default: the first run)',
    )
    parser.add_argument('--out', type=Path, default=Path('compare.html'), help='the page')


def run(args: argparse.Namespace) -> int:
    """Write the page.

    Raises:
        TrainingError: a folder that is not that of a run.
    """
    runs, singles = read_runs(args.runs), read_runs(args.single) if args.single else []
    with beside(args.out) as partial:
        partial.write_text(page(runs, singles), encoding='utf-8')
    print(args.out)
    return 0
