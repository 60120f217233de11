"""Where an MCAP file goes on after bytes that are not records."""

from __future__ import annotations

import re
import struct
from collections.abc import Collection
from mmap import mmap

from .mcap import CHUNK, DATA_END, MAGIC, MESSAGE

# What is looked for: an opcode with a length below 2 to the 40th.
_CANDIDATE = re.compile(rb'[\x05\x06\x0f].{5}\x00{3}', re.DOTALL)
_HEAD = struct.Struct('<BQ')
_OWN = 0x80  # and above: opcodes that anybody may use
_COMPRESSIONS = (b'', b'zstd', b'lz4')


def next_record(content: mmap, place: int, channels: Collection[int]) -> int | None:
    """The place of the next chunk, lone message or end of the data; None where there is none.

    Args:
        content: of the file.
        place: to begin at.
        channels: numbers of those that are known.
    """
    while match := _CANDIDATE.search(content, place):
        place = match.start()
        if _fits(content, place, channels) and is_record(content, _end(content, place)):
            return place
        place += 1
    return None


def is_record(content: mmap, place: int) -> bool:
    """Whether a record that ends within the file may begin at a place, or the file ends there."""
    if place + _HEAD.size > len(content):
        return content[place:] in (MAGIC, b'')
    kind = content[place]
    return (0 < kind <= DATA_END or kind >= _OWN) and _end(content, place) <= len(content)


def is_chunk(content: mmap, place: int) -> bool:
    """Whether a chunk begins at a place, if its end may be missing: its lengths agree."""
    end, start = _end(content, place), place + _HEAD.size
    if start + 44 > min(end, len(content)):
        return False
    first_ns, last_ns, _, _, name = struct.unpack_from('<QQQII', content, start)
    start += 32
    if first_ns > last_ns or content[start : start + name] not in _COMPRESSIONS:
        return False
    start += name
    (length,) = struct.unpack_from('<Q', content, start)
    return bool(start + 8 + length == end)


def _end(content: mmap, place: int) -> int:
    length: int = _HEAD.unpack_from(content, place)[1]
    return place + _HEAD.size + length


def _fits(content: mmap, place: int, channels: Collection[int]) -> bool:
    """Whether what is at a place is what such a record looks like."""
    end = _end(content, place)
    if end > len(content):
        return False
    kind, start = content[place], place + _HEAD.size
    if kind == MESSAGE:
        return end - start >= 22 and struct.unpack_from('<H', content, start)[0] in channels
    return is_chunk(content, place) if kind == CHUNK else end - start == 4
