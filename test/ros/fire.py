"""A node under fire: ./run exec python test/ros/fire.py SCENARIO [SIZE] [SEED].

Each scenario runs a node as a process of its own, prints what it counted, and ends with 1 where
something is wrong. test_fire.py runs them all with small sizes.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import conftest as ros  # its graph is this run's own
import numpy as np
import rclpy
import yaml
from lifecycle_msgs.srv import GetState
from mtl_perception_msgs.msg import PerceptionStatus
from random_messages import Messages
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mtl_perception.bundle import load_bundle
from mtl_perception.commands.graph import message_class
from mtl_perception.outputs import outputs_of

TESTS = Path(__file__).resolve().parents[1] / 'conftest.py'
BATCH = 500
DEEP = QoSProfile(depth=BATCH + 8)  # nothing of a batch is overwritten on its way
LOOK_S = 0.02  # that a node has for a message before the next one may take its place
GROWTH = 0.01  # of memory, at most
FEW = 100  # samples of it, which say little


class Fire:
    """A node and its opponent.

    Args:
        client: of the tests.
        folder: for bundle and logs.
    """

    def __init__(self, client: Any, folder: Path) -> None:
        self.client = client
        self.driver = ros.CameraDriver(client)
        self.nodes: list[Any] = []
        self.edges = client.subscribe(Image, f'{ros.NODE}/edges')
        self._statuses = client.subscribe(PerceptionStatus, f'{ros.NODE}/status')
        self._folder = folder

    def start(self, *, autostart: bool = True, **parameters: object) -> None:
        """Start a node, reliable and with room for a batch, and wait until it is there."""
        given = {
            'bundle': bundle(self._folder),
            'backend': 'onnxruntime',
            'threads': 1,
            'autostart': str(autostart).lower(),
            **parameters,
        }
        for topic in ('/image', '/image/compressed', '/camera_info'):
            given[f'qos_overrides.{topic}.subscription.reliability'] = 'reliable'
            given[f'qos_overrides.{topic}.subscription.depth'] = DEEP.depth
        arguments = ['--ros-args']
        for name, value in given.items():
            arguments += ['-p', f'{name}:={value}']
        log = self._folder / f'node_{len(self.nodes)}.log'
        self.nodes.append(ros.NodeProcess(['-m', 'mtl_perception.ros'], arguments, log, {}))
        state = 'active' if autostart else 'unconfigured'
        self.client.wait(lambda: self.client.state() == state, state)

    def listen(self) -> None:
        """Subscribe to every output, without looking at what comes."""
        for output in outputs_of(load_bundle(bundle(self._folder))):
            topic = f'{ros.NODE}/{output.name}'
            self.client.wait(lambda t=topic: self.client.node.count_publishers(t), topic)
            self.client.node.create_subscription(
                message_class(output.type), topic, lambda _: None, 2, raw=True
            )

    def answered(self, side: int = 64, before: Callable[[], object] = lambda: None) -> None:
        """Send a good image, again and again, until it is answered.

        Args:
            side: rows of the image.
            before: is done before each.
        """
        self.edges.clear()
        image = self.driver.image(np.full((side, 96, 3), 90, np.uint8))
        info = self.driver.info(image.header, 96, side)
        end = time.monotonic() + ros.TIMEOUT_S

        def done() -> bool:
            return any(e.header.stamp == image.header.stamp for e in self.edges)

        while not done():
            if time.monotonic() > end:
                self._statuses.clear()
                self.client.spin(3)
                raise AssertionError(f'no answer to image {image.header.stamp}: {self._statuses}')
            before()
            self.driver.publish(image, info)
            # Until it may have been lost.
            until = time.monotonic() + 0.5
            while not done() and time.monotonic() < until:
                self.client.executor.spin_once(timeout_sec=0.1)

    def status(self, condition: Callable[[Any], object]) -> Any:
        """The first status from now on for which a condition holds."""
        self._statuses.clear()
        return self.client.wait(
            lambda: next((s for s in self._statuses if condition(s)), None), 'such a status'
        )

    def rss_mb(self) -> float:
        """Memory of the newest node that is resident, MB."""
        pages = int(Path(f'/proc/{self.nodes[-1].process.pid}/statm').read_text().split()[1])
        return pages * os.sysconf('SC_PAGESIZE') / 1e6

    def end(self) -> None:
        """End all nodes, which are to be alive, or killed, and to have said no traceback."""
        for node in self.nodes:
            code = node.stop()
            assert code in (0, -signal.SIGKILL), f'the node ended with {code}:\n{node.text()}'
            assert 'Traceback' not in node.text(), node.text()
        gone = self.client.node.get_node_names
        self.client.wait(lambda: 'perception' not in gone(), 'end of the nodes')
        self.nodes.clear()


def bundle(folder: Path) -> Path:
    """The tiny bundle of the tests."""
    path = folder / 'tiny'
    if not path.exists():
        spec = importlib.util.spec_from_file_location('tests', TESTS)
        assert spec is not None
        assert spec.loader is not None
        tests = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tests)
        path.mkdir()
        model = tests.tiny_model()
        (path / 'model.onnx').write_bytes(model)
        (path / 'bundle.yaml').write_text(yaml.safe_dump(tests.tiny_description(model)))
    return path


def messages(fire: Fire, size: int, seed: int) -> str:
    """Random messages: each is counted as processed, rejected or dropped."""
    told = []
    create, destroy = fire.client.node.create_publisher, fire.client.node.destroy_publisher
    for transport, kind in (('raw', Image), ('compressed', CompressedImage)):
        fire.start(image_transport=transport, allow_uncalibrated='true')
        fire.listen()
        images = create(kind, '/image' if transport == 'raw' else '/image/compressed', DEEP)
        infos = create(CameraInfo, '/camera_info', DEEP)
        fire.client.wait(images.get_subscription_count, 'subscription')
        fire.client.wait(infos.get_subscription_count, 'subscription')
        state = fire.client.node.create_client(GetState, f'{ros.NODE}/get_state')
        make = Messages(seed)
        count = size // 2
        for sent in range(1, count + 1):
            image = make.image() if transport == 'raw' else make.compressed()
            if sent % 3:
                infos.publish(make.info(image))
            images.publish(image)
            # An answer of the node's thread: it has received what came before, and looks at it.
            fire.client.wait(state.call_async(GetState.Request()).done, 'answer')
            fire.client.spin(LOOK_S)
            if sent % BATCH == 0 or sent == count:
                fire.status(lambda s, sent=sent: s.frames_received == sent)
        found = fire.status(lambda s, count=count: sum(ends(s)) >= count)
        assert found.frames_received == sum(ends(found)) == count, ends(found)
        assert not found.engine_failures
        told.append(f'{transport}: {count} = ' + ' + '.join(map(str, ends(found))))
        fire.client.node.destroy_client(state)
        destroy(images)
        destroy(infos)
        fire.end()
    return f'random messages, processed + rejected + dropped; {"; ".join(told)}'


def ends(status: Any) -> tuple[int, int, int]:
    """What can become of an image."""
    return status.frames_processed, status.frames_rejected, status.frames_dropped


def told(what: str, samples: list[float]) -> str:
    """How memory has grown: the last quarter above the second; the first is the warm-up."""
    quarter = len(samples) // 4
    grown = median(samples[-quarter:]) / median(samples[quarter : 2 * quarter]) - 1
    assert grown < GROWTH or len(samples) < FEW, f'{what}: memory grew by {grown:.2%}'
    return f'{what}: {samples[0]:.0f} MB at first, {samples[-1]:.0f} MB at last, {grown:+.2%}'


def turns(fire: Fire, size: int, _: int) -> str:
    """Configure, activate, an image, deactivate, clean up, again and again."""
    fire.start(autostart=False)
    samples = []
    for _ in range(size):
        assert fire.client.transition('configure')
        assert fire.client.transition('activate')
        fire.answered()
        assert fire.client.transition('deactivate')
        assert fire.client.transition('cleanup')
        samples.append(fire.rss_mb())
    return told(f'{size} turns of the lifecycle', samples)


def frames(fire: Fire, size: int, _: int) -> str:
    """Good images, all outputs."""
    fire.start()
    fire.listen()
    fire.driver.wait_for_node()
    samples = []
    for _ in range(size):
        fire.answered()
        samples.append(fire.rss_mb())
    return told(f'{size} images with all outputs', samples)


def trouble(fire: Fire, size: int, _: int) -> str:
    """A camera that leaves, other sizes, a deaf listener, jumps of time, a node that is killed."""
    client = fire.client
    clock = client.publisher(Clock, '/clock')
    deaf = rclpy.create_node('deaf', context=client.context)  # nobody spins it
    deaf.create_subscription(Image, f'{ros.NODE}/edges', lambda _: None, 1)
    kills = 0

    def show(seconds: int) -> None:
        tick = Clock()
        tick.clock.sec = seconds
        clock.publish(tick)

    fire.start(use_sim_time='true', max_age=5.0)
    for turn in range(size):
        for seconds in (10**6, 5, 2**31 - 2, 1):
            show(seconds)
            client.spin(0.02)
        client.node.destroy_publisher(fire.driver.images)
        client.spin(0.1)
        fire.driver.images = client.node.create_publisher(Image, '/image', 10)
        for side in (64, 32, 128, 1):
            fire.answered(side, before=lambda: show(fire.driver.stamp + 1))
        if turn % 5 == 4:
            fire.nodes[-1].stop(signal.SIGKILL)
            kills += 1
            fire.start(use_sim_time='true', max_age=5.0)
    deaf.destroy_node()
    return f'{size} turns of trouble, {4 * size} sizes answered, {kills} kills'


def twins(fire: Fire, size: int, _: int) -> str:
    """Two nodes of one name on one topic: both answer."""
    fire.start()
    fire.start()
    for _ in range(size):
        fire.edges.clear()
        image = fire.driver.image(np.full((64, 96, 3), 90, np.uint8))

        def both(image: Any = image) -> bool:
            fire.driver.publish(image)
            assert all(node.process.poll() is None for node in fire.nodes)
            return sum(e.header.stamp == image.header.stamp for e in fire.edges) > 1

        fire.client.wait(both, 'two answers')
    return f'two nodes of one name: {size} images answered by both'


# Name -> scenario, and its size where none is given.
SCENARIOS: dict[str, tuple[Callable[[Fire, int, int], str], int]] = {
    'messages': (messages, 100_000),
    'turns': (turns, 1000),
    'frames': (frames, 20_000),
    'trouble': (trouble, 100),
    'twins': (twins, 100),
}


def main() -> int:
    """Run one scenario."""
    name, *numbers = sys.argv[1:] or ['']
    if name not in SCENARIOS:
        print(f'usage: fire.py {"|".join(SCENARIOS)} [SIZE] [SEED]', file=sys.stderr)
        return 2
    scenario, size = SCENARIOS[name]
    size, seed = [*map(int, numbers), *[size, 0][len(numbers) :]]
    start = time.monotonic()
    client = ros.Client()
    with tempfile.TemporaryDirectory() as folder:
        fire = Fire(client, Path(folder))
        try:
            text = scenario(fire, size, seed)
            fire.end()
        finally:
            for node in fire.nodes:  # those that are left where something is wrong
                node.process.kill()
                print(*node.text().splitlines()[-20:], sep='\n', file=sys.stderr)
            client.close()
    print(f'{text} ({time.monotonic() - start:.0f} s)')
    return 0


if __name__ == '__main__':
    sys.exit(main())
