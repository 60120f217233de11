"""Many cameras on one engine: turns, batches, and that no camera is another one's trouble."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

from diagnostic_msgs.msg import DiagnosticStatus
from mtl_perception_msgs.msg import PerceptionStatus
from sensor_msgs.msg import Image

GRAY = np.full((64, 96, 3), 100, np.uint8)
BLUE = np.full_like(GRAY, 200)  # too much of it for the breakable bundle

# A GPU's engine takes as many images as there are cameras; this one takes two, and says how many
# it was given.
BATCHES = """
from dataclasses import replace

from mtl_perception.engines.choice import open_engine
from mtl_perception.engines.opening import open_unchecked
from mtl_perception.ros.__main__ import main


def open_for_two(name, bundle, options, *, progress):
    chosen = open_engine(name, bundle, options, progress=progress)
    assert options.max_batch == 3
    engine = open_unchecked('onnxruntime', bundle, replace(options, max_batch=2))
    run = engine.run

    def spy(images, outputs):
        print('batch of', len(images), flush=True)
        return run(images, outputs)

    engine.run = spy
    return replace(chosen, engine=engine, max_batch=2)


main(opener=open_for_two)
"""

# An engine that works while it is opened, and then not for anybody.
DEAD = """
from dataclasses import replace

from mtl_perception.engines.choice import open_engine
from mtl_perception.engines.engine import EngineError
from mtl_perception.ros.__main__ import main


def open_dying(name, bundle, options, *, progress):
    chosen = open_engine(name, bundle, options, progress=progress)
    run, left = chosen.engine.run, [1]  # the node warms it up

    def die(images, outputs):
        if not left:
            raise EngineError('out of memory')
        left.pop()
        return run(images, outputs)

    chosen.engine.run = die
    return chosen


