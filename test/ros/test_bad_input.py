"""Bad images, calibrations, configurations, engines: one clear report, and the node lives."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

from diagnostic_msgs.msg import DiagnosticStatus
from mtl_perception_msgs.msg import PerceptionStatus
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from mtl_perception.images import STRICT_JPEG

WIDTH, HEIGHT = 96, 64
GRAY = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
PARTS = {'kind': 'human_parts', 'outputs': {'human_parts': 'uint8'}}


def unknown_encoding(image: Any) -> None:
    image.encoding = 'xyz12'


def zero_size(image: Any) -> None:
    image.width = image.height = image.step = 0
    image.data = b''


def short_step(image: Any) -> None:
    image.step = image.width


def short_data(image: Any) -> None:
    image.data = image.data[:100]


BAD_IMAGES = {
    'encoding': unknown_encoding,
    'size': zero_size,
    'step': short_step,
    'truncated': short_data,
}


def test_bad_images_are_counted_by_kind_and_the_next_one_works(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    node = start_node(bundle=tiny_bundle, autostart=True)
    edges = client.subscribe(Image, '/perception/edges')
    driver.wait_for_node()
    client.diagnostic('input', lambda s: s.level == DiagnosticStatus.WARN)
    for kind, spoil in BAD_IMAGES.items():
        bad = driver.image(GRAY)
        spoil(bad)
        driver.publish(bad)
        diagnostic = client.diagnostic('input', lambda s: 'bad images' in s.message)
        assert diagnostic.level == DiagnosticStatus.WARN
        assert f'1 {kind}' in diagnostic.message
        assert node.text().count(f'Bad image ({kind})') == 1
    good = driver.image(GRAY)
    driver.publish(good)
    client.wait(lambda: edges, 'edges')
    assert edges[0].header == good.header
    status = client.status(lambda s: s.frames_processed)
    assert (status.frames_received, status.frames_rejected) == (5, 4)


def test_a_damaged_jpeg_is_counted_and_the_next_one_works(
    client: Any, make_driver: Callable[..., Any], start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    cv2 = pytest.importorskip('cv2')
    node = start_node(bundle=tiny_bundle, autostart=True, image_transport='compressed')
    driver = make_driver('/image/compressed')
    edges = client.subscribe(Image, '/perception/edges')
    driver.wait_for_node()
    noise = np.random.default_rng(0).integers(0, 255, GRAY.shape, np.uint8)
    jpeg = cv2.imencode('.jpg', noise)[1].tobytes()
    bad = [jpeg[: len(jpeg) // 2], b'', b'no picture at all']
    client.diagnostic('input', lambda s: s.level == DiagnosticStatus.WARN)
    if STRICT_JPEG:
        bad.append(jpeg[: len(jpeg) // 3] + jpeg[2 * len(jpeg) // 3 :])
    for data in bad:
        before = node.text().count('Bad image')
        driver.publish(CompressedImage(header=driver.header(), format='jpeg', data=data))
        client.diagnostic('input', lambda s: 'bad images' in s.message)
        assert node.text().count('Bad image') == before + 1
    driver.publish(CompressedImage(header=driver.header(), format='jpeg', data=jpeg))
    client.wait(lambda: edges, 'edges')
    assert client.status(lambda s: s.frames_processed).frames_rejected == len(bad)
    assert ('pip install simplejpeg' in node.text()) != STRICT_JPEG


def uncalibrated(info: Any) -> None:
    info.k = [0.0] * 9


def not_a_number(info: Any) -> None:
    info.k = [math.nan, *info.k[1:]]


def other_shape(info: Any) -> None:
    info.width, info.height = 2 * WIDTH, 3 * HEIGHT


def other_frame(info: Any) -> None:
    info.header.frame_id = 'another_camera'
    info.header.stamp.sec -= 1


@pytest.mark.parametrize(
    ('spoil', 'calibration', 'words'),
    [
        (None, PerceptionStatus.CALIBRATION_MISSING, "no CameraInfo of frame 'camera_optical"),
        (uncalibrated, PerceptionStatus.CALIBRATION_MISSING, 'fx = K[0] is 0'),
        (not_a_number, PerceptionStatus.CALIBRATION_MISSING, 'fx = K[0] is nan'),
        (other_shape, PerceptionStatus.CALIBRATION_WRONG_SIZE, 'the image is 96x64'),
        (other_frame, PerceptionStatus.CALIBRATION_MISSING, 'no CameraInfo of frame'),
    ],
)
def test_without_a_usable_camera_info_there_is_no_metric_output(
    client: Any,
    driver: Any,
    start_node: Callable[..., Any],
    tiny_bundle: Path,
    spoil: Callable[[Any], None] | None,
    calibration: int,
    words: str,
) -> None:
    node = start_node(bundle=tiny_bundle, autostart=True)
    depths = client.subscribe(Image, '/perception/depth')
    clouds = client.subscribe(PointCloud2, '/perception/points')
    infos = client.subscribe(CameraInfo, '/perception/camera_info')
    labels = client.subscribe(Image, '/perception/semantic')
    driver.wait_for_node()

    def publish_one() -> None:
        labels.clear()
        image = driver.image(GRAY)
        if spoil is None:
            driver.publish(image)
        else:
            info = driver.info(image.header, WIDTH, HEIGHT)
            spoil(info)
            driver.publish(image, info)
        client.wait(lambda: labels, 'labels')

    publish_one()
    diagnostic = client.diagnostic('calibration', lambda s: s.level == DiagnosticStatus.WARN)
    assert words in diagnostic.message
    status = client.status(lambda s: s.uncalibrated_frames)
    assert status.calibration == calibration
    assert not depths
    assert not clouds
    assert not infos

    assert client.set_parameter('allow_uncalibrated', True).successful
    publish_one()
    client.wait(lambda: depths, 'depth that is not metric')
    assert not clouds
    (line,) = [line for line in node.text().splitlines() if 'points are not published' in line]
    assert words in line


def test_a_camera_info_that_comes_after_its_image_is_waited_for(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True)
    depths = client.subscribe(Image, '/perception/depth')
    driver.wait_for_node()
    image = driver.image(GRAY)
    driver.publish(image)
    driver.infos.publish(driver.info(image.header, WIDTH, HEIGHT))
    client.wait(lambda: depths, 'depth')
    assert depths[0].header == image.header


def test_a_constant_camera_info_serves_every_image_and_is_counted(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True)
    depths = client.subscribe(Image, '/perception/depth')
    driver.wait_for_node()
    driver.infos.publish(driver.info(driver.header(), WIDTH, HEIGHT))
    for _ in range(3):
        image = driver.image(GRAY)
        driver.publish(image)
        client.wait(lambda: depths, 'depth')
        assert depths.pop().header.stamp.sec == driver.stamp
    status = client.status(lambda s: s.frames_processed == 3)
    assert status.camera_info_fallbacks == 3
    assert status.calibration == PerceptionStatus.CALIBRATION_METRIC


@pytest.mark.parametrize(
    ('edit', 'words'),
    [
        (lambda d: d.update(schema=99), 'schema is 99, expected at most 1'),
        (lambda d: d['model'].update(sha256='0' * 64), 'sha256'),
        (lambda d: d['tasks'].update(parts=PARTS), "output 'human_parts' is missing"),
    ],
    ids=['newer schema', 'wrong hash', 'output missing'],
)
def test_a_bad_bundle_ends_configure_with_failure_and_one_line(
    client: Any,
    start_node: Callable[..., Any],
    make_bundle: Callable[..., Path],
    tiny_bundle: Path,
    edit: Callable[[dict[str, Any]], object],
    words: str,
) -> None:
    node = start_node(bundle=make_bundle(edit))
    assert not client.transition('configure')
    assert client.state() == 'unconfigured'
    (line,) = [line for line in node.text().splitlines() if 'Cannot configure' in line]
    assert words in line
    # The node lives and can be told better.
    assert client.set_parameter('bundle', str(tiny_bundle)).successful
    assert client.transition('configure')
    refused = client.set_parameter('bundle', '')
    assert not refused.successful
    assert 'unconfigured' in refused.reason


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [
        ('bundle', '/no/such/folder', '/no/such/folder: no such folder'),
        ('backend', 'abacus', "backend is 'abacus', expected one of auto, tensorrt, openvino"),
        ('image_transport', 'pigeon', "image_transport is 'pigeon', expected one of raw, compr"),
    ],
)
def test_a_bad_parameter_ends_configure_with_failure_and_one_line(
    client: Any,
    start_node: Callable[..., Any],
    tiny_bundle: Path,
    name: str,
    value: str,
    words: str,
) -> None:
    node = start_node(**{'bundle': tiny_bundle, name: value})
    assert not client.transition('configure')
    assert client.state() == 'unconfigured'
    (line,) = [line for line in node.text().splitlines() if 'Cannot configure' in line]
    assert words in line


@pytest.mark.parametrize(
    ('override', 'words'),
    [
        ('reliability:=quatsch', 'policy `reliability`: `quatsch`'),
        ('depth:=many', "publisher.depth' to 'many'"),
    ],
)
def test_a_bad_qos_of_an_output_ends_configure_with_failure_and_one_line(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path, override: str, words: str
) -> None:
    policy, value = override.split(':=')
    name = f'qos_overrides./perception/edges.publisher.{policy}'
    node = start_node(bundle=tiny_bundle, **{name: value})
    assert not client.transition('configure')
    assert client.state() == 'unconfigured'
    (line,) = [line for line in node.text().splitlines() if 'Cannot configure' in line]
    assert words in line
    # Nothing is left of the outputs that were created before it.
    client.wait(lambda: not client.node.count_publishers('/perception/semantic'), 'cleaning up')
    assert client.set_parameter('backend', 'auto').successful


def test_a_bad_qos_of_the_input_is_an_error_and_the_node_lives(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    name = 'qos_overrides./image.subscription.history'
    node = start_node(bundle=tiny_bundle, autostart=True, **{name: 'keep_most'})
    client.subscribe(Image, '/perception/edges')
    diagnostic = client.diagnostic('input', lambda s: s.level == DiagnosticStatus.ERROR)
    assert 'cannot subscribe to images' in diagnostic.message
    assert '`history`: `keep_most`' in diagnostic.message
    assert client.state() == 'active'
    assert node.text().count('Cannot subscribe to images') == 1
    assert not client.node.count_subscribers('/camera_info')


@pytest.mark.parametrize(
    ('value', 'words'),
    [(1.5, "'device' to '1.5' of type 'DOUBLE', expecting type 'INTEGER'"), (99, 'Max: 64')],
)
def test_a_parameter_of_the_wrong_type_or_size_ends_the_node_with_one_line(
    start_node: Callable[..., Any], tiny_bundle: Path, value: float, words: str
) -> None:
    node = start_node(bundle=tiny_bundle, device=value, code=1)
    node.process.wait(60)
    (line,) = node.text().splitlines()
    assert line.startswith('perception_node: ')
    assert words in line


def test_parameters_out_of_range_are_refused(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True)
    assert client.set_parameter('min_depth_confidence', 128).successful
    assert not client.set_parameter('min_depth_confidence', 256).successful
    assert not client.set_parameter('image_transport', 'compressed').successful
    assert not client.set_parameter('autostart', False).successful


def test_an_engine_failure_is_an_error_and_the_node_recovers(
    client: Any,
    driver: Any,
    start_node: Callable[..., Any],
    breakable_bundle: Path,
) -> None:
    node = start_node(bundle=breakable_bundle, backend='onnxruntime', autostart=True)
    edges = client.subscribe(Image, '/perception/edges')
    driver.wait_for_node()

    driver.publish(driver.image(np.full_like(GRAY, 200)))
    diagnostic = client.diagnostic('engine', lambda s: s.level == DiagnosticStatus.ERROR)
    assert 'onnxruntime' in diagnostic.message
    assert 'retrying in 1 s' in node.text()

    def recovered() -> bool:
        driver.publish(driver.image(GRAY))
        client.spin(0.2)
        return bool(edges)

    client.wait(recovered, 'edges after the pause')
    client.diagnostic('engine', lambda s: s.level == DiagnosticStatus.OK)
    assert client.status(lambda s: s.frames_processed).engine_failures == 1
