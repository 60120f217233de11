"""The engines of a CPU side by side in every precision that a bundle has, as a table for the docs.

    ./run exec python benchmarks/precision.py [--bundle BUNDLE] [--checkpoint CHECKPOINT]

One process, the same pictures, runs alternating between the engines, so that what else the machine
does slows all of them alike. Figures to compare are the ratios. With ``--checkpoint`` (needs
torch and mtl_training) the network in torch eager, as it was trained, comes first: it computes
what the exported graph computes, from uint8 pictures to the bundle's outputs.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_perception.bundle import Bundle, BundleError, default_bundle, load_bundle
from mtl_perception.engines.engine import EngineError, EngineOptions, open_unchecked

Run = Callable[[NDArray[np.uint8]], Any]
ENGINES = (
    ('onnxruntime', 'fp32'),
    ('onnxruntime', 'int8'),
    ('openvino', 'fp32'),
    ('openvino', 'bf16'),
    ('openvino', 'int8'),
)
PICTURES = 8
WARM_UP = 3


def torch_eager(checkpoint: Path, bundle: Bundle, threads: int) -> Run:
    """The network of a checkpoint with the bundle's tasks, run by torch eager in fp32."""
    import torch
    from mtl_training.deploy.deployable import Deployable
    from mtl_training.loop.checkpoint import load_checkpoint

    torch.set_num_threads(threads)
    net, meta = load_checkpoint(checkpoint)
    module = Deployable(net, list(bundle.tasks), mean=meta['mean'], std=meta['std']).eval()

    def run(image: NDArray[np.uint8]) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(image))

    return run


def engine(name: str, bundle: Bundle, options: EngineOptions) -> tuple[str, Run]:
    """The title of an engine, and a run of it."""
    backend = open_unchecked(name, bundle, options)
    outputs = list(bundle.outputs)
    title = f'{name} {backend.identity["version"]} {options.precision}'
    return title, lambda image: backend.run(image, outputs)


def measure(runs: dict[str, Run], bundle: Bundle, rounds: int) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of every run, alternating; the order turns by one from round to round."""
    rng = np.random.default_rng(0)
    size = (PICTURES, 1, bundle.height, bundle.width, 3)
    pictures = rng.integers(0, 256, size, np.uint8)
    names = list(runs)
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in range(WARM_UP + rounds):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            began = time.perf_counter()
            runs[name](pictures[index % PICTURES])
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: np.array(values[WARM_UP:]) for name, values in times.items()}


def main() -> None:
    """Measure every engine that is installed."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--bundle', type=Path, help='(default: the shipped one)')
    parser.add_argument('--checkpoint', type=Path, help='measure its network in torch eager too')
    parser.add_argument('--threads', type=int, default=2, help='of every engine (%(default)s)')
    parser.add_argument('--rounds', type=int, default=60, help='(default: %(default)s)')
    options = parser.parse_args()
    bundle = load_bundle(options.bundle or default_bundle())

    runs: dict[str, Run] = {}
    if options.checkpoint:
        runs['torch eager fp32'] = torch_eager(options.checkpoint, bundle, options.threads)
    for name, precision in ENGINES:
        if importlib.util.find_spec(name) is None:
            print(f'{name} is not installed')
            continue
        try:
            wish = EngineOptions(precision=precision, threads=options.threads)
            title, run = engine(name, bundle, wish)
            runs[title] = run
        except (EngineError, BundleError) as error:
            print(f'{name} {precision} is left out: {error}')

    print(f'{bundle.name}, {bundle.height}x{bundle.width}, {options.threads} threads, batch 1\n')
    print('| engine | median ms | p95 ms | against the first |\n|---|---|---|---|')
    medians = []
    for name, times in measure(runs, bundle, options.rounds).items():
        medians.append(float(np.median(times)))
        p95 = float(np.percentile(times, 95))
        print(f'| {name} | {medians[-1]:.1f} | {p95:.1f} | {medians[0] / medians[-1]:.2f} |')


if __name__ == '__main__':
    main()
