"""Playing a camera into a perception node over DDS, and listening to all of its outputs."""

from __future__ import annotations

import importlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import PerceptionError
from ..bundle import Bundle
from ..offline.cameras import CameraTopics
from ..offline.cdr import header_stamp_ns
from ..offline.recordings import Recorded
from ..outputs import COMPRESSED, outputs_of
from .node_process import NODE, NodeProcess

START_TIMEOUT_S = 60.0
SETTLE_S = 0.5
# Publishers that every node has and that are not outputs of the perception.
_COMMON = ('/rosout', '/parameter_events', f'{NODE}/transition_event')


def require_ros() -> None:
    """Import what a node needs, to fail before anything is started.

    Raises:
        ImportError: ROS 2 or the messages of this package are missing.
    """
    importlib.import_module('rclpy')
    message_class('mtl_perception_msgs/msg/PerceptionStatus')


def message_class(kind: str) -> Any:
    """Import a message class by its ROS name, such as ``sensor_msgs/msg/Image``.

    Raises:
        ImportError: Its package is missing, or has no such message.
    """
    package, _, name = kind.split('/')
    module = importlib.import_module(f'{package}.msg')
    if not hasattr(module, name):
        raise ImportError(f'{package} has no message {name}', name=package, path=module.__file__)
    return getattr(module, name)


@dataclass
class Topic:
    """What has come on one output topic."""

    name: str
    type: str
    latched: bool
    count: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    stamps: set[int] = field(default_factory=set)
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=20))

    def arrived(self, now: float) -> None:
        """Count one message at a monotonic time in seconds."""
        self.first_s = self.first_s or now
        self.last_s = now
        self.count += 1
        self.recent.append(now)

    def rate(self, now: float | None = None) -> float:
        """Messages per second: lately when ``now`` is given, else from first to last."""
        if now is None:
            span = self.last_s - self.first_s
            return (self.count - 1) / span if span > 0 else 0.0
        lately = [t for t in self.recent if now - t < 3.0]
        return (len(lately) - 1) / (lately[-1] - lately[0]) if len(lately) > 1 else 0.0

    def latency_ms(self, quantile: float = 0.5) -> float:
        """Quantile of the latency; NaN when nothing was matched with an image."""
        return float(np.quantile(self.latencies_ms, quantile)) if self.latencies_ms else np.nan


class Listener:
    """Subscribes every output of the node, raw, and notes when each message came.

    Compressed ones are left out: they are others once more.

    Latency is the time from publishing an image to receiving what was made from it, matched by the
    header stamp and measured with this process's monotonic clock.

    Args:
        node: rclpy node of this process.
        store: called with (topic, type, data, latched) for every message.
    """

    def __init__(self, node: Any, store: Callable[[Topic, bytes], None] | None = None) -> None:
        self.node = node
        self.store = store
        self.topics: dict[str, Topic] = {}
        self.published: dict[int, float] = {}
        self.subscriptions: list[Any] = []

    def discover(self) -> None:
        """Subscribe outputs that are on the graph and not subscribed yet."""
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

        namespace, _, name = NODE.rpartition('/')
        try:
            found = self.node.get_publisher_names_and_types_by_node(name, namespace or '/')
        except Exception:  # rclpy has no public class for "no such node yet"
            return
        for topic, kinds in found:
            if topic in self.topics or topic in _COMMON or kinds == [COMPRESSED]:
                continue
            publishers = self.node.get_publishers_info_by_topic(topic)
            if not publishers:  # its name is known before its QoS
                continue
            latched = any(
                p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers
            )
            durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
            self.topics[topic] = entry = Topic(topic, kinds[0], latched)
            subscription = self.node.create_subscription(
                message_class(kinds[0]),
                topic,
                lambda data, entry=entry: self._received(entry, data),
                QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE, durability=durability),
                raw=True,
            )
            self.subscriptions.append(subscription)

    def _received(self, topic: Topic, data: bytes) -> None:
        now = time.monotonic()
        topic.arrived(now)
        stamp = header_stamp_ns(data)
        published = self.published.get(stamp)
        if published is not None:
            topic.latencies_ms.append((now - published) * 1e3)
            topic.stamps.add(stamp)
        if self.store is not None:
            self.store(topic, data)

    def close(self) -> None:
        """Unsubscribe from everything."""
        for subscription in self.subscriptions:
            self.node.destroy_subscription(subscription)
        self.subscriptions = []

    @property
    def results(self) -> list[Topic]:
        """Topics that carry something made from an image."""
        return [topic for topic in self.topics.values() if topic.latencies_ms]


