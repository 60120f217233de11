"""Recordings: bags of any format are read, rosbag2 folders in MCAP are written, without ROS.

`rosbags` (PyPI) does the work and is imported where it is used: a robot that only runs the node
does not need it. Messages travel as CDR bytes with their type's name, so that what came over DDS
is stored as it came.

Metadata is written as rosbag2 version 8. Its QoS profiles are a string, which Humble, Iron, Jazzy,
Kilted and Lyrical all read; version 9 made them a list, which Humble and Iron refuse. Humble also
needs the package `ros-humble-rosbag2-storage-mcap`; from Iron on MCAP is part of rosbag2.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import one_line
from .cdr import RecordingError, Types

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, Qos

BAG_SUFFIXES = ('.mcap', '.db3', '.bag')
_REMEDIES = {
    '.bag': 'rosbag reindex',
    '.mcap': 'mcap recover',
    '.db3': 'sqlite3 .recover',
    '': 'ros2 bag reindex, or mcap recover for its files,',
}


@dataclass(frozen=True)
class Recorded:
    """One stored message."""

    topic: str
    type: str
    time_ns: int  # when it was recorded
    data: bytes  # CDR with its four-byte encapsulation header


# rosbag2's text for "reliable, and for the latest only": what the node offers.
QOS = (
    '- avoid_ros_namespace_conventions: false\n  deadline: {nsec: 854775807, sec: 9223372036}\n'
    '  depth: 10\n  durability: 2\n  history: 1\n'
    '  lifespan: {nsec: 854775807, sec: 9223372036}\n  liveliness: 1\n'
    '  liveliness_lease_duration: {nsec: 854775807, sec: 9223372036}\n  reliability: 1'
)
# The same for what is kept for late comers.
QOS_LATCHED = QOS.replace('depth: 10', 'depth: 1').replace('durability: 2', 'durability: 1')


def _qos(text: str) -> list[Qos]:
    from rosbags.rosbag2.metadata import parse_qos

    return parse_qos(text)


class RecordingWriter:
    """Writes one MCAP recording; the folder appears complete when the ``with`` block ends well.

    Args:
        folder: where it will be; a recording that is there already is replaced at the end.
        compress: compress with zstd; off for pictures, which are compressed already.
        types: share one instance with other readers and writers.

    Raises:
        RecordingError: ``rosbags`` is missing, or the folder holds something else.
    """

    def __init__(
        self, folder: str | Path, *, compress: bool = False, types: Types | None = None
    ) -> None:
        self.folder = Path(folder).absolute()
        self.types = types or Types()
        if self.folder.exists() and not (self.folder / 'metadata.yaml').is_file():
            raise RecordingError(f'{folder} exists and is not a recording; not overwriting it')
        self._partial = self.folder.parent / f'.{self.folder.name}.partial'
        self._compress = compress
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> RecordingWriter:
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

        shutil.rmtree(self._partial, ignore_errors=True)
        # rosbags names the .mcap file after its folder, so the folder has its final name already.
        self._writer = Writer(
            self._partial / self.folder.name, version=8, storage_plugin=StoragePlugin.MCAP
        )
        if self._compress:
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._connections:
                self._writer.close()
                if self.folder.exists():
                    shutil.rmtree(self.folder)
                (self._partial / self.folder.name).rename(self.folder)
            else:
                self._writer.abort()
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def write(
        self, topic: str, kind: str, time_ns: int, data: bytes, *, latched: bool = False
    ) -> None:
        """Append one serialized message; ``latched`` is stored as the topic's QoS."""
        connection = self._connections.get(topic)
        if connection is None:
            connection = self._writer.add_connection(
                topic,
                self.types.require(kind),
                typestore=self.types.store,
                offered_qos_profiles=_qos(QOS_LATCHED if latched else QOS),
            )
            self._connections[topic] = connection
        self._writer.write(connection, time_ns, data)


