"""`mtl_perception compare`: where two runs on the same images differ, in figures and a report."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .. import PerceptionError
from ..bundle import Bundle, default_bundle, load_bundle
from ..engines.choice import open_engine
from ..engines.engine import BACKENDS
from ..offline.comparison import Comparison
from ..offline.page import write_page
from ..offline.recordings import RecordingReader
from ..offline.runs import RunFrame
from ..offline.stored import frames_of_bags, frames_of_pipelines, is_bag
from ..pipeline import Pipeline
from .arguments import add_bundle, add_engine_options, engine_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    text = (
        'a bag of outputs, a bundle folder, BACKEND:PRECISION such as onnxruntime:int8, or '
        'BUNDLE@BACKEND:PRECISION'
    )
    parser.add_argument('first', metavar='A', help=text)
    parser.add_argument('second', metavar='B', help='the same; it is compared with A')
    parser.add_argument(
        '--input',
        type=Path,
        metavar='BAG',
        help='the recording that both get, or that both bags are of: for images and ground truth',
    )
    parser.add_argument('--image', default='', metavar='TOPIC', help='the camera of the input')
    parser.add_argument(
        '--node', default='', metavar='NAME', help='whose outputs in the bags: /perception/front'
    )
    parser.add_argument('--report', type=Path, metavar='HTML', help='write a report as one page')
    add_bundle(parser, option=True)
    add_engine_options(parser)


def run(options: argparse.Namespace) -> int:
    """Compare, print the figures, write the report.

    Raises:
        PerceptionError: something cannot be read or run, or has no frame in common.
    """
    bags = [is_bag(Path(name)) for name in (options.first, options.second)]
    if any(bags) != all(bags):
        raise PerceptionError('compare takes two bags, or two bundles or engines, not one of each')
    with ExitStack() as stack:
        pairs, bundle = (_of_bags if all(bags) else _of_pipelines)(options, stack)
        comparison = Comparison(bundle, _names(options.first, options.second))
        for first, second in pairs:
            comparison.add(first, second)
    lines = comparison.lines()
    if not comparison.agreement.frames:
        raise PerceptionError(
            f'{options.first} and {options.second} have no outputs of equal stamps to compare'
        )
    print('\n'.join([f'{options.second} compared with {options.first}:', *lines]))
    if options.report:
        facts = {'A': options.first, 'B': options.second, 'classes of': bundle.name}
        if options.input:
            facts['input'] = str(options.input)
        title = f'{comparison.names[0]} and {comparison.names[1]}'
        write_page(options.report, comparison.page(title, facts))
        print(f'Report: {options.report}')
    return 0


_Pairs = Iterator[tuple[RunFrame, RunFrame]]


def _of_bags(options: argparse.Namespace, stack: ExitStack) -> tuple[_Pairs, Bundle]:
    bundle = load_bundle(options.bundle or default_bundle())
    first = stack.enter_context(RecordingReader(options.first))
    second = stack.enter_context(RecordingReader(options.second))
    recording = stack.enter_context(RecordingReader(options.input)) if options.input else None
    return frames_of_bags(first, second, options.node, recording, options.image), bundle


def _of_pipelines(options: argparse.Namespace, stack: ExitStack) -> tuple[_Pairs, Bundle]:
    if options.input is None:
        raise PerceptionError('bundles and engines are compared on a recording: give --input BAG')
    variants = [parse_variant(name, options.bundle) for name in (options.first, options.second)]
    bundles = [load_bundle(variant.bundle) for variant in variants]
    if bundles[0].classes != bundles[1].classes:
        raise PerceptionError(
            f'{bundles[0].folder} and {bundles[1].folder} have different classes, so their labels '
            'cannot be compared'
        )
    recording = stack.enter_context(RecordingReader(options.input))
    pipelines = []
    for bundle, variant in zip(bundles, variants, strict=True):
        chosen = open_engine(variant.backend, bundle, engine_options(options, variant.precision))
        stack.callback(chosen.engine.close)
        pipelines.append(Pipeline(bundle, chosen.engine))
    return frames_of_pipelines(pipelines[0], pipelines[1], recording, options.image), bundles[0]


@dataclass(frozen=True)
class Variant:
    """A bundle in an engine of a precision."""

    bundle: Path
    backend: str = 'auto'
    precision: str = 'fp32'


def parse_variant(text: str, bundle: Path | None) -> Variant:
    """Read ``BUNDLE``, ``BACKEND:PRECISION`` or ``BUNDLE@BACKEND:PRECISION``.

    Args:
        bundle: where none is named; None: the shipped one.

    Raises:
        PerceptionError: it is neither a folder nor an engine.
    """
    if (Path(text) / 'bundle.yaml').is_file():
        return Variant(Path(text))
    folder, _, engine = text.rpartition('@')
    backend, _, precision = engine.partition(':')
    if backend not in (*BACKENDS, 'auto'):
        raise PerceptionError(
            f'{text} is not a bag, a bundle folder, or BACKEND:PRECISION with a backend of '
            f'{", ".join(BACKENDS)}'
        )
    named = Path(folder) if folder else bundle or default_bundle()
    return Variant(named, backend, precision or 'fp32')


def _names(first: str, second: str) -> tuple[str, str]:
    """Short names of two runs; A and B where they would be the same."""
    short = [name if ':' in name else Path(name).name for name in (first, second)]
    return (short[0], short[1]) if short[0] != short[1] else ('A', 'B')
