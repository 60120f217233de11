"""Where no image comes, or not every one, the node says what there is instead and what was lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from mtl_perception.ros.silence import COMPRESSED, RAW, mismatch_of, why_silent


@pytest.mark.parametrize(
    ('topic', 'kind', 'topics', 'publishers', 'words'),
    [
        ('/image', RAW, {}, [], 'nobody publishes images'),
        ('/image', RAW, {'/image': [RAW]}, [RAW], 'its publisher sends nothing'),
        ('/image', RAW, {'/image': [RAW]}, [RAW, RAW], 'its 2 publishers send nothing'),
        ('/image', RAW, {'/image': [COMPRESSED]}, [COMPRESSED], f'only {COMPRESSED}'),
        ('/a', RAW, {'/a/compressed': [COMPRESSED]}, [], 'set image_transport to compressed'),
        ('/a/compressed', COMPRESSED, {'/a': [RAW]}, [], 'set image_transport to raw'),
        (
            '/a/compressed/compressed',
            COMPRESSED,
            {'/a/compressed': [COMPRESSED]},
            [],
            'doubled: images are on /a/compressed, and the topic is /a',
        ),
        ('/image', RAW, {'/x': ['a/msg/B'], '/cam/image': [RAW]}, [], 'are on /cam/image: remap'),
    ],
)
def test_what_there_is_instead(
    topic: str, kind: str, topics: dict[str, list[str]], publishers: list[str], words: str
) -> None:
    assert words in why_silent(topic, kind, topics, publishers)


def test_the_node_says_it_in_diagnostics_and_once_in_its_log(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    client.publisher(CompressedImage, '/image/compressed')
    node = start_node(bundle=tiny_bundle, autostart=True)
    client.subscribe(Image, '/perception/edges')
    words = 'CompressedImage is on /image/compressed: set image_transport to compressed'
    client.diagnostic('input', lambda s: s.message == f'no image on /image: {words}')
    client.wait(lambda: words in node.text(), 'the line')
    client.spin(2.5)
    assert node.text().count(words) == 1


def test_a_policy_that_does_not_match_is_named(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    topics = {'/image': Image, '/camera_info': CameraInfo}
    override = {f'qos_overrides.{t}.subscription.reliability': 'reliable' for t in topics}
    sensors = {t: client.node.create_publisher(kind, t, best_effort) for t, kind in topics.items()}
    for publisher in (driver.images, driver.infos):
        client.node.destroy_publisher(publisher)
    node = start_node(bundle=tiny_bundle, autostart=True, **override)
    client.subscribe(Image, '/perception/edges')
    reasons = {
        topic: 'a publisher offers reliability best_effort where reliable is wanted '
        f'(qos_overrides.{topic}.subscription.reliability)'
        for topic in topics
    }
    client.diagnostic('input', lambda s: s.message == f'no image on /image: {reasons["/image"]}')
    driver.images = client.publisher(Image, '/image')
    client.wait(driver.images.get_subscription_count, 'subscription')
    driver.images.publish(driver.image(np.zeros((64, 96, 3), np.uint8)))
    client.diagnostic('calibration', lambda s: s.message.endswith(reasons['/camera_info']))
    for topic, reason in reasons.items():
        assert node.text().count(f'On {topic} {reason}: nothing comes from it') == 1
        client.node.destroy_publisher(sensors[topic])
    assert mismatch_of('/x', 'deadline').startswith('a publisher offers another deadline (qos_over')


def test_a_policy_is_not_blamed_any_more_once_it_matches(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    override = {'qos_overrides./image.subscription.reliability': 'reliable'}
    node = start_node(bundle=tiny_bundle, autostart=True, **override)
    client.subscribe(Image, '/perception/edges')
    line = 'On /image a publisher offers reliability best_effort'
    for times in (1, 2):  # it is told again when it comes again
        wrong = client.node.create_publisher(Image, '/image', best_effort)
        client.diagnostic('input', lambda s: 'offers reliability best_effort' in s.message)
        client.wait(lambda n=times: node.text().count(line) == n, 'the line')
        client.node.destroy_publisher(wrong)
        right = client.node.create_publisher(Image, '/image', 1)
        silence = 'no image on /image: its publisher sends nothing'
        client.diagnostic('input', lambda s, words=silence: s.message == words)
        client.node.destroy_publisher(right)


def test_silence_is_logged_again_after_images_have_come(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    node = start_node(bundle=tiny_bundle, autostart=True)
    client.subscribe(Image, '/perception/edges')
    line = 'No image on /image: its publisher sends nothing'
    client.wait(lambda: line in node.text(), 'the line')
    reports = client.subscribe(DiagnosticArray, '/diagnostics')

    def flows() -> bool:
        driver.publish(driver.image(np.zeros((64, 96, 3), np.uint8)))
        client.spin(0.1)
        messages = [s.message for a in reports for s in a.status if s.name.endswith('input')]
        return len(messages) > 1 and all(m.endswith('Hz') for m in messages[-2:])

    client.wait(flows, 'two intervals with images')
    client.wait(lambda: node.text().count(line) == 2, 'the line again')


def test_what_is_said_of_images_is_of_those_that_come_now(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    node = start_node(bundle=tiny_bundle, autostart=True)
    listener = client.node.create_subscription(Image, '/perception/edges', lambda _: None, 1)
    driver.wait_for_node()

    def published(line: str, height: int, *infos: str, times: int = 1) -> None:
        """Until the log has a line; the rate at which one is written is limited."""

        def told() -> bool:
            image = driver.image(np.zeros((height, 96, 3), np.uint8))
            of_frames = [driver.info(image.header, 96, height) for _ in infos]
            for info, frame in zip(of_frames, infos, strict=True):
                info.header.frame_id = frame
            driver.publish(image, *of_frames)
            client.spin(0.1)
            return bool(node.text().count(line) == times)

        client.wait(told, line)

    published('First image: 96x64 rgb8 on /image', 64)
    published('Images are now: 96x32 rgb8 on /image', 32, 'lens')
    words = "no CameraInfo of frame 'camera_optical_frame', only of 'lens' on /camera_info"
    client.diagnostic('calibration', lambda s: s.message.endswith(words))
    client.node.destroy_publisher(driver.infos)
    missing = f'{words}: nobody publishes CameraInfos'
    client.diagnostic('calibration', lambda s: s.message.endswith(missing))
    # While nobody listens no image is looked at, and nothing is wrong with any.
    client.node.destroy_subscription(listener)
    client.diagnostic('calibration', lambda s: s.message == 'no image yet')
    client.subscribe(Image, '/perception/edges')
    client.wait(driver.images.get_subscription_count, 'subscription')
    published('First image: 96x32 rgb8 on /image', 32)


def test_topics_without_a_publisher_and_own_outputs_are_not_offered(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    remaps = {'~/edges': '/edges', 'image': '/camera/image'}
    start_node(remaps=remaps, bundle=tiny_bundle, autostart=True)
    client.subscribe(Image, '/edges')
    client.subscribe(Image, '/other/image')
    silence = 'no image on /camera/image: nobody publishes images'
    client.diagnostic('input', lambda s: s.message == silence)


@pytest.mark.parametrize(
    ('infos', 'words'),
    [
        ('/cam/camera_info', 'CameraInfos are on /cam/camera_info: remap camera_info'),
        ('/camera_info', 'its publisher sends nothing'),
        ('', 'nobody publishes CameraInfos'),
    ],
)
def test_what_there_is_instead_of_a_camera_info(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path, infos: str, words: str
) -> None:
    if infos:
        client.publisher(CameraInfo, infos)
    images = client.publisher(Image, '/image')
    node = start_node(bundle=tiny_bundle, autostart=True)
    client.subscribe(Image, '/perception/edges')
    client.wait(images.get_subscription_count, 'subscription')
    header = Header(frame_id='lens')
    images.publish(Image(header=header, height=1, width=2, step=6, encoding='rgb8', data=[9] * 6))
    reason = f"no CameraInfo of frame 'lens' on /camera_info: {words}"
    client.diagnostic('calibration', lambda s: s.message.endswith(reason))
    client.wait(lambda: f'No CameraInfo on /camera_info: {words}' in node.text(), 'the line')


def test_cameras_that_share_a_topic_or_leave_out_stamps_are_told_of(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    node = start_node(bundle=tiny_bundle, autostart=True)
    client.subscribe(Image, '/perception/edges')
    other = client.publisher(Image, '/image')
    driver.wait_for_node()
    client.wait(other.get_subscription_count, 'subscription')
    client.diagnostic('input', lambda s: s.message.startswith('no image'))
    image = driver.image(np.zeros((64, 96, 3), np.uint8))
    image.header.stamp.sec = image.header.stamp.nanosec = 0
    other.publish(image)
    words = '/test_client, /test_client publish them: give each camera a topic of its own'
    found = client.diagnostic('input', lambda s: s.message.endswith(f' Hz, and {words}'))
    assert found.level == DiagnosticStatus.WARN
    assert node.text().count(f'On /image images may be mixed, {words}') == 1
    assert "frame 'camera_optical_frame', without a stamp; " in node.text()


def test_the_first_image_is_described_and_its_rate_told(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    node = start_node(bundle=tiny_bundle, autostart=True)
    depth = client.subscribe(Image, '/perception/depth')
    driver.wait_for_node()
    for number in range(1, 11):
        image = driver.image(np.zeros((64, 96, 3), np.uint8))
        driver.publish(image, driver.info(image.header, 96, 64, fx=120.0))
        client.wait(lambda count=number: len(depth) == count, 'depth')
    line = (
        "First image: 96x64 rgb8 on /image, frame 'camera_optical_frame'; depth is in metres, "
        'focal length 120 pixels, no distortion'
    )
    assert node.text().count(line) == 1
    (rate,) = re.findall(r'Images on /image come at ([\d.]+) Hz', node.text())
    assert float(rate) > 0


# A camera whose process has Fast DDS as it comes: its segment is smaller than an image.
LOSSY_CAMERA = """
import time
from array import array
import rclpy
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node('lossy_camera')
publisher = node.create_publisher(Image, '/image', 1)
image = Image(width=640, height=480, step=1920, encoding='rgb8')
image.data = array('B', bytes(921600))
while True:
    image.header.stamp.sec += 1
    publisher.publish(image)
    time.sleep(0.02)
