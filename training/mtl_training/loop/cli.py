"""The command ``mtl_training train``."""

from __future__ import annotations

import argparse
import signal
import time
from pathlib import Path

from lightning.fabric.utilities import rank_zero_only

from mtl_training.bounds import Amount, Whole, bounded
from mtl_training.checkpoints.config import load_config
from mtl_training.loop.train import train
from mtl_training.protocols import PROTOCOLS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtl_training train``."""
    parser.add_argument('config', type=Path, help='a YAML file, see training/configs')
    parser.add_argument('--data', type=Path, required=True, help='folder of a data set')
    parser.add_argument(
        '--protocol',
        choices=list(PROTOCOLS),
        help='of the literature, for all that the configuration leaves open; the same as '
        '--set protocol=NAME',
    )
    parser.add_argument('--out', type=Path, required=True, help='folder for checkpoints and logs')
    parser.add_argument(
        '--init',
        nargs='+',
        type=Path,
        default=[],
        metavar='CHECKPOINT',
        help='begin with the weights of another run, or of runs of single tasks',
    )
    parser.add_argument('--resume', action='store_true', help='go on from OUT/last.safetensors')
    parser.add_argument(
        '--max-steps', type=bounded(Whole), help='replaces optim.max_steps; the schedule follows'
    )
    parser.add_argument(
        '--time-budget', type=bounded(Amount), help='end with a checkpoint after these minutes'
    )
    parser.add_argument(
        '--set', action='append', default=[], metavar='KEY=VALUE', help='such as optim.lr=5e-4'
    )


def run(args: argparse.Namespace) -> int:
    """Train; Ctrl-C and SIGTERM end the run with a checkpoint.

    Raises:
        TrainingError: what was given cannot be used.
    """
    overrides = list(args.set)
    if args.protocol:
        overrides.append(f'protocol={args.protocol}')
    if args.max_steps is not None:
        overrides.append(f'optim.max_steps={args.max_steps}')
    config = load_config(args.config, overrides)
    began = time.monotonic()
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: signals.append(received))

    def stop(step: int) -> bool:
        minutes = (time.monotonic() - began) / 60
        return bool(signals) or (args.time_budget is not None and minutes >= args.time_budget)

    last = train(config, args.data, args.out, init=args.init, resume=args.resume, stop=stop)
    rank_zero_only(print)(last)
    return 130 if signals else 0
