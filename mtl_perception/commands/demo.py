"""The demo: play a recording into a perception node over DDS, watch, record and judge its outputs.

The node runs as its own process, as on a robot; this process is the camera and the consumer.
"""

from __future__ import annotations

import importlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .. import PerceptionError
from ..bundle import Bundle, default_bundle, load_bundle
from ..files import beside
from ..offline.metrics import image_array, score_outputs
from ..offline.recordings import (
    CAMERA_INFO_TOPIC,
    IMAGE_TOPIC,
    Recorded,
    RecordingError,
    RecordingReader,
    RecordingWriter,
    Types,
    header_stamp_ns,
)
from ..ros.packages import missing
from ..share import share
from .doctor import FASTDDS_PROFILE, PROFILE_VARIABLES, profile_variable

NODE = '/perception'
START_TIMEOUT_S = 60.0
SETTLE_S = 0.5
MONTAGE_MOMENTS = 4
# Publishers that every node has and that are no output of the perception.
_PLUMBING = ('/rosout', '/parameter_events', f'{NODE}/transition_event')


class DemoError(PerceptionError):
    """The demo or the benchmark cannot go on; the message says why in one sentence."""


def import_rclpy() -> Any:
    """Import rclpy or say how to get it."""
    try:
        return importlib.import_module('rclpy')
    except ImportError as error:
        raise DemoError(missing(error)) from None


