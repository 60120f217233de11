"""What commands that judge a run have in common: options, figures in the terminal, the page."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..offline.figures import sentences
from ..offline.judging import Judge
from ..offline.page import write_page
from ..offline.report import RunReport
from ..offline.runs import flicker_sentence


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add ``--report``."""
    parser.add_argument('--report', type=Path, metavar='HTML', help='write a report as one page')


def print_figures(report: RunReport, truth: Iterable[str], problems: Iterable[str]) -> None:
    """Print what was measured of a run, how steady it was, and which truth was used, or not."""
    found = sentences(report.run.evaluation)
    print('\n'.join(found or ['There is no ground truth, so accuracy is unknown.']))
    if steady := flicker_sentence(report.run):
        print(steady)
    if used := ', '.join(truth):
        print(f'  {"truth":<9} {used}')
    for problem in problems:
        print(f'Note: {problem}.')


def tell(
    judge: Judge,
    page: Path | None,
    recording: Path,
    engine: Mapping[str, str],
    losses: Sequence[str],
    name: str = '',
) -> None:
    """Print the figures of every camera of a replay, and write the pages that are wanted.

    Args:
        page: of all cameras of all inputs, of which each has its own beside it; None: no page.
        recording: that was replayed.
        engine: its identity.
        losses: what is missing of the recording, which is said already.
        name: of the input among several.

    Raises:
        PageError, OSError: a page cannot be written.
    """
    facts = {
        'recording': recording,
        'engine': ' '.join(engine[key] for key in ('engine', 'version', 'precision')),
    }
    for camera, report in judge.reports.items():
        print(f'{camera}:' if camera else 'Accuracy:')
        truth = judge.truth[camera]
        print_figures(report, truth.used, truth.problems())
        if page:
            own = page.with_stem('_'.join(part for part in (page.stem, name, camera) if part))
            write_report(own, report, recording, facts, truth.used, [*truth.problems(), *losses])


def write_report(
    path: Path,
    report: RunReport,
    recording: Path,
    facts: Mapping[str, object],
    truth: Iterable[str],
    problems: Iterable[str],
) -> None:
    """Write the page of a run on a recording, and say where it is.

    Args:
        truth: topics that the run was judged by.
        problems: why others were not used, and what is missing.

    Raises:
        PageError, OSError: it cannot be written.
    """
    bundle = report.bundle
    title = f'{bundle.name} on {recording.name}'
    about = {'bundle': f'{bundle.name} {bundle.version}', **facts, **judged_by(truth)}
    page = report.page(title, {name: str(value) for name, value in about.items()}, problems)
    write_page(path, page)
    print(f'Report: {path}')


def judged_by(truth: Iterable[str]) -> dict[str, str]:
    """The fact of a page that names the topics of the ground truth; none without any."""
    used = ', '.join(truth)
    return {'ground truth': used} if used else {}
