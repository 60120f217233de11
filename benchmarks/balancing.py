"""What a step costs under each balancing method: time and memory, as a ratio to fixed weights.

    python benchmarks/balancing.py --backbone resnet18_d8 --size 128x160 --batch 2 --steps 5

Every method runs in a process of its own, on random images and labels of four tasks. Its steps and
those of fixed weights take turns, so that what else the machine does slows both alike: the time is
the median of the ratios. The memory is what the process held at most after two steps, beyond what
it held before the first: of the device on a GPU, of the machine elsewhere.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from mtl_training.balancing import METHODS
from mtl_training.balancing.aggregation import AGGREGATORS
from mtl_training.bounds import Count, Whole, bounded, image_size
from mtl_training.checkpoints.config import Config, from_mapping
from mtl_training.datasets.batches import Batch
from mtl_training.loop.run import Run, prepare
from mtl_training.loop.step import make_step

TASKS = ('semantic', 'depth', 'normals', 'edges')
# Preferences for four tasks: all alike, and each at the others' cost.
FOUR = [[1, 1, 1, 1], [4, 1, 1, 1], [1, 4, 1, 1], [1, 1, 4, 1], [1, 1, 1, 4]]
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{method: (method, {}) for method in METHODS if method not in ('pareto_mtl', 'torchjd')},
    'gradnorm, features': ('gradnorm', {'features': True}),
    'mgda, features': ('mgda', {'features': True}),
    'pareto_mtl': ('pareto_mtl', {'vectors': FOUR, 'preference': 0}),
    **{f'torchjd {name}': ('torchjd', {'aggregator': name}) for name in AGGREGATORS},
}


def make_run(args: argparse.Namespace, variant: str) -> Run:
    """A run of the multi-task baseline under a method."""
    method, options = VARIANTS[variant]
    config = from_mapping(
        Config,
        {
            'name': variant,
            'task_set': 'nyud',
            'tasks': TASKS,
            'model': {'system': args.system, 'backbone': args.backbone},
            'data': {'height': args.size[0], 'width': args.size[1], 'canonical_focal': 277},
            'optim': {'lr': 1e-4, 'max_steps': 1000, 'batch_size': args.batch},
            'balancing': {'method': method, 'options': options},
            'run': {'threads': args.threads},
        },
    )
    if args.threads:
        torch.set_num_threads(args.threads)
    return prepare(config, Fabric(accelerator='auto', devices=1), Path())


def make_batch(args: argparse.Namespace, device: torch.device) -> Batch:
    """Random images, and labels at every pixel."""
    torch.manual_seed(0)
    size = args.batch, 1, *args.size
    batch = {
        'image': torch.randint(256, (args.batch, 3, *args.size), dtype=torch.uint8),
        'fx': torch.full((args.batch,), 277.0),
        'semantic': torch.randint(40, (args.batch, *args.size)),
        'depth': torch.rand(size) + 1,
        'normals': torch.nn.functional.normalize(torch.randn(size[0], 3, *size[2:]), dim=1),
        'edges': (torch.rand(size) > 0.9).float(),
        **{f'{task}.labelled': torch.ones(args.batch, dtype=torch.bool) for task in TASKS},
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def held(device: torch.device) -> int:
    """The most bytes that were held so far."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def timed(run: Run, batch: Batch) -> float:
    """Seconds of a step."""
    began = time.perf_counter()
    make_step(run, batch, 1e-4)
    if run.fabric.device.type == 'cuda':
        torch.cuda.synchronize()
    run.progress.step += 1
    return time.perf_counter() - began


def begin(args: argparse.Namespace, variant: str) -> Run:
    """A run that is about to make its first step."""
    run = make_run(args, variant)
    run.balancer.begin_epoch(dict.fromkeys(TASKS, 100))
    return run


def measure(args: argparse.Namespace, variant: str) -> dict[str, float]:
    """Milliseconds of a step, their ratio to fixed weights, and megabytes."""
    run = begin(args, variant)
    batch = make_batch(args, run.fabric.device)
    before = held(run.fabric.device)
    for _ in range(2):
        timed(run, batch)
    memory = held(run.fabric.device) - before
    fixed = begin(args, 'fixed')
    for _ in range(2):
        timed(fixed, batch)
    pairs = [(timed(run, batch), timed(fixed, batch)) for _ in range(args.steps)]
    return {
        'ms': 1e3 * statistics.median(mine for mine, _ in pairs),
        'ratio': statistics.median(mine / theirs for mine, theirs in pairs),
        'mb': memory / 1e6,
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--system', default='mtl_baseline')
    parser.add_argument('--backbone', default='resnet18_d8')
    parser.add_argument('--size', type=image_size, default='128x160', help='HEIGHTxWIDTH')
    parser.add_argument('--batch', type=bounded(Count), default=2)
    parser.add_argument('--steps', type=bounded(Count), default=5)
    parser.add_argument('--threads', type=bounded(Whole), default=0)
    parser.add_argument('--methods', nargs='+', default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument('--one', choices=list(VARIANTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args, args.one)))
        return 0
    print('| method | ms | time, ratio | MB | memory, ratio |\n|---|---|---|---|---|')
    base: dict[str, float] = {}
    for variant in ['fixed', *(method for method in args.methods if method != 'fixed')]:
        command = [sys.executable, __file__, *sys.argv[1:], '--one', variant]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f'| {variant} | {done.stderr.strip().splitlines()[-1]} | | | |')
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        base = base or found
        print(
            f'| {variant} | {found["ms"]:.0f} | {found["ratio"]:.2f} | '
            f'{found["mb"]:.0f} | {found["mb"] / base["mb"]:.2f} |',
            flush=True,
        )
    return 0


if __name__ == '__main__':
    sys.exit(main())
