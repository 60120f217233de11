"""`mtl_perception wait`: start a program, such as a playback, once a lifecycle node is active."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from typing import Any

from .. import PerceptionError
from .graph import ros_node

HINT_S = 5.0
ASK_S = 0.2
ANSWER_S = 2.0  # an answer that does not come by then was lost


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

    with ros_node('wait') as (node, executor):
        client = node.create_client(GetState, f'{name}/get_state')
        hint = time.monotonic() + HINT_S

        def spin(seconds: float, asked: Any = None) -> None:
            nonlocal hint
            end = time.monotonic() + seconds
            while time.monotonic() < end and not (asked and asked.done()):
                executor.spin_once(timeout_sec=ASK_S)
                if time.monotonic() > hint:
                    print(f'Waiting for {name} to be active.', file=sys.stderr, flush=True)
                    hint = float('inf')

        while True:
            if client.service_is_ready():
                asked = client.call_async(GetState.Request())
                spin(ANSWER_S, asked)
                if not asked.done():
                    client.remove_pending_request(asked)
                elif asked.result().current_state.id == State.PRIMARY_STATE_ACTIVE:
                    return
            spin(ASK_S)
