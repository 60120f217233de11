"""Processes on this machine that functions are called in.

Not a ``ProcessPoolExecutor``: up to Python 3.11 that hangs when a process is killed while a large
argument is on its way to it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import TracebackType
from typing import TypeVar

from .. import PerceptionError, one_line
from ..engines.engine import EngineError

T = TypeVar('T')
R = TypeVar('R')


class Processes:
    """So many processes; a ``Call``, which the first one that is free answers. Use with ``with``.

    Raises:
        EngineError: the process that was asked has ended, or what it raised cannot be sent here.
    """

    def __init__(self, count: int) -> None:
        # A fork of a process with threads is not safe.
        context = get_context('spawn')
        self._free: SimpleQueue[Connection] = SimpleQueue()
        self._ends: list[Connection] = []
        self._processes = []
        for _ in range(count):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there,), daemon=True)
            process.start()
            there.close()
            self._processes.append(process)
            self._ends.append(here)
            self._free.put(here)

    def __call__(self, function: Callable[[T], R], argument: T) -> R:
        connection = self._free.get()
        try:
            connection.send((function, argument))
            fine, answer = connection.recv()
        except (EOFError, OSError) as error:
            raise EngineError(
                'a worker process ended, perhaps for want of memory; what is written stays, '
                '--resume goes on'
            ) from error
        finally:
            self._free.put(connection)  # a dead one, too, so that nobody waits for it
        if not fine:
            raise answer
        result: R = answer
        return result

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.terminate()
        for process, end in zip(self._processes, self._ends, strict=True):
            process.join()
            end.close()


def _serve(connection: Connection) -> None:
    """Answer calls until nobody is at the other end."""
    # Ctrl-C is for the process that calls, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            function, argument = connection.recv()
        except EOFError:
            return
        try:
            answer = True, function(argument)
        except PerceptionError as error:
            answer = False, error
        except Exception as error:
            answer = (
                False,
                EngineError(f'a worker failed: {type(error).__name__}: {one_line(error)}'),
            )
        connection.send(answer)
