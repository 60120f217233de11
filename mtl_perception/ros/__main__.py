"""The program ``perception_node``: the node, or one sentence about the package that it lacks."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from .ending import Ending
from .packages import missing


def main(**wiring: Any) -> NoReturn:
    """Run the node until a signal comes, and end the process.

    Args:
        wiring: the arguments of ``PerceptionNode``.
    """
    ending = Ending()
    try:
        from .program import run
    except ImportError as error:
        print(f'perception_node: {missing(error)}', file=sys.stderr)
        ending.leave(1)
    ending.leave(run(ending, sys.argv, **wiring))


if __name__ == '__main__':
    main()
