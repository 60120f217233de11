"""The command ``mtl_training sweep``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Annotated

from mtl_perception.commands.arguments import refuse_unused
from mtl_training.bounds import Amount, Bounds, Count, Whole, bounded
from mtl_training.sweeps.engine import Engine, done, run_trials
from mtl_training.sweeps.results import write_results
from mtl_training.sweeps.space import read_trials


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtl_training sweep``."""
    parser.add_argument('space', type=Path, help='a YAML file, see training/configs/sweeps')
    parser.add_argument('--data', type=Path, help='folder of a data set')
    parser.add_argument('--out', type=Path, required=True, help='folder of all trials and tables')
    parser.add_argument('--processes', type=bounded(Count), default=1, help='trials at once')
    parser.add_argument(
        '--gpus', type=bounded(Amount), default=0.0, help='share of a GPU for each trial'
    )
    parser.add_argument(
        '--asha',
        type=bounded(Whole),
        default=0,
        metavar='STEPS',
        help='give up trials that are among the worse after so many steps, and again after each '
        'further --reduction-fold (0: none)',
    )
    parser.add_argument(
        '--reduction',
        type=bounded(Annotated[int, Bounds(2)]),
        default=3,
        help='one of so many goes on',
    )
    parser.add_argument('--address', help='of a Ray cluster that sees the same folders')
    parser.add_argument(
        '--list', action='store_true', help='run nothing: say which trials there are'
    )
    parser.add_argument('--table', action='store_true', help='run nothing: only write the tables')


def run(args: argparse.Namespace) -> int:
    """Run what is not done yet, write the tables, print the first.

    Raises:
        TrainingError: what was given cannot be used.
    """
    if not args.asha:
        refuse_unused(args, {'reduction': 3}, 'without --asha')
    trials = read_trials(args.space)
    if args.list:
        for trial in trials:
            print(f'{"done" if done(trial, args.out) else "    "} {trial.name}')
        return 0
    failures = []
    if not args.table:
        if args.data is None:
            print('mtl_training sweep: --data is missing', file=sys.stderr)
            return 2
        args.out.mkdir(parents=True, exist_ok=True)
        engine = Engine(args.processes, args.gpus, args.asha, args.reduction, args.address)
        failures = run_trials(trials, args.data.resolve(), args.out.resolve(), engine)
    print(write_results(trials, args.out), end='')
    for failure in failures:
        print(f'mtl_training sweep: {failure}', file=sys.stderr)
    return 1 if failures else 0
