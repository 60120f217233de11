"""Stretches of a file that hold messages, read by time as the whole file would be."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .storage import StoredTopic

# Messages outside of chunks are read in runs of about so many bytes.
_RUN_BYTES = 1 << 20

# Channel, time and data of messages.
Messages = Iterable[tuple[int, int, bytes]]


@dataclass
class Block:
    """A chunk, or messages one after the other: where it is, and between which times.

    Attributes:
        chunk: whether it is one.
        cut: whether its end is missing.
    """

    start: int
    end: int
    first_ns: int
    last_ns: int
    chunk: bool
    cut: bool = False


def add_message(blocks: list[Block], start: int, end: int, time_ns: int) -> None:
    """Take a message that is in no chunk into the last block, or into one of its own."""
    last = blocks[-1] if blocks else None
    if last and not last.chunk and last.end == start and end - last.start < _RUN_BYTES:
        last.end = end
        last.first_ns, last.last_ns = min(last.first_ns, time_ns), max(last.last_ns, time_ns)
    else:
        blocks.append(Block(start, end, time_ns, time_ns, chunk=False))


def by_time(
    blocks: Sequence[Block],
    read: Callable[[Block], Messages],
    wanted: Mapping[int, StoredTopic],
    start_ns: int | None,
    stop_ns: int | None,
) -> Iterator[tuple[StoredTopic, int, bytes]]:
    """The messages of some channels; each block is read when its own time has come."""
    start, stop = start_ns or 0, 2**64 if stop_ns is None else stop_ns

    def stored(block: Block) -> Iterator[tuple[int, int, tuple[int, bytes] | None]]:
        yield block.first_ns, 0, None
        found = [
            (time_ns, channel, data)
            for channel, time_ns, data in read(block)
            if channel in wanted and start <= time_ns < stop
        ]
        for time_ns, channel, data in sorted(found, key=lambda entry: entry[0]):
            yield time_ns, block.start, (channel, data)

    within = [block for block in blocks if start <= block.last_ns and block.first_ns < stop]
    for time_ns, _, found in heapq.merge(*map(stored, within), key=lambda entry: entry[:2]):
        if found is not None:
            channel, data = found
            yield wanted[channel], time_ns, data
