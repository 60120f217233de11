"""Keeps an engine at hand: opens it in a thread of its own, and again after a failure.

Opening an engine may take minutes where it has to be built. Whoever needs it goes on meanwhile,
asks how far it is, and may cancel it at any time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from threading import Condition, Thread

from .choice import ChosenEngine
from .engine import Progress

RETRY_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # pauses after 1, 2, ... failures in a row

Opener = Callable[[Progress], ChosenEngine]


class CancelledError(Exception):
    """Ends the opening of an engine that nobody wants any more."""


class State(Enum):
    """Where an engine is in its life."""

    CLOSED = 'closed'
    BUILDING = 'building'
    READY = 'ready'
    WAITING = 'waiting'  # after a failure, for the next try


class EngineSupervisor:
    """One engine that is opened in the background, as often as it takes.

    One thread runs the engine: the one that calls ``poll``, ``succeeded`` and ``failed``. All else
    may be called from any thread.

    Args:
        opener: opens the engine. It should report its progress often: that is where ``close`` ends
            it. A thread may hold it for as long as a build lasts, so it should hold little itself.
        clock: seconds, for the pauses.
        retry_s: pauses after 1, 2, ... failures in a row; the last one also after all others.
    """

    def __init__(
        self,
        opener: Opener,
        *,
        clock: Callable[[], float] = time.monotonic,
        retry_s: Sequence[float] = RETRY_S,
    ) -> None:
        self._opener = opener
        self._clock = clock
        self._retry_s = retry_s
        self._changed = Condition()
        self._attempt: _Attempt | None = None  # the one under way
        self._chosen: ChosenEngine | None = None
        self._broken: ChosenEngine | None = None  # to be closed before the next try
        self._error: Exception | None = None  # of an attempt, until poll raises it
        self._failure = ''
        self._failures = 0
        self._retry_at = -math.inf

    @property
    def state(self) -> State:
        """Where the engine is in its life."""
        with self._changed:
            if self._attempt is not None:
                return State.BUILDING
            if self._chosen is not None:
                return State.READY
            return State.WAITING if self._failure else State.CLOSED

    @property
    def chosen(self) -> ChosenEngine | None:
        """The engine while it is ready, with why it was chosen."""
        return self._chosen

    @property
    def progress(self) -> tuple[str, float]:
        """What is being built and the share of it that is done (NaN if unknown); '' if nothing."""
        attempt = self._attempt
        return attempt.progress if attempt is not None else ('', math.nan)

    @property
    def failure(self) -> str:
        """Why it does not work, until a run has succeeded again; empty while it does."""
        return self._failure

    @property
    def pause_s(self) -> float:
        """How long the newest failure is waited out."""
        return self._retry_s[min(max(self._failures, 1), len(self._retry_s)) - 1]

    def start(self) -> None:
        """Begin to open the engine, without a pause, unless it is ready or under way."""
        with self._changed:
            if self._attempt is None and self._chosen is None:
                self._begin()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of what is under way; returns whether it came."""
        with self._changed:
            return self._changed.wait_for(lambda: self._attempt is None, seconds)

    def poll(self) -> ChosenEngine | None:
        """The engine if it is ready; begins the next try when the pause after a failure is over.

        Raises:
            Exception: what the opener raised, once.
        """
        with self._changed:
            error, self._error = self._error, None
            if error is not None:
                raise error
            waiting = self._failure and self._attempt is None and self._chosen is None
            if waiting and self._clock() >= self._retry_at:
                self._begin()
            return self._chosen

    def succeeded(self) -> None:
        """Tell that the engine has run: the next failure is the first one again."""
        with self._changed:
            self._failure, self._failures = '', 0

    def failed(self, reason: str) -> None:
        """Tell that the engine could not run; it is closed and opened anew after a pause."""
        with self._changed:
            self._broken, self._chosen = self._chosen, None
            self._note_failure(reason)

    def close(self) -> None:
        """Close the engine, or cancel what is under way, and forget all failures."""
        with self._changed:
            engines = [chosen for chosen in (self._chosen, self._broken) if chosen is not None]
            self._attempt = self._chosen = self._broken = self._error = None
            self._failure, self._failures = '', 0
            self._changed.notify_all()
        for chosen in engines:
            chosen.engine.close()

    def _begin(self) -> None:
        self._attempt = attempt = _Attempt()
        broken, self._broken, self._error = self._broken, None, None
        Thread(target=self._run, args=(attempt, broken), name='build', daemon=True).start()

    def _run(self, attempt: _Attempt, broken: ChosenEngine | None) -> None:
        def report(activity: str, share: float) -> None:
            if self._attempt is not attempt:
                raise CancelledError('nobody wants the engine any more')
            attempt.progress = activity, share

        try:
            if broken is not None:
                broken.engine.close()
            chosen = self._opener(report)
        except Exception as error:
            with self._changed:
                if self._attempt is attempt:
                    self._attempt, self._error = None, error
                    self._note_failure(str(error) or type(error).__name__)
                    self._changed.notify_all()
            return
        with self._changed:
            wanted = self._attempt is attempt
            if wanted:
                self._attempt, self._chosen = None, chosen
                self._changed.notify_all()
        if not wanted:
            chosen.engine.close()

    def _note_failure(self, reason: str) -> None:
        self._failures += 1
        self._failure = reason
        self._retry_at = self._clock() + self.pause_s


@dataclass(eq=False)
class _Attempt:
    """One opening of the engine."""

    progress: tuple[str, float] = ('starting', math.nan)
