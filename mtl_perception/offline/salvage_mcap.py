"""MCAP files in whatever state: read record by record, without their summary.

What a file with a missing end, a damaged chunk or an unknown kind of definition still has is read
in the order in which the whole file would be. Format: https://mcap.dev/spec
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any
from zlib import crc32

from .. import one_line
from .cdr import RecordingError
from .mcap import (
    CHANNEL,
    CHUNK,
    DATA_END,
    FOOTER,
    MAGIC,
    MESSAGE,
    SCHEMA,
    STATISTICS,
    read_text,
    read_texts,
    zstd_module,
)
from .mcap_resync import is_chunk, is_record, next_record
from .salvage_blocks import Block, add_message, by_time
from .storage import QOS, StoredTopic

# Of definitions that rosbags can parse.
_ENCODINGS = ('ros2msg', 'ros2idl', 'omgidl')


class SalvagedMcap:
    """What can be read of an MCAP file; see ``Storage``.

    Args:
        path: of the file.

    Raises:
        RecordingError: it is not an MCAP file at all.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.notes: list[str] = []
        self.losses: list[str] = []
        self._schemas: dict[int, tuple[str, str]] = {}  # type, definition
        self._channels: dict[int, tuple[str, int, str]] = {}  # topic, schema, QoS
        self._counts: Counter[int] = Counter()
        self._blocks: list[Block] = []
        self._expected: int | None = None
        self._damaged: list[str] = []
        self._file = path.open('rb')
        try:
            self._scan()
        except BaseException:
            self._file.close()
            raise
        self._sum_up()

    def close(self) -> None:
        self._file.close()

    def messages(
        self, names: Collection[str], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[tuple[StoredTopic, int, bytes]]:
        wanted = {n: topic for n, topic in self._by_channel.items() if topic.name in names}
        yield from by_time(self._blocks, self._read, wanted, start_ns, stop_ns)

    def _read(self, block: Block) -> Iterator[tuple[int, int, bytes]]:
        self._file.seek(block.start)
        content = self._file.read(block.end - block.start)
        return _messages(_unpacked(content[9:], cut=block.cut) if block.chunk else content)

    def _scan(self) -> None:
        """Find out what there is, once through the file."""
        if self._file.read(len(MAGIC)) != MAGIC:
            raise RecordingError(f'{self._path} is not an MCAP file')
        with mmap(self._file.fileno(), 0, access=ACCESS_READ) as content:
            self._walk(content)

    def _walk(self, content: mmap) -> None:
        place, size = len(MAGIC), len(content)
        ended = whole = broken = False
        while place + 9 <= size:
            kind, length = struct.unpack_from('<BQ', content, place)
            stop = place + 9 + length
            end: int | None = stop
            problem = ''
            if is_record(content, place):
                problem = self._take(kind, place, content)
                ended |= kind == DATA_END
                if kind == FOOTER:
                    whole = content[stop:] == MAGIC
                    break
                if problem and kind == CHUNK and content[place + 33 : place + 41] == bytes(8):
                    # Neither a checksum nor compressed: what is whole in it can be told.
                    end = place + 49
                elif problem and not is_record(content, stop):
                    end = next_record(content, place + 1, self._channels)
            elif kind == CHUNK and is_chunk(content, place):  # whose end is missing
                with suppress(Exception):  # of what is cut off too early
                    self._chunk(place, content[place + 9 :], cut=True)
                break
            else:
                end = next_record(content, place + 1, self._channels)
                broken = end is None and stop <= size
                problem = 'no record begins here' if end else ''
            if problem:
                self._damaged.append(f'at byte {place}: {problem}')
            if end is None:
                break
            place = end
        if ended and not whole:
            self.notes.append(f'{self._path} has no summary that can be read (mcap recover)')
        elif not whole:
            what = f'the end of {self._path} is missing'
            if broken:
                what = f'nothing after byte {place} of {self._path} can be read'
            self.losses.append(f'{what} (mcap recover)')

    def _take(self, kind: int, place: int, content: mmap) -> str:
        """Take a record in; why it is damaged, or an empty text."""
        start = place + 9
        end = start + struct.unpack_from('<Q', content, place + 1)[0]
        try:
            if kind == CHUNK:
                self._chunk(place, content[start:end])
            elif kind == MESSAGE:
                self._alone(place, end, content)
            else:
                self._record(kind, content[start:end])
        # Of struct, zstd, lz4, and what rosbag2 does not know either.
        except Exception as error:
            return one_line(error)
        return ''

    def _chunk(self, place: int, content: bytes, *, cut: bool = False) -> None:
        unpacked = _unpacked(content, cut=cut)
        records = list(_records(unpacked))
        if not cut and (not records or records[-1][2] != len(unpacked)):
            raise ValueError('its records are not as long as it is')
        times = []
        for kind, start, stop in records:
            if kind == MESSAGE:
                channel, _, time_ns = struct.unpack_from('<HIQ', unpacked, start)
                self._counts[channel] += 1
                times.append(time_ns)
            else:
                self._record(kind, unpacked[start:stop])
        if times:
            end = place + 9 + len(content)
            self._blocks.append(Block(place, end, min(times), max(times), chunk=True, cut=cut))

    def _alone(self, place: int, end: int, content: mmap) -> None:
        channel, _, time_ns = struct.unpack_from('<HIQ', content, place + 9)
        self._counts[channel] += 1
        add_message(self._blocks, place, end, time_ns)

    def _record(self, kind: int, record: bytes) -> None:
        if kind == SCHEMA:
            (number,) = struct.unpack_from('<H', record)
            name, place = read_text(record, 2)
            encoding, place = read_text(record, place)
            definition, _ = read_text(record, place)
            self._schemas[number] = name, definition if encoding in _ENCODINGS else ''
        elif kind == CHANNEL:
            number, schema = struct.unpack_from('<HH', record)
            topic, place = read_text(record, 4)
            _, place = read_text(record, place)
            qos = read_texts(record, place).get('offered_qos_profiles') or QOS
            self._channels[number] = topic, schema, qos
        elif kind == STATISTICS:
            (self._expected,) = struct.unpack_from('<Q', record)

    def _sum_up(self) -> None:
        self._by_channel = {
            number: StoredTopic(topic, *self._schemas[schema], self._counts[number], qos)
            for number, (topic, schema, qos) in self._channels.items()
            if schema in self._schemas
        }
        self.topics: Sequence[StoredTopic] = list(self._by_channel.values())
        self.start_ns = min((block.first_ns for block in self._blocks), default=0)
        self.end_ns = max((block.last_ns for block in self._blocks), default=0)
        found = sum(topic.count for topic in self.topics)
        missing = '' if self._expected is None else f', {self._expected - found} messages'
        if self._damaged:
            self.losses.append(
                f'{self._path} has {len(self._damaged)} damaged parts{missing}, the first '
                f'{self._damaged[0]} (mcap recover)'
            )
        nameless = self._counts.total() - found
        if nameless:
            self.losses.append(
                f'{self._path} does not say of which topics {nameless} of its messages are'
            )


def _records(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, start and end of records, of those that are whole."""
    end = 0
    while end + 9 <= len(content):
        kind, length = struct.unpack_from('<BQ', content, end)
        start, end = end + 9, end + 9 + length
        if kind == 0 or end > len(content):
            return
        yield kind, start, end


def _messages(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Channel, time and data of the messages among records."""
    for kind, start, end in _records(content):
        if kind == MESSAGE:
            channel, _, time_ns = struct.unpack_from('<HIQ', content, start)
            yield channel, time_ns, content[start + 22 : end]


def _unpacked(chunk: bytes, *, cut: bool) -> bytes:
    """The records in a chunk, or as much as there is of one that is cut off.

    It raises whatever damage leads to.
    """
    size, checksum = struct.unpack_from('<QI', chunk, 16)
    method, place = read_text(chunk, 28)
    (packed,) = struct.unpack_from('<Q', chunk, place)
    content: Any = chunk[place + 8 : place + 8 + packed]
    if method == 'zstd':
        content = zstd_module().ZstdDecompressor().decompress(content)
    elif method == 'lz4':
        from lz4 import frame  # which rosbags needs, so it is there

        content = frame.LZ4FrameDecompressor().decompress(content)
    elif method:
        raise ValueError(f'compression {method} is unknown')
    if not cut and (len(content) != size or (checksum and crc32(content) != checksum)):
        raise ValueError('the checksum is wrong')
    return bytes(content)
