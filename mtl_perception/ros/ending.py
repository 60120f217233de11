"""The end of the process by a signal: an orderly stop at any moment, without a traceback."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, Thread
from time import monotonic
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Ctrl-C reaches the processes of a launch twice: from the terminal and from launch. What comes
# later than this is impatience.
PATIENCE_S = 3.0


class Ending:
    """Takes the signals that ask the process to end, in a thread of its own.

    They are blocked everywhere else, so that neither Python code nor a library is interrupted in
    its middle. Make it first of all, before other threads are started and long imports begin.
    Until something is there to be stopped, a signal ends the process at once.
    """

    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._lock = Lock()
        self._stop: Callable[[], None] | None = None
        self._asked = False
        Thread(target=self._take_signals, name='signals', daemon=True).start()

    @property
    def asked(self) -> bool:
        """Whether the process is to end."""
        return self._asked

    def call(self, stop: Callable[[], None]) -> None:
        """From now on a signal calls this, once, from another thread."""
        with self._lock:
            self._stop = stop

    def leave(self, code: int) -> NoReturn:
        """End the process, with all that is printed and with a good-bye to the graph.

        Not by way of the interpreter: a thread that still opens an engine would crash in the ruins.
        """
        self.call(lambda: None)  # what it was holds the node
        gc.collect()  # the last handles of the node: without, others believe in it for 20 s more
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError):  # one may be closed, or None from the start
                stream.flush()
        os._exit(code)

    def _take_signals(self) -> None:
        signal.sigwait(SIGNALS)
        with self._lock:
            self._asked = True
            if self._stop is None:
                os._exit(0)
        began = monotonic()
        self._stop()
        while monotonic() - began < PATIENCE_S:
            signal.sigwait(SIGNALS)
        print('perception_node: ended before it had stopped', file=sys.stderr, flush=True)
        os._exit(1)
