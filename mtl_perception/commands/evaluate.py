"""`mtl_perception evaluate`: judge one run against ground truth, in figures and in a report."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from .. import PerceptionError
from ..offline.report import RunReport
from .judging import print_figures, write_report
from .progress import counted
from .runs import add_run_arguments, open_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        'run',
        metavar='RUN',
        nargs='?',
        default='auto:fp32',
        help='a bag of outputs, a bundle folder, BACKEND:PRECISION, or BUNDLE@BACKEND:PRECISION '
        '(default: the shipped bundle in the best engine)',
    )
    add_run_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Judge, print the figures, write the report.

    Raises:
        PerceptionError: something cannot be read or run, or there is nothing to judge.
    """
    with ExitStack() as stack:
        runs = open_runs([options.run], options, stack)
        report = RunReport(runs.bundle, runs.total)
        for (frame,) in counted(runs.frames, runs.total, 'frames'):
            report.add(frame)
    if not report.run.frames:
        raise PerceptionError(f'{options.run} has no frames of the images of {options.input}')
    print(f'{report.run.frames} frames of {options.run}.')
    problems = runs.problems()
    print_figures(report, runs.truth, problems)
    if options.report:
        facts = {'run': options.run}
        if options.input:
            facts['recording'] = options.input
        recording = Path(options.input or options.run)
        write_report(options.report, report, recording, facts, runs.truth, problems)
    return 0
