"""Measures what the node adds to the bare engine: time by stage, memory, and CPU when idle.

A real node process gets images over DDS from this process, which subscribes every output; the bare
engine is measured in the same run, before and after, so that ratios mean something on any machine.
"""

from __future__ import annotations

import os
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import PerceptionError
from ..bundle import Bundle
from ..engines.choice import open_engine
from ..engines.engine import Engine, EngineOptions
from ..engines.timing import Rounds, Timing, time_engines
from ..images import payload
from ..offline.cameras import CameraTopics
from ..offline.recordings import Recorded
from ..ros.parameters import ENGINE_PARAMETERS
from .dds import profile_settings
from .graph import (
    Listener,
    Player,
    expected_topics,
    message_class,
    play,
    ros_node,
    spin,
    wait_until_ready,
)
from .node_process import NODE, NodeProcess, perception_node, terminated_like_interrupted

# Stage of the node -> its time in a PerceptionStatus, milliseconds.
STAGES: dict[str, Callable[[Any], float]] = {
    'decode': lambda status: status.decode_ms,
    'resize': lambda status: status.resize_ms,
    'engine': lambda status: status.engine_ms,
    'post': lambda status: status.post_ms,
    'publish': lambda status: status.publish_ms,
}
WARM_UP_S = 2.0
IDLE_S = 4.0


@dataclass(frozen=True)
class Result:
    """What was measured.

    Attributes:
        hardware, what: in words.
        bare_ms: median of the engine alone, all outputs, batch of one.
        bare_cpu_ms: processor time of a run of the engine alone, over all threads.
        node_cpu_ms: processor time of the node for each image that it processed, all included:
            receiving (also of images that newer ones replaced), publishing, reports.
        stage_ms: medians of the node's stages.
        latency_ms: arrival of an image at the node to its last message published, median and 95th
            percentile; of seconds, and the median of these.
        received_ms: publishing an image to receiving the last of its messages here, median and
            95th percentile; of the topic with the largest one.
        published_hz, processed_hz: images.
        topics: outputs that were subscribed and came.
        peak_rss_mb: of the node.
        idle_cpu: of the node without subscribers, share of one core.
    """

    hardware: str
    what: str
    bare_ms: float
    bare_cpu_ms: float
    node_cpu_ms: float
    stage_ms: dict[str, float]
    latency_ms: tuple[float, float]
    received_ms: tuple[float, float]
    published_hz: float
    processed_hz: float
    topics: int
    peak_rss_mb: float
    idle_cpu: float

    @property
    def all_ms(self) -> float:
        """Time that the node is busy with one image."""
        return sum(self.stage_ms.values())

    @property
    def added(self) -> float:
        """Time of the node's own stages / time of the engine in the node."""
        return self.all_ms / self.stage_ms['engine'] - 1

    @property
    def beyond_bare(self) -> float:
        """(Time that the node is busy - bare engine) / bare engine."""
        return self.all_ms / self.bare_ms - 1

    @property
    def beyond_bare_cpu(self) -> float:
        """As ``beyond_bare`` in processor time, which others on the same cores do not lengthen."""
        return self.node_cpu_ms / self.bare_cpu_ms - 1

    def text(self) -> str:
        """Describe it as a table."""
        rows = [*self.stage_ms.items(), ('all', self.all_ms), ('bare engine', self.bare_ms)]
        return '\n'.join(
            [
                self.hardware,
                self.what,
                '',
                f'{"stage":<12} median ms',
                *(f'{name:<12} {value:9.2f}' for name, value in rows),
                '',
                f"node's own stages / engine       {self.added:7.1%}",
                f'node beyond the bare engine      {self.beyond_bare:7.1%}',
                f'the same in processor time       {self.beyond_bare_cpu:7.1%} '
                f'({self.node_cpu_ms:.1f} against {self.bare_cpu_ms:.1f} ms an image)',
                f'images processed                 {self.processed_hz:7.1f} of '
                f'{self.published_hz:.1f} Hz',
                f'latency in the node, median, p95 {self.latency_ms[0]:7.1f}, '
                f'{self.latency_ms[1]:.1f} ms',
                f'to the receiver, median, p95     {self.received_ms[0]:7.1f}, '
                f'{self.received_ms[1]:.1f} ms ({self.topics} topics)',
                f'peak memory of the node          {self.peak_rss_mb:7.0f} MB',
                f'CPU of the node without listener {self.idle_cpu:7.1%} of a core',
            ]
        )


