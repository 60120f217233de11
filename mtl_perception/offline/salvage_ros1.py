"""ROS 1 bags in whatever state: read record by record, without their index.

What a bag that was not closed, or is damaged, still has is read in the order in which the whole
file would be. Format: http://wiki.ros.org/Bags/Format/2.0
"""

from __future__ import annotations

import bz2
import re
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from .. import one_line
from .cdr import RecordingError
from .salvage_blocks import Block, add_message, by_time
from .storage import StoredTopic

_MAGIC = b'#ROSBAG V2.0\n'
_MESSAGE, _BAG, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION = range(2, 8)
# In the header of a message, of a chunk, or of a connection, which begins so far before at most.
_CANDIDATE = re.compile(rb'\x04\x00\x00\x00op=[\x02\x05\x07]', re.DOTALL)
_BEFORE = 512
_REMEDY = '(rosbag reindex)'

_Header = Mapping[bytes, bytes]


class SalvagedRos1:
    """What can be read of a ROS 1 bag; see ``Storage``. Its messages are those of ROS 1.

    Args:
        path: of the file.

    Raises:
        RecordingError: it is not a ROS 1 bag at all.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.notes: list[str] = []
        self.losses: list[str] = []
        self._connections: dict[int, tuple[str, str, str]] = {}  # topic, type, definition
        self._counts: Counter[int] = Counter()
        self._blocks: list[Block] = []
        self._damaged: list[str] = []
        self._indexed = False
        self._file = path.open('rb')
        try:
            if self._file.read(len(_MAGIC)) != _MAGIC:
                raise RecordingError(f'{path} is not a ROS 1 bag')
            self._content = mmap(self._file.fileno(), 0, access=ACCESS_READ)
            self._walk()
        except BaseException:
            self._file.close()
            raise
        self._sum_up()

    def close(self) -> None:
        self._content.close()
        self._file.close()

    def messages(
        self, names: Collection[str], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[tuple[StoredTopic, int, bytes]]:
        wanted = {n: topic for n, topic in self._by_number.items() if topic.name in names}
        yield from by_time(self._blocks, self._read, wanted, start_ns, stop_ns)

    def _read(self, block: Block) -> Iterator[tuple[int, int, bytes]]:
        content: bytes = self._content[block.start : block.end]
        if block.chunk:
            header, start, _ = _record(content, 0)
            content = _unpacked(header, content[start:], cut=block.cut)
        for header, start, end in _records(content):
            if header[b'op'] == bytes([_MESSAGE]):
                yield (*_place(header), content[start:end])

    def _walk(self) -> None:
        """Find out what there is, once through the file."""
        content, place, size = self._content, len(_MAGIC), len(self._content)
        while place < size:
            header, start, end = _record(content, place)
            plain = header.get(b'compression') == b'none'
            problem, following = '', start if plain else None  # what is whole in it can be told
            if header and end <= size:
                problem = self._take(header, place, start, end)
                if not (problem and plain):
                    following = end
            elif not plain:
                problem, following = 'no record begins here', _next(content, place + 1)
                if following is None and header.get(b'op') == bytes([_CHUNK]):
                    with suppress(Exception):  # of what is cut off too early
                        self._chunk(header, place, start, size, cut=True)
            if problem and following is not None:
                self._damaged.append(f'at byte {place}: {problem}')
            if following is None:
                self.losses.append(f'the end of {self._path} is missing {_REMEDY}')
                break
            place = following

    def _take(self, header: _Header, place: int, start: int, end: int) -> str:
        """Take a record in; why it is damaged, or an empty text."""
        try:
            self._record(header, place, start, end)
        except Exception as error:  # of struct, bz2, lz4
            return one_line(error)
        return ''

    def _record(self, header: _Header, place: int, start: int, end: int) -> None:
        kind = header[b'op'][0]
        if kind == _CHUNK:
            self._chunk(header, place, start, end)
        elif kind == _MESSAGE:
            number, time_ns = _place(header)
            self._counts[number] += 1
            add_message(self._blocks, place, end, time_ns)
        elif kind == _CONNECTION:
            self._connect(header, self._content[start:end])
        elif kind == _BAG:
            self._indexed = struct.unpack('<Q', header[b'index_pos'])[0] > 0

    def _connect(self, header: _Header, data: bytes) -> None:
        from rosbags.typesys.msg import normalize_msgtype

        fields = _fields(data)
        (number,) = struct.unpack('<I', header[b'conn'])
        kind, definition = fields[b'type'].decode(), fields[b'message_definition']
        topic = re.sub('/+', '/', header[b'topic'].decode())
        self._connections[number] = topic, normalize_msgtype(kind), definition.decode()

    def _chunk(
        self, header: _Header, place: int, start: int, end: int, *, cut: bool = False
    ) -> None:
        unpacked = _unpacked(header, self._content[start:end], cut=cut)
        records = list(_records(unpacked))
        if not cut and (records[-1][2] if records else 0) != len(unpacked):
            raise ValueError('its records are not as long as it is')
        found = [_place(inner) for inner, _, _ in records if inner[b'op'] == bytes([_MESSAGE])]
        for inner, inside, stop in records:
            if inner[b'op'] == bytes([_CONNECTION]):
                self._connect(inner, unpacked[inside:stop])
        self._counts.update(number for number, _ in found)
        if found:
            times = [time_ns for _, time_ns in found]
            self._blocks.append(Block(place, end, min(times), max(times), chunk=True, cut=cut))

    def _sum_up(self) -> None:
        self._by_number = {
            number: StoredTopic(topic, kind, definition, self._counts[number])
            for number, (topic, kind, definition) in self._connections.items()
        }
        self.topics: Sequence[StoredTopic] = list(self._by_number.values())
        self.start_ns = min((block.first_ns for block in self._blocks), default=0)
        self.end_ns = max((block.last_ns for block in self._blocks), default=0)
        if self._damaged:
            self.losses.append(
                f'{self._path} has {len(self._damaged)} damaged parts, the first '
                f'{self._damaged[0]} {_REMEDY}'
            )
        nameless = self._counts.total() - sum(topic.count for topic in self.topics)
        if nameless:
            self.losses.append(
                f'{self._path} does not say of which topics {nameless} of its messages are'
            )
        if not self._indexed and not self.losses:
            # Nobody wrote how much there was to be.
            self.losses.append(f'{self._path} was not closed, its end may be missing {_REMEDY}')


def _fields(data: bytes) -> dict[bytes, bytes]:
    """The fields of a header; raises ValueError or struct.error where it is none."""
    place, found = 0, {}
    while place < len(data):
        (length,) = struct.unpack_from('<I', data, place)
        name, sign, value = data[place + 4 : place + 4 + length].partition(b'=')
        place += 4 + length
        if not sign or place > len(data):
            raise ValueError('this is not a header')
        found[name] = value
    return found


def _record(content: Any, place: int) -> tuple[_Header, int, int]:
    """Header, start and end of the data of the record at a place; an empty header without one."""
    with suppress(struct.error, ValueError):
        (length,) = struct.unpack_from('<I', content, place)
        start = place + 8 + length
        if start <= len(content):
            header = _fields(content[place + 4 : start - 4])
            (size,) = struct.unpack_from('<I', content, start - 4)
            if len(header.get(b'op', b'')) == 1:
                return header, start, start + size
    return {}, place, place


def _records(content: bytes) -> Iterator[tuple[_Header, int, int]]:
    """Those that are whole."""
    end = 0
    while end < len(content):
        header, start, end = _record(content, end)
        if not header or end > len(content):
            return
        yield header, start, end


def _next(content: mmap, place: int) -> int | None:
    """Where the next message, chunk or connection begins; None where there is none."""
    for match in _CANDIDATE.finditer(content, place):
        for start in range(match.start() - 4, max(place, match.start() - _BEFORE) - 1, -1):
            header, _, end = _record(content, start)
            if header and end <= len(content) and header[b'op'] == match.group()[-1:]:
                return start
    return None


def _place(header: _Header) -> tuple[int, int]:
    """Connection and time of a message."""
    seconds, nanoseconds = struct.unpack('<II', header[b'time'])
    return struct.unpack('<I', header[b'conn'])[0], 10**9 * seconds + nanoseconds


def _unpacked(header: _Header, data: bytes, *, cut: bool) -> bytes:
    """The records in a chunk, or as much as there is of one that is cut off."""
    method = header[b'compression'].decode()
    if method == 'bz2':
        data = bz2.BZ2Decompressor().decompress(data)
    elif method == 'lz4':
        from lz4 import frame  # which rosbags needs, so it is there

        data = frame.LZ4FrameDecompressor().decompress(data)
    elif method != 'none':
        raise ValueError(f'compression {method} is unknown')
    if not cut and len(data) != struct.unpack('<I', header[b'size'])[0]:
        raise ValueError('its size is wrong')
    return data
