"""Parts of a model for what is wanted of it: heads that nobody wants are not computed.

The heads of a multi-task network do not depend on each other, but engines run a model as a whole.
So a part is cut (``subgraph``) for a set of outputs that is wanted time and again, opened in the
background, compared with the whole, and run in its place.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock, Thread
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import one_line
from ..bundle import Bundle
from .agreement import compare
from .engine import EngineError
from .timing import noise

# A set has to last: who subscribes to ten topics does so one after the other.
RUNS_BEFORE = 10
# Each part has its weights, which engines rearrange for themselves (37 MB for 14 MB of the shipped
# model in onnxruntime; giving it the weights of the whole model made that no less).
MOST = 3
IDLE_S = 10.0  # only a part that was not used for so long makes room for another one


class Runner(Protocol):
    """A model, or a part of it, ready to run in any thread."""

    def __call__(
        self, images: NDArray[np.uint8], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """Compute some of its outputs, see ``Engine.run``."""


def _nothing() -> None:
    """What a part holds that Python frees."""


@dataclass(frozen=True)
class Part:
    """A part of a model.

    Attributes:
        run: computes its outputs.
        close: gives back what it holds, when it does not run.
    """

    run: Runner
    close: Callable[[], None] = _nothing


@dataclass
class _Kept:
    part: Part
    used: float  # when it was last


class Parts:
    """A model and what was cut out of it.

    ``runner`` is called by one thread, the one that runs the engine. It never waits: until a part
    is there the whole model, or a larger part, gives what is wanted.

    Args:
        whole: runs the whole model.
        open_part: opens the part for some outputs, in a thread of its own; None if there are none.
        bundle: whose model it is.
        precision: of the engine; decides how far a part may be from the whole.
        clock: seconds.

    Attributes:
        problems: set of outputs -> why there is no part for it.
    """

    def __init__(
        self,
        whole: Runner,
        open_part: Callable[[Sequence[str]], Part] | None,
        bundle: Bundle,
        precision: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.problems: dict[frozenset[str], str] = {}
        self._whole = whole
        self._open_part = open_part
        self._bundle = bundle
        self._precision = precision
        self._clock = clock
        self._lock = Lock()
        self._parts: dict[frozenset[str], _Kept] = {}
        self._runs: Counter[frozenset[str]] = Counter()  # for which each set was wanted
        self._thread: Thread | None = None

    def runner(self, outputs: Collection[str]) -> Runner:
        """What computes some outputs with the least work, of what there is."""
        wanted, now = frozenset(outputs), self._clock()
        self._runs[wanted] += 1
        with self._lock:
            larger = [known for known in self._parts if known >= wanted]
            best = min(larger, key=len, default=None)
            if best != wanted and wanted < self._bundle.outputs.keys():
                self._consider(wanted, now)
            if best is None:
                return self._whole
            self._parts[best].used = now
            return self._parts[best].part.run

    def close(self) -> None:
        """Forget all parts, and wait for the one that is being opened."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        for kept in self._parts.values():
            kept.part.close()
        self._parts.clear()

    def _consider(self, wanted: frozenset[str], now: float) -> None:
        """Begin to open a part, if that is worth while."""
        busy = self._thread is not None and self._thread.is_alive()
        rare = self._runs[wanted] < RUNS_BEFORE
        if self._open_part is None or busy or rare or wanted in self.problems:
            return
        if len(self._parts) >= MOST:
            oldest = min(self._parts, key=lambda known: self._parts[known].used)
            if now - self._parts[oldest].used < IDLE_S:
                return
            self._parts.pop(oldest).part.close()
        open_part = partial(self._open, self._open_part, wanted)
        self._thread = Thread(target=open_part, name='cut', daemon=True)
        self._thread.start()

    def _open(self, open_part: Callable[[Sequence[str]], Part], wanted: frozenset[str]) -> None:
        outputs = [name for name in self._bundle.outputs if name in wanted]
        try:
            part = open_part(outputs)
            try:
                self._check(part.run, outputs)
            except Exception:
                part.close()
                raise
        except Exception as error:  # the whole model goes on
            self.problems[wanted] = one_line(error)
            return
        with self._lock:
            self._parts[wanted] = _Kept(part, self._clock())

    def _check(self, run: Runner, outputs: Sequence[str]) -> None:
        """Raise EngineError where a part computes something else than the whole model."""
        images = noise(self._bundle, 1)
        expected, found = self._whole(images, outputs), run(images, outputs)
        purpose = f'engine {self._precision}'
        for name in outputs:
            agreement = compare(name, found[name], expected[name], purpose)
            if not agreement.ok:
                raise EngineError(f'the part for {", ".join(outputs)} differs: {agreement}')
