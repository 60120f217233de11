"""A perception node as a process of its own, as on a robot, for the demo and the benchmark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import PerceptionError

NODE = '/perception'


@dataclass(frozen=True)
class NodeProcess:
    """A running perception node."""

    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise PerceptionError with the node's own last words when it has ended."""
        status = self.process.poll()
        if status is not None:
            raise PerceptionError(
                f'the node ended with status {status}: {self.last_words()} (log: {self.log})'
            )

    def lines(self, *marks: str) -> list[str]:
        """Lines of its log that hold one of the marks (all lines without marks)."""
        text = self.log.read_text(encoding='utf-8', errors='replace') if self.log.exists() else ''
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return [line for line in lines if not marks or any(mark in line for mark in marks)]

    def last_words(self) -> str:
        """The last error of its log, or its last line."""
        return (self.lines('[ERROR]', '[FATAL]') or self.lines() or ['it said nothing'])[-1]

    def cpu_s(self) -> float:
        """Processor time used so far, seconds over all threads; NaN where it cannot be read."""
        try:
            stat = Path(f'/proc/{self.process.pid}/stat').read_text(encoding='ascii')
        except OSError:
            return float('nan')
        user, system = stat.rpartition(')')[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')

    def peak_rss_mb(self) -> float:
        """Peak resident memory so far, MB (VmHWM of Linux); NaN where it cannot be read."""
        try:
            status = Path(f'/proc/{self.process.pid}/status').read_text(encoding='ascii')
        except OSError:
            return float('nan')
        kilobytes = [line.split()[1] for line in status.splitlines() if line.startswith('VmHWM')]
        return float(kilobytes[0]) / 1e3 if kilobytes else float('nan')


@contextmanager
def perception_node(
    parameters: Mapping[str, str], remaps: Mapping[str, str], log: Path
) -> Iterator[NodeProcess]:
    """Run a perception node as a process of its own and end it whatever happens.

    Args:
        parameters: ROS parameters by name; ``autostart`` is added.
        remaps: topic names of the node -> names on the graph.
        log: file for everything the node prints.
    """
    command = [sys.executable, '-m', 'mtl_perception.ros', '--ros-args']
    for name, value in {'autostart': 'true', **parameters}.items():
        command += ['-p', f'{name}:={value}']
    for name, value in remaps.items():
        command += ['-r', f'{name}:={value}']
    process: subprocess.Popen[bytes] | None = None
    with log.open('wb') as output:
        try:
            with _signals_deferred():
                process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            yield NodeProcess(process, log)
        finally:
            if process is not None:
                _end(process)


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait: between fork and return, Popen would lose the child."""
    pending: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda number, _: pending.append(number)) for n in numbers}
    try:
        yield
    finally:
        for deferred, handler in before.items():
            signal.signal(deferred, handler)
    for number in pending:
        os.kill(os.getpid(), number)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and insist; an impatient Ctrl-C kills it."""
    try:
        for number, patience in ((signal.SIGINT, 10), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            if process.poll() is not None:
                return
            process.send_signal(number)
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
    except BaseException:
        process.kill()
        raise


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that a node is ended too."""

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
