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
from mtl_perception_msgs.msg import PerceptionStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

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
    # Both say that they are of the image's frame. The second of a pair may come after its image.
    for _ in range(3):
        labels.clear()
        infos.clear()
        image = driver.image(GRAY)
        pair = [driver.info(image.header, WIDTH, HEIGHT, fx=fx) for fx in (100.0, 300.0)]
        driver.publish(image, *pair)
        client.wait(lambda: labels, 'labels')
    diagnostic = client.diagnostic('calibration', lambda s: s.level == DiagnosticStatus.WARN)
    assert 'two cameras seem to share the topic' in diagnostic.message
    assert diagnostic.message.endswith('on /camera_info')
    assert not infos


def without_stamp(message: Any) -> Any:
    message.header.stamp.sec = message.header.stamp.nanosec = 0
    return message


def test_two_cameras_without_stamps_that_share_a_topic_are_noticed(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True)
    depths = client.subscribe(Image, '/perception/depth')
    pictures = client.subscribe(Image, '/perception/semantic_color')  # the last
    driver.wait_for_node()
    image = without_stamp(driver.image(GRAY))
    for fx in (100.0, 300.0, 100.0):
        driver.infos.publish(without_stamp(driver.info(image.header, WIDTH, HEIGHT, fx=fx)))
    words = 'two cameras seem to share the topic'

    def told() -> bool:
        depths.clear()
        pictures.clear()
        driver.publish(image)
        client.wait(lambda: pictures, 'picture')
        return not depths

    client.wait(told, 'an image that no depth is given for')
    client.diagnostic('calibration', lambda s: words in s.message and 'in turns' in s.message)


def test_with_two_publishers_no_image_has_the_calibration_of_the_other_camera(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True)
    other = client.publisher(CameraInfo, '/camera_info')
    infos = client.subscribe(CameraInfo, '/perception/camera_info')
    pictures = client.subscribe(Image, '/perception/semantic_color')  # the last
    driver.wait_for_node()
    client.wait(other.get_subscription_count, 'subscription')

    def answer(*messages: Any) -> list[Any]:
        pictures.clear()
        infos.clear()
        driver.publish(*messages)
        client.wait(lambda: pictures, 'picture')
        return infos

    # The image is the other camera's, whose CameraInfo is still to come.
    image = driver.image(GRAY)
    first = driver.info(image.header, WIDTH, HEIGHT, fx=100.0)
    assert not answer(image, first)
    words = '2 publishers send CameraInfos, and whether these differ is not known yet'
    client.diagnostic('calibration', lambda s: words in s.message)

    def agreed() -> list[Any]:
        image = driver.image(GRAY)
        return answer(image, driver.info(image.header, WIDTH, HEIGHT, fx=100.0))

    client.wait(agreed, 'an answer once both have had the time')
    image = driver.image(GRAY)
    other.publish(driver.info(driver.header(), WIDTH, HEIGHT, fx=300.0))
    client.spin(0.5)
    assert not answer(image), 'it is of one of the two'
    client.diagnostic('calibration', lambda s: 'from 2 publishers' in s.message)


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
        client.wait(driver.images.get_subscription_count, 'subscription of the node to images')

        def received() -> bool:
            driver.publish(driver.image(GRAY))
            client.spin(0.1)
            return bool(depths)

        client.wait(received, 'depth')
    finally:
        client.node.destroy_publisher(latched)


