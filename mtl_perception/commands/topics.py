"""`mtl_perception topics`: list the topics that a node publishes."""

from __future__ import annotations

import argparse
import textwrap

from ..outputs import OTHER_TOPICS, OUTPUTS, topics_markdown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument('--markdown', action='store_true', help='as the table of the docs')


def run(options: argparse.Namespace) -> int:
    """Print the list."""
    if options.markdown:
        print(topics_markdown(), end='')
        return 0
    outputs = ((f'~/{o.name}', f'{o.type} {o.encoding}'.rstrip(), o.description) for o in OUTPUTS)
    for topic, kind, description in (*outputs, *OTHER_TOPICS):
        print(f'{topic}: {kind}')
        print(textwrap.indent(textwrap.fill(description, 96), '    '))
    return 0
