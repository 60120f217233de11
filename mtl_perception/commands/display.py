"""What the demo shows while it runs and at its end: a table of topics."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence

from .graph import Listener, Topic


def table(topics: Sequence[Topic], now: float | None = None) -> list[str]:
    """Lines of a table of topics: messages, rate and latency, lately or (None) over all."""
    width = max([len(topic.name) for topic in topics] + [5])
    lines = [f'{"topic":<{width}}  messages  rate Hz  latency ms     p95']
    for topic in sorted(topics, key=lambda t: t.name):
        latency = f'{topic.latency_ms():10.1f}  {topic.latency_ms(0.95):6.1f}'
        lines.append(
            f'{topic.name:<{width}}  {topic.count:8d}  {topic.rate(now):7.1f}  '
            f'{latency if topic.latencies_ms else "         -       -"}'
        )
    return lines


class Display:
    """Shows the table once a second in place on a terminal, every five seconds a line elsewhere."""

    def __init__(self, listener: Listener, title: str, duration_s: float) -> None:
        self.listener = listener
        self.title = title
        self.duration_s = duration_s
        self.tty = sys.stdout.isatty()
        self.period = 0.5 if self.tty else 5.0
        self.start = self.shown = time.monotonic()
        self.height = 0

    def tick(self) -> None:
        """Show what has come so far when it is time to."""
        now = time.monotonic()
        if now - self.shown < self.period:
            return
        self.shown = now
        topics = list(self.listener.topics.values())
        progress = f'{min(now - self.start, self.duration_s):5.1f} of {self.duration_s:.1f} s'
        if self.tty:
            self._redraw([f'{self.title}  {progress}', *table(topics, now)])
            return
        results = self.listener.results
        if results:
            rate = statistics.median(t.rate(now) for t in results)
            latency = statistics.median(t.latency_ms() for t in results)
            print(f'{progress}: {len(results)} topics, {rate:.1f} Hz, {latency:.0f} ms', flush=True)

    def finish(self) -> None:
        """Show the figures over all that came."""
        self._redraw([self.title, *table(list(self.listener.topics.values()))])

    def _redraw(self, lines: list[str]) -> None:
        up = f'\x1b[{self.height}F\x1b[J' if self.tty and self.height else ''
        print(up + '\n'.join(lines), flush=True)
        self.height = len(lines)