def test_kept_infos_are_asked_for_only_while_somebody_keeps_them(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    def kept_wanted() -> bool:
        wanted = client.node.get_subscriptions_info_by_topic('/camera_info')
        return any(s.qos_profile.durability == LATCHED.durability for s in wanted)

    latched = client.node.create_publisher(CameraInfo, '/camera_info', LATCHED)
    start_node(bundle=tiny_bundle, autostart=True)
    client.subscribe(Image, '/perception/depth')
    client.wait(kept_wanted, 'subscription to what is kept')
    client.node.destroy_publisher(latched)
    # Else the other publisher would be warned of a subscription that it cannot serve, for ever.
    client.wait(lambda: not kept_wanted(), 'end of that subscription')
    assert client.node.count_subscribers('/camera_info') == 1


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


def bent(info: Any) -> Any:
    """The same camera with a lens, and another focal length once it is rectified."""
    info.d = [-0.3, 0.1, 0.0, 0.0, 0.0]
    info.p[0] = info.p[5] = 0.8 * info.k[0]
    return info


@pytest.mark.parametrize(
    ('topic', 'parameters', 'focal', 'calibration', 'words'),
    [
        ('/camera/image_rect', {}, 80.0, PerceptionStatus.CALIBRATION_METRIC, 'in metres'),
        (
            '/camera/image_raw',
            {},
            100.0,
            PerceptionStatus.CALIBRATION_NOT_PINHOLE,
            'depth_image_proc, nvblox, rtabmap',
        ),
        (
            '/camera/image_rect',
            {'rectified': False},
            100.0,
            PerceptionStatus.CALIBRATION_NOT_CREDIBLE,
            'rectified is false, and images come from /camera/image_rect',
        ),
        ('/camera/image', {'rectified': True}, 80.0, PerceptionStatus.CALIBRATION_METRIC, ''),
    ],
    ids=['by name', 'raw', 'against the name', 'told'],
)
def test_rectified_images_have_the_camera_of_p(
    client: Any,
    make_driver: Callable[..., Any],
    start_node: Callable[..., Any],
    tiny_bundle: Path,
    topic: str,
    parameters: dict[str, Any],
    focal: float,
    calibration: int,
    words: str,
) -> None:
    remaps = {'image': topic, 'camera_info': '/camera/camera_info'}
    node = start_node(bundle=tiny_bundle, autostart=True, remaps=remaps, **parameters)
    infos = client.subscribe(CameraInfo, '/perception/camera_info')
    depths = client.subscribe(Image, '/perception/depth')
    driver = make_driver(topic, '/camera/camera_info')
    driver.wait_for_node()
    image = driver.image(GRAY)
    driver.publish(image, bent(driver.info(image.header, WIDTH, HEIGHT, fx=100.0)))
    client.wait(lambda: infos and depths, 'depth and its camera info')
    assert infos[0].k[0] == pytest.approx(focal)
    # The tiny bundle says 5 m for a focal length of 100.
    metres = np.frombuffer(depths[0].data, np.float32)
    assert metres[0] == pytest.approx(5.0 * focal / 100.0)
    assert client.status(lambda s: s.frames_processed).calibration == calibration
    diagnostic = client.diagnostic('calibration', lambda s: s.message != 'no image yet')
    metric = calibration == PerceptionStatus.CALIBRATION_METRIC
    assert diagnostic.level == (DiagnosticStatus.OK if metric else DiagnosticStatus.WARN)
    assert words in diagnostic.message
    warnings = [line for line in node.text().splitlines() if '[WARN]' in line]
    assert any(words in line for line in warnings) != metric or not words
    assert 'not published' not in node.text()


def far_centre(info: Any) -> None:
    info.k[2] = info.p[2] = 10.0 * WIDTH


def binned_twice(info: Any) -> None:
    info.binning_x = info.binning_y = 2


def cut_out_and_yet_whole(info: Any) -> None:
    info.roi.x_offset, info.roi.y_offset = WIDTH // 4, HEIGHT // 4
    info.roi.width, info.roi.height = WIDTH // 2, HEIGHT // 2


def of_another_mode(info: Any) -> None:
    """The driver has filled in the size of its images, and K of the file."""
    info.k[2] = info.p[2] = WIDTH / 4 + 2
    info.k[5] = info.p[6] = HEIGHT / 4 + 1


def squeezed(info: Any) -> None:
    info.width *= 2
    info.k[2] = info.p[2] = WIDTH - 0.5
    info.binning_x = 2


def of_another_lens(info: Any) -> None:
    info.distortion_model = 'plumb_bob'
    info.d = [-0.02, 0.01, -0.2, 0.1]


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (far_centre, 'the principal point is at (960, 32)'),
        (binned_twice, 'binning is 2x2, and yet'),
        (of_another_lens, 'tangential coefficient of 0.2'),
        (cut_out_and_yet_whole, 'the region of interest is 48x32, and yet the images'),
        (of_another_mode, 'K looks like that of images of 52x34'),
        (squeezed, 'the pixels are not square: fx / fy is 0.50 with binning 2x1'),
    ],
)
def test_a_calibration_that_is_not_credible_is_warned_of(
    client: Any,
    driver: Any,
    start_node: Callable[..., Any],
    tiny_bundle: Path,
    spoil: Callable[[Any], None],
    words: str,
) -> None:
    start_node(bundle=tiny_bundle, autostart=True)
    depths = client.subscribe(Image, '/perception/depth')
    driver.wait_for_node()
    image = driver.image(GRAY)
    info = driver.info(image.header, WIDTH, HEIGHT)
    spoil(info)
    driver.publish(image, info)
    client.wait(lambda: depths, 'depth')
    diagnostic = client.diagnostic('calibration', lambda s: s.level == DiagnosticStatus.WARN)
    assert diagnostic.message.startswith('the calibration is not credible: ')
    assert words in diagnostic.message
    status = client.status(lambda s: s.frames_processed)
    assert status.calibration == PerceptionStatus.CALIBRATION_NOT_CREDIBLE