class Player:
    """Publishes camera messages at the times they were recorded.

    Args:
        node: rclpy node of this process.
        camera: topics to publish.
    """

    def __init__(self, node: Any, camera: CameraTopics) -> None:
        from rclpy.qos import QoSProfile, ReliabilityPolicy

        # As camera drivers do (REP 2003): reliable, and the node takes it as sensor data.
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        kinds = {camera.info: 'sensor_msgs/msg/CameraInfo', camera.image: camera.image_type}
        self.camera = camera
        self.publishers = {
            topic: node.create_publisher(message_class(kind), topic, qos)
            for topic, kind in kinds.items()
        }

    @property
    def matched(self) -> bool:
        """Whether the node listens to both topics."""
        return all(p.get_subscription_count() > 0 for p in self.publishers.values())

    def publish(self, message: Recorded) -> None:
        """Publish one serialized message on its topic."""
        self.publishers[message.topic].publish(message.data)


def spin(executor: Any, seconds: float, done: Callable[[], bool] = lambda: False) -> None:
    """Handle what comes for a while, or until something is done."""
    end = time.monotonic() + seconds
    while not done() and (left := end - time.monotonic()) > 0:
        executor.spin_once(timeout_sec=min(left, 0.1))


def ask(
    node: Any, executor: Any, kind: Any, service: str, seconds: float, **request: Any
) -> Any | None:
    """Call a service; None if it is not there, or does not answer, within some seconds each."""
    client = node.create_client(kind, service)
    try:
        spin(executor, seconds, client.service_is_ready)
        future = client.call_async(kind.Request(**request))
        spin(executor, seconds, future.done)
        return future.result() if future.done() else None
    finally:
        node.destroy_client(client)


@contextmanager
def ros_node(name: str, arguments: Sequence[str] = ()) -> Iterator[tuple[Any, Any]]:
    """An rclpy node of this process and an executor that spins it.

    Args:
        name: of the node.
        arguments: of the process, of which ROS takes its own.
    """
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    # Python's own handlers stay: Ctrl-C must unwind the stack to end the perception node.
    rclpy.init(args=[*arguments], signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node(name)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            yield node, executor
        finally:
            executor.shutdown()
            node.destroy_node()
    finally:
        rclpy.try_shutdown()


def wait_until_ready(
    executor: Any, child: NodeProcess, player: Player, listener: Listener, expected: Sequence[str]
) -> None:
    """Wait until the node listens to the camera and its outputs are subscribed.

    Raises:
        PerceptionError: The node ended, or is not ready in time.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    changed = time.monotonic()
    # Discovery brings the outputs one by one, so the last ones are waited for after the expected.
    while not (
        player.matched
        and set(expected) <= listener.topics.keys()
        and time.monotonic() - changed > SETTLE_S
    ):
        if child.lines('Cannot configure', 'Cannot activate'):
            raise PerceptionError(
                f'the node could not start: {child.last_words()} (log: {child.log})'
            )
        child.check()
        if time.monotonic() > deadline:
            raise PerceptionError(
                f'the node was not ready after {START_TIMEOUT_S:.0f} s: {child.last_words()} '
                f'(log: {child.log})'
            )
        executor.spin_once(timeout_sec=0.05)
        known = len(listener.topics)
        listener.discover()
        if len(listener.topics) > known:
            changed = time.monotonic()
    namespace, _, name = NODE.rpartition('/')
    nodes = listener.node.get_node_names_and_namespaces()
    if nodes.count((name, namespace or '/')) > 1:
        raise PerceptionError(
            f'another node {NODE} is on this graph; end it, or choose another ROS_DOMAIN_ID'
        )


def expected_topics(bundle: Bundle) -> list[str]:
    """What a node on this bundle publishes at least."""
    names = [*(output.name for output in outputs_of(bundle) if not output.of), 'status']
    return [f'{NODE}/{name}' for name in names] + ['/diagnostics']


def play(
    messages: Iterator[Recorded],
    executor: Any,
    child: NodeProcess,
    player: Player,
    listener: Listener,
    *,
    rate: float,
    tick: Callable[[], None],
) -> int:
    """Publish messages in their own time until the node has answered the last of them.

    Args:
        messages: in the order of time.
        executor: spins this process's node.
        child: checked all the while.
        player: publishes.
        listener: gets the moment at which each image was published.
        rate: 2.0 plays twice as fast.
        tick: called often, for a table.

    Returns:
        How many images were published.
    """
    images = 0
    start = time.monotonic()
    first_ns: int | None = None
    for message in messages:
        first_ns = message.time_ns if first_ns is None else first_ns
        due = start + (message.time_ns - first_ns) * 1e-9 / rate
        while (left := due - time.monotonic()) > 0:
            executor.spin_once(timeout_sec=min(left, 0.1))
            tick()
        child.check()
        if message.topic == player.camera.image:
            images += 1
            listener.published[header_stamp_ns(message.data)] = time.monotonic()
        player.publish(message)
    ended = time.monotonic()
    # The last images are still in the engine: go on until a second passes without an answer.
    while time.monotonic() - max([ended, *(t.last_s for t in listener.results)]) < 1.0:
        executor.spin_once(timeout_sec=0.1)
        tick()
        if time.monotonic() - ended > 10.0:
            break
    child.check()
    return images
