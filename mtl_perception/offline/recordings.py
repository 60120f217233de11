"""Recordings: rosbag2 folders in MCAP, written and read without a ROS installation.

`rosbags` (PyPI) does the work and is imported where it is used: a robot that only runs the node
does not need it. Messages travel as CDR bytes with their type's name, so that what came over DDS
is stored as it came.

Metadata is written as rosbag2 version 8. Its QoS profiles are a string, which Humble, Iron, Jazzy,
Kilted and Lyrical all read; version 9 made them a list, which Humble and Iron refuse. Humble also
needs the package `ros-humble-rosbag2-storage-mcap`; from Iron on MCAP is part of rosbag2.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from .. import PerceptionError
from ..share import interface_definitions

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, Qos
    from rosbags.typesys.store import Typestore

FRAME_ID = 'camera_optical_frame'
IMAGE_TOPIC = '/camera/image_raw/compressed'
CAMERA_INFO_TOPIC = '/camera/camera_info'
# Ground truth: topic, key of a SampleFrame, CompressedImage.format as image_transport spells it.
GROUND_TRUTH = {
    'depth': ('/ground_truth/depth', 'depth_mm', '16UC1; png compressed '),
    'semantic': ('/ground_truth/semantic', 'semantic', 'mono8; png compressed mono8'),
    'normals': ('/ground_truth/normals', 'normals', 'rgb8; png compressed bgr8'),
    'edges': ('/ground_truth/edges', 'edges', 'mono8; png compressed mono8'),
}


class RecordingError(PerceptionError):
    """A recording that cannot be read or written; the message names the folder and the reason."""


class GroundTruth(TypedDict, total=False):
    """What is known of a moment, as encoded files; a moment may have none."""

    depth_mm: bytes  # PNG uint16 millimetres, 0 = no surface
    semantic: bytes  # PNG uint8 class ids of the bundle, 255 = void
    normals: bytes  # PNG RGB, (n + 1) / 2 * 255 in the optical frame, (0, 0, 0) = void
    edges: bytes  # PNG uint8, 0 or 255


class SampleFrame(GroundTruth):
    """One moment of a sample recording; pictures are encoded files, not arrays."""

    stamp_ns: int
    rgb: bytes  # JPEG, width x height
    k: Sequence[float]  # row-major 3x3 intrinsics in pixels of width x height
    width: int
    height: int


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


def _definition_files(kind: str) -> Iterator[Path]:
    """Where the .msg file of an interface may lie: the sourced ROS prefixes, then this checkout."""
    package, _, name = kind.split('/')
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        if prefix:
            yield Path(prefix) / 'share' / package / 'msg' / f'{name}.msg'
    yield interface_definitions(package) / f'{name}.msg'


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

        path = next((path for path in _definition_files(kind) if path.is_file()), None)
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
        RecordingError: ``rosbags`` is missing, or the folder is no readable recording.
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


def write_sample(folder: str | Path, frames: Iterable[SampleFrame]) -> int:
    """Write a camera with its ground truth as a recording that the demo plays.

    Args:
        folder: where; replaced when it holds a recording already.
        frames: moments in the order of time.

    Returns:
        How many frames were written.

    Raises:
        RecordingError: No frames, or the folder cannot be used.
    """
    count = 0
    with RecordingWriter(folder) as writer:
        types = writer.types
        for frame in frames:
            count += 1
            stamp = frame['stamp_ns']
            header = types.header(stamp, FRAME_ID)
            pictures = [(IMAGE_TOPIC, frame['rgb'], 'rgb8; jpeg compressed bgr8')]
            pictures += [
                (topic, frame[key], encoding)  # type: ignore[literal-required]
                for topic, key, encoding in GROUND_TRUTH.values()
                if key in frame
            ]
            info = _camera_info(types, header, frame)
            writer.write(CAMERA_INFO_TOPIC, 'sensor_msgs/msg/CameraInfo', stamp, info)
            for topic, picture, encoding in pictures:
                kind = 'sensor_msgs/msg/CompressedImage'
                data = np.frombuffer(picture, np.uint8)
                packed = types.pack(kind, header=header, format=encoding, data=data)
                writer.write(topic, kind, stamp, packed)
    if not count:
        raise RecordingError(f'no frames to write to {folder}')
    return count


def _camera_info(types: Types, header: Any, frame: SampleFrame) -> bytes:
    """Serialize the CameraInfo of an undistorted pinhole camera."""
    k = np.asarray(frame['k'], np.float64).reshape(3, 3)
    region = types.make(
        'sensor_msgs/msg/RegionOfInterest',
        x_offset=0,
        y_offset=0,
        height=0,
        width=0,
        do_rectify=False,
    )
    return types.pack(
        'sensor_msgs/msg/CameraInfo',
        header=header,
        height=frame['height'],
        width=frame['width'],
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=k.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([k, np.zeros((3, 1))]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=region,
    )
