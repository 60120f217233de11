"""How long runs take, measured in turns: what else the machine does slows all of them alike."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from .engine import Engine, EngineError

K = TypeVar('K')


@dataclass(frozen=True)
class Timing:
    """How long the runs of one candidate took.

    Attributes:
        ms: of every run, milliseconds.
        cpu_ms: processor time of every run over all threads of this process, milliseconds.
        failure: why it was left out; empty if it was not.
    """

    ms: tuple[float, ...] = ()
    cpu_ms: tuple[float, ...] = ()
    failure: str = ''

    @property
    def median_ms(self) -> float:
        """The run in the middle; NaN without runs."""
        return self.percentile(50)

    def percentile(self, share: float) -> float:
        """Milliseconds that ``share`` percent of the runs stayed below; NaN without runs."""
        return float(np.percentile(self.ms, share)) if self.ms else float('nan')


@dataclass(frozen=True)
class Rounds:
    """How often candidates take turns.

    Attributes:
        warm_up: rounds that do not count.
        least, most: rounds that do.
        seconds: of all candidates together, after which no round begins beyond the least.
        turn_s: how long a candidate runs in its turn, at least once. Where others run in between,
            caches are cold for the first run of a turn.
    """

    warm_up: int = 3
    least: int = 1
    most: int = 1_000_000
    seconds: float = 0.0
    turn_s: float = 0.0


def time_runs(
    runs: Mapping[K, Callable[[], object]],
    rounds: Rounds,
    *,
    turn: Callable[[K], None] = lambda key: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[K, Timing]:
    """Let candidates take turns; the order moves on by one from round to round.

    Args:
        runs: candidate -> one run of it. One that raises ``EngineError`` is left out from there on.
        turn: told whose turn it is; what it raises goes through.
        clock: seconds.
    """
    running = list(runs)
    measured: dict[K, list[tuple[float, float]]] = {key: [] for key in runs}
    failures: dict[K, str] = {}
    end = 0.0
    for number in itertools.count(-rounds.warm_up):
        if number == 0:
            end = clock() + rounds.seconds
        if not running or number >= rounds.most or (number >= rounds.least and clock() >= end):
            break
        shift = (number + rounds.warm_up) % len(running)
        for key in [*running[shift:], *running[:shift]]:
            turn(key)
            try:
                found = _turn(runs[key], rounds.turn_s if number >= 0 else 0.0, clock)
            except EngineError as error:
                failures[key] = str(error)
                running.remove(key)
            else:
                measured[key] += found if number >= 0 else []
    return {key: _timing(measured[key], failures.get(key, '')) for key in runs}


def time_engines(
    engines: Mapping[K, Engine],
    images: NDArray[np.uint8],
    outputs: Sequence[str],
    rounds: Rounds,
    *,
    turn: Callable[[K], None] = lambda key: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[K, Timing]:
    """Time runs of engines on the same images, see ``time_runs``."""
    runs = {key: partial(engine.run, images, outputs) for key, engine in engines.items()}
    return time_runs(runs, rounds, turn=turn, clock=clock)


def noise(bundle: Bundle, count: int) -> NDArray[Any]:
    """Images of a bundle's size for timing, always the same: uint8 [count, H, W, 3]."""
    size = (count, bundle.height, bundle.width, 3)
    return np.random.default_rng(0).integers(0, 256, size, np.uint8)


def _turn(
    run: Callable[[], object], seconds: float, clock: Callable[[], float]
) -> list[tuple[float, float]]:
    """Seconds and processor seconds of the runs of one turn."""
    found = []
    end = clock() + seconds
    while True:
        used, start = time.process_time(), clock()
        run()
        done = clock()
        found.append((done - start, time.process_time() - used))
        if done >= end:
            return found


def _timing(runs: Sequence[tuple[float, float]], failure: str) -> Timing:
    if failure:
        return Timing(failure=failure)
    return Timing(
        ms=tuple(1e3 * seconds for seconds, _ in runs),
        cpu_ms=tuple(1e3 * used for _, used in runs),
    )
