"""MCAP files made of chunks that stand for themselves: what is written once is never touched again.

Schemas and channels stand before the first chunk, so the bytes of a chunk depend on its messages
only. Whoever makes them, in whatever thread, process or machine, the file is the same, and a file
whose end is missing goes on after its last whole chunk. Format: https://mcap.dev/spec
"""

from __future__ import annotations

import os
import struct
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

from .. import __version__
from .cdr import RecordingError

MAGIC = b'\x89MCAP0\r\n'
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
STATISTICS, METADATA, METADATA_INDEX, SUMMARY_OFFSET, DATA_END = 0x0B, 0x0C, 0x0D, 0x0E, 0x0F
# Labels shrink at any level, and nobody should wait for what is left of confidences.
_ZSTD_LEVEL = -1
_FOOTER_BYTES = 37  # with the magic behind it


@dataclass(frozen=True)
class Channel:
    """A topic of a file.

    Attributes:
        topic: its name.
        type: of its messages.
        definition: of the type, with all types that it needs.
        encoding: of the definition: ``ros2msg`` or ``ros2idl``.
        metadata: free; rosbag2 looks for ``offered_qos_profiles``.
        hash: of the type (RIHS01), which only metadata.yaml has.
    """

    topic: str
    type: str
    definition: str
    encoding: str
    metadata: Mapping[str, str]
    hash: str


@dataclass(frozen=True)
class Message:
    """One message: the place of its channel, from 1, when it was recorded, and CDR in pieces."""

    channel: int
    time_ns: int
    data: Sequence[bytes | memoryview]


def zstd_module() -> Any:
    """The module that (de)compresses; rosbags needs the same, so it is there.

    Raises:
        RecordingError: it is not there.
    """
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise RecordingError('recordings need zstd: pip install backports.zstd') from None
    return zstd


def zstd_codec() -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]:
    """How to compress and to decompress.

    Raises:
        RecordingError: see ``zstd_module``.
    """
    zstd = zstd_module()
    return lambda data: bytes(zstd.compress(data, level=_ZSTD_LEVEL)), zstd.decompress


def chunk(
    messages: Sequence[Message], compress: Callable[[bytes], bytes] | None
) -> list[bytes | memoryview]:
    """The records of a chunk and of its indexes, in pieces; empty without messages.

    Args:
        compress: the messages by zstd; None: store them as they are.
    """
    if not messages:
        return []
    records: list[bytes | memoryview] = []
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    size = 0
    for message in messages:
        length = 22 + sum(map(len, message.data))
        times = message.time_ns, message.time_ns  # of the record, and of the header
        records.append(struct.pack('<BQHIQQ', MESSAGE, length, message.channel, 0, *times))
        records += message.data
        places[message.channel].append((message.time_ns, size))
        size += 9 + length
    name, checksum, packed = '', 0, records
    for piece in records:
        checksum = crc32(piece, checksum)
    if compress is not None:
        name, packed = 'zstd', [compress(b''.join(records))]
    length = sum(map(len, packed))
    first, last = min(m.time_ns for m in messages), max(m.time_ns for m in messages)
    head = struct.pack('<QQQI', first, last, size, checksum) + _text(name)
    head += struct.pack('<Q', length)
    indexes = [
        _record(
            MESSAGE_INDEX,
            struct.pack('<HI', channel, 16 * len(entries)),
            *(struct.pack('<QQ', *entry) for entry in entries),
        )
        for channel, entries in sorted(places.items())
    ]
    return [_begin(CHUNK, len(head) + length), head, *packed, *indexes]


