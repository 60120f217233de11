"""Every output as another process sees it: type, encoding, size, stamp, frame and values."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

from lifecycle_msgs.srv import GetState
from mtl_perception_msgs.srv import DescribeModel
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

# The tiny bundle's grid, and images of twice the size.
WIDTH, HEIGHT = 96, 64
ENCODINGS = {
    'semantic': ('mono8', 1),
    'semantic_confidence': ('mono8', 1),
    'depth': ('32FC1', 4),
    'depth_confidence': ('mono8', 1),
    'normals': ('32FC3', 12),
    'edges': ('mono8', 1),
    'saliency': ('mono8', 1),
    'image': ('rgb8', 3),
    'semantic_color': ('rgb8', 3),
    'depth_color': ('rgb8', 3),
    'normals_color': ('rgb8', 3),
}
# A picture of three stripes: what the tiny bundle makes of them is known (test/conftest.py).
RED, GREEN, BLUE = (100, 10, 20), (40, 200, 30), (0, 50, 255)


def stripes(width: int = 2 * WIDTH, height: int = 2 * HEIGHT) -> np.ndarray:
    picture = np.empty((height, width, 3), np.uint8)
    third = width // 3
    picture[:, :third], picture[:, third : 2 * third], picture[:, 2 * third :] = RED, GREEN, BLUE
    return picture


def array_of(image: Any) -> np.ndarray:
    """[H, W] or [H, W, 3] of an Image of the node."""
    dtype = np.float32 if image.encoding.startswith('32F') else np.uint8
    array = np.frombuffer(image.data, dtype)
    channels = array.size // (image.height * image.width)
    shape = (image.height, image.width, channels)
    return array.reshape(shape[: 2 + (channels > 1)])


def columns(array: np.ndarray) -> list[Any]:
    """The values in the middle of the three stripes."""
    height, width = array.shape[:2]
    return [array[height // 2, width * i // 6].tolist() for i in (1, 3, 5)]


def test_every_output_comes_with_the_input_s_header_on_one_grid(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True)
    images = {topic: client.subscribe(Image, f'/perception/{topic}') for topic in ENCODINGS}
    clouds = client.subscribe(PointCloud2, '/perception/points')
    infos = client.subscribe(CameraInfo, '/perception/camera_info')
    driver.wait_for_node()

    image = driver.image(stripes())
    driver.publish(image, driver.info(image.header, 2 * WIDTH, 2 * HEIGHT, fx=300.0))
    everything = [*images.values(), clouds, infos]
    client.wait(lambda: all(everything), 'message on every topic')

    for message in [messages[0] for messages in everything]:
        assert message.header == image.header
        assert (message.width, message.height) == (WIDTH, HEIGHT)
    got = {topic: messages[0] for topic, messages in images.items()}
    for topic, (encoding, pixel_bytes) in ENCODINGS.items():
        assert got[topic].encoding == encoding
        assert got[topic].step == WIDTH * pixel_bytes
        assert len(got[topic].data) == HEIGHT * got[topic].step
        assert got[topic].is_bigendian == 0
    values = {topic: columns(array_of(message)) for topic, message in got.items()}
    assert values['semantic'] == [0, 1, 2]
    assert values['semantic_confidence'] == [100, 200, 255]
    # The focal length at the grid is 150 px, the bundle's canonical one 100 px.
    assert values['depth'] == pytest.approx([100 / 20 * 1.5, 40 / 20 * 1.5, 0.0])
    assert values['depth_confidence'] == [10, 200, 50]
    assert values['normals'] == [[0, 0, -1]] * 3
    assert values['edges'] == [20, 30, 255]
    assert values['saliency'] == [235, 225, 0]
    assert values['image'] == [[*RED], [*GREEN], [*BLUE]]
    assert values['semantic_color'] == [[200, 30, 30], [30, 200, 30], [30, 30, 200]]

    camera = infos[0]
    assert (camera.k[0], camera.k[4]) == (150.0, 150.0)
    assert (camera.k[2], camera.k[5]) == ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    assert (camera.p[0], camera.p[2]) == (150.0, (WIDTH - 1) / 2)
    assert list(camera.d) == [0.0] * 5

    cloud = clouds[0]
    assert [field.name for field in cloud.fields] == [
        'x', 'y', 'z', 'rgb', 'label', 'normal_x', 'normal_y', 'normal_z'
    ]  # fmt: skip
    assert (cloud.point_step, cloud.row_step) == (32, 32 * WIDTH)
    assert not cloud.is_dense
    points = np.frombuffer(cloud.data, np.float32).reshape(HEIGHT, WIDTH, 8)
    labels = points.view(np.uint32)[..., 4]
    np.testing.assert_array_equal(labels, array_of(got['semantic']))
    np.testing.assert_array_equal(points[..., 2], array_of(got['depth']))
    row, column = 10, 5
    expected_x = (column - camera.k[2]) / camera.k[0] * points[row, column, 2]
    assert points[row, column, 0] == pytest.approx(expected_x, rel=1e-5)


def test_labels_are_latched(client: Any, start_node: Callable[..., Any], tiny_bundle: Path) -> None:
    vision = pytest.importorskip('vision_msgs.msg', reason='vision_msgs is not installed')
    start_node(bundle=tiny_bundle, autostart=True)
    client.wait(lambda: client.state() == 'active', 'active node')
    labels = client.subscribe(vision.LabelInfo, '/perception/label_info', latched=True)
    client.wait(lambda: labels, 'label info')
    assert {c.class_id: c.class_name for c in labels[0].class_map} == {
        0: 'red thing',
        1: 'green thing',
        2: 'blue thing',
    }


def test_without_vision_msgs_the_node_says_what_to_install(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    shadow = tmp_path / 'shadow' / 'vision_msgs'
    shadow.mkdir(parents=True)
    (shadow / '__init__.py').write_text("raise ImportError('not installed')\n")
    path = f'{shadow.parent}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'
    node = start_node(bundle=tiny_bundle, autostart=True, environment={'PYTHONPATH': path})
    edges = client.subscribe(Image, '/perception/edges')
    driver.wait_for_node()
    driver.publish(driver.image(stripes()))
    client.wait(lambda: edges, 'edges')
    assert node.text().count('label_info is not published: the package vision_msgs') == 1


def test_qos_of_inputs_and_outputs(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True, reliable=False)
    client.subscribe(Image, '/perception/semantic')
    driver.wait_for_node()
    (image,) = client.node.get_subscriptions_info_by_topic('/image')
    assert image.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    (semantic,) = client.node.get_publishers_info_by_topic('/perception/semantic')
    assert semantic.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert semantic.qos_profile.durability == DurabilityPolicy.VOLATILE


def test_a_qos_override_holds_for_its_topic_only(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    overrides = {
        '/perception/semantic.publisher': 'best_effort',
        '/diagnostics.publisher': 'best_effort',
        '/camera_info.subscription': 'reliable',
    }
    start_node(
        bundle=tiny_bundle,
        autostart=True,
        reliable=False,
        **{f'qos_overrides.{name}.reliability': policy for name, policy in overrides.items()},
    )
    client.subscribe(Image, '/perception/depth')
    driver.wait_for_node()

    def reliability(topic: str) -> ReliabilityPolicy:
        (info,) = client.wait(lambda: client.node.get_publishers_info_by_topic(topic), topic)
        return info.qos_profile.reliability

    assert reliability('/perception/semantic') == ReliabilityPolicy.BEST_EFFORT
    assert reliability('/diagnostics') == ReliabilityPolicy.BEST_EFFORT
    # These are created later, with the same defaults.
    for topic in ('depth', 'normals_color', 'points', 'status'):
        assert reliability(f'/perception/{topic}') == ReliabilityPolicy.RELIABLE
    (infos,) = client.node.get_subscriptions_info_by_topic('/camera_info')
    assert infos.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    (image,) = client.node.get_subscriptions_info_by_topic('/image')
    assert image.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT


def test_nothing_runs_without_subscribers(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True)
    client.status(lambda s: s.engine == 'onnxruntime')
    assert driver.images.get_subscription_count() == 0
    driver.publish(driver.image(stripes()))
    idle = client.status(lambda s: s.engine == 'onnxruntime')
    assert (idle.frames_received, idle.frames_processed, idle.messages_published) == (0, 0, 0)

    edges = client.subscribe(Image, '/perception/edges')
    driver.wait_for_node()
    driver.publish(driver.image(stripes()))
    client.wait(lambda: edges, 'edges')
    busy = client.status(lambda s: s.frames_processed)
    assert (busy.frames_received, busy.frames_processed, busy.messages_published) == (1, 1, 1)

    client.reset()
    images = client.publisher(Image, '/image')
    client.wait(lambda: not images.get_subscription_count(), 'end of the subscription')


def test_compressed_images_follow_a_remap_of_image(
    client: Any, make_driver: Callable[..., Any], start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    cv2 = pytest.importorskip('cv2')
    start_node(
        bundle=tiny_bundle,
        autostart=True,
        image_transport='compressed',
        remaps={'image': '/front/image_raw', 'camera_info': '/front/camera_info'},
    )
    driver = make_driver('/front/image_raw/compressed', '/front/camera_info')
    labels = client.subscribe(Image, '/perception/semantic')
    driver.wait_for_node()
    header = driver.header()
    _, jpeg = cv2.imencode('.jpg', stripes()[..., ::-1])
    message = CompressedImage(header=header, format='jpeg', data=jpeg.tobytes())
    driver.publish(message)
    client.wait(lambda: labels, 'labels')
    assert labels[0].header == header
    assert columns(array_of(labels[0])) == [0, 1, 2]


def test_compressed_outputs_say_what_the_others_do(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    cv2 = pytest.importorskip('cv2')
    start_node(bundle=tiny_bundle, autostart=True)
    alone = client.subscribe(CompressedImage, '/perception/image/compressed')
    driver.wait_for_node()
    driver.publish(driver.image(stripes()))
    client.wait(lambda: alone, 'the picture, for which no network runs')
    assert client.status(lambda s: s.frames_processed).messages_published == 1

    names = ['semantic', 'edges', 'image', 'semantic_color', 'depth']
    forms = {n: 'compressedDepth' if n == 'depth' else 'compressed' for n in names}
    plain = {n: client.subscribe(Image, f'/perception/{n}') for n in names}
    small = {
        n: client.subscribe(CompressedImage, f'/perception/{n}/{form}') for n, form in forms.items()
    }
    client.wait(
        lambda: all(client.node.count_subscribers(f'/perception/{n}/{forms[n]}') for n in names)
    )
    image = driver.image(stripes())
    driver.publish(image, driver.info(image.header, 2 * WIDTH, 2 * HEIGHT, fx=300.0))
    client.wait(lambda: all([*plain.values(), *small.values()]), 'answers')
    for name in names:
        message = small[name][-1]
        assert message.header == image.header
        expected = array_of(plain[name][-1])
        if name == 'depth':
            assert message.format == '32FC1; compressedDepth png'
            # What image_transport's decoder does: see test_compression.py.
            _, a, b = struct.unpack_from('<iff', message.data)
            steps = cv2.imdecode(np.frombuffer(message.data, np.uint8, offset=12), -1)
            found = np.where(steps > 0, a / (steps - np.float32(b)), np.nan)
            valid = expected > 0.2
            assert np.isnan(found[~valid]).all()
            assert valid.any()
            np.testing.assert_allclose(found[valid], expected[valid], atol=0.002)
            continue
        found = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED)
        if expected.ndim == 2:
            assert message.format == 'mono8; png compressed '
            np.testing.assert_array_equal(found, expected)
        else:
            assert message.format == 'rgb8; jpeg compressed bgr8'
            assert abs(found[..., ::-1].astype(int) - expected).mean() < 5


def test_a_remap_of_an_image_moves_what_it_is_compressed(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    remaps = {'~/edges': '/lines', '~/image': '/view', '~/image/compressed': '/small'}
    start_node(bundle=tiny_bundle, autostart=True, remaps=remaps)
    topics = ('/lines/compressed', '/small')
    found = {topic: client.subscribe(CompressedImage, topic) for topic in topics}
    driver.wait_for_node()
    client.wait(lambda: all(map(client.node.count_publishers, topics)), 'both')

    def answered() -> bool:
        driver.publish(driver.image(stripes()))
        client.spin(0.1)
        return all(found.values())

    client.wait(answered, 'answers')
    for topic in ('/perception/edges/compressed', '/view/compressed'):
        assert not client.node.count_publishers(topic)


def mosaic(picture: np.ndarray) -> np.ndarray:
    """[H, W] as a sensor behind a filter of red, green / green, blue sees it."""
    out = picture[..., 1].copy()
    out[::2, ::2], out[1::2, 1::2] = picture[::2, ::2, 0], picture[1::2, 1::2, 2]
    return out


def test_encodings_of_sensors_come_out_in_colour(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    cv2 = pytest.importorskip('cv2')
    start_node(bundle=tiny_bundle, autostart=True)
    labels = client.subscribe(Image, '/perception/semantic')
    driver.wait_for_node()
    i420 = cv2.cvtColor(stripes(), cv2.COLOR_RGB2YUV_I420)
    u, v = i420[2 * HEIGHT :].reshape(2, -1)
    sent = {
        'nv12': (1, [i420[: 2 * HEIGHT].ravel(), np.stack([u, v], -1).ravel()]),
        'nv21': (1, [i420[: 2 * HEIGHT].ravel(), np.stack([v, u], -1).ravel()]),
        'bayer_rggb16': (2, [mosaic(stripes()).astype('<u2') * 257]),
        'rgba16': (8, [np.dstack([stripes(), stripes()[..., :1]]).astype('<u2') * 257]),
    }
    for encoding, (pixel, parts) in sent.items():
        image = driver.image(stripes(), encoding=encoding)
        image.step = 2 * WIDTH * pixel
        image.data = b''.join(part.tobytes() for part in parts)
        driver.publish(image)
        client.wait(lambda: labels, f'labels of {encoding}')
        assert columns(array_of(labels.pop())) == [0, 1, 2], encoding


def test_a_compressed_mosaic_comes_out_in_colour(
    client: Any, make_driver: Callable[..., Any], start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    cv2 = pytest.importorskip('cv2')
    start_node(bundle=tiny_bundle, autostart=True, image_transport='compressed')
    labels = client.subscribe(Image, '/perception/semantic')
    driver = make_driver('/image/compressed')
    driver.wait_for_node()
    png = cv2.imencode('.png', mosaic(stripes()))[1].tobytes()
    for format, expected in (
        ('bayer_rggb8; png compressed ', [0, 1, 2]),
        ('mono8; png compressed ', [0, 0, 0]),
    ):
        driver.publish(CompressedImage(header=driver.header(), format=format, data=png))
        client.wait(lambda: labels, 'labels')
        assert columns(array_of(labels.pop())) == expected


def test_describe_model(client: Any, start_node: Callable[..., Any], tiny_bundle: Path) -> None:
    start_node(bundle=tiny_bundle)
    unknown = client.call(DescribeModel, '/perception/describe_model')
    assert not unknown.success
    assert unknown.message == 'the node is not configured'
    assert client.transition('configure')
    model = client.call(DescribeModel, '/perception/describe_model')
    assert model.success
    assert (model.name, model.version, model.engine) == ('tiny', '1.0.0', 'onnxruntime')
    assert (model.width, model.height, model.canonical_focal) == (WIDTH, HEIGHT, 100.0)
    assert list(model.tasks) == ['semantic', 'depth', 'normals', 'edges', 'saliency']
    assert list(model.class_names) == ['red thing', 'green thing', 'blue thing']
    assert 'data: none' in model.provenance


def test_a_namespace_moves_every_topic(
    client: Any, make_driver: Callable[..., Any], start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True, remaps={'__ns': '/robot'})
    driver = make_driver('/robot/image', '/robot/camera_info')
    edges = client.subscribe(Image, '/robot/perception/edges')
    driver.wait_for_node()
    driver.publish(driver.image(stripes()))
    client.wait(lambda: edges, 'edges')
    state = client.call(GetState, '/robot/perception/get_state')
    assert state.current_state.label == 'active'
