"""`mtl_perception doctor`: what makes perception fail or lose frames, here and on the live graph.

Exit status: 0 where nothing fails (there may be warnings), 1 where something does, 2 for arguments
that cannot be, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse

from .arguments import positive
from .findings import as_json, exit_code, report
from .live import examine_graph
from .machine import examine_machine

SECONDS = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument('--json', action='store_true', help='one JSON object for programs')
    parser.add_argument(
        '--seconds',
        type=positive,
        default=SECONDS,
        help='how long to listen to each camera of the live graph (default: %(default)s)',
    )
    parser.add_argument(
        '--machine', action='store_true', help='look at this machine only, not at the graph'
    )


def run(options: argparse.Namespace) -> int:
    """Print the report; 1 where something fails."""
    findings = examine_machine()
    if not options.machine:
        findings += examine_graph(options.seconds)
    print(as_json(findings) if options.json else report(findings))
    return exit_code(findings)
