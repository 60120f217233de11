"""What the doctor finds on the live graph: perception nodes, their cameras, their processes."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..offline.cdr import RecordingError, header_stamp_ns
from ..topics import namespace_of
from ..wiring import full_name
from .findings import Finding, Level
from .graph import ask, message_class, ros_node, spin
from .hearing import (
    Endpoint,
    Heard,
    check_calibration,
    check_flow,
    check_image,
    check_publishers,
)
from .processes import process_of
from .transport import SEGMENT_BYTES, examine_profile

# The graph is known when nothing has been new for a while.
DISCOVERY_S, SETTLED_S, PATIENCE_S = 3.0, 2.0, 15.0
ANSWER_S = 3.0
# A node that works looks for listeners five times a second, and reports every second.
WAKE_S = 6.0
_IMAGE, _COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
_INFO = 'sensor_msgs/msg/CameraInfo'
_DESCRIBE = 'mtl_perception_msgs/srv/DescribeModel'
_LEVELS: dict[bytes, Level] = {b'\0': 'ok', b'\1': 'warn', b'\2': 'fail', b'\3': 'fail'}
_SHOWN = 5  # topics of images that are looked at where no node of this package is
# What a segment of shared memory must hold of the largest message that is sent through it.
_MESSAGES = 4


def examine_graph(seconds: float) -> list[Finding]:
    """Check what is on the graph of this domain.

    Args:
        seconds: to listen.
    """
    try:
        importlib.import_module('rclpy')
    except Exception:  # the finding about ROS has said it
        return []
    with ros_node('mtl_perception_doctor') as (node, executor):
        return Doctor(node, executor, seconds).examine()


@dataclass
class _Node:
    """A perception node.

    Attributes:
        name: its full name.
        images, infos: what it subscribes to: topic -> type.
        own: topics that it publishes -> type.
        said: its newest diagnostics: part -> status.
    """

    name: str
    images: dict[str, str] = field(default_factory=dict)
    infos: dict[str, str] = field(default_factory=dict)
    own: dict[str, str] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)


class Doctor:
    """Looks at a graph with a node of its own.

    Args:
        node: of rclpy.
        executor: spins it.
        seconds: to listen.
    """

    def __init__(self, node: Any, executor: Any, seconds: float) -> None:
        self._node = node
        self._executor = executor
        self._seconds = seconds

    def examine(self) -> list[Finding]:
        """What is found, the nodes of this package first."""
        self._discover()
        services = self._node.get_service_names_and_types()
        names = [
            name.removesuffix('/describe_model') for name, kinds in services if _DESCRIBE in kinds
        ]
        nodes = [_Node(name) for name in names]
        with self._woken(nodes):
            findings = [finding for node in nodes for finding in self._examine_node(node)]
        return findings if nodes else self._examine_cameras()

    def _discover(self) -> None:
        start = changed = time.monotonic()
        known = 0
        while (now := time.monotonic()) < min(
            start + PATIENCE_S, max(start + DISCOVERY_S, changed + SETTLED_S)
        ):
            self._executor.spin_once(timeout_sec=0.1)
            found = len(self._node.get_topic_names_and_types())
            found += len(self._node.get_service_names_and_types())
            if found != known:
                known, changed = found, now

    # Nodes of this package

    @contextmanager
    def _woken(self, nodes: list[_Node]) -> Iterator[None]:
        """Let nodes work, which they do for somebody only, and listen to what they report."""
        subscribe = self._node.create_subscription
        held = []
        for node in nodes:
            self._look_at(node)
            for topic, kind in node.own.items():
                if kind == _INFO:
                    held.append(subscribe(message_class(kind), topic, lambda _: None, 1, raw=True))
        if nodes:
            diagnostics = message_class('diagnostic_msgs/msg/DiagnosticArray')
            held.append(subscribe(diagnostics, '/diagnostics', partial(_take, nodes), 10))
            spin(self._executor, WAKE_S, lambda: all(map(self._is_awake, nodes)))
        try:
            yield
        finally:
            for subscription in held:
                self._node.destroy_subscription(subscription)

    def _is_awake(self, node: _Node) -> bool:
        """Whether a node subscribes to images and has said how it is, as far as it is to."""
        self._look_at(node)
        works = any(kind == _INFO for kind in node.own.values())
        return not works or bool(node.images and node.said)

    def _look_at(self, node: _Node) -> None:
        namespace, _, name = node.name.rpartition('/')
        subscribed = dict(self._of_node('get_subscriber_names_and_types_by_node', namespace, name))
        node.own = dict(self._of_node('get_publisher_names_and_types_by_node', namespace, name))
        node.images = {t: k for t, k in subscribed.items() if k in (_IMAGE, _COMPRESSED)}
        node.infos = {t: k for t, k in subscribed.items() if k == _INFO}

    def _of_node(self, query: str, namespace: str, name: str) -> list[tuple[str, str]]:
        try:
            return [(t, k[0]) for t, k in getattr(self._node, query)(name, namespace or '/')]
        except Exception:  # rclpy has no public class for a node that has just ended
            return []

    def _examine_node(self, node: _Node) -> list[Finding]:
        findings = [self._state(node), *self._model(node)]
        setting = self._rectified(node)
        for topic, kind in node.images.items():
            infos = [i for i in node.infos if namespace_of(i) == namespace_of(topic)]
            infos = infos or ([*node.infos] if len(node.images) == 1 else [])
            found = self._examine_camera(topic, kind, infos[:1], setting, listener=node.name)
            findings += found
        for part, status in node.said.items():
            level = _LEVELS[status.level]
            remedy = 'docs/topics.md tells what it means'
            findings.append(Finding(level, f'{node.name}: {part}', status.message, remedy))
        if not node.said:
            detail = 'reports nothing on /diagnostics: it is not configured, or does not get to it'
            findings.append(Finding('warn', node.name, detail, f'ros2 lifecycle get {node.name}'))
        return findings

    def _state(self, node: _Node) -> Finding:
        from lifecycle_msgs.srv import GetState

        answer = self._ask(GetState, f'{node.name}/get_state')
        alike = self._node.get_node_names_and_namespaces()
        if sum(full_name(space, name) == node.name for name, space in alike) > 1:
            remedy = 'give each another name or namespace: -r __ns:=/front'
            return Finding('fail', node.name, 'several nodes have this name', remedy)
        if answer is None:
            detail = f'does not answer within {ANSWER_S:g} s'
            return Finding('fail', node.name, detail, 'see its log, or start it again')
        label = answer.current_state.label
        if label != 'active':
            remedy = f'autostart:=true, or ros2 lifecycle set {node.name} configure, then activate'
            return Finding('fail', node.name, f'is {label}', remedy)
        return Finding('ok', node.name, 'is active')

    def _model(self, node: _Node) -> list[Finding]:
        from mtl_perception_msgs.srv import DescribeModel

        answer = self._ask(DescribeModel, f'{node.name}/describe_model')
        if answer is None or not answer.success:
            return []
        engine = ', '.join(filter(None, [answer.provider, answer.precision, answer.device]))
        detail = f'{answer.name} {answer.version} on {answer.engine or "no engine yet"} ({engine})'
        return [Finding('ok', f'{node.name}: model', detail)]

    def _rectified(self, node: _Node) -> str:
        from rcl_interfaces.srv import GetParameters

        answer = self._ask(GetParameters, f'{node.name}/get_parameters', names=['rectified'])
        value = answer.values[0] if answer is not None and answer.values else None
        if value is None:
            return 'auto'
        return value.string_value or str(value.bool_value).lower()

    def _ask(self, kind: Any, service: str, **request: Any) -> Any:
        return ask(self._node, self._executor, kind, service, ANSWER_S, **request)

    # Cameras

    def _examine_cameras(self) -> list[Finding]:
        """What there is for a node of this package."""
        topics = {
            name: kinds[0]
            for name, kinds in self._node.get_topic_names_and_types()
            if kinds[0] in (_IMAGE, _COMPRESSED) and self._node.count_publishers(name)
        }
        findings = []
        for topic, kind in list(topics.items())[:_SHOWN]:
            info = f'{namespace_of(topic)}/camera_info'
            infos = [info] if self._node.count_publishers(info) else []
            findings += self._examine_camera(topic, kind, infos, 'auto')
        detail = 'no perception node is on it' + ('' if topics else ', and no camera')
        detail += f'; {len(topics)} topics of images' if topics else ''
        return [Finding('ok', 'graph', detail), *findings]

    def _examine_camera(
        self, topic: str, kind: str, infos: list[str], setting: str, listener: str = ''
    ) -> list[Finding]:
        publishers = self._publishers(topic, listener)
        findings = check_publishers(topic, kind, publishers)
        if not any(publisher.type == kind for publisher in publishers):
            return findings
        with self._listening(topic, kind) as heard, self._listening_to(infos) as heard_infos:
            spin(self._executor, self._seconds)
        findings += check_flow(heard, self._seconds)
        largest = len(heard.last)
        if heard.last:
            message = _read(kind, heard.last)
            finding, size = check_image(topic, message)
            findings.append(finding)
            if any(size):
                findings += [
                    check_calibration(
                        other.topic, _read(_INFO, other.last), message,
                        images=topic, size=size, setting=setting,
                    )
                    for other in heard_infos
                    if other.last
                ]  # fmt: skip
        for other in heard_infos:
            if not other.last:
                detail = f'nothing came in {self._seconds:g} s'
                findings.append(Finding('warn', other.topic, detail, 'remap camera_info'))
            if senders := self._publishers(other.topic, listener):
                judged = check_publishers(other.topic, _INFO, senders)
                findings += [finding for finding in judged if finding.level != 'ok']
        if not infos:
            detail = 'no CameraInfo beside it: depth is not metric'
            findings.append(Finding('warn', topic, detail, 'publish it, or remap camera_info'))
        wanted = max(SEGMENT_BYTES, _MESSAGES * largest)
        return findings + self._profiles(publishers, wanted)

    def _publishers(self, topic: str, listener: str) -> list[Endpoint]:
        """Who publishes; with the mismatch to the subscription of a node."""
        from rclpy.qos import QoSCompatibility, qos_check_compatible

        subscriptions = [
            found.qos_profile
            for found in self._node.get_subscriptions_info_by_topic(topic)
            if full_name(found.node_namespace, found.node_name) == listener
        ]
        endpoints = []
        for found in self._node.get_publishers_info_by_topic(topic):
            reasons = []
            for qos in subscriptions:
                fits, reason = qos_check_compatible(found.qos_profile, qos)
                wrong = ' '.join(reason.removeprefix('ERROR: ').split()).rstrip(';')
                reasons.append(wrong if fits == QoSCompatibility.ERROR else '')
            mismatch = '' if '' in reasons else next(iter(reasons), '')  # one that fits is enough
            name = full_name(found.node_namespace, found.node_name)
            gid = tuple(found.endpoint_gid)
            endpoints.append(Endpoint(name, found.topic_type, gid, mismatch))
        return endpoints

    def _profiles(self, publishers: list[Endpoint], wanted: int) -> list[Finding]:
        """The Fast DDS profiles of the processes that publish."""
        import rclpy

        if 'fastrtps' not in rclpy.get_rmw_implementation_identifier():
            return []
        (own, *_) = self._node.get_publishers_info_by_topic('/rosout')
        mine = self._node.get_publishers_info_by_topic('/parameter_events')
        own = next((e for e in mine if e.node_name == self._node.get_name()), own)
        findings = []
        for publisher in publishers:
            process = process_of(publisher.gid, own.endpoint_gid)
            subject = f'profile of {publisher.node}'
            if process is None:
                detail = 'cannot be seen: another machine, container or user'
                findings.append(Finding('ok', subject, detail))
            else:
                subject += f' (process {process.number})'
                environment, folder = process.environment, process.folder
                findings.append(
                    examine_profile(environment, folder, subject=subject, wanted=wanted)
                )
        return findings

    @contextmanager
    def _listening_to(self, topics: list[str]) -> Iterator[list[Heard]]:
        if not topics:
            yield []
            return
        with self._listening(topics[0], _INFO) as heard:
            yield [heard]

    @contextmanager
    def _listening(self, topic: str, kind: str) -> Iterator[Heard]:
        """Take in what comes on a topic, also what was published before and is kept."""
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

        heard = Heard(topic)
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        publishers = self._node.get_publishers_info_by_topic(topic)
        if any(p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers):
            qos.reliability = ReliabilityPolicy.RELIABLE
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        subscription = self._node.create_subscription(
            message_class(kind), topic, lambda data: self._note(heard, data), qos, raw=True
        )
        try:
            yield heard
        finally:
            self._node.destroy_subscription(subscription)

    def _note(self, heard: Heard, data: bytes) -> None:
        try:
            stamp = header_stamp_ns(data)
        except RecordingError:  # not worth a traceback, and reading it will tell
            stamp = 0
        heard.arrivals.append(time.monotonic())
        heard.stamps.append(stamp)
        heard.ages_s.append(1e-9 * (self._node.get_clock().now().nanoseconds - stamp))
        heard.last = data


def _take(nodes: list[_Node], array: Any) -> None:
    """Keep what nodes say about themselves."""
    for status in array.status:
        name, _, part = status.name.partition(': ')
        for node in nodes:
            if node.name.lstrip('/') == name:
                node.said[part] = status


def _read(kind: str, data: bytes) -> Any:
    from rclpy.serialization import deserialize_message

    return deserialize_message(data, message_class(kind))
