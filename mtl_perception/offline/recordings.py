"""Recordings: rosbag2 folders in MCAP, written and read without a ROS installation.

`rosbags` (PyPI) does the work and is imported where it is used: a robot that only runs the node
does not need it. Messages travel as CDR bytes with their type's name, so that what came over DDS
is stored as it came.

Metadata is written as rosbag2 version 8. Its QoS profiles are a string, which Humble, Iron, Jazzy,
Kilted and Lyrical all read; version 9 made them a list, which Humble and Iron refuse. Humble also
needs the package `ros-humble-rosbag2-storage-mcap`; from Iron on MCAP is part of rosbag2.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .. import PerceptionError
from ..share import message_definition

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, Qos
    from rosbags.typesys.store import Typestore


class RecordingError(PerceptionError):
    """A recording that cannot be read or written; the message names the folder and the reason."""


@dataclass(frozen=True)
class Recorded:
    """One stored message."""

    topic: str
    type: str
    time_ns: int  # when it was recorded
    data: bytes  # CDR with its four-byte encapsulation header


def header_stamp_ns(data: bytes) -> int:
    """Read the stamp of a serialized message whose first field is a std_msgs/Header.

    Args:
        data: CDR bytes; both byte orders are understood.

    Returns:
        Nanoseconds since the epoch of the message's clock.
    """
    if len(data) < 12:
        raise RecordingError(f'message of {len(data)} bytes is too short to hold a header')
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


class Types:
    """CDR (de)serialization of message types: the common ones built in, others from .msg files."""

    def __init__(self) -> None:
        try:
            from rosbags.typesys import Stores, get_typestore
        except ImportError:
            raise RecordingError(
                'recordings need the Python package rosbags: pip install rosbags'
            ) from None
        # Humble's definitions are the ones that every later distribution still agrees with.
        self.store: Typestore = get_typestore(Stores.ROS2_HUMBLE)

    def require(self, kind: str) -> str:
        """Make a type known, with the types it holds.

        Args:
            kind: such as ``vision_msgs/msg/LabelInfo``.

        Returns:
            The same name.

        Raises:
            RecordingError: No definition of the type was found.
        """
        if kind in self.store.fielddefs:
            return kind
        from rosbags.typesys import get_types_from_msg

        path = message_definition(kind)
        if path is None:
            raise RecordingError(
                f'the definition of {kind} was not found under AMENT_PREFIX_PATH; '
                f'source the workspace that holds it'
            )
        found = get_types_from_msg(path.read_text(encoding='utf-8'), kind)
        for fields in found.values():
            for _, description in fields[1]:
                for nested in _named_types(description):
                    self.require(nested)
        self.store.register(found)
        return kind

    def adopt(self, kind: str, definition: str) -> None:
        """Learn a type from the definition that a recording carries, unless it is known."""
        if definition and kind not in self.store.fielddefs and 'IDL: ' not in definition:
            from rosbags.typesys import get_types_from_msg

            found = get_types_from_msg(definition, kind)
            known = self.store.fielddefs
            self.store.register({name: f for name, f in found.items() if name not in known})

    def pack(self, kind: str, **fields: Any) -> bytes:
        """Serialize a message given by its fields (nested messages from ``make``) to CDR."""
        return bytes(self.store.serialize_cdr(self.make(kind, **fields), kind))

    def make(self, kind: str, **fields: Any) -> Any:
        """Make a message object with all its fields given."""
        return self.store.types[self.require(kind)](**fields)

    def unpack(self, kind: str, data: bytes) -> Any:
        """Deserialize CDR bytes to a message object with the fields of its .msg file."""
        return self.store.deserialize_cdr(data, self.require(kind))

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        """Make a std_msgs/Header."""
        seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
        stamp = self.make('builtin_interfaces/msg/Time', sec=seconds, nanosec=nanoseconds)
        return self.make('std_msgs/msg/Header', stamp=stamp, frame_id=frame_id)


def _named_types(description: Any) -> Iterator[str]:
    """Names of the message types inside a field description of rosbags' type system."""
    if isinstance(description, str):
        if '/' in description:
            yield description
    elif isinstance(description, tuple):
        for part in description:
            yield from _named_types(part)


def _qos(latched: bool) -> Qos:
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    forever = QosTime(9223372036, 854775807)
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1 if latched else 10,
        reliability=QosReliability.RELIABLE,
        durability=durability,
        deadline=forever,
        lifespan=forever,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )


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
                offered_qos_profiles=[_qos(latched)],
            )
            self._connections[topic] = connection
        self._writer.write(connection, time_ns, data)


class RecordingReader:
    """Reads a rosbag2 folder (MCAP or SQLite) in the order of time; use with ``with``.

    Attributes:
        topics: name of each topic -> its message type.
        duration_s: seconds between the first and the last message.

    Raises:
        RecordingError: ``rosbags`` is missing, or the folder is not a readable recording.
    """

    topics: Mapping[str, str]
    duration_s: float

    def __init__(self, folder: str | Path, *, types: Types | None = None) -> None:
        self.folder = Path(folder)
        self.types = types or Types()

    def __enter__(self) -> RecordingReader:
        from rosbags.rosbag2 import Reader

        if not (self.folder / 'metadata.yaml').is_file():
            raise RecordingError(
                f'{self.folder} is not a recording: no metadata.yaml in it (expected a rosbag2 '
                f'folder)'
            )
        try:
            self._reader = Reader(self.folder)
            self._reader.open()
        # Not only ReaderError: a damaged file also shows as TypeError, struct.error and others.
        except Exception as error:
            raise RecordingError(f'cannot read the recording {self.folder}: {error}') from error
        self.topics = {c.topic: c.msgtype for c in self._reader.connections}
        self.duration_s = self._reader.duration * 1e-9
        for connection in self._reader.connections:
            self.types.adopt(connection.msgtype, connection.msgdef.data)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(Exception):
            self._reader.close()

    def messages(self, topics: Collection[str] | None = None) -> Iterator[Recorded]:
        """Yield the messages of some topics (all when None) by time.

        Raises:
            RecordingError: A topic is not in the recording, or the file is damaged.
        """
        missing = sorted(set(topics or ()) - set(self.topics))
        if missing:
            raise RecordingError(f'{self.folder} has no topic {missing[0]}')
        wanted = [c for c in self._reader.connections if topics is None or c.topic in topics]
        if not wanted:
            return
        stored = self._reader.messages(wanted)
        while True:
            try:
                connection, time_ns, data = next(stored)
            except StopIteration:
                return
            except Exception as error:
                raise RecordingError(f'cannot read the recording {self.folder}: {error}') from error
            yield Recorded(connection.topic, connection.msgtype, time_ns, bytes(data))

    def unpack(self, message: Recorded) -> Any:
        """Deserialize one message."""
        return self.types.unpack(message.type, message.data)
