"""What stores the messages of a recording: its topics, its messages by time, what is wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

# rosbag2's text for "reliable, and for the latest only": what the node offers.
QOS = (
    '- avoid_ros_namespace_conventions: false\n  deadline: {nsec: 854775807, sec: 9223372036}\n'
    '  depth: 10\n  durability: 2\n  history: 1\n'
    '  lifespan: {nsec: 854775807, sec: 9223372036}\n  liveliness: 1\n'
    '  liveliness_lease_duration: {nsec: 854775807, sec: 9223372036}\n  reliability: 1'
)
# The same for what is kept for late comers.
QOS_LATCHED = QOS.replace('depth: 10', 'depth: 1').replace('durability: 2', 'durability: 1')


@dataclass(frozen=True)
class StoredTopic:
    """A topic of a recording.

    Attributes:
        name: of the topic.
        type: of its messages.
        definition: of the type; empty where the recording has none.
        count: of its messages.
        qos: what its publishers offered, as rosbag2 writes it.
        hash: of the type (RIHS01); empty where the recording does not know.
    """

    name: str
    type: str
    definition: str = ''
    count: int = 0
    qos: str = QOS
    hash: str = ''


class Storage(Protocol):
    """An opened recording.

    Attributes:
        topics: of it; one that several publishers had may be there several times.
        start_ns, end_ns: times of the first and the last message; both 0 without messages.
        notes: what is unusual about it, though nothing is missing.
        losses: what is missing.
    """

    topics: Sequence[StoredTopic]
    start_ns: int
    end_ns: int
    notes: list[str]
    losses: list[str]

    def messages(
        self, names: Collection[str], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[tuple[StoredTopic, int, bytes]]:
        """Messages of some topics by time: topic, time, what is stored."""

    def close(self) -> None:
        """Close it."""


class RosbagsStorage:
    """A recording that is whole, read by `rosbags`, which raises whatever it stumbles over."""

    def __init__(self, path: Path) -> None:
        from rosbags import rosbag1, rosbag2
        from rosbags.rosbag2.metadata import dump_qos_v8

        self._reader: Any = (rosbag1 if path.suffix == '.bag' else rosbag2).Reader(path)
        self._reader.open()
        self.notes: list[str] = []
        self.losses: list[str] = []
        self._topics: dict[tuple[str, str], StoredTopic] = {}
        for connection in self._reader.connections:
            key = connection.topic, connection.msgtype
            profiles = getattr(connection.ext, 'offered_qos_profiles', None)
            topic = StoredTopic(
                *key,
                connection.msgdef.data,
                connection.msgcount,
                dump_qos_v8(profiles) if profiles else QOS,
                str(connection.digest),
            )
            known = self._topics.setdefault(key, topic)
            if known is not topic:  # another publisher
                self._topics[key] = replace(known, count=known.count + topic.count)
        self.topics: Sequence[StoredTopic] = list(self._topics.values())
        empty = not sum(topic.count for topic in self.topics)
        self.start_ns = 0 if empty else self._reader.start_time
        self.end_ns = 0 if empty else self._reader.end_time - 1

    def messages(
        self, names: Collection[str], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[tuple[StoredTopic, int, bytes]]:
        wanted = [c for c in self._reader.connections if c.topic in names]
        if not wanted:  # which it would take for all
            return
        for connection, time_ns, data in self._reader.messages(wanted, start_ns, stop_ns):
            yield self._topics[connection.topic, connection.msgtype], time_ns, data

    def close(self) -> None:
        self._reader.close()
