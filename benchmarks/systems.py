"""All systems side by side: parameters, multiply-accumulates, latency, memory, a training step.

    ./run exec python benchmarks/systems.py [--systems SYSTEM...] [--backbones BACKBONE...]
        [--plot PNG]

Two tasks, as many as every system takes. On HRNet-18, or on a dilated ResNet-18 where a system
needs one; the unit is the MTL baseline on the same backbone. Systems alternate, run by run, so that
what else the machine does slows all of them alike. Latency is that of the exported graph in
onnxruntime, memory what a process grows by, at its largest, that opens and runs it. Weights are
random. Needs mtl_training; --plot needs matplotlib.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mtl_training.bounds import image_size
from mtl_training.checkpoints.bundles import open_model
from mtl_training.checkpoints.config import OptimConfig
from mtl_training.deploy.deployable import Deployable
from mtl_training.deploy.graph import to_onnx
from mtl_training.labels import NYUD40
from mtl_training.loop.optimizer import make_optimizer
from mtl_training.models import SYSTEMS, ModelError, Network, build
from mtl_training.papers.describe import describe
from mtl_training.tasks import choose, multi_task_loss, nyud, weighted_sum
from torch import Tensor

from mtl_perception.engines.timing import Rounds, time_runs

UNIT = 'mtl_baseline'
BACKBONES = ('hrnet_w18_small_v2', 'resnet18_d8')  # the first that a system takes
TITLES = {
    'hrnet_w18_small_v2': 'HRNet-18',
    'resnet18_d8': 'dilated ResNet-18',
    'tf_efficientnet_lite0': 'EfficientNet-Lite0',
}
TASKS = choose(nyud(NYUD40), ['semantic', 'depth'])
CHANNELS = {name: task.channels for name, task in TASKS.items()}
BATCH = 2


@dataclass
class Row:
    """What is known of a system; times are medians, relative to the unit's."""

    system: str
    backbone: str
    parameters: int
    macs: int
    latency: float | None = None  # None: cannot be exported
    step: float | None = None
    memory: float | None = None  # MB


Key = tuple[str, str]  # system, backbone


def count(system: str, backbone: str, size: tuple[int, int]) -> Row:
    """Parameters and multiply-accumulates as the equations write them."""
    with torch.device('meta'):
        whole = describe(build(system, backbone, CHANNELS), size)[0]
    return Row(system, backbone, whole.parameters, whole.written.total)


def rows_of(systems: Sequence[str], backbones: Sequence[str], size: tuple[int, int]) -> list[Row]:
    """Every system on the first backbone that it takes, and the unit on all that are used."""
    rows = []
    for system in systems:
        for backbone in backbones:
            try:
                rows.append(count(system, backbone, size))
                break
            except ModelError:
                continue
    used = {row.backbone for row in rows}
    others = [row for row in rows if row.system != UNIT]
    units = [count(UNIT, backbone, size) for backbone in backbones if backbone in used]
    return sorted([*units, *others], key=lambda row: backbones.index(row.backbone))


def exported(key: Key, size: tuple[int, int]) -> bytes | None:
    """The graph of a system; None if it cannot be exported."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = build(*key, CHANNELS).eval()
    if net.not_exportable:
        return None
    module = Deployable(net, TASKS, mean=net.mean, std=net.std)
    return bytes(to_onnx(module, size).SerializeToString())


def graphs_of(keys: Sequence[Key], size: tuple[int, int], workers: int) -> dict[Key, bytes]:
    """The graphs of those that can be exported."""
    context = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        found = zip(keys, pool.map(exported, keys, [size] * len(keys)), strict=True)
        return {key: graph for key, graph in found if graph is not None}


def runner(graph: bytes, size: tuple[int, int], threads: int) -> Callable[[], object]:
    """Open a graph, to run it on one picture."""
    session = open_model(graph, threads)
    picture = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    return lambda: session.run(None, {'image': picture})


def memory(graph: bytes, size: tuple[int, int], threads: int) -> float:
    """MB by which this process grows, at its largest, while it opens and runs a graph."""
    Path('/proc/self/clear_refs').write_text('5')  # the largest size is that of now
    before = resident('VmRSS')
    run = runner(graph, size, threads)
    for _ in range(3):
        run()
    return resident('VmHWM') - before


def resident(field: str) -> float:
    """MB of this process, now (VmRSS) or at its largest (VmHWM)."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) / 1024


def memory_in_a_process_of_its_own(graph: bytes, size: tuple[int, int], threads: int) -> float:
    """As ``memory``, where nothing has been freed before that it could take."""
    context = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        return pool.submit(memory, graph, size, threads).result()


def training(keys: Sequence[Key], size: tuple[int, int]) -> dict[Key, Callable[[], object]]:
    """A training step of each system: predictions, losses, gradients, AdamW."""
    torch.manual_seed(0)
    batch = {
        'image': torch.randn(BATCH, 3, *size),
        'semantic': torch.randint(0, CHANNELS['semantic'], (BATCH, *size)),
        'depth': torch.rand(BATCH, 1, *size) + 0.5,
    }
    return {key: stepper(build(*key, CHANNELS).train(), batch) for key in keys}