def picture(width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Make an RGB image [height, width, 3] with areas and noise, the same every time."""
    noise = np.random.default_rng(0).integers(0, 64, (height, width, 3))
    ramp = np.linspace(0, 191, width)[None, :, None] * np.linspace(0.3, 1, height)[:, None, None]
    return (noise + ramp).astype(np.uint8)


def camera_messages(width: int, height: int) -> tuple[bytes, bytes]:
    """Serialize an rgb8 Image and its CameraInfo (60 degrees wide) with stamp 0."""
    from rclpy.serialization import serialize_message

    image = message_class('sensor_msgs/msg/Image')()
    image.header.frame_id = 'camera_optical_frame'
    image.width, image.height, image.step = width, height, 3 * width
    image.encoding = 'rgb8'
    image.data = payload(picture(width, height))
    focal = width / 2 / float(np.tan(np.radians(30)))
    info = message_class('sensor_msgs/msg/CameraInfo')()
    info.header.frame_id = image.header.frame_id
    info.width, info.height, info.distortion_model, info.d = width, height, 'plumb_bob', [0.0] * 5
    info.k = [focal, 0.0, width / 2, 0.0, focal, height / 2, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [focal, 0.0, width / 2, 0.0, 0.0, focal, height / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
    return serialize_message(image), serialize_message(info)


def stamped(data: bytes, stamp_ns: int) -> bytes:
    """Copy a serialized message with another header stamp."""
    copy = bytearray(data)
    order = '<iI' if data[1] & 1 else '>iI'
    struct.pack_into(order, copy, 4, *divmod(stamp_ns, 1_000_000_000))
    return bytes(copy)


def stream(
    camera: CameraTopics, image: bytes, info: bytes, *, rate: float, seconds: float
) -> Iterator[Recorded]:
    """Yield camera messages at a steady rate."""
    for index in range(round(rate * seconds)):
        stamp = round((index + 1) * 1e9 / rate)
        yield Recorded(camera.info, 'sensor_msgs/msg/CameraInfo', stamp, stamped(info, stamp))
        yield Recorded(camera.image, camera.image_type, stamp, stamped(image, stamp))


def bare_engine(engine: Engine, bundle: Bundle, seconds: float) -> Timing:
    """Time the engine alone on one image with all outputs."""
    image = picture(bundle.width, bundle.height)[None]
    rounds = Rounds(least=5, seconds=seconds)
    return time_engines({'bare': engine}, image, list(bundle.outputs), rounds)['bare']


def measure(
    bundle: Bundle,
    *,
    backend: str,
    options: EngineOptions,
    size: tuple[int, int],
    rate: float,
    seconds: float,
) -> Result:
    """Run the benchmark.

    Args:
        bundle: what the node runs.
        backend: its engine.
        options: of the engine, bare and in the node.
        size: (width, height) of the images.
        rate: images per second.
        seconds: how long images are sent.

    Raises:
        PerceptionError: The node ended, or answered nothing.
    """
    os.environ.update(profile_settings(os.environ))
    camera = CameraTopics('/bench/image', 'sensor_msgs/msg/Image', '/bench/camera_info')
    bare_seconds = min(3.0, seconds / 3)
    engine = open_engine(backend, bundle, options).engine
    before = bare_engine(engine, bundle, bare_seconds)
    reports: list[tuple[float, Any]] = []
    parameters = {
        'bundle': str(bundle.folder.absolute()),
        'backend': backend,
        **{name: str(getattr(options, name)) for name in ENGINE_PARAMETERS},
    }
    with (
        terminated_like_interrupted(),
        tempfile.TemporaryDirectory() as folder,
        ros_node('mtl_perception_bench') as (node, executor),
        perception_node(parameters, camera.remaps, Path(folder) / 'node.log') as child,
    ):
        node.create_subscription(
            message_class('mtl_perception_msgs/msg/PerceptionStatus'),
            f'{NODE}/status',
            lambda status: reports.append((time.monotonic(), status)),
            10,
        )
        listener = Listener(node)
        player = Player(node, camera)
        wait_until_ready(executor, child, player, listener, expected_topics(bundle))
        image, info = camera_messages(*size)
        used, answered = child.cpu_s(), _answered(listener)
        start = time.monotonic()
        published = play(
            stream(camera, image, info, rate=rate, seconds=seconds),
            executor,
            child,
            player,
            listener,
            rate=1.0,
            tick=lambda: None,
        )
        if not listener.results:
            raise PerceptionError(f'none of {published} images was answered: {child.last_words()}')
        used, answered = child.cpu_s() - used, _answered(listener) - answered
        in_time = [s for t, s in reports if start + WARM_UP_S <= t <= start + seconds]
        statuses = in_time or [s for _, s in reports]
        peak = child.peak_rss_mb()
        results = listener.results
        listener.close()
        idle = _idle_cpu(child, executor)
    after = bare_engine(engine, bundle, bare_seconds)
    engine.close()
    identity = engine.identity
    return Result(
        hardware=f'{identity["device"]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}',
        what=f'{size[0]}x{size[1]} rgb8 at {rate:g} Hz for {seconds:g} s; {bundle.name} '
        f'{bundle.version} ({bundle.width}x{bundle.height}); {identity["engine"]} '
        f'{identity["version"]}, {identity["provider"]}, {identity["precision"]}',
        bare_ms=statistics.median(before.ms + after.ms),
        bare_cpu_ms=statistics.mean(before.cpu_ms + after.cpu_ms),
        node_cpu_ms=1e3 * used / max(answered, 1),
        stage_ms={stage: _median(map(read, statuses)) for stage, read in STAGES.items()},
        latency_ms=(
            _median(status.latency_ms for status in statuses),
            _median(status.latency_p95_ms for status in statuses),
        ),
        received_ms=(
            max(topic.latency_ms(0.5) for topic in results),
            max(topic.latency_ms(0.95) for topic in results),
        ),
        published_hz=published / seconds,
        processed_hz=_median(status.output_rate for status in statuses),
        topics=len(results),
        peak_rss_mb=peak,
        idle_cpu=idle,
    )


def _answered(listener: Listener) -> int:
    """Images of which something has come so far."""
    return max((topic.count for topic in listener.results), default=0)


def _median(values: Iterable[float]) -> float:
    """Median over reports, without those in which nothing was processed (NaN)."""
    finite = [value for value in values if np.isfinite(value)]
    return statistics.median(finite) if finite else float('nan')


def _idle_cpu(child: NodeProcess, executor: Any) -> float:
    """Share of a core that the node uses when nobody listens to its outputs any more."""
    spin(executor, 1.0)  # it looks for listeners five times a second
    used, start = child.cpu_s(), time.monotonic()
    spin(executor, IDLE_S)
    return (child.cpu_s() - used) / (time.monotonic() - start)