main(opener=open_dying)
"""


class Rig:
    """Drivers of some cameras, what their node publishes, and its statuses."""

    def __init__(self, client: Any, make_driver: Callable[..., Any], names: list[str]) -> None:
        self.client = client
        self.drivers = {
            name: make_driver(f'/{name}/image', f'/{name}/camera_info') for name in names
        }
        self.edges = {name: client.subscribe(Image, f'/perception/{name}/edges') for name in names}
        self.statuses = {
            name: client.subscribe(PerceptionStatus, f'/perception/{name}/status') for name in names
        }

    def parameters(self) -> dict[str, Any]:
        """What the node has to be started with."""
        overrides = {
            f'qos_overrides./{name}/{topic}.subscription.reliability': 'reliable'
            for name in self.drivers
            for topic in ('image', 'camera_info')
        }
        return {'cameras': f'[{", ".join(self.drivers)}]', 'autostart': True, **overrides}

    def wait_for_node(self) -> None:
        for driver in self.drivers.values():
            driver.wait_for_node()

    def send(self, name: str, pixels: np.ndarray = GRAY, **how: Any) -> Any:
        image = self.drivers[name].image(pixels, **how)
        self.drivers[name].publish(image)
        return image

    def status(self, name: str, condition: Callable[[Any], object]) -> Any:
        """The first status of a camera for which the condition holds."""
        own = self.statuses[name]
        return self.client.wait(
            lambda: next((s for s in own if condition(s)), None), f'such a status of {name}'
        )


@pytest.fixture
def make_rig(client: Any, make_driver: Callable[..., Any]) -> Callable[..., Rig]:
    return lambda *names: Rig(client, make_driver, list(names))


def test_a_slow_a_dead_and_a_wrong_camera_take_nothing_from_the_others(
    client: Any,
    make_rig: Callable[..., Rig],
    start_node: Callable[..., Any],
    breakable_bundle: Path,
) -> None:
    rig = make_rig('fast', 'slow', 'dead', 'wrong')
    node = start_node(bundle=breakable_bundle, **rig.parameters())
    rig.wait_for_node()
    for turn in range(12):
        rig.send('wrong', BLUE)  # the engine fails with it
        rig.send('fast')
        rig.send('wrong', GRAY, encoding='no such')
        if turn % 4 == 0:
            rig.send('slow')
        client.wait(lambda turn=turn: len(rig.edges['fast']) > turn, 'an answer to each')
    client.wait(lambda: len(rig.edges['slow']) == 3, 'every image of the slow one')
    rig.send('wrong', BLUE)  # and nothing that replaces it
    told = 'wrong]: Bad image (engine): onnxruntime'
    client.wait(lambda: told in node.text(), 'word of what the engine cannot run')
    rig.send('fast')
    client.wait(lambda: len(rig.edges['fast']) == 13, 'an answer after it')

    fast = rig.status('fast', lambda s: s.frames_processed == 13)
    slow = rig.status('slow', lambda s: s.frames_processed == 3)
    wrong = rig.status(
        'wrong', lambda s: 0 < s.frames_received == s.frames_dropped + s.frames_rejected
    )
    assert (fast.frames_dropped, slow.frames_dropped) == (0, 0)
    assert wrong.frames_rejected > 0
    for status in (fast, slow, wrong):
        assert status.engine_failures == 0
    assert rig.status('dead', lambda s: True).frames_received == 0
    assert not rig.edges['dead'] + rig.edges['wrong']
    client.diagnostic('dead/input', lambda s: s.message.startswith('no image on /dead/image: '))
    client.diagnostic('engine', lambda s: s.level == DiagnosticStatus.OK)
    assert 'The engine failed' not in node.text()


def test_an_engine_takes_as_many_images_as_it_can_at_once_and_nobody_is_left_out(
    client: Any, make_rig: Callable[..., Rig], start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    names = ('front', 'left', 'rear')
    rig = make_rig(*names)
    node = start_node(program=['-c', BATCHES], bundle=tiny_bundle, **rig.parameters())
    rig.wait_for_node()
    for turn in range(10):
        images = {name: rig.send(name) for name in names}
        client.wait(lambda turn=turn: all(len(rig.edges[n]) > turn for n in names), 'all answers')
        for name, image in images.items():
            assert rig.edges[name][-1].header == image.header
    for name in names:
        status = rig.status(name, lambda s: s.frames_processed == 10)
        assert (status.frames_dropped, status.frames_rejected) == (0, 0)
    assert 'batch of 2' in node.text()
    assert 'batch of 3' not in node.text()


def test_an_engine_that_runs_for_nobody_has_failed_for_all(
    client: Any, make_rig: Callable[..., Rig], start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    rig = make_rig('front', 'rear')
    node = start_node(program=['-c', DEAD], bundle=tiny_bundle, **rig.parameters())
    rig.wait_for_node()
    rig.send('front')
    failed = client.diagnostic('engine', lambda s: s.level == DiagnosticStatus.ERROR)
    assert failed.message == 'out of memory'
    for name in ('front', 'rear'):
        assert rig.status(name, lambda s: s.engine_failures).frames_rejected == 0
    assert 'The engine failed, retrying in 1 s: out of memory' in node.text()


def test_images_that_are_too_old_are_rejected_and_the_next_one_counts(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True, max_age=5.0)
    edges = client.subscribe(Image, '/perception/edges')
    driver.wait_for_node()
    driver.publish(driver.image(GRAY))  # its stamp is in 1970
    old = client.diagnostic('input', lambda s: 'old' in s.message)
    assert 's old, expected at most 5 s (max_age)' in old.message
    unknown, new = driver.image(GRAY), driver.image(GRAY)
    unknown.header.stamp.sec = unknown.header.stamp.nanosec = 0
    new.header.stamp = client.node.get_clock().now().to_msg()
    for image in (unknown, new):
        driver.publish(image)
        client.wait(lambda: edges, 'edges of a new image')
        assert edges.pop().header == image.header
    assert client.set_parameter('max_age', 0.0).successful
    image = driver.image(GRAY)
    driver.publish(image)
    client.wait(lambda: edges, 'edges of an old image')
    assert client.status(lambda s: s.frames_processed == 3).frames_rejected == 1


@pytest.mark.parametrize(
    ('names', 'words'),
    [
        ('[front, 2nd]', "cameras has '2nd', expected names of letters, digits and _"),
        ('[front, front]', "cameras is ['front', 'front'], expected each name once"),
        ("[front, '']", "cameras has ''"),
    ],
)
def test_names_of_cameras_that_cannot_be_end_configuring(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path, names: str, words: str
) -> None:
    node = start_node(bundle=tiny_bundle, autostart=True, cameras=names)
    assert client.state() == 'unconfigured'
    (line,) = [line for line in node.text().splitlines() if 'Cannot configure' in line]
    assert words in line
