"""`mtl_perception compare`: where two runs on the same images differ, in figures and a report."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from .. import PerceptionError
from ..offline.comparison import Comparison
from ..offline.page import write_page
from .judging import judged_by
from .progress import counted
from .runs import add_run_arguments, open_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    text = (
        'a bag of outputs, a bundle folder, BACKEND:PRECISION such as onnxruntime:int8, or '
        'BUNDLE@BACKEND:PRECISION'
    )
    parser.add_argument('first', metavar='A', help=text)
    parser.add_argument('second', metavar='B', help='the same; it is compared with A')
    add_run_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Compare, print the figures, write the report.

    Raises:
        PerceptionError: something cannot be read or run, or has no frame in common.
    """
    with ExitStack() as stack:
        runs = open_runs([options.first, options.second], options, stack)
        names = _names(options.first, options.second)
        comparison = Comparison(runs.bundle, names, runs.total)
        for first, second in counted(runs.frames, runs.total, 'frames'):
            comparison.add(first, second)
    if not comparison.agreement.frames:
        raise PerceptionError(
            f'{options.first} and {options.second} have no outputs of equal stamps to compare'
        )
    print('\n'.join([f'{options.second} compared with {options.first}:', *comparison.lines()]))
    for problem in runs.problems():
        print(f'Note: {problem}.')
    if options.report:
        facts = {'A': options.first, 'B': options.second, 'classes of': runs.bundle.name}
        if options.input:
            facts['input'] = str(options.input)
        facts |= judged_by(runs.truth)
        title = f'{comparison.names[0]} and {comparison.names[1]}'
        write_page(options.report, comparison.page(title, facts, runs.problems()))
        print(f'Report: {options.report}')
    return 0


def _names(first: str, second: str) -> tuple[str, str]:
    """Short names of two runs; A and B where they would be the same."""
    short = [name if ':' in name else Path(name).name for name in (first, second)]
    return (short[0], short[1]) if short[0] != short[1] else ('A', 'B')
