"""The CameraInfos of a whole recording: which belongs to an image, however they were published."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibration import Match, content_of, frame_of, in_turns, stamp_ns

# As many as the node keeps: a camera whose lens was turned back and forth long ago is one camera.
_LOOKED_BACK = 32


class InfoTable:
    """CameraInfos of one topic; each content is kept once, so that long recordings need no memory.

    The rules are the node's (docs/topics.md), but for what only a live graph has: here an image
    need not wait, and what was published before the part that is replayed, or after it, counts.
    """

    def __init__(self) -> None:
        self._infos: list[tuple[Any, Hashable]] = []  # with what each says
        self._known: dict[Hashable, int] = {}
        self._frames: dict[str, _Frame] = {}

    def add(self, time_ns: int, info: Any) -> None:
        """Take a sensor_msgs/CameraInfo; they come in the order of ``time_ns``."""
        frame = frame_of(info.header)
        content = content_of(info)
        index = self._known.setdefault((frame, content), len(self._infos))
        if index == len(self._infos):
            self._infos.append((info, content))
        self._frames.setdefault(frame, _Frame()).add(time_ns, stamp_ns(info.header), index)

    def match(self, stamp: int, frame_id: str, time_ns: int) -> Match:
        """The CameraInfo for an image with a stamp and frame that was recorded at a time."""
        frame = frame_id.lstrip('/')
        own = self._own(stamp, frame)
        if len(own) > 1:
            return Match.shared(frame, 'with one stamp')
        if own:
            return Match(*self._infos[own.pop()], own=True)
        entries = self._frames.get(frame)
        if entries is None:
            return Match.missing(frame, self._frames)
        before = entries.until(time_ns)
        if in_turns(before):
            return Match.shared(frame, 'in turns')
        return Match(*self._infos[before[-1]])

    def _own(self, stamp: int, frame: str) -> set[int]:
        """Contents of the image's stamp: of its frame, or of none, which says nothing."""
        named = [self._frames[name] for name in (frame, '') if name in self._frames]
        of_frame = named if frame else self._frames.values()
        return {content for entries in of_frame for content in entries.at(stamp)}


class _Frame:
    """When which content came, and with which stamp."""

    def __init__(self) -> None:
        self._times, self._stamps = array('q'), array('q')
        self._contents = array('I')
        self._by_stamp: tuple[NDArray[np.int64], NDArray[np.uint32]] | None = None

    def add(self, time_ns: int, stamp: int, content: int) -> None:
        self._times.append(time_ns)
        self._stamps.append(stamp)
        self._contents.append(content)
        self._by_stamp = None

    def at(self, stamp: int) -> set[int]:
        """Contents with a stamp."""
        if self._by_stamp is None:
            stamps, contents = np.array(self._stamps), np.array(self._contents)
            order = np.argsort(stamps, kind='stable')
            self._by_stamp = stamps[order], contents[order]
        stamps, contents = self._by_stamp
        low, high = np.searchsorted(stamps, [stamp, stamp + 1])
        return set(contents[low:high].tolist())

    def until(self, time_ns: int) -> list[int]:
        """The latest contents at a time; the first one, if none had come."""
        end = max(1, bisect_right(self._times, time_ns))
        return self._contents[max(0, end - _LOOKED_BACK) : end].tolist()
