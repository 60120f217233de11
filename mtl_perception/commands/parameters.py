"""`mtl_perception parameters`: list the node's parameters."""

from __future__ import annotations

import argparse
import textwrap

from ..ros.parameters import PARAMETERS, parameters_markdown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument('--markdown', action='store_true', help='as the table of the docs')


def run(options: argparse.Namespace) -> int:
    """Print the list."""
    if options.markdown:
        print(parameters_markdown(), end='')
        return 0
    for parameter in PARAMETERS:
        limits = f' ({parameter.allowed})' if parameter.allowed else ''
        print(f'{parameter.name}: {parameter.type}{limits}, default {parameter.default!r}')
        print(textwrap.indent(textwrap.fill(parameter.description, 96), '    '))
    return 0
