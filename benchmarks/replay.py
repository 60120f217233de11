"""How fast a replay is: against its bare engine, with more workers, and how much memory it takes.

    python benchmarks/replay.py [--frames 60] [--rounds 3] [--backend onnxruntime] [--threads 0]

A bag of VGA JPEG images made of the sample. The bare engine runs as many images, which lie there as
arrays. What is compared takes turns, so that other work on the machine meets all of it; processor
time (of all threads) counts what a replay costs beside the engine, wherever it overlaps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import cv2
import numpy as np

from mtl_perception.bundle import Bundle, default_bundle, load_bundle
from mtl_perception.commands.replay import chosen_outputs
from mtl_perception.engines.choice import ChosenEngine, open_engine
from mtl_perception.engines.engine import EngineOptions
from mtl_perception.engines.timing import noise
from mtl_perception.offline.bag_replay import write_bag
from mtl_perception.offline.inputs import Reading, open_input
from mtl_perception.offline.processes import Processes
from mtl_perception.offline.recordings import RecordingReader
from mtl_perception.offline.replay import Job
from mtl_perception.offline.runners import Apart, EngineWish, Here, Recipe, Runner
from mtl_perception.offline.sample import IMAGE_TOPIC, SampleFrame, write_sample
from mtl_perception.offline.sources import Selection
from mtl_perception.share import share

WIDTH, HEIGHT, FOCAL = 640, 480, 554.0
LONG = 10  # times as many frames for the peak memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--frames', type=int, default=60)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--backend', default='onnxruntime')
    parser.add_argument(
        '--threads', type=int, default=0, help='of the engine, beside which the rest overlaps'
    )
    options = parser.parse_args()
    bundle = load_bundle(default_bundle())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bag = make_bag(folder / 'bag', options.frames)
        chosen = open_engine(options.backend, bundle, EngineOptions(threads=options.threads))
        against_engine(bundle, chosen, bag, folder, options)
        chosen.engine.close()
        workers(bundle, bag, folder, options)
        memory(bag, folder, options)


def make_bag(path: Path, frames: int) -> Path:
    """The sample's images, larger, over and over."""

    def made() -> Iterator[SampleFrame]:
        with RecordingReader(share('sample/rooms')) as sample:
            stored = [sample.unpack(m).data for m in sample.messages([IMAGE_TOPIC])]
        for index in range(frames):
            image = cv2.imdecode(np.asarray(stored[index % len(stored)]), cv2.IMREAD_COLOR)
            image = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
            k = [FOCAL, 0, WIDTH / 2, 0, FOCAL, HEIGHT / 2, 0, 0, 1]
            rgb = cv2.imencode('.jpg', image)[1].tobytes()
            stamp = 10**9 + index * 33_333_333
            yield {'stamp_ns': stamp, 'rgb': rgb, 'k': k, 'width': WIDTH, 'height': HEIGHT}

    write_sample(path, made())
    return path


def replayed(bundle: Bundle, runner: Runner, bag: Path, out: Path) -> int:
    """Replay a bag, as the command does; how many frames were answered."""
    outputs = chosen_outputs(bundle, None)
    with open_input(bag, Reading()) as opened:
        wanted = frozenset(name for output in outputs for name in output.tensors(bundle))
        names = tuple(output.name for output in outputs)
        recipe = Recipe(Job(Selection(), wanted), names, ('',))
        return write_bag(
            out,
            recipe.layout(bundle),
            lambda skip: runner(opened.source, recipe, skip, None),
            start_ns=opened.source.start_ns,
            job={},
            provenance={},
        ).frames


def in_turns(
    sides: dict[str, Callable[[], object]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Wall and processor seconds of every side in every round, after one to warm up."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, run in sides.items():
            wall, processor = perf_counter(), process_time()
            run()
            if turn:
                found[name].append((perf_counter() - wall, process_time() - processor))
    return found


def against_engine(
    bundle: Bundle, chosen: ChosenEngine, bag: Path, folder: Path, options: argparse.Namespace
) -> None:
    image, outputs = noise(bundle, 1), list(bundle.outputs)

    def bare() -> None:
        for _ in range(options.frames):
            chosen.engine.run(image, outputs)

    here = Here(bundle, chosen)
    sides = {'engine': bare, 'replay': lambda: replayed(bundle, here, bag, folder / 'out')}
    found = in_turns(sides, options.rounds)
    for name, times in found.items():
        wall, processor = (1e3 * median(side) / options.frames for side in zip(*times))
        print(f'{name}: {wall:.1f} ms a frame, {processor:.1f} ms of processor time')
    for index, what in enumerate(('throughput', 'processor time')):
        ratios = [e[index] / r[index] for e, r in zip(found['engine'], found['replay'])]
        print(f'{what}, engine to replay: {median(ratios):.0%}')


def workers(bundle: Bundle, bag: Path, folder: Path, options: argparse.Namespace) -> None:
    """Two processes that share the cores, against one that has them all."""
    cores = os.cpu_count() or 1
    with Processes(1) as one, Processes(2) as two:
        runners = {
            count: Apart(
                call,
                count,
                EngineWish(None, options.backend, EngineOptions(threads=max(1, cores // count))),
            )
            for count, call in ((1, one), (2, two))
        }
        sides = {
            f'{count} workers': lambda runner=runner: replayed(bundle, runner, bag, folder / 'out')
            for count, runner in runners.items()
        }
        found = in_turns(sides, options.rounds)
    for name, times in found.items():
        print(f'{name}: {1e3 * median(wall for wall, _ in times) / options.frames:.1f} ms a frame')


def memory(bag: Path, folder: Path, options: argparse.Namespace) -> None:
    """Peak of the command on a bag, and on one that is longer."""
    long = make_bag(folder / 'long', LONG * options.frames)
    peaks = []
    for path in (bag, long):
        words = ['replay', str(path), str(folder / 'out'), '--backend', options.backend]
        command = [sys.executable, '-m', 'mtl_perception.commands.cli', *words]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f'{" ".join(command)} failed')
        peaks.append(usage.ru_maxrss / 1024)
        print(f'peak of {path.name}: {peaks[-1]:.0f} MB')
    print(f'a bag {LONG} times as long: {peaks[1] / peaks[0] - 1:+.1%}')


if __name__ == '__main__':
    main()
