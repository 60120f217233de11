"""`mtl_perception engines`: list the engines in the cache, or remove them."""

from __future__ import annotations

import argparse

from ..engines.cache import EngineCache
from .arguments import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        '--prune', action='store_true', help='remove what is damaged, and what --days says'
    )
    parser.add_argument('--days', type=positive, help='with --prune: older than so many days')
    parser.add_argument('--all', action='store_true', help='with --prune: all of them')


def run(options: argparse.Namespace) -> int:
    """List what is there, or what was removed."""
    cache = EngineCache()
    if options.prune:
        entries = cache.prune(older_than_days=options.days, everything=options.all)
        print(f'removed {len(entries)} from {cache.folder}')
    else:
        entries = cache.entries()
        print(f'{len(entries)} in {cache.folder}')
    for entry in entries:
        what = ' '.join(str(entry.key.get(k, '')) for k in ('backend', 'version', 'precision'))
        model = str(entry.key.get('model_sha256', ''))[:12]
        state = f'damaged: {entry.damaged}' if entry.damaged else f'{entry.size / 1e6:.1f} MB'
        print(f'{entry.created}  {entry.key.get("kind", "?"):<6}  {what}, model {model}  {state}')
    return 0