class McapFile:
    """Appends chunks to a file and ends it with its summary.

    Args:
        file: at its end, opened to write; new, or ended by whole chunks.
        channels: of all messages; the same in every run that appends to the file.
    """

    def __init__(self, file: BinaryIO, channels: Sequence[Channel]) -> None:
        self._file = file
        self._channels = channels
        self._types = list(dict.fromkeys(channel.type for channel in channels))
        self._chunks: list[bytes] = []
        self.counts = dict.fromkeys(range(1, len(channels) + 1), 0)
        self.start_ns, self.end_ns = 2**63 - 1, 0

    def begin(self) -> None:
        """Write what stands before the first chunk."""
        header = _record(HEADER, _text('ros2'), _text(f'mtl_perception {__version__}'))
        self._file.write(MAGIC + header + b''.join([*self._schemas(), *self._declared()]))

    def append(self, records: bytes) -> None:
        """Write chunks with their indexes, as ``chunk`` makes them."""
        start, place, rest = self._file.tell(), 0, memoryview(records)
        self._file.write(records)
        while place < len(records):
            place += self.note(start + place, rest[place:])

    def note(self, start: int, records: bytes | memoryview) -> int:
        """Take a chunk that is in the file already into the summary.

        Args:
            start: where in the file it begins.
            records: its bytes, and what follows; those of the messages are not looked at.

        Returns:
            How many bytes it has with its indexes.
        """
        (length,) = struct.unpack_from('<Q', records, 1)
        first, last, size, _, name = struct.unpack_from('<QQQII', records, 9)
        (packed,) = struct.unpack_from('<Q', records, 41 + name)
        end = place = 9 + int(length)
        offsets = []
        while place < len(records) and records[place] == MESSAGE_INDEX:
            (length,) = struct.unpack_from('<Q', records, place + 1)
            channel, entries = struct.unpack_from('<HI', records, place + 9)
            offsets.append(struct.pack('<HQ', channel, start + place))
            self.counts[channel] += entries // 16
            place += 9 + int(length)
        self._chunks.append(
            _record(
                CHUNK_INDEX,
                struct.pack('<QQQQI', first, last, start, end, 10 * len(offsets)),
                *offsets,
                struct.pack('<Q', place - end),
                bytes(records[37 : 41 + name]),
                struct.pack('<QQ', packed, size),
            )
        )
        self.start_ns, self.end_ns = min(self.start_ns, first), max(self.end_ns, last)
        return place

    def finish(self, metadata: Mapping[str, Mapping[str, str]]) -> None:
        """Write the summary, with some named records of free text."""
        indexes = []
        for name, values in metadata.items():
            record = _record(METADATA, _text(name), _texts(values))
            where = struct.pack('<QQ', self._file.tell(), len(record))
            indexes.append(_record(METADATA_INDEX, where, _text(name)))
            self._file.write(record)
        self._file.write(_record(DATA_END, bytes(4)))
        start = self._file.tell()
        total = sum(self.counts.values())
        statistics = _record(
            STATISTICS,
            struct.pack('<QHI', total, len(self._types), len(self._channels)),
            struct.pack('<III', 0, len(metadata), len(self._chunks)),
            struct.pack('<QQ', self.start_ns if total else 0, self.end_ns),
            struct.pack('<I', 10 * len(self.counts)),
            *(struct.pack('<HQ', *count) for count in self.counts.items()),
        )
        summary: list[bytes] = []
        offsets = []
        place = start
        for code, records in (
            (SCHEMA, self._schemas()),
            (CHANNEL, self._declared()),
            (STATISTICS, [statistics]),
            (CHUNK_INDEX, self._chunks),
            (METADATA_INDEX, indexes),
        ):
            length = sum(map(len, records))
            if length:
                offsets.append(_record(SUMMARY_OFFSET, struct.pack('<BQQ', code, place, length)))
            summary += records
            place += length
        footer = struct.pack('<BQQQ', FOOTER, 20, start, place if offsets else 0)
        content = b''.join([*summary, *offsets, footer])
        self._file.write(content + struct.pack('<I', crc32(content)) + MAGIC)

    def _schemas(self) -> list[bytes]:
        known = {channel.type: channel for channel in self._channels}
        return [
            _record(
                SCHEMA,
                struct.pack('<H', number),
                _text(kind),
                _text(known[kind].encoding),
                _text(known[kind].definition),
            )
            for number, kind in enumerate(self._types, 1)
        ]

    def _declared(self) -> list[bytes]:
        return [
            _record(
                CHANNEL,
                struct.pack('<HH', number, self._types.index(channel.type) + 1),
                _text(channel.topic),
                _text('cdr'),
                _texts(channel.metadata),
            )
            for number, channel in enumerate(self._channels, 1)
        ]


def read_metadata(path: Path, name: str) -> dict[str, str]:
    """The named record of free text of a file that ``McapFile`` has finished; empty without one.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open('rb') as file:
        end = file.seek(max(0, file.seek(0, os.SEEK_END) - _FOOTER_BYTES))
        footer = file.read()
        if footer[:1] != bytes([FOOTER]) or not footer.endswith(MAGIC):
            return {}
        (place,) = struct.unpack_from('<Q', footer, 9)
        while place < end:
            kind, record = _record_at(file, place)
            if kind == METADATA_INDEX and read_text(record, 16)[0] == name:
                _, record = _record_at(file, *struct.unpack_from('<Q', record))
                return read_texts(record, read_text(record, 0)[1])
            place += 9 + len(record)
    return {}


def read_text(record: bytes, place: int) -> tuple[str, int]:
    """A text, and where it ends; raises struct.error or ValueError where there is none."""
    (length,) = struct.unpack_from('<I', record, place)
    end = place + 4 + length
    if end > len(record):
        raise ValueError('a text is longer than its record')
    return record[place + 4 : end].decode(errors='replace'), end


def read_texts(record: bytes, place: int) -> dict[str, str]:
    """Texts by name."""
    (length,) = struct.unpack_from('<I', record, place)
    place += 4
    end, values = place + length, {}
    while place < end:
        key, place = read_text(record, place)
        values[key], place = read_text(record, place)
    return values


def _record_at(file: BinaryIO, place: int) -> tuple[int, bytes]:
    file.seek(place)
    kind, length = struct.unpack('<BQ', file.read(9))
    return kind, file.read(length)


def _begin(kind: int, length: int) -> bytes:
    return struct.pack('<BQ', kind, length)


def _record(kind: int, *parts: bytes) -> bytes:
    return b''.join([_begin(kind, sum(map(len, parts))), *parts])


def _text(text: str) -> bytes:
    content = text.encode()
    return struct.pack('<I', len(content)) + content


def _texts(values: Mapping[str, str]) -> bytes:
    content = b''.join(_text(key) + _text(value) for key, value in values.items())
    return struct.pack('<I', len(content)) + content
