"""Several cameras on one engine: each with its own topics, calibration and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

from diagnostic_msgs.msg import DiagnosticArray
from mtl_perception_msgs.msg import PerceptionStatus
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, Image

from mtl_perception.bundle import load_bundle
from mtl_perception.calibration import stamp_ns
from mtl_perception.ros.cameras import Arrival, Camera
from mtl_perception.ros.mailbox import Mailbox

NAMES = ('front', 'rear')
FOREVER_S = 3600.0


def picture(color: tuple[int, int, int], width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


@pytest.fixture
def drivers(make_driver: Callable[..., Any]) -> dict[str, Any]:
    return {name: make_driver(f'/{name}/image', f'/{name}/camera_info') for name in NAMES}


@pytest.fixture
def cameras(client: Any, tiny_bundle: Path) -> Iterator[dict[str, Camera]]:
    """Two cameras of an active node of this process, whose images wait for ever for their info.

    rclpy leaves the name of a lifecycle node on the graph, so it is not the one of other tests.
    """
    node = LifecycleNode('here', context=client.context)
    client.executor.add_node(node)
    bundle = load_bundle(tiny_bundle)
    cameras = {
        name: Camera(node, name, bundle, transport='raw', rectified='auto', info_wait_s=FOREVER_S)
        for name in NAMES
    }
    for camera in cameras.values():
        camera.advertise()
    node.trigger_configure()
    node.trigger_activate()
    for camera in cameras.values():
        camera.activate()
    yield cameras
    for camera in cameras.values():
        camera.unsubscribe()
        camera.destroy()
    client.executor.remove_node(node)
    node.destroy_node()


def test_two_cameras_share_a_node_and_nothing_else(
    client: Any, drivers: dict[str, Any], start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    topics = [f'/{name}/{topic}' for name in NAMES for topic in ('image', 'camera_info')]
    start_node(
        bundle=tiny_bundle,
        cameras='[front, rear]',
        autostart=True,
        **{f'qos_overrides.{topic}.subscription.reliability': 'reliable' for topic in topics},
    )
    got = {
        (name, topic): client.subscribe(kind, f'/perception/{name}/{topic}')
        for name in NAMES
        for topic, kind in (('semantic', Image), ('depth', Image), ('camera_info', CameraInfo))
    }
    statuses = {
        name: client.subscribe(PerceptionStatus, f'/perception/{name}/status') for name in NAMES
    }
    for driver in drivers.values():
        driver.wait_for_node()

    # Red, 5 m for the canonical focal length 100; green, 2 m. Different sizes, focals and frames.
    sent = {}
    for name, color, width, height, fx in (
        ('front', (100, 10, 20), 192, 128, 300.0),
        ('rear', (40, 200, 30), 96, 64, 200.0),
    ):
        image = drivers[name].image(picture(color, width, height))
        image.header.frame_id = f'{name}_optical'
        drivers[name].publish(image, drivers[name].info(image.header, width, height, fx=fx))
        sent[name] = image
    client.wait(lambda: all(got.values()), 'all outputs of both cameras')

    first = {key: messages[0] for key, messages in got.items()}
    for (name, _), message in first.items():
        assert message.header == sent[name].header
    labels = {name: set(first[name, 'semantic'].data) for name in NAMES}
    assert labels == {'front': {0}, 'rear': {1}}
    metres = {name: np.frombuffer(first[name, 'depth'].data, np.float32)[0] for name in NAMES}
    assert metres == {'front': pytest.approx(7.5), 'rear': pytest.approx(4.0)}
    assert [first[name, 'camera_info'].k[0] for name in NAMES] == [150.0, 200.0]

    for name in NAMES:
        status = client.wait(
            lambda own=statuses[name]: next((s for s in own if s.frames_processed), None), 'status'
        )
        assert (status.camera, status.header.frame_id) == (name, f'{name}_optical')
        assert (status.frames_received, status.messages_published) == (1, 3)
        assert status.calibration == PerceptionStatus.CALIBRATION_METRIC
    arrays = client.subscribe(DiagnosticArray, '/diagnostics')
    client.wait(lambda: arrays, 'diagnostics')
    assert [status.name for status in arrays[-1].status] == [
        'perception: front/input',
        'perception: rear/input',
        'perception: engine',
        'perception: front/calibration',
        'perception: rear/calibration',
    ]


def test_each_camera_has_its_labels(client: Any, cameras: dict[str, Camera]) -> None:
    vision = pytest.importorskip('vision_msgs.msg', reason='vision_msgs is not installed')
    for name in NAMES:
        labels = client.subscribe(vision.LabelInfo, f'/here/{name}/label_info', latched=True)
        client.wait(lambda labels=labels: labels, f'labels of {name}')


def test_an_image_without_its_info_keeps_no_other_camera_waiting(
    client: Any, cameras: dict[str, Camera], drivers: dict[str, Any]
) -> None:
    mailbox: Mailbox[Camera, Arrival] = Mailbox()
    for name, camera in cameras.items():
        client.subscribe(Image, f'/here/{name}/depth')
        client.wait(camera.listened, 'listener')
        camera.look(mailbox)
        drivers[name].wait_for_node()
    front, rear = cameras.values()
    early, image = (drivers[name].image(picture((1, 2, 3), 96, 64)) for name in NAMES)

    def publish_until_received(driver: Any, camera: Camera, *messages: Any) -> None:
        """Best effort: what comes before the subscription knows its writer is lost."""

        def received() -> int:
            driver.publish(*messages)
            client.spin(0.1)
            return camera.statistics.report().totals.get('frames_received', 0)

        client.wait(received, 'image')

    publish_until_received(drivers['front'], front, early)
    info = drivers['rear'].info(image.header, 96, 64)
    publish_until_received(drivers['rear'], rear, image, info)
    # Infos of one camera are no infos of another, whatever their stamp.
    drivers['rear'].infos.publish(drivers['rear'].info(early.header, 96, 64))
    client.wait(lambda: rear.frame(Arrival(early, 0.0, waits=False)).calibration, 'that info')

    (camera, arrival), *others = mailbox.take(9).items()
    assert (camera, others) == (rear, [])
    frame = camera.frame(arrival)
    assert frame is not None
    assert (frame.camera, frame.frame_id) == ('rear', image.header.frame_id)
    assert frame.stamp == stamp_ns(image.header)
    assert frame.calibration is not None

    drivers['front'].infos.publish(drivers['front'].info(early.header, 96, 64, fx=77.0))
    client.spin(0.2)
    (camera, arrival), *others = mailbox.take(9).items()
    assert (camera, others) == (front, [])
    frame = camera.frame(arrival)
    assert frame is not None
    assert frame.calibration is not None
    assert frame.calibration.fx == 77.0


def test_an_image_waits_only_for_outputs_that_need_the_calibration(
    client: Any, cameras: dict[str, Camera], drivers: dict[str, Any]
) -> None:
    mailbox: Mailbox[Camera, Arrival] = Mailbox()
    client.subscribe(Image, '/here/front/semantic')
    client.wait(cameras['front'].listened, 'listener')
    cameras['front'].look(mailbox)
    drivers['front'].wait_for_node()

    def received() -> int:
        drivers['front'].publish(drivers['front'].image(picture((1, 2, 3), 96, 64)))
        client.spin(0.1)
        return cameras['front'].statistics.report().totals.get('frames_received', 0)

    client.wait(received, 'image')
    ((camera, _),) = mailbox.take(9).items()
    assert camera is cameras['front']
