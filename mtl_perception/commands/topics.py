"""`mtl_perception topics`: list the topics that a node publishes."""

from __future__ import annotations

import argparse
import textwrap

from ..outputs import topic_rows, topics_markdown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument('--markdown', action='store_true', help='as the table of the docs')


def run(options: argparse.Namespace) -> int:
    """Print the list."""
    if options.markdown:
        print(topics_markdown(), end='')
        return 0
    for topic, kind, description in topic_rows():
        print(f'{topic}: {kind}')
        print(textwrap.indent(textwrap.fill(description, 96), '    '))
    return 0
