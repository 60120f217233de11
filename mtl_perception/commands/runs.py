"""Runs that are named on a command line: bags of outputs, or bundles and engines on a recording."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .. import PerceptionError
from ..bundle import SHIPPED_BUNDLES, Bundle, default_bundle, load_bundle
from ..engines.choice import open_engine
from ..engines.engine import BACKENDS
from ..offline.inputs import open_input
from ..offline.page import check_page
from ..offline.recordings import RecordingReader
from ..offline.runs import RunFrame
from ..offline.stored import (
    RecordedCamera,
    count_of_outputs,
    frames_of,
    frames_of_bags,
    is_bag,
)
from ..offline.truth import truth_readers
from ..pipeline import Pipeline
from .arguments import (
    ENGINE_DEFAULTS,
    add_bundle,
    add_engine_options,
    engine_options,
    refuse_unused,
)
from .judging import add_report
from .reading import add_reading, reading


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``open_runs`` reads, and ``--report``."""
    parser.add_argument(
        '--input',
        type=Path,
        metavar='IN',
        help='the bag, folder of pictures or video that is run, or that the bags of outputs are '
        'of: for images and ground truth',
    )
    parser.add_argument('--image', default='', metavar='TOPIC', help='the camera of the input')
    add_reading(parser)
    parser.add_argument(
        '--node', default='', metavar='NAME', help='whose outputs in the bags: /perception/front'
    )
    add_report(parser)
    add_bundle(parser, option=True)
    add_engine_options(parser)


@dataclass(frozen=True)
class Runs:
    """Runs on the same images.

    Attributes:
        frames: a frame of each run, image by image.
        bundle: of the first run that has one, else the one that was named, for classes and colours.
        total: about how many frames there are.
        truth: topics of the ground truth that was used so far.
        problems: says why ground truth was not used and what is missing of the input, once the
            frames are read.
    """

    frames: Iterator[tuple[RunFrame, ...]]
    bundle: Bundle
    total: int
    truth: Sequence[str]
    problems: Callable[[], Sequence[str]]


def open_runs(names: Sequence[str], options: argparse.Namespace, stack: ExitStack) -> Runs:
    """Open what is named: bags of outputs, bundles, engines, in any mixture.

    Args:
        stack: closes what is opened.

    Raises:
        PerceptionError: something cannot be opened, or cannot be compared, or a report of it could
            not be written.
    """
    if options.report:
        check_page(options.report)
    variants = {
        name: parse_variant(name, options.bundle) for name in names if not is_bag(Path(name))
    }
    if variants and options.input is None:
        raise PerceptionError('bundles and engines are run on a recording: give --input IN')
    if not variants:
        refuse_unused(options, ENGINE_DEFAULTS, 'with bags of outputs only: no engine is run')
    camera, used = None, list[str]()
    said: list[Callable[[], Sequence[str]]] = []
    if options.input is not None:
        how = reading(options, [options.image] if options.image else [])
        opened = stack.enter_context(open_input(options.input, how))
        ((name, truth),) = truth_readers(opened.source).items()
        camera = RecordedCamera(opened.source, name, truth)
        used = truth.used
        said = [truth.problems, opened.losses]

    def problems() -> list[str]:
        return [line for say in said for line in say()]

    bundles = {name: load_bundle(variant.bundle) for name, variant in variants.items()}
    first, *others = bundles.values() or [load_bundle(options.bundle or default_bundle())]
    for bundle in others:
        if bundle.classes != first.classes:
            raise PerceptionError(
                f'{first.folder} and {bundle.folder} have different classes, so their labels '
                'cannot be compared'
            )
    bags = {
        name: stack.enter_context(RecordingReader(name)) for name in names if name not in variants
    }
    counts = [count_of_outputs(bag, options.node) for bag in bags.values()]
    if camera is None:
        frames = frames_of_bags([bags[name] for name in names], options.node)
        return Runs(frames, first, min(counts), used, problems)
    pipelines = {}
    for name, variant in variants.items():
        wanted = engine_options(options, variant.precision)
        chosen = open_engine(variant.backend, bundles[name], wanted)
        stack.callback(chosen.engine.close)
        pipelines[name] = Pipeline(bundles[name], chosen.engine)
    sides = [bags[name] if name in bags else pipelines[name] for name in names]
    frames = frames_of(sides, camera, options.node)
    return Runs(frames, first, min([*counts, len(camera)]), used, problems)


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
        PerceptionError: it is neither a bundle nor an engine.
    """
    if (Path(text) / 'bundle.yaml').is_file() or text in SHIPPED_BUNDLES:
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
