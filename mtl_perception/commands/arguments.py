"""Arguments that several commands have."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import PerceptionError

if TYPE_CHECKING:
    from ..engines.engine import EngineOptions


# Of the options of ``add_engine_options``.
ENGINE_DEFAULTS: dict[str, Any] = {
    'batch': 1, 'threads': 0, 'device': 0, 'provider': 'cpu', 'dla_core': -1, 'workspace_mb': 0,
}  # fmt: skip


def number(least: float, most: float = 1e9) -> Callable[[str], float]:
    """A parser of numbers between two; of as many seconds as 1e9, nanoseconds fit into 64 bits."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f'expected a number from {least:g} to {most:g}, not {text!r}'
            )
        return value

    return parse


positive = number(1e-6)


def whole(text: str) -> int:
    """Parse a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'expected a whole number above 0, not {text!r}')
    return int(text)


def refuse_unused(options: argparse.Namespace, defaults: Mapping[str, Any], why: str) -> None:
    """Refuse options that would do nothing.

    Args:
        defaults: of the options that are not used, by attribute.
        why: they would do nothing, as the end of a sentence.

    Raises:
        PerceptionError: some were given.
    """
    given = [name for name, default in defaults.items() if getattr(options, name) != default]
    if given:
        names = ', '.join('--' + name.replace('_', '-') for name in given)
        raise PerceptionError(f'{names} would do nothing {why}')


def add_bundle(parser: argparse.ArgumentParser, *, option: bool) -> None:
    """Add the bundle: as ``--bundle``, or as an argument that may be left out."""
    text = 'bundle folder (default: the shipped one)'
    if option:
        parser.add_argument('--bundle', type=Path, help=text)
    else:
        parser.add_argument('bundle', type=Path, nargs='?', help=text)


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``engine_options`` reads."""
    parser.add_argument('--batch', type=whole, help='largest batch (default: 1)')
    parser.add_argument('--threads', type=int, help='CPU threads; 0: automatic')
    parser.add_argument('--device', type=int, help='number of the GPU (default: 0)')
    parser.add_argument('--provider', help='of onnxruntime: cpu, cuda or tensorrt')
    parser.add_argument('--dla-core', type=int, help='of a Jetson (default: the GPU)')
    parser.add_argument('--workspace-mb', type=int, help='TensorRT, to build; 0: all')
    parser.set_defaults(**ENGINE_DEFAULTS)


def engine_options(options: argparse.Namespace, precision: str) -> EngineOptions:
    """Options of an engine, see ``engines.engine.EngineOptions``."""
    from ..engines.engine import EngineOptions

    return EngineOptions(
        precision=precision,
        max_batch=options.batch,
        threads=options.threads,
        device=options.device,
        provider=options.provider,
        dla_core=options.dla_core,
        workspace_mb=options.workspace_mb,
    )
