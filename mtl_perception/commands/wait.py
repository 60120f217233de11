"""`mtl_perception wait`: start a program, such as a playback, once a lifecycle node is active."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time

from .. import PerceptionError
from .graph import ask, ros_node, spin

HINT_S = 5.0
ASK_S = 0.2
ANSWER_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument('node', metavar='NODE', help='full name, such as /perception')
    parser.add_argument(
        'program', nargs=argparse.REMAINDER, metavar='PROGRAM ...', help='with its arguments'
    )


def run(options: argparse.Namespace) -> int:
    """Become the program once the node is active.

    Raises:
        PerceptionError: the program is not there.
    """
    program, *arguments = options.program or ['']
    if shutil.which(program) is None:
        raise PerceptionError(f'{program or "no program"} is not there')
    wait_until_active(options.node)
    os.execvp(program, [program, *arguments])


def wait_until_active(name: str) -> None:
    """Wait for a lifecycle node to be active, however long it takes to build an engine."""
    from lifecycle_msgs.msg import State
    from lifecycle_msgs.srv import GetState

    hint = time.monotonic() + HINT_S
    with ros_node('wait') as (node, executor):
        while True:
            answer = ask(node, executor, GetState, f'{name}/get_state', ANSWER_S)
            if answer is not None and answer.current_state.id == State.PRIMARY_STATE_ACTIVE:
                return
            if time.monotonic() > hint:
                print(f'Waiting for {name} to be active.', file=sys.stderr, flush=True)
                hint = float('inf')
            spin(executor, ASK_S)
