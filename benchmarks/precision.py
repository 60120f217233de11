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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mtl_perception.bundle import Bundle, BundleError, default_bundle, load_bundle
from mtl_perception.engines.engine import EngineError, EngineOptions
from mtl_perception.engines.opening import open_unchecked
from mtl_perception.engines.timing import Rounds, noise, time_runs

Run = Callable[[], Any]
ENGINES = (
    ('onnxruntime', 'fp32'),
    ('onnxruntime', 'int8'),
    ('openvino', 'fp32'),
    ('openvino', 'bf16'),
    ('openvino', 'int8'),
)


def torch_eager(checkpoint: Path, bundle: Bundle, threads: int) -> Run:
    """The network of a checkpoint with the bundle's tasks, run by torch eager in fp32."""
    import torch
    from mtl_training.checkpoints.checkpoint import load_checkpoint, tasks_of
    from mtl_training.deploy.deployable import Deployable
    from mtl_training.tasks import choose

    torch.set_num_threads(threads)
    net, meta = load_checkpoint(checkpoint)
    tasks = choose(tasks_of(meta), list(bundle.tasks))
    module = Deployable(net, tasks, mean=meta['mean'], std=meta['std']).eval()

    image = torch.from_numpy(noise(bundle, 1))

    def run() -> Any:
        with torch.inference_mode():
            return module(image)

    return run


def run_of(name: str, bundle: Bundle, options: EngineOptions) -> tuple[str, Run]:
    """The title of an engine, and a run of it."""
    engine = open_unchecked(name, bundle, options)
    title = f'{name} {engine.identity["version"]} {options.precision}'
    return title, partial(engine.run, noise(bundle, 1), list(bundle.outputs))


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
            title, run = run_of(name, bundle, wish)
            runs[title] = run
        except (EngineError, BundleError) as error:
            print(f'{name} {precision} is left out: {error}')

    print(f'{bundle.name}, {bundle.height}x{bundle.width}, {options.threads} threads, batch 1\n')
    print('| engine | median ms | p95 ms | against the first |\n|---|---|---|---|')
    medians = []
    for name, timing in time_runs(runs, Rounds(least=options.rounds)).items():
        medians.append(timing.median_ms)
        p95 = timing.percentile(95)
        print(f'| {name} | {medians[-1]:.1f} | {p95:.1f} | {medians[0] / medians[-1]:.2f} |')


if __name__ == '__main__':
    main()