class RecordingReader:
    """Reads a recording in the order of time; use with ``with``.

    A rosbag2 folder (MCAP or SQLite, also split or compressed), one of its .mcap or .db3 files, or
    a ROS 1 .bag, whose messages become those of ROS 2.

    Attributes:
        topics: name of each topic -> its message type.
        counts: name of each topic -> its number of messages.
        start_ns, end_ns: times of the first and the last message.

    Raises:
        RecordingError: ``rosbags`` is missing, or it is not a readable recording.
    """

    topics: Mapping[str, str]
    counts: Mapping[str, int]
    start_ns: int
    end_ns: int

    def __init__(self, path: str | Path, *, types: Types | None = None) -> None:
        self.path = Path(path)
        self.types = types or Types()

    def __enter__(self) -> RecordingReader:
        self._reader = self._open()
        connections = self._reader.connections
        self.topics = {c.topic: c.msgtype for c in connections}
        self.counts = {
            topic: sum(c.msgcount for c in connections if c.topic == topic) for topic in self.topics
        }
        self._definitions = {c.msgtype: c.msgdef.data for c in connections}
        empty = not sum(self.counts.values())
        self.start_ns = 0 if empty else self._reader.start_time
        self.end_ns = 0 if empty else self._reader.end_time - 1
        return self

    @property
    def duration_s(self) -> float:
        """Seconds between the first and the last message."""
        return (self.end_ns - self.start_ns) * 1e-9

    def _open(self) -> Any:
        from rosbags import rosbag1, rosbag2

        self._ros1 = self.path.suffix == '.bag'
        if not self._ros1 and self.path.suffix not in BAG_SUFFIXES:
            if not (self.path / 'metadata.yaml').is_file():
                raise RecordingError(
                    f'{self.path} is not a recording: no metadata.yaml in it (expected a rosbag2 '
                    f'folder)'
                )
        elif not self.path.is_file():
            raise RecordingError(f'{self.path}: no such file')
        try:
            reader = (rosbag1 if self._ros1 else rosbag2).Reader(self.path)
            reader.open()
        # Not only ReaderError: a damaged file also shows as TypeError, struct.error and others.
        except Exception as error:
            raise self._unreadable(error) from error
        return reader

    def _unreadable(self, error: Exception) -> RecordingError:
        remedy = _REMEDIES.get(self.path.suffix, _REMEDIES[''])
        return RecordingError(
            f'cannot read the recording {self.path}: {one_line(error)} ({remedy} may save it)'
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(Exception):
            self._reader.close()

    def messages(
        self,
        topics: Collection[str] | None = None,
        start_ns: int | None = None,
        stop_ns: int | None = None,
    ) -> Iterator[Recorded]:
        """Yield the messages of some topics (all when None) by time.

        Args:
            start_ns, stop_ns: only those recorded from the one until before the other.

        Raises:
            RecordingError: A topic is not in the recording, or the file is damaged.
        """
        missing = sorted(set(topics or ()) - set(self.topics))
        if missing:
            raise RecordingError(f'{self.path} has no topic {missing[0]}')
        wanted = [c for c in self._reader.connections if topics is None or c.topic in topics]
        if not wanted:
            return
        stored = self._reader.messages(wanted, start_ns, stop_ns)
        while True:
            try:
                connection, time_ns, data = next(stored)
            except StopIteration:
                return
            except Exception as error:
                raise self._unreadable(error) from error
            kind = connection.msgtype
            yield Recorded(connection.topic, kind, time_ns, self._as_cdr(kind, data))

    def _as_cdr(self, kind: str, data: Any) -> bytes:
        if self._ros1:
            self.types.adopt(kind, self._definitions[kind])
            data = self.types.store.ros1_to_cdr(data, kind)
        return bytes(data)

    def definition(self, kind: str) -> str:
        """The definition of a type in the recording; empty where it has none for ROS 2."""
        return '' if self._ros1 else self._definitions[kind]

    def qos(self, topic: str) -> str:
        """What publishers of a topic offered, as rosbag2 writes it."""
        from rosbags.rosbag2.metadata import dump_qos_v8

        connection = next(c for c in self._reader.connections if c.topic == topic)
        profiles = getattr(connection.ext, 'offered_qos_profiles', None)
        return dump_qos_v8(profiles) if profiles else QOS

    def hash(self, topic: str) -> str:
        """The hash (RIHS01) of the type of a topic; empty where the recording does not know."""
        return str(next(c.digest for c in self._reader.connections if c.topic == topic))

    def unpack(self, message: Recorded) -> Any:
        """Deserialize one message.

        Raises:
            RecordingError: it, or the definition of its type, cannot be read.
        """
        self.types.adopt(message.type, self._definitions[message.type])
        return self.types.unpack(message.type, message.data)
