"""A job in a thread of its own that tells how far it is: how the node gets its engine."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread
from typing import Generic, TypeVar

from .engine import Progress

T = TypeVar('T')


class CancelledError(Exception):
    """The job was asked to end before it was finished."""


class Background(Generic[T]):
    """A job that runs from the moment it is made.

    Args:
        job: called with a ``Progress`` that it should call often: that is where ``cancel`` ends it.
        release: called with the result of a job that finished although it had been cancelled.

    Attributes:
        activity: what the job is doing.
        share: how much of that is done, 0..1; NaN if unknown.
    """

    def __init__(self, job: Callable[[Progress], T], release: Callable[[T], None]) -> None:
        self.activity, self.share = 'starting', float('nan')
        self._release = release
        self._result: list[T] = []
        self._error: Exception | None = None
        self._cancelled = False
        self._lock = Lock()
        self._thread = Thread(target=self._run, args=(job,), name='build', daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the job is not finished yet."""
        return self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the job; returns whether it came."""
        self._thread.join(seconds)
        return not self.running

    def result(self) -> T:
        """What the job returned, once; raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        if not self._result:
            raise CancelledError('the job was cancelled')
        return self._result.pop()

    def cancel(self) -> None:
        """End the job at its next report of progress; its result is released."""
        with self._lock:
            self._cancelled = True
            for result in self._result:
                self._release(result)
            self._result.clear()

    def _run(self, job: Callable[[Progress], T]) -> None:
        try:
            result = job(self._progress)
        except Exception as error:
            self._error = error
            return
        with self._lock:
            if self._cancelled:
                self._release(result)
            else:
                self._result.append(result)

    def _progress(self, activity: str, share: float) -> None:
        if self._cancelled:
            raise CancelledError('the job was cancelled')
        self.activity, self.share = activity, share
