"""A progress bar on a terminal; nothing on a pipe or in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

T = TypeVar('T')

_WIDTH = 30
_REDRAW_S = 0.1


class ProgressBar:
    """Shows how many of about how many are done, the rate, and the time that is left.

    Args:
        total: about how many there are; 0 if nobody knows.
        unit: of what.
        stream: where to (stderr); only a terminal is written to.
        clock: seconds.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._unit = unit
        self._stream = stream or sys.stderr
        self._clock = clock
        self._shown = self._stream.isatty()
        self._first: tuple[float, int] | None = None
        self._drawn = float('-inf')

    def update(self, done: int) -> None:
        """Say how many are done; the rate is that since the first call."""
        now = self._clock()
        if self._first is None:
            self._first = now, done
        if self._shown and now - self._drawn >= _REDRAW_S:
            self._drawn = now
            self._stream.write(f'\r{self.line(done, now)}\x1b[K')
            self._stream.flush()

    def line(self, done: int, now: float) -> str:
        """What the bar looks like."""
        began, first = self._first or (now, done)
        rate = (done - first) / (now - began) if now > began else 0.0
        text = f'{done} {self._unit}, {rate:.1f}/s'
        if self._total:
            share = min(1.0, done / self._total)
            filled = round(share * _WIDTH)
            bar = '#' * filled + '-' * (_WIDTH - filled)
            text = f'[{bar}] {share:4.0%} {done}/{self._total} {self._unit}, {rate:.1f}/s'
            if rate:
                left = max(0, self._total - done) / rate
                text += f', {_clock_time(left)} left'
        return text

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._shown and self._first is not None:
            self._stream.write('\r\x1b[K')
            self._stream.flush()
            self._first = None


def counted(items: Iterable[T], total: int, unit: str) -> Iterator[T]:
    """Pass items on, with a bar that counts those that are done with."""
    bar = ProgressBar(total, unit)
    try:
        for done, item in enumerate(items, 1):
            yield item
            bar.update(done)
    finally:
        bar.close()


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{rest:02}' if hours else f'{minutes}:{rest:02}'
