"""Four cameras on one node against four nodes with a camera each: images a second, and memory.

    ./run exec python benchmarks/many_cameras.py

Every camera sends VGA images faster than the network can take them, and ~/semantic, ~/depth and
~/points are subscribed. One node and four of them take turns; figures to compare are the ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_perception.commands.bench_node import camera_messages, stamped
from mtl_perception.commands.dds import profile_settings
from mtl_perception.commands.graph import message_class, ros_node
from mtl_perception.commands.node_process import perception_node, terminated_like_interrupted

CAMERAS = ('front', 'left', 'right', 'rear')
TOPICS = {
    'semantic': 'sensor_msgs/msg/Image',
    'depth': 'sensor_msgs/msg/Image',
    'points': 'sensor_msgs/msg/PointCloud2',
}
SETTLE_S = 4.0  # until engines have run for a while, and parts of the model are cut


@dataclass(frozen=True)
class Result:
    """What was measured.

    Attributes:
        hz: images that went through the network each second, of every camera.
        memory_mb: peak of all nodes together.
        cpu: of all nodes together, cores.
    """

    hz: list[float]
    memory_mb: float
    cpu: float

    @property
    def total_hz(self) -> float:
        """Of all cameras together."""
        return sum(self.hz)

    @property
    def cpu_ms(self) -> float:
        """Processor time of an image, all included."""
        return 1e3 * self.cpu / self.total_hz


def measure(
    groups: Sequence[Sequence[str]],
    backend: str,
    rate: float,
    seconds: float,
    topics: Mapping[str, str] = TOPICS,
) -> Result:
    """Run one node for each group of cameras; one of a single camera needs no name.

    Args:
        topics: outputs that are subscribed, and their types.
    """
    cameras = [name for group in groups for name in group]
    statuses: dict[str, list[tuple[float, Any]]] = {name: [] for name in cameras}
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminated_like_interrupted())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        node, executor = stack.enter_context(ros_node('mtl_perception_bench'))
        children = []
        for group in groups:
            alone = len(group) == 1
            names = '[' + ', '.join(group) + ']'
            parameters = {'backend': backend} if alone else {'backend': backend, 'cameras': names}
            remaps = {'__ns': f'/{group[0]}'} if alone else {}
            log = folder / f'{group[0]}.log'
            children.append(stack.enter_context(perception_node(parameters, remaps, log)))
            for name in group:
                prefix = f'/{name}/perception' if alone else f'/perception/{name}'
                for topic, kind in topics.items():
                    node.create_subscription(
                        message_class(kind), f'{prefix}/{topic}', lambda _: None, 1, raw=True
                    )
                node.create_subscription(
                    message_class('mtl_perception_msgs/msg/PerceptionStatus'),
                    f'{prefix}/status',
                    lambda status, own=statuses[name]: own.append((time.monotonic(), status)),
                    10,
                )
        image, info = camera_messages(640, 480)
        publishers = [
            (
                node.create_publisher(
                    message_class(f'sensor_msgs/msg/{kind}'), f'/{name}/{topic}', 1
                ),
                content,
            )
            for name in cameras
            for kind, topic, content in (
                ('CameraInfo', 'camera_info', info),
                ('Image', 'image', image),
            )
        ]
        start, due, used = 0.0, time.monotonic(), 0.0
        while not start or time.monotonic() < start + SETTLE_S + seconds:
            for child in children:
                child.check()
            if not start and all(any(s.frames_processed for _, s in s) for s in statuses.values()):
                start = time.monotonic()
            if start and not used and time.monotonic() > start + SETTLE_S:
                used = sum(child.cpu_s() for child in children)
            if time.monotonic() >= due:
                for publisher, content in publishers:
                    publisher.publish(stamped(content, time.time_ns()))
                due += 1 / rate
            executor.spin_once(timeout_sec=max(0.0, min(due - time.monotonic(), 0.1)))
        cpu = (sum(child.cpu_s() for child in children) - used) / seconds
        memory = sum(child.peak_rss_mb() for child in children)
    return Result([_rate(own, start + SETTLE_S) for own in statuses.values()], memory, cpu)


def _rate(statuses: Sequence[tuple[float, Any]], since: float) -> float:
    """Images that went through the network each second."""
    within = [(at, status.frames_processed) for at, status in statuses if at >= since]
    (first, before), (last, after) = within[0], within[-1]
    return (after - before) / (last - first)


def main() -> None:
    """Measure both ways in turns."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--backend', default='onnxruntime')
    parser.add_argument('--rate', type=float, default=15.0, help='of each camera, Hz')
    parser.add_argument('--seconds', type=float, default=20.0)
    parser.add_argument('--rounds', type=int, default=2)
    options = parser.parse_args()
    os.environ.update(profile_settings(os.environ))
    ways = {
        'one camera, one node': [CAMERAS[:1]],
        'four cameras, one node': [CAMERAS],
        'four cameras, four nodes': [[name] for name in CAMERAS],
    }
    results: dict[str, list[Result]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, groups in ways.items():
            result = measure(groups, options.backend, options.rate, options.seconds)
            results[way].append(result)
    print(f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.backend}\n')
    print('| | images/s, all | of each camera | cores | memory, MB |\n|---|---|---|---|---|')
    for way, found in results.items():
        cells = (
            f'{statistics.median(r.total_hz for r in found):.1f}',
            ' / '.join(f'{hz:.1f}' for hz in found[-1].hz),
            f'{statistics.median(r.cpu for r in found):.2f}',
            f'{statistics.median(r.memory_mb for r in found):.0f}',
        )
        print('| ' + ' | '.join((way, *cells)) + ' |')


if __name__ == '__main__':
    main()
