"""`mtl_perception bench`: measure what the node adds to the bare engine, or compare engines."""

from __future__ import annotations

import argparse

from ..bundle import default_bundle, load_bundle
from .arguments import (
    ENGINE_DEFAULTS,
    add_bundle,
    add_engine_options,
    engine_options,
    positive,
    refuse_unused,
)
from .bench_engines import CANDIDATES, compare, report
from .bench_node import measure
from .graph import require_ros

NODE_DEFAULTS = {'backend': 'auto', 'precision': 'fp32', 'size': (640, 480), 'rate': 30.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_bundle(parser, option=True)
    parser.add_argument('--backend', help='engine of the node (default: auto)')
    parser.add_argument('--precision', help='of the node: fp32, fp16, bf16 or int8 (default: fp32)')
    parser.add_argument('--size', type=_size, metavar='WxH', help='image (default: 640x480)')
    parser.add_argument('--rate', type=positive, help='images per second (30)')
    parser.set_defaults(**NODE_DEFAULTS)
    parser.add_argument(
        '--seconds', type=positive, default=15.0, help='how long to measure, each engine (15)'
    )
    parser.add_argument(
        '--engines',
        nargs='*',
        type=_engine,
        metavar='BACKEND:PRECISION',
        help='compare engines side by side instead, such as onnxruntime:int8; without names all '
        'that this machine has',
    )
    add_engine_options(parser)


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    bundle = load_bundle(options.bundle or default_bundle())
    if options.engines is not None:
        refuse_unused(options, NODE_DEFAULTS, 'with --engines, which measures no node')
        candidates = options.engines or CANDIDATES
        print(f'Measuring {len(candidates)} engines, {options.seconds:g} s each ...', flush=True)
        common = engine_options(options, 'fp32')
        rows = compare(bundle, candidates, common, seconds=options.seconds)
        print(report(rows, bundle, common))
        return 0
    refuse_unused(
        options, {'batch': ENGINE_DEFAULTS['batch']}, 'without --engines: the node has one camera'
    )
    require_ros()
    expected_s = 2 * min(3.0, options.seconds / 3) + options.seconds + 15
    print(f'Measuring for about {expected_s:.0f} s ...', flush=True)
    result = measure(
        bundle,
        backend=options.backend,
        options=engine_options(options, options.precision),
        size=options.size,
        rate=options.rate,
        seconds=options.seconds,
    )
    print(result.text())
    return 0


def _size(text: str) -> tuple[int, int]:
    """Parse ``640x480`` to (width, height)."""
    parts = text.lower().split('x')
    if len(parts) != 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f'expected WIDTHxHEIGHT such as 640x480, not {text!r}')
    return int(parts[0]), int(parts[1])


def _engine(text: str) -> tuple[str, str]:
    """Parse ``onnxruntime:int8`` to (backend, precision)."""
    backend, _, precision = text.partition(':')
    if not backend or not precision:
        raise argparse.ArgumentTypeError(
            f'expected BACKEND:PRECISION such as onnxruntime:int8, not {text!r}'
        )
    return backend, precision
