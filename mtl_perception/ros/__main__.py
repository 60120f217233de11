"""The program ``perception_node``: the node, or one sentence about the package that it lacks."""

from __future__ import annotations

import sys

from .packages import missing


def main() -> int:
    """Run the node until it is interrupted; returns the exit code."""
    try:
        from .node import main as run
    except ImportError as error:
        print(f'perception_node: {missing(error)}', file=sys.stderr)
        return 1
    return run()


if __name__ == '__main__':
    sys.exit(main())
