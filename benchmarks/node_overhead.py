"""What the node adds to the bare engine for several image sizes, as a table for the docs.

    ./run exec python benchmarks/node_overhead.py

Each line is one run of ``mtl_perception bench``: a node process, every output subscribed, the bare
engine measured before and after in the same run. Figures to compare are the ratios.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mtl_perception.bundle import default_bundle, load_bundle
from mtl_perception.commands.bench_node import STAGES, Result, measure
from mtl_perception.engines.engine import EngineOptions

SIZES = ((640, 480), (1280, 720), (1920, 1080))


def row(size: tuple[int, int], result: Result) -> str:
    """One line of the table."""
    cells = [f'{size[0]}x{size[1]}']
    cells += [f'{result.stage_ms[stage]:.2f}' for stage in STAGES]
    cells += [f'{result.bare_ms:.2f}', f'{result.added:.1%}', f'{result.beyond_bare:.1%}']
    cells += [f'{result.processed_hz:.1f}', f'{result.peak_rss_mb:.0f}']
    return '| ' + ' | '.join(cells) + ' |'


def main() -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--bundle', type=Path)
    parser.add_argument('--backend', default='auto')
    parser.add_argument('--threads', type=int, default=0, help='of the engine; 0: automatic')
    parser.add_argument('--rate', type=float, default=30.0)
    parser.add_argument('--seconds', type=float, default=15.0)
    options = parser.parse_args()
    bundle = load_bundle(options.bundle or default_bundle())
    header = ['image', *(f'{stage} ms' for stage in STAGES), 'bare engine ms']
    header += ['own stages / engine', 'beyond bare / bare', 'processed Hz', 'peak MB']
    for index, size in enumerate(SIZES):
        result = measure(
            bundle,
            backend=options.backend,
            options=EngineOptions(threads=options.threads),
            size=size,
            rate=options.rate,
            seconds=options.seconds,
        )
        if index == 0:
            print(f'{result.hardware}\n{result.what.partition(";")[2].strip()}\n')
            print('| ' + ' | '.join(header) + ' |\n' + '|---' * len(header) + '|')
        print(row(size, result), flush=True)


if __name__ == '__main__':
    main()