def stepper(net: Network, batch: Mapping[str, Tensor]) -> Callable[[], object]:
    """One step of the optimiser, as the training loop does it."""
    optimizer = make_optimizer(net, OptimConfig(lr=1e-4, max_steps=1))

    def step() -> None:
        predictions = net.predictions(batch['image'])
        losses = multi_task_loss(predictions.final, batch, TASKS)
        total = weighted_sum(losses, TASKS) + sum(net.penalties(losses).values())
        for auxiliary in predictions.auxiliary:
            further = multi_task_loss(auxiliary.logits, batch, TASKS)
            total = total + auxiliary.weight * weighted_sum(further, TASKS)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return step


def medians(runs: Mapping[Key, Callable[[], object]], rounds: int) -> dict[Key, float]:
    """Milliseconds of every run, the median of so many rounds."""
    timings = time_runs(runs, Rounds(warm_up=1, least=rounds))
    return {key: timing.median_ms for key, timing in timings.items()}


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ['| system | backbone | parameters | MACs | latency | memory, MB | training step |']
    lines.append('|---|---|---|---|---|---|---|')
    for row in rows:
        latency = '-' if row.latency is None else f'{row.latency:.2f}'
        step = '-' if row.step is None else f'{row.step:.2f}'
        held = '-' if row.memory is None else f'{row.memory:.0f}'
        lines.append(
            f'| {row.system} | {TITLES.get(row.backbone, row.backbone)} | '
            f'{row.parameters / 1e6:.2f} M | {row.macs / 1e9:.2f} G | {latency} | {held} | {step} |'
        )
    return '\n'.join(lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Latency against parameters, both logarithmic."""
    import matplotlib as mpl

    mpl.use('Agg')
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, StrMethodFormatter

    figure, axes = plt.subplots(figsize=(8, 5), layout='constrained')
    points: list[tuple[float, float, str]] = []
    backbones = list(dict.fromkeys(row.backbone for row in rows))
    for number, backbone in enumerate(backbones):
        shown = [row for row in rows if row.backbone == backbone and row.latency is not None]
        x, y = [row.parameters / 1e6 for row in shown], [row.latency for row in shown]
        axes.scatter(
            x, y, color=f'C{number}', label=f'on {TITLES.get(backbone, backbone)}', zorder=3
        )
        points += zip(x, y, [row.system for row in shown], strict=True)
    axes.set_xscale('log')
    axes.set_yscale('log')
    for axis, ticks in ((axes.xaxis, (2, 5, 10, 20, 50, 100)), (axes.yaxis, (0.5, 1, 2, 5, 10))):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter(StrMethodFormatter('{x:g}'))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel('parameters, millions')
    axes.set_ylabel('latency, MTL baseline on the same backbone = 1')
    axes.grid(alpha=0.3)
    axes.legend(loc='upper left')
    figure.canvas.draw()  # places the axes, which labels have to know
    dots = axes.transData.transform([point[:2] for point in points])
    taken = []
    for x, y, name in points:
        for right, up in ((1, 4), (1, -10), (0, 4), (0, -10), (1, 14), (1, -20), (0, -20)):
            label = axes.annotate(
                name,
                (x, y),
                xytext=(5 if right else -5, up),
                textcoords='offset points',
                ha='left' if right else 'right',
                fontsize=8,
            )
            box = label.get_window_extent()
            if not box.count_overlaps(taken) and not box.count_contains(dots):
                break
            label.set_visible(False)
        label.set_visible(True)  # the last place, if none is free
        taken.append(box)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print the table, plot."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--systems', nargs='+', default=list(SYSTEMS), metavar='SYSTEM')
    parser.add_argument(
        '--backbones', nargs='+', default=BACKBONES, help='of each system the first that it takes'
    )
    parser.add_argument(
        '--size', type=image_size, default='256x320', help='of pictures (default: %(default)s)'
    )
    parser.add_argument(
        '--step-size', type=image_size, default='96x128', help='in training (%(default)s)'
    )
    parser.add_argument('--threads', type=int, default=2, help='(default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=12, help='of latency (%(default)s)')
    parser.add_argument('--step-rounds', type=int, default=5, help='(default: %(default)s)')
    parser.add_argument('--plot', type=Path, metavar='PNG', help='latency against parameters')
    options = parser.parse_args()
    size, step_size = options.size, options.step_size

    rows = rows_of(options.systems, options.backbones, size)
    keys = [(row.system, row.backbone) for row in rows]
    graphs = graphs_of(keys, size, workers=options.threads)
    held = {
        key: memory_in_a_process_of_its_own(graph, size, options.threads)
        for key, graph in graphs.items()
    }
    runs = {key: runner(graph, size, options.threads) for key, graph in graphs.items()}
    latency = medians(runs, options.rounds)
    torch.set_num_threads(options.threads)
    step = medians(training(keys, step_size), options.step_rounds)
    for row, key in zip(rows, keys, strict=True):
        unit = (UNIT, row.backbone)
        row.latency = latency[key] / latency[unit] if key in latency else None
        row.step = step[key] / step[unit]
        row.memory = held.get(key)
    shape, step_shape = ('x'.join(map(str, sides)) for sides in (size, step_size))
    print(f'{", ".join(TASKS)}; MACs and latency at {shape}, {options.threads} threads;')
    print(f'training step at {step_shape}, batch {BATCH}; times relative to {UNIT}\n')
    print(table(rows))
    for backbone in dict.fromkeys(row.backbone for row in rows):
        unit = (UNIT, backbone)
        print(
            f'\n{UNIT} on {TITLES.get(backbone, backbone)}: {latency[unit]:.0f} ms, '
            f'training step {step[unit]:.0f} ms'
        )
    if options.plot:
        plot(rows, options.plot)


if __name__ == '__main__':
    main()
