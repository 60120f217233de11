"""Three tasks from one TIF against three networks of one task each, on the same backbone.

    ./run exec python benchmarks/twins.py

The networks are exported as bundles are, and run in onnxruntime, in turns: the one of all tasks,
and its twins one after the other. A twin is the same TIF with one task, or the single-task network
of the literature (``single_task``: backbone and head). Weights are random. Needs mtl_training.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mtl_training.bounds import image_size
from mtl_training.checkpoints.bundles import open_model
from mtl_training.deploy.deployable import Deployable
from mtl_training.deploy.graph import to_onnx
from mtl_training.labels import NYUD40
from mtl_training.models import build
from mtl_training.tasks import choose, nyud

from mtl_perception.engines.timing import Rounds, time_runs

BACKBONE = 'tf_efficientnet_lite0'
TASKS = ('semantic', 'depth', 'normals')
# Of the shipped network, see training/configs/tif_lite0_rooms.yaml.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    'tif': {'width': 48, 'fuse_width': 48, 'slim': True},
    'single_task': {},
}


def export(system: str, names: Sequence[str], size: tuple[int, int]) -> bytes:
    """The graph of a network of some tasks."""
    torch.manual_seed(0)
    tasks = choose(nyud(NYUD40), list(names))
    channels = {name: task.channels for name, task in tasks.items()}
    net = build(system, BACKBONE, channels, **OPTIONS[system]).eval()
    module = Deployable(net, tasks, mean=net.mean, std=net.std)
    return bytes(to_onnx(module, size).SerializeToString())


def main() -> None:
    """Print how much longer the twins take."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--size', type=image_size, default='256x320', help='HEIGHTxWIDTH')
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    image = np.random.default_rng(0).integers(0, 256, (1, *options.size, 3), np.uint8)
    networks = {
        'one TIF': [('tif', TASKS)],
        'three TIF of one task': [('tif', [name]) for name in TASKS],
        'three single_task': [('single_task', [name]) for name in TASKS],
    }
    runs = {}
    for what, parts in networks.items():
        sessions = [
            open_model(export(system, names, options.size), options.threads)
            for system, names in parts
        ]
        runs[what] = lambda sessions=sessions: [s.run(None, {'image': image}) for s in sessions]
    timings = time_runs(runs, Rounds(least=options.rounds, most=options.rounds))
    unit = timings['one TIF']
    print(f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.threads} threads\n')
    print('| | to one TIF | in processor time |\n|---|---|---|')
    for what, timing in timings.items():
        clock = timing.median_ms / unit.median_ms
        cpu = statistics.median(timing.cpu_ms) / statistics.median(unit.cpu_ms)
        print(f'| {what} | {clock:.2f} | {cpu:.2f} |')


if __name__ == '__main__':
    main()
