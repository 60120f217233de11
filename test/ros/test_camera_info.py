"""Which calibration the node uses, and what it says about it, as its users see it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

WIDTH, HEIGHT = 96, 64
GRAY = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


def of_frame(info: Any, frame: str) -> Any:
    out = copy.deepcopy(info)
    out.header.frame_id = frame
    return out


def test_two_cameras_that_share_a_topic_do_not_swap_their_calibrations(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True)
    infos = client.subscribe(CameraInfo, '/perception/camera_info')
    labels = client.subscribe(Image, '/perception/semantic')
    driver.wait_for_node()
    # Of the image's frame and another, at one moment; the wrong one last.
    image = driver.image(GRAY)
    own = driver.info(image.header, WIDTH, HEIGHT, fx=100.0)
    other = of_frame(driver.info(image.header, WIDTH, HEIGHT, fx=300.0), 'another_camera')
    driver.publish(image, own, other)
    client.wait(lambda: infos, 'camera info')
    assert infos.pop().k[0] == 100.0
    # Both say that they are of the image's frame.
    labels.clear()
    image = driver.image(GRAY)
    pair = [driver.info(image.header, WIDTH, HEIGHT, fx=fx) for fx in (100.0, 300.0)]
    driver.publish(image, *pair)
    client.wait(lambda: labels, 'labels')
    diagnostic = client.diagnostic('calibration', lambda s: s.level == DiagnosticStatus.WARN)
    assert 'two cameras seem to share the topic' in diagnostic.message
    assert diagnostic.message.endswith('on /camera_info')
    assert not infos


def test_topics_of_different_cameras_are_warned_of(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    remaps = {'image': '/front/image_raw', 'camera_info': '/rear/camera_info'}
    node = start_node(bundle=tiny_bundle, autostart=True, remaps=remaps)
    client.wait(lambda: 'make sure that they are of one camera' in node.text(), 'warning')
    assert '/front/image_raw and CameraInfos from /rear/camera_info' in node.text()


@pytest.mark.parametrize('durability', ['volatile', 'transient_local'])
def test_a_camera_info_that_was_published_before_is_received(
    client: Any,
    driver: Any,
    start_node: Callable[..., Any],
    tiny_bundle: Path,
    durability: str,
) -> None:
    latched = client.node.create_publisher(CameraInfo, '/camera_info', LATCHED)
    info = driver.info(driver.header(), WIDTH, HEIGHT)
    latched.publish(info)
    try:
        name = 'qos_overrides./camera_info.subscription.durability'
        start_node(bundle=tiny_bundle, autostart=True, **{name: durability})
        depths = client.subscribe(Image, '/perception/depth')
        driver.wait_for_node()

        def received() -> bool:
            driver.publish(driver.image(GRAY))
            client.spin(0.1)
            return bool(depths)

        client.wait(received, 'depth')
    finally:
        client.node.destroy_publisher(latched)


def test_a_durability_that_would_do_nothing_is_refused(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    name = 'qos_overrides./camera_info.subscription.durability'
    start_node(bundle=tiny_bundle, autostart=True, reliable=False, **{name: 'transient_local'})
    client.subscribe(Image, '/perception/edges')
    diagnostic = client.diagnostic('input', lambda s: s.level == DiagnosticStatus.ERROR)
    assert 'durability transient_local needs reliability: reliable' in diagnostic.message


def test_the_durability_of_an_output_can_be_overridden(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    name = 'qos_overrides./perception/edges.publisher.durability'
    start_node(bundle=tiny_bundle, autostart=True, **{name: 'transient_local'})
    early = client.subscribe(Image, '/perception/edges')
    driver.wait_for_node()
    driver.publish(driver.image(GRAY))
    client.wait(lambda: early, 'edges')
    late = client.subscribe(Image, '/perception/edges', latched=True)
    client.wait(lambda: late, 'edges of before')
