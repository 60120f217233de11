"""Steps of training in 32 bits and in mixed precision, as ratios to those in 32 bits.

    python benchmarks/mixed_precision.py training/configs/tif_lite0_indoor.yaml --data DATA

The same batch in all; steps take turns, so that what else the machine does slows all alike. On
CPUs mixed precision leaves depth-wise convolutions in 32 bits (``loop/precision.py``); the last row
shows what it costs not to.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

from mtl_training.checkpoints.config import load_config
from mtl_training.loop import precision
from mtl_training.loop.processes import launch
from mtl_training.loop.run import Run, prepare
from mtl_training.loop.step import make_step
from mtl_training.loop.train import batches

ROWS = {'32-true': '32-true', 'bf16-mixed': 'bf16-mixed', 'bf16-mixed, all of it': 'bf16-mixed'}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config')
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--steps', type=int, default=8)
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE')
    args = parser.parse_args()
    config = load_config(args.config, args.set)
    runs: dict[str, Run] = {}
    for row, name in ROWS.items():
        changed = dataclasses.replace(config, run=dataclasses.replace(config.run, precision=name))
        runs[row] = prepare(changed, launch(changed.run), args.data)
    batch = next(iter(batches(runs['32-true'])))
    seconds: dict[str, list[float]] = {row: [] for row in runs}
    for _ in range(args.steps + 1):
        for row, run in runs.items():
            everything = patch.object(precision, 'PreciseDepthwise', nullcontext)
            with everything if 'all' in row else nullcontext():
                began = time.process_time()
                make_step(run, batch, 1e-5)
            seconds[row].append(time.process_time() - began)
    print('| precision | processor time of a step, s | ratio |\n|---|---|---|')
    for row, values in seconds.items():
        ratios = [mine / full for mine, full in zip(values, seconds['32-true'], strict=True)][1:]
        print(f'| {row} | {statistics.median(values[1:]):.2f} | {statistics.median(ratios):.2f} |')


if __name__ == '__main__':
    main()
