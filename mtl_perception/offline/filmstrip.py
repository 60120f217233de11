"""Choose the frames of a run that a report shows, while the run goes on, in bounded memory."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from .page import Moment

Pictures = Mapping[str, NDArray[np.uint8]]

# Base64 makes four bytes of three: with the plotting library (4.8 MB) a page stays below 15 MB.
BUDGET = 6_500_000
WIDTH = 320  # wider pictures are scaled down, pixels
_QUALITY = 80


@dataclass
class _Kept:
    """A frame that is kept for now, and its place in the run."""

    moment: Moment
    index: int


@dataclass
class Filmstrip:
    """Evenly spread frames, and the worst ones of every figure.

    Every n-th frame is kept, and whenever these are too many, every other one is let go: so how
    long the run is need not be known, but where it is, fewer pictures are made in vain. Pictures
    are made of frames that are kept only.

    Attributes:
        expected: about how many frames there will be; 0 if nobody knows.
        even: how many evenly spread frames at most.
        worst: how many of the worst frames of every figure.
        budget: bytes of all pictures; beyond it evenly spread frames are let go.
    """

    expected: int = 0
    even: int = 40
    worst: int = 6
    budget: int = BUDGET
    _count: int = 0
    _stride: int = 1
    _spread: list[_Kept] = field(default_factory=list)
    _heaps: dict[str, list[tuple[float, int, _Kept]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stride = max(1, self.expected // self.even)

    def add(
        self,
        seconds: float,
        caption: str,
        worse: Mapping[str, float],
        pictures: Callable[[], Pictures],
    ) -> None:
        """Take the next frame; ``pictures`` is called if it is kept for now."""
        index, self._count = self._count, self._count + 1
        places = [key for key, value in worse.items() if self._is_among_worst(key, value)]
        if index % self._stride and not places:
            return
        encoded = {layer: encode(picture) for layer, picture in pictures().items()}
        kept = _Kept(Moment(seconds, caption, dict(worse), encoded), index)
        for key in places:
            self._keep_as_worst(key, worse[key], kept)
        if index % self._stride == 0:
            self._keep_as_even(kept)

    def moments(self) -> list[Moment]:
        """The frames that are kept, by time, within the budget."""
        worst = {kept.index: kept for heap in self._heaps.values() for _, _, kept in heap}
        spread = [kept for kept in self._spread if kept.index not in worst]
        while spread and _size(spread) + _size(worst.values()) > self.budget:
            spread = spread[1::2]
        # Worst ones go last, the least bad of every figure first.
        ranks = {
            kept.index: min(
                rank
                for heap in self._heaps.values()
                for rank, (_, _, other) in enumerate(sorted(heap, reverse=True))
                if other is kept
            )
            for kept in worst.values()
        }
        chosen = sorted(worst.values(), key=lambda kept: ranks[kept.index])
        while len(chosen) > 1 and _size(chosen) > self.budget:
            chosen.pop()
        return [kept.moment for kept in sorted([*spread, *chosen], key=lambda kept: kept.index)]

    def _is_among_worst(self, key: str, value: float) -> bool:
        heap = self._heaps.get(key, [])
        full = len(heap) == self.worst
        return math.isfinite(value) and (not full or bool(heap and value > heap[0][0]))

    def _keep_as_worst(self, key: str, value: float, kept: _Kept) -> None:
        heap = self._heaps.setdefault(key, [])
        heapq.heappush(heap, (value, -kept.index, kept))
        if len(heap) > self.worst:
            heapq.heappop(heap)

    def _keep_as_even(self, kept: _Kept) -> None:
        self._spread.append(kept)
        if len(self._spread) > self.even:
            self._stride *= 2
            self._spread = [kept for kept in self._spread if kept.index % self._stride == 0]


def encode(picture: NDArray[np.uint8]) -> bytes:
    """RGB [H, W, 3] as JPEG, scaled down where it is wide."""
    height, width = picture.shape[:2]
    if width > WIDTH:
        size = (WIDTH, max(1, round(height * WIDTH / width)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def _size(frames: Iterable[_Kept]) -> int:
    return sum(len(p) for kept in frames for p in kept.moment.pictures.values())
