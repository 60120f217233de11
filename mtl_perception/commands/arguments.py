"""Arguments that several commands have."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engines.engine import EngineOptions


def positive(text: str) -> float:
    """Parse a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'expected a number above 0, not {text!r}')
    return value


def whole(text: str) -> int:
    """Parse a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'expected a whole number above 0, not {text!r}')
    return int(text)


def add_bundle(parser: argparse.ArgumentParser, *, option: bool) -> None:
    """Add the bundle: as ``--bundle``, or as an argument that may be left out."""
    text = 'bundle folder (default: the shipped one)'
    if option:
        parser.add_argument('--bundle', type=Path, help=text)
    else:
        parser.add_argument('bundle', type=Path, nargs='?', help=text)


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``engine_options`` reads."""
    parser.add_argument('--batch', type=whole, default=1, help='largest batch (default: 1)')
    parser.add_argument('--threads', type=int, default=0, help='CPU threads; 0: automatic')
    parser.add_argument('--device', type=int, default=0, help='number of the GPU (default: 0)')
    parser.add_argument('--provider', default='cpu', help='of onnxruntime: cpu, cuda or tensorrt')
    parser.add_argument('--dla-core', type=int, default=-1, help='of a Jetson (default: the GPU)')
    parser.add_argument('--workspace-mb', type=int, default=0, help='TensorRT, to build; 0: all')


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
