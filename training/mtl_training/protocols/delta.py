"""`mtl_training delta`: what it brings to learn tasks together instead of each alone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mtl_training import TrainingError

# The figure that a task is compared by in the literature; of depth and normals, less is better.
# Edges are compared by odsF, and by the F of the robots where that is what both were judged by.
FIGURES: dict[str, tuple[str, ...]] = {
    'semantic': ('miou',),
    'human_parts': ('miou',),
    'depth': ('rmse',),
    'normals': ('mean',),
    'saliency': ('maxf', 'miou'),
    'edges': ('odsf', 'f'),
}
LOWER_IS_BETTER = ('depth', 'normals')


class DeltaError(TrainingError):
    """Reports that cannot be compared."""


def delta(multi: Mapping[str, float], single: Mapping[str, float]) -> float:
    """Delta_MTL of the survey (Eq. 10), Delta_m of TIF, in percent.

    100 / T sum_t (-1)^l_t (M_m,t - M_b,t) / M_b,t, where l_t = 1 if less is better, m is the
    multi-task network and b the single-task one of task t.

    Args:
        multi, single: figure by task, of the same tasks.

    Raises:
        DeltaError: other tasks, none, or a single-task figure of 0.

    Example:
        >>> single = {'semantic': 43.9, 'depth': 0.585}
        >>> round(delta({'semantic': 44.4, 'depth': 0.587}, single), 2)
        0.4
    """
    if set(multi) != set(single) or not multi:
        raise DeltaError(
            f'the multi-task network has {", ".join(multi) or "no task"}, '
            f'the single-task ones have {", ".join(single) or "none"}: expected the same tasks'
        )
    if not all(single.values()):
        raise DeltaError('a single-task figure is 0: there is nothing to be relative to')
    shares = {task: (multi[task] - base) / base for task, base in single.items()}
    signed = [-share if task in LOWER_IS_BETTER else share for task, share in shares.items()]
    return 100 * sum(signed) / len(signed)


def compared(
    multi: Mapping[str, Mapping[str, float]], single: Mapping[str, Mapping[str, float]]
) -> dict[str, tuple[str, float, float]]:
    """The figure of every task in both: its key, of the multi-task and the single-task network.

    Args:
        multi, single: reports, as ``evaluate`` makes them: task -> figure -> value.

    Raises:
        DeltaError: a task that only one has, or that has no figure of ``FIGURES`` in common.
    """
    if set(multi) != set(single):
        odd = ', '.join(sorted(set(multi) ^ set(single)))
        raise DeltaError(f'{odd} was judged on one side only, expected the same tasks on both')
    rows = {}
    for task, keys in FIGURES.items():
        if task in multi:
            common = [key for key in keys if key in multi[task] and key in single[task]]
            if not common:
                raise DeltaError(f'{task} has no {" or ".join(keys)} in both reports')
            rows[task] = (common[0], multi[task][common[0]], single[task][common[0]])
    return rows


def read_report(path: Path) -> dict[str, dict[str, float]]:
    """The figures of the network in a file of ``evaluate --json``.

    Raises:
        DeltaError: the file is something else.
    """
    try:
        report: dict[str, dict[str, float]] = json.loads(path.read_text(encoding='utf-8'))[
            'reports'
        ]['network']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeltaError(f'{path} is not what evaluate --json writes: {error!r}') from error
    return report


def join(paths: Sequence[Path]) -> dict[str, dict[str, float]]:
    """The reports of several networks as one.

    Raises:
        DeltaError: two that have the same task.
    """
    joined: dict[str, dict[str, float]] = {}
    for path in paths:
        for task, figures in read_report(path).items():
            if task in joined:
                raise DeltaError(f'{path} has {task} once more, expected every task in one file')
            joined[task] = figures
    return joined


def markdown(rows: Mapping[str, tuple[str, float, float]]) -> str:
    """A table of the figures, with delta below."""
    lines = ['| | alone | together |', '|---|---|---|']
    lines += [
        f'| {task} {key} | {single:.4g} | {multi:.4g} |'
        for task, (key, multi, single) in rows.items()
    ]
    value = delta(
        {task: multi for task, (_, multi, _) in rows.items()},
        {task: single for task, (_, _, single) in rows.items()},
    )
    return '\n'.join([*lines, '', f'Delta: {value:+.2f} %'])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtl_training delta``."""
    parser.add_argument(
        '--multi',
        type=Path,
        required=True,
        metavar='JSON',
        help='what `mtl_training evaluate --json` wrote of the multi-task network',
    )
    parser.add_argument(
        '--single',
        type=Path,
        required=True,
        nargs='+',
        metavar='JSON',
        help='the same of the single-task networks, together all tasks',
    )


def run(args: argparse.Namespace) -> int:
    """Print the table.

    Raises:
        DeltaError: reports that cannot be compared.
    """
    print(markdown(compared(read_report(args.multi), join(args.single))))
    return 0
