"""`mtl_perception build`: build the engine of a bundle ahead, check it, keep it in the cache."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from ..bundle import default_bundle, load_bundle
from ..engines.choice import ChosenEngine, open_engine
from .arguments import add_bundle, add_engine_options, engine_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_bundle(parser, option=False)
    add_engine_options(parser)
    parser.add_argument('--backend', default='auto', help='(default: auto)')
    parser.add_argument('--precision', default='fp32', help='fp32, fp16, bf16 or int8 (fp32)')


def run(options: argparse.Namespace) -> int:
    """Open the engine, which builds what is not in the cache, and say what came of it."""
    bundle = load_bundle(options.bundle or default_bundle())
    chosen = open_engine(
        options.backend,
        bundle,
        engine_options(options, options.precision),
        progress=progress_lines(),
    )
    chosen.engine.close()
    print_engine(chosen)
    return 0


def progress_lines() -> Callable[[str, float], None]:
    """Progress of a build on stderr, one line for each activity."""
    told: set[str] = set()

    def tell(activity: str, share: float) -> None:
        if activity not in told:
            told.add(activity)
            print(f'mtl_perception: {activity} ...', file=sys.stderr, flush=True)

    return tell


def print_engine(chosen: ChosenEngine) -> None:
    """Print what an engine is, why it was chosen, and how it agrees with the model."""
    print('engine:    ' + ', '.join(f'{k} {v}' for k, v in chosen.engine.identity.items()))
    print(f'chosen:    {chosen.reason}')
    for reason in chosen.skipped:
        print(f'skipped:   {reason}')
    for reason in chosen.refused:
        print(f'refused:   {reason}')
    checks = ', '.join(str(a) for a in chosen.agreements) or 'not checked: the bundle has no probes'
    print(f'agreement: {checks}')
