"""What is saved where only some outputs are wanted: kernels and processor time of engine and node.

    ./run exec python benchmarks/wanted_heads.py

The engine: the whole model against the part that is cut for some outputs, in turns, one thread.
The node: VGA images, ~/semantic alone against every output, in turns. Figures to compare are the
ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
from many_cameras import measure

from mtl_perception.bundle import Bundle, default_bundle, load_bundle
from mtl_perception.commands.dds import profile_settings
from mtl_perception.engines.subgraph import cut
from mtl_perception.engines.timing import Rounds, noise, time_runs
from mtl_perception.outputs import outputs_of


def open_session(content: bytes, profile: str = '') -> Any:
    """A session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = bool(profile)
    options.profile_file_prefix = profile or options.profile_file_prefix
    return onnxruntime.InferenceSession(content, options, providers=['CPUExecutionProvider'])


def kernels(content: bytes, outputs: Sequence[str], images: Any) -> int:
    """How many kernels a run executes."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(content, profile=f'{folder}/profile')
        session.run(list(outputs), {'image': images})
        events = json.loads(Path(session.end_profiling()).read_text())
    return sum(event['name'].endswith('_kernel_time') for event in events)


def engine_rows(bundle: Bundle, rounds: int) -> list[str]:
    """Table rows of the whole model and its parts."""
    model, images = bundle.models['fp32'].read(), noise(bundle, 1)
    everything = list(bundle.outputs)
    candidates = {
        'all outputs': (model, everything),
        'semantic, from the whole model': (model, ['semantic']),
        **{name: (cut(model, [name]), [name]) for name in everything},
        'semantic, depth': (cut(model, ['semantic', 'depth']), ['semantic', 'depth']),
    }
    runs = {
        what: partial(open_session(content).run, outputs, {'image': images})
        for what, (content, outputs) in candidates.items()
    }
    timings = time_runs(runs, Rounds(least=rounds, most=rounds))
    cpu = {what: statistics.median(timing.cpu_ms) for what, timing in timings.items()}
    return [
        f'| {what} | {kernels(content, outputs, images)} | {cpu[what] / cpu["all outputs"]:.2f} |'
        for what, (content, outputs) in candidates.items()
    ]


def node_ratio(bundle: Bundle, rounds: int, seconds: float) -> float:
    """Processor time of an image in a node with ~/semantic alone, to one with every output."""
    everything = {output.name: output.type for output in outputs_of(bundle) if not output.of}
    alone = {'semantic': everything['semantic']}
    found: dict[str, list[float]] = {'alone': [], 'all': []}
    for _ in range(rounds):
        for key, topics in (('alone', alone), ('all', everything)):
            result = measure([['front']], 'onnxruntime', 5.0, seconds, topics)
            found[key].append(result.cpu_ms)
    return statistics.median(found['alone']) / statistics.median(found['all'])


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--rounds', type=int, default=15, help='of the engine')
    parser.add_argument('--node-rounds', type=int, default=2)
    parser.add_argument('--seconds', type=float, default=15.0, help='of the node')
    options = parser.parse_args()
    os.environ.update(profile_settings(os.environ))
    bundle = load_bundle(default_bundle())
    print(f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n')
    print('| engine | kernels | processor time to all outputs |\n|---|---|---|')
    print('\n'.join(engine_rows(bundle, options.rounds)), flush=True)
    ratio = node_ratio(bundle, options.node_rounds, options.seconds)
    print(f'\nnode, ~/semantic alone to every output, processor time of an image: {ratio:.2f}')


if __name__ == '__main__':
    main()
