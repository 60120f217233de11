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
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import one_line
from .cdr import RecordingError, Types
from .salvage import Salvaged
from .storage import QOS, QOS_LATCHED, RosbagsStorage, Storage

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

    Args:
        path: of the recording.
        types: share one instance with other readers and writers.
        salvage: read what is left of one that is damaged, and say in ``losses`` what is missing.

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

    def __init__(
        self, path: str | Path, *, types: Types | None = None, salvage: bool = False
    ) -> None:
        self.path = Path(path)
        self.types = types or Types()
        self._salvage = salvage
        self._bad: set[tuple[str, int]] = set()  # topic and time of what cannot be read

    def __enter__(self) -> RecordingReader:
        self._opened = ExitStack()
        self._storage = self._open()
        topics = self._storage.topics
        self.topics = {topic.name: topic.type for topic in topics}
        self.counts = {
            name: sum(topic.count for topic in topics if topic.name == name) for name in self.topics
        }
        self._definitions = {topic.type: topic.definition for topic in topics}
        self.start_ns, self.end_ns = self._storage.start_ns, self._storage.end_ns
        return self

    @property
    def duration_s(self) -> float:
        """Seconds between the first and the last message."""
        return (self.end_ns - self.start_ns) * 1e-9

    @property
    def notes(self) -> list[str]:
        """What is unusual, though nothing is missing, a line each."""
        return self._storage.notes

    @property
    def losses(self) -> list[str]:
        """What was found missing so far, a line each."""
        bad = Counter(topic for topic, _ in self._bad)
        lines = [f'{count} messages on {topic} cannot be read' for topic, count in bad.items()]
        return [*self._storage.losses, *lines]

    def _open(self) -> Storage:
        self._ros1 = self.path.suffix == '.bag'
        if self.path.suffix in BAG_SUFFIXES and not self.path.is_dir():
            if not self.path.is_file():
                raise RecordingError(f'{self.path}: no such file')
        elif not (self.path / 'metadata.yaml').is_file() and not bag_files(self.path):
            raise RecordingError(
                f'{self.path} is not a recording: no metadata.yaml in it (expected a rosbag2 '
                f'folder)'
            )
        try:
            storage: Storage = RosbagsStorage(self.path)
        # Not only ReaderError: a damaged file also shows as TypeError, struct.error and others.
        except Exception as error:
            storage = self._salvaged(error)
            # What rosbags does not know, an unknown kind of definition for example, is no loss.
            if storage.losses and not self._salvage:
                storage.close()
                raise self._unreadable(error) from error
        self._opened.callback(_close, storage)
        return storage

    def _salvaged(self, error: Exception) -> Salvaged:
        """What is left of it after an error; refuses where nothing is."""
        try:
            return Salvaged(self.path)
        except RecordingError:
            raise self._unreadable(error) from error

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
        self._opened.close()

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
        names = self.topics if topics is None else topics
        stored = self._storage.messages(names, start_ns, stop_ns)
        done, salvaging = 0, isinstance(self._storage, Salvaged)
        while True:
            try:
                topic, time_ns, data = next(stored)
            except StopIteration:
                return
            except Exception as error:
                if salvaging or not self._salvage:
                    raise self._unreadable(error) from error
                if not isinstance(self._storage, Salvaged):
                    self._storage = self._salvaged(error)
                    self._opened.callback(_close, self._storage)
                # In the same order, so what was given already comes first.
                stored = islice(self._storage.messages(names, start_ns, stop_ns), done, None)
                salvaging = True
                continue
            done += 1
            try:
                data = self._as_cdr(topic.type, data)
            except Exception as error:  # of a damaged message of ROS 1, and of its definition
                if not self._salvage:
                    raise self._unreadable(error) from error
                self._bad.add((topic.name, time_ns))
                continue
            yield Recorded(topic.name, topic.type, time_ns, data)

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
        return next(stored.qos for stored in self._storage.topics if stored.name == topic)

    def hash(self, topic: str) -> str:
        """The hash (RIHS01) of the type of a topic; empty where the recording does not know."""
        return next(stored.hash for stored in self._storage.topics if stored.name == topic)

    def unpack(self, message: Recorded) -> Any:
        """Deserialize one message.

        Raises:
            RecordingError: it, or the definition of its type, cannot be read.
        """
        self.types.adopt(message.type, self._definitions[message.type])
        return self.types.unpack(message.type, message.data)


def bag_files(folder: Path) -> list[Path]:
    """The files of a rosbag2 folder, by their names."""
    return [*folder.glob('*.mcap'), *folder.glob('*.db3')]


def _close(storage: Storage) -> None:
    with suppress(Exception):
        storage.close()