def message_class(kind: str) -> Any:
    """Import a message class by its ROS name, such as ``sensor_msgs/msg/Image``."""
    package, _, name = kind.split('/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except ImportError as error:
        raise DemoError(missing(error)) from None
    except AttributeError:
        raise DemoError(f'{package} has no message {name}, expected it for {kind}') from None


def dds_environment(environment: Mapping[str, str], profile: Path) -> dict[str, str]:
    """Add the shipped Fast DDS profile to an environment, unless the user has one.

    Args:
        environment: as ``os.environ``.
        profile: the XML file; not used when it does not exist.
    """
    changed = dict(environment)
    if profile.is_file() and not any(changed.get(name) for name in PROFILE_VARIABLES):
        changed[profile_variable(changed.get('ROS_DISTRO', ''))] = str(profile)
    return changed


# --- the node --------------------------------------------------------------------------------


@dataclass(frozen=True)
class NodeProcess:
    """A running perception node."""

    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise DemoError with the node's own last words when it has ended."""
        status = self.process.poll()
        if status is not None:
            raise DemoError(
                f'the node ended with status {status}: {self.last_words()} (log: {self.log})'
            )

    def lines(self, *marks: str) -> list[str]:
        """Lines of its log that hold one of the marks (all lines without marks)."""
        text = self.log.read_text(encoding='utf-8', errors='replace') if self.log.exists() else ''
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return [line for line in lines if not marks or any(mark in line for mark in marks)]

    def last_words(self) -> str:
        """The last error of its log, or its last line."""
        return (self.lines('[ERROR]', '[FATAL]') or self.lines() or ['it said nothing'])[-1]

    def cpu_s(self) -> float:
        """Processor time used so far, seconds over all threads; NaN where it cannot be read."""
        try:
            stat = Path(f'/proc/{self.process.pid}/stat').read_text(encoding='ascii')
        except OSError:
            return float('nan')
        user, system = stat.rpartition(')')[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')

    def peak_rss_mb(self) -> float:
        """Peak resident memory so far, MB (VmHWM of Linux); NaN where it cannot be read."""
        try:
            status = Path(f'/proc/{self.process.pid}/status').read_text(encoding='ascii')
        except OSError:
            return float('nan')
        kilobytes = [line.split()[1] for line in status.splitlines() if line.startswith('VmHWM')]
        return float(kilobytes[0]) / 1e3 if kilobytes else float('nan')


@contextmanager
def perception_node(
    parameters: Mapping[str, str], remaps: Mapping[str, str], log: Path
) -> Iterator[NodeProcess]:
    """Run a perception node as a process of its own and end it whatever happens.

    Args:
        parameters: ROS parameters by name; ``autostart`` is added.
        remaps: topic names of the node -> names on the graph.
        log: file for everything the node prints.
    """
    command = [sys.executable, '-m', 'mtl_perception.ros', '--ros-args']
    for name, value in {'autostart': 'true', **parameters}.items():
        command += ['-p', f'{name}:={value}']
    for name, value in remaps.items():
        command += ['-r', f'{name}:={value}']
    process: subprocess.Popen[bytes] | None = None
    with log.open('wb') as output:
        try:
            with _signals_deferred():
                process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            yield NodeProcess(process, log)
        finally:
            if process is not None:
                _end(process)


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait: between fork and return, Popen would lose the child."""
    pending: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda number, _: pending.append(number)) for n in numbers}
    try:
        yield
    finally:
        for deferred, handler in before.items():
            signal.signal(deferred, handler)
    for number in pending:
        os.kill(os.getpid(), number)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and insist; an impatient Ctrl-C kills it."""
    try:
        for number, patience in ((signal.SIGINT, 10), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            if process.poll() is not None:
                return
            process.send_signal(number)
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
    except BaseException:
        process.kill()
        raise


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that the node is ended too."""

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- playing and listening -------------------------------------------------------------------


@dataclass(frozen=True)
class Camera:
    """The camera topics of a recording."""

    image: str
    image_type: str
    info: str

    @property
    def transport(self) -> str:
        """The node's ``image_transport`` for it."""
        return 'compressed' if self.image_type.endswith('CompressedImage') else 'raw'

    @property
    def remaps(self) -> dict[str, str]:
        """From the node's input names to the recording's topics."""
        image = 'image/compressed' if self.transport == 'compressed' else 'image'
        return {image: self.image, 'camera_info': self.info}


def find_camera(folder: Path, topics: Mapping[str, str]) -> Camera:
    """Choose the camera of a recording: the sample's topics, else the first image and info.

    Raises:
        RecordingError: There is none.
    """

    def first(preferred: str, *kinds: str) -> str:
        names = sorted(n for n in topics if not n.startswith('/ground_truth/'))
        found = [n for n in (preferred, *names) if topics.get(n) in kinds]
        if not found:
            raise RecordingError(f'{folder} has no topic of type {" or ".join(kinds)}')
        return found[0]

    image = first(IMAGE_TOPIC, 'sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/Image')
    info = first(CAMERA_INFO_TOPIC, 'sensor_msgs/msg/CameraInfo')
    return Camera(image, topics[image], info)


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
            if topic in self.topics or topic in _PLUMBING:
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

    def __init__(self, node: Any, camera: Camera) -> None:
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


@contextmanager
def ros_node(name: str) -> Iterator[tuple[Any, Any]]:
    """An rclpy node of this process and an executor that spins it."""
    rclpy = import_rclpy()
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    # Python's own handlers stay: Ctrl-C must unwind the stack to end the perception node.
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
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
        DemoError: The node ended, or is not ready in time.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    changed = time.monotonic()
    # Discovery brings the outputs one by one, so the last ones are waited for after the expected.
    while not (
        player.matched
        and set(expected) <= listener.topics.keys()
        and time.monotonic() - changed > SETTLE_S
    ):
        child.check()
        # The node stays alive and unconfigured, for someone to mend its parameters: not here.
        if child.lines('Cannot configure'):
            raise DemoError(f'the node could not start: {child.last_words()} (log: {child.log})')
        if time.monotonic() > deadline:
            raise DemoError(
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
        raise DemoError(
            f'another node {NODE} is on this graph; end it, or choose another ROS_DOMAIN_ID'
        )


def expected_topics(bundle: Bundle) -> list[str]:
    """Outputs that a node on this bundle has at least."""
    names = [*bundle.outputs, 'camera_info', 'status']
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


# --- showing ---------------------------------------------------------------------------------


def table(topics: Sequence[Topic], now: float | None = None) -> list[str]:
    """Lines of a table of topics: messages, rate and latency, lately or (None) over all."""
    width = max([len(topic.name) for topic in topics] + [5])
    lines = [f'{"topic":<{width}}  messages  rate Hz  latency ms     p95']
    for topic in sorted(topics, key=lambda t: t.name):
        latency = f'{topic.latency_ms():10.1f}  {topic.latency_ms(0.95):6.1f}'
        lines.append(
            f'{topic.name:<{width}}  {topic.count:8d}  {topic.rate(now):7.1f}  '
            f'{latency if topic.latencies_ms else "         -       -"}'
        )
    return lines


class Display:
    """Shows the table once a second in place on a terminal, every five seconds a line elsewhere."""

    def __init__(self, listener: Listener, title: str, duration_s: float) -> None:
        self.listener = listener
        self.title = title
        self.duration_s = duration_s
        self.tty = sys.stdout.isatty()
        self.period = 0.5 if self.tty else 5.0
        self.start = self.shown = time.monotonic()
        self.height = 0

    def tick(self) -> None:
        """Show what has come so far when it is time to."""
        now = time.monotonic()
        if now - self.shown < self.period:
            return
        self.shown = now
        topics = list(self.listener.topics.values())
        progress = f'{min(now - self.start, self.duration_s):5.1f} of {self.duration_s:.1f} s'
        if self.tty:
            self._redraw([f'{self.title}  {progress}', *table(topics, now)])
            return
        results = self.listener.results
        if results:
            rate = statistics.median(t.rate(now) for t in results)
            latency = statistics.median(t.latency_ms() for t in results)
            print(f'{progress}: {len(results)} topics, {rate:.1f} Hz, {latency:.0f} ms', flush=True)

    def finish(self) -> None:
        """Show the figures over all that came."""
        self._redraw([self.title, *table(list(self.listener.topics.values()))])

    def _redraw(self, lines: list[str]) -> None:
        up = f'\x1b[{self.height}F\x1b[J' if self.tty and self.height else ''
        print(up + '\n'.join(lines), flush=True)
        self.height = len(lines)


def accuracy_lines(
    scores: Mapping[str, Mapping[str, float]], frames: Mapping[str, int]
) -> list[str]:
    """Sentences on how accurate the outputs were, over so many frames."""
    texts = {
        'semantic': 'mIoU {mIoU:.3f}, pixel accuracy {pixel_accuracy:.3f}',
        'depth': 'AbsRel {AbsRel:.3f}, RMSE {RMSE:.3f} m, delta1 {delta1:.3f}, '
        'coverage {coverage:.3f}',
        'normals': 'mean {mean_deg:.1f} deg, median {median_deg:.1f} deg, '
        'within 11.25 deg {within_11:.3f}',
        'edges': 'F {odsF:.3f} at the best threshold {threshold:.2f}',
    }
    return [
        f'  {task:<9} {texts[task].format(**scores[task])}  ({frames[task]} frames)'
        for task in scores
    ]


# --- the pictures ----------------------------------------------------------------------------


def montage_stamps(topics: Mapping[str, Topic], bundle: Bundle, count: int) -> list[int]:
    """Header stamps, evenly spread, of images for which every task of the bundle has come."""
    kinds = [task.kind for task in bundle.tasks.values()]
    sets = [topics[name].stamps for kind in kinds if (name := f'{NODE}/{kind}') in topics]
    common = sorted(set.intersection(*sets)) if sets else []
    count = min(count, len(common))
    return [common[int((index + 0.5) * len(common) / count)] for index in range(count)]


def montage(
    outputs: Path, recording: Path, camera: Camera, bundle: Bundle, stamps: Sequence[int]
) -> NDArray[np.uint8]:
    """Stack pictures of some moments: image, semantic, depth, normals and edges side by side.

    Returns:
        RGB [H, W, 3].
    """
    from .. import colors
    from ..images import decode, decode_compressed
    from ..pipeline import Prediction

    types = Types()
    images: dict[int, NDArray[np.uint8]] = {}
    with RecordingReader(recording, types=types) as reader:
        for message in reader.messages([camera.image]):
            stamp = header_stamp_ns(message.data)
            if stamp in stamps:
                m = reader.unpack(message)
                images[stamp] = (
                    decode_compressed(m.data, m.format)
                    if camera.transport == 'compressed'
                    else decode(m.encoding, m.height, m.width, m.step, m.data, m.is_bigendian)
                )
    arrays: dict[int, dict[str, NDArray[Any]]] = {stamp: {} for stamp in images}
    with RecordingReader(outputs, types=types) as reader:
        tensors = {f'{NODE}/{tensor}': tensor for tensor in bundle.outputs}
        for message in reader.messages([t for t in tensors if t in reader.topics]):
            stamp = header_stamp_ns(message.data)
            if stamp in arrays:
                arrays[stamp][tensors[message.topic]] = image_array(reader.unpack(message))
    predictions = []
    for stamp in stamps:
        height, width = next(iter(arrays[stamp].values())).shape[:2]
        image = cv2.resize(images[stamp], (width, height), interpolation=cv2.INTER_AREA)
        predictions.append(Prediction(arrays[stamp], None, image, bundle.metric))
    return colors.montage(predictions, bundle)


def write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write RGB [H, W, 3] as PNG, whole or not at all."""
    with beside(path) as partial:
        if not cv2.imwrite(str(partial), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
            raise OSError(f'{path}: cannot be written')


# --- the whole -------------------------------------------------------------------------------


class _Store:
    """Writes outputs to a recording in a thread, so that compressing does not delay receiving.

    Messages are filed at the time of the played recording at which they came, so that recording
    and outputs can be played together.
    """

    def __init__(self, writer: RecordingWriter) -> None:
        self.writer = writer
        self.pool = ThreadPoolExecutor(1)
        self.pending: deque[Future[None]] = deque()
        self.origin: tuple[float, int] | None = None
        self.rate = 1.0
        self.early: list[tuple[Topic, bytes]] = []

    def start(self, origin_ns: int, rate: float) -> None:
        """Set the recording's time that is now; what came before is filed at it."""
        self.origin, self.rate = (time.monotonic(), origin_ns), rate
        for topic, data in self.early:
            self(topic, data)

    def __call__(self, topic: Topic, data: bytes) -> None:
        if self.origin is None:
            self.early.append((topic, data))
            return
        began, origin_ns = self.origin
        now_ns = origin_ns + int((time.monotonic() - began) * self.rate * 1e9)
        self.pending.append(self.pool.submit(self._write, topic, now_ns, bytes(data)))
        while self.pending and self.pending[0].done():
            self.pending.popleft().result()

    def _write(self, topic: Topic, time_ns: int, data: bytes) -> None:
        self.writer.write(topic.name, topic.type, time_ns, data, latched=topic.latched)

    def finish(self) -> None:
        """Wait for everything to be written; the first failure is raised."""
        self.pool.shutdown()
        for future in self.pending:
            future.result()


def run_demo(
    output: Path, *, bundle: Path | None = None, recording: Path | None = None, rate: float = 1.0
) -> None:
    """Play a recording through a perception node; leave a bag of all outputs and a picture.

    Args:
        output: folder for ``bag/``, ``montage.png`` and ``node.log``.
        bundle: folder of the bundle; None = the shipped one.
        recording: folder of the recording; None = the shipped one.
        rate: 2.0 plays twice as fast.

    Raises:
        DemoError: The node ended, or nothing came out of it.
        BundleError, RecordingError: A folder that cannot be used.
    """
    model = load_bundle(bundle or default_bundle())
    recording = recording or share('sample/rooms')
    import_rclpy()
    os.environ.update(dds_environment(os.environ, share(FASTDDS_PROFILE)))
    output.mkdir(parents=True, exist_ok=True)
    types = Types()
    with _terminated_like_interrupted(), RecordingReader(recording, types=types) as reader:
        camera = find_camera(recording, reader.topics)
        print(
            f'Playing {recording} ({reader.duration_s:.1f} s) through {model.name} '
            f'{model.version}, {model.width}x{model.height}.'
        )
        with (
            RecordingWriter(output / 'bag', compress=True) as writer,
            ros_node('mtl_perception_demo') as (node, executor),
            perception_node(
                {'bundle': str(model.folder.absolute()), 'image_transport': camera.transport},
                camera.remaps,
                output / 'node.log',
            ) as child,
        ):
            store = _Store(writer)
            try:
                listener = Listener(node, store)
                player = Player(node, camera)
                print('Starting the node ...', flush=True)
                wait_until_ready(executor, child, player, listener, expected_topics(model))
                display = Display(listener, f'Outputs of {NODE}', reader.duration_s / rate)
                messages = reader.messages([camera.image, camera.info])
                first = next(messages, None)
                if first is None:
                    raise RecordingError(f'{recording} has no message on {camera.image}')
                store.start(first.time_ns, rate)
                published = play(
                    _chain(first, messages),
                    executor,
                    child,
                    player,
                    listener,
                    rate=rate,
                    tick=display.tick,
                )
            finally:
                store.finish()
            display.finish()
            if not listener.results:
                raise DemoError(
                    f'none of {published} images was answered: {child.last_words()} '
                    f'(log: {child.log})'
                )
            answered = max(topic.count for topic in listener.results)
            why = '' if answered == published else '; the others came while the engine was busy'
            print(f'{answered} of {published} images were answered{why}.')
            print('Ending the node and closing the recording ...', flush=True)
    scores, frames = score_outputs(output / 'bag', recording, node=NODE, types=types)
    stamps = montage_stamps(listener.topics, model, MONTAGE_MOMENTS)
    if stamps:
        picture = montage(output / 'bag', recording, camera, model, stamps)
        write_picture(output / 'montage.png', picture)
    if scores:
        print('Accuracy where the recording has ground truth:')
        print('\n'.join(accuracy_lines(scores, frames)))
    else:
        print('The recording has no ground truth, so accuracy is unknown.')
    print(f'All outputs:  {output / "bag"}')
    if stamps:
        print(f'Picture:      {output / "montage.png"}')


def _chain(first: Recorded, rest: Iterator[Recorded]) -> Iterator[Recorded]:
    yield first
    yield from rest