def test_images_of_another_size_than_their_calibration_are_told_of(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    node = start_node(bundle=tiny_bundle, autostart=True)
    infos = client.subscribe(CameraInfo, '/perception/camera_info')
    driver.wait_for_node()
    image = driver.image(GRAY)
    driver.publish(image, driver.info(image.header, 2 * WIDTH, 2 * HEIGHT, fx=300.0))
    client.wait(lambda: infos, 'camera info')
    assert infos[0].k[0] == pytest.approx(150.0)
    words = (
        'the CameraInfo is for images of 192x128, and those of 96x64 are taken for the same view'
    )
    found = client.diagnostic('calibration', lambda s: words in s.message)
    assert found.level == DiagnosticStatus.OK
    assert words in node.text()


def test_a_fisheye_without_coefficients_is_not_a_pinhole(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True)
    infos = client.subscribe(CameraInfo, '/perception/camera_info')
    clouds = client.subscribe(PointCloud2, '/perception/points')
    driver.wait_for_node()
    image = driver.image(GRAY)
    info = driver.info(image.header, WIDTH, HEIGHT, fx=50.0)
    info.distortion_model, info.d = 'equidistant', [0.0] * 4
    driver.publish(image, info)
    client.wait(lambda: infos and clouds, 'cloud and camera info')
    assert (infos[0].distortion_model, list(infos[0].d)) == ('equidistant', [0.0] * 4)
    points = np.frombuffer(clouds[0].data, np.float32).reshape(HEIGHT, WIDTH, 8)
    x, y, z = points[HEIGHT // 2, 0, :3]
    assert np.arctan2(np.hypot(x, y), z) == pytest.approx(47.5 / 50.0, abs=1e-3)
    status = client.status(lambda s: s.frames_processed)
    assert status.calibration == PerceptionStatus.CALIBRATION_NOT_PINHOLE


def test_each_new_reason_not_to_believe_a_calibration_is_logged(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    node = start_node(bundle=tiny_bundle, autostart=True)
    client.subscribe(Image, '/perception/depth')
    driver.wait_for_node()
    for spoil, words, times in (
        (far_centre, 'the principal point is at (960, 32)', 1),
        (binned_twice, 'binning is 2x2, and yet', 1),
        (None, '', 0),
        (binned_twice, 'binning is 2x2, and yet', 2),
    ):
        image = driver.image(GRAY)
        info = driver.info(image.header, WIDTH, HEIGHT)
        if spoil is not None:
            spoil(info)
        driver.publish(image, info)
        sentence = words or 'depth is in metres'
        client.diagnostic('calibration', lambda s, part=sentence: part in s.message)
        assert not words or node.text().count(words) == times


def test_what_the_driver_leaves_empty_is_filled_in(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True)
    infos = client.subscribe(CameraInfo, '/perception/camera_info')
    driver.wait_for_node()
    image = driver.image(GRAY)
    info = driver.info(image.header, WIDTH, HEIGHT)
    info.p, info.r, info.distortion_model, info.d = [0.0] * 12, [0.0] * 9, 'radtan', [0.01, 0.001]
    driver.publish(image, info)
    client.wait(lambda: infos, 'camera info')
    (out,) = infos
    assert list(out.p) == [*out.k[0:3], 0.0, *out.k[3:6], 0.0, *out.k[6:9], 0.0]
    assert list(out.r) == np.eye(3).ravel().tolist()
    assert (out.distortion_model, list(out.d)) == ('plumb_bob', [0.01, 0.001, 0.0, 0.0, 0.0])