"""
# The program of the node, with a middleware that does not tell of losses.
UNTOLD = """
from rclpy import event_handler
from mtl_perception.ros.__main__ import main

class Handler(event_handler.EventHandler):
    def __init__(self, *, event_type, **kwargs):
        if event_type == event_handler.QoSSubscriptionEventType.RCL_SUBSCRIPTION_MESSAGE_LOST:
            raise event_handler.UnsupportedEventTypeError('not here')
        super().__init__(event_type=event_type, **kwargs)

event_handler.EventHandler = Handler
main()
"""


@pytest.fixture
def lossy_camera() -> Iterator[None]:
    without = {k: v for k, v in os.environ.items() if k != 'FASTDDS_DEFAULT_PROFILES_FILE'}
    process = subprocess.Popen([sys.executable, '-c', LOSSY_CAMERA], env=without)
    yield
    process.kill()
    process.wait()


def values(status: Any) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


@pytest.mark.usefixtures('lossy_camera')
def test_images_that_the_middleware_loses_are_counted(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    node = start_node(bundle=tiny_bundle, autostart=True, reliable=False)
    client.subscribe(Image, '/perception/edges')
    status = client.status(lambda s: s.frames_lost > 10)
    assert status.frames_received < status.frames_lost
    found = client.diagnostic('input', lambda s: 'were lost before they arrived' in s.message)
    assert found.level == DiagnosticStatus.WARN
    assert 'mtl_perception doctor' in found.message
    assert int(values(found)['frames_lost']) > 10
    assert node.text().count('Images on /image are lost before they arrive') == 1


def test_where_the_middleware_does_not_tell_of_losses_the_node_says_so(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(program=['-c', UNTOLD], bundle=tiny_bundle, autostart=True)
    edges = client.subscribe(Image, '/perception/edges')
    driver.wait_for_node()

    def answered() -> bool:  # the first try to subscribe fails, and an image may come to that
        driver.publish(driver.image(np.zeros((64, 96, 3), np.uint8)))
        client.spin(0.1)
        return bool(edges)

    client.wait(answered, 'edges')
    found = client.diagnostic('input', lambda s: values(s)['frames_received'] != '0')
    assert values(found)['frames_lost'] == 'rmw_fastrtps_cpp does not tell'
