"""The doctor looks at a live graph: a camera and nodes, healthy and not, over real DDS."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

# As the installed program does.
MAIN = 'import sys; from mtl_perception.commands.cli import main; sys.exit(main())'
Findings = dict[str, list[tuple[str, str]]]


# A camera: images of a size with the CameraInfo of a focal length; reliable or best effort.
CAMERA = """
import sys, time, rclpy
from array import array
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
rclpy.init()
name, focal, reliability, width, height = sys.argv[1:]
width, height = int(width), int(height)
node = rclpy.create_node(name)
qos = QoSProfile(depth=5, reliability=ReliabilityPolicy[reliability])
images = node.create_publisher(Image, '/image', qos)
infos = node.create_publisher(CameraInfo, '/camera_info', 5)
image = Image(width=width, height=height, step=3 * width, encoding='rgb8')
image.data = array('B', b'd' * width * height * 3)
info = CameraInfo(width=width, height=height, distortion_model='plumb_bob', d=[0.0] * 5)
f, cx, cy = float(focal), (width - 1) / 2, (height - 1) / 2
info.k = [f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0]
info.p = [f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
image.header.frame_id = info.header.frame_id = 'eye'
while True:
    image.header.stamp = info.header.stamp = node.get_clock().now().to_msg()
    infos.publish(info)
    images.publish(image)
    time.sleep(0.1)
"""


@pytest.fixture
def start_camera() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """A function that starts a camera as a process of its own."""
    started = []

    def start(
        name: str, *, focal: float, reliability: str, size: tuple[int, int] = (96, 64)
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, '-c', CAMERA, name, str(focal), reliability, *map(str, size)]
        started.append(subprocess.Popen(command))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def examine() -> tuple[int, Findings]:
    """Exit status and findings of the doctor, by their subjects."""
    command = [sys.executable, '-c', MAIN, 'doctor', '--json', '--seconds', '1.5']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    findings: Findings = {}
    for found in json.loads(done.stdout)['findings']:
        findings.setdefault(found['subject'], []).append((found['level'], found['detail']))
        assert found['level'] == 'ok' or found['remedy']
    return done.returncode, findings


def test_a_camera_and_a_node_that_are_well(
    client: Any,
    start_node: Callable[..., Any],
    start_camera: Callable[..., subprocess.Popen[bytes]],
    tiny_bundle: Path,
) -> None:
    start_node(bundle=tiny_bundle, autostart=True)
    camera = start_camera('left', focal=200.0, reliability='RELIABLE')
    assert client.state() == 'active'
    client.wait(lambda: 'left' in client.node.get_node_names(), 'camera')
    code, findings = examine()
    assert findings['/perception'] == [('ok', 'is active')]
    assert findings['/perception: model'][0][1].startswith('tiny 1.0.0 on onnxruntime (CPU')
    publishers, flow, image = findings['/image']
    assert publishers == ('ok', 'sensor_msgs/msg/Image of /left, QoS matches')
    assert ' Hz' in flow[1]
    assert image == ('ok', "96x64 rgb8, frame 'eye'")
    assert findings['/camera_info'] == [('ok', 'fx 200.0, fy 200.0: credible')]
    # The node worked, because the doctor listened to it.
    assert findings['/perception: input'][0][0] == 'ok'
    assert findings['/perception: input'][0][1].endswith(' Hz')
    assert findings['/perception: calibration'] == [('ok', 'depth is in metres')]
    ((level, detail),) = findings[f'profile of /left (process {camera.pid})']
    assert (level, 'segments of 64 MB' in detail) == ('ok', True)
    assert code == 0


def test_what_is_wrong_with_cameras_and_nodes_fails(
    client: Any,
    start_node: Callable[..., Any],
    start_camera: Callable[..., subprocess.Popen[bytes]],
    tiny_bundle: Path,
) -> None:
    start_node(bundle=tiny_bundle, autostart=True)  # its subscriptions ask for reliable images
    start_node(remaps={'__ns': '/rear'}, bundle=tiny_bundle)
    start_camera('left', focal=0.0, reliability='RELIABLE')
    start_camera('right', focal=0.0, reliability='BEST_EFFORT')
    assert client.state() == 'active'
    names, services = client.node.get_node_names, client.node.get_service_names_and_types
    client.wait(lambda: {'left', 'right'} <= {*names()}, 'cameras')
    # A node has its name before it has services, by which the doctor knows it.
    client.wait(lambda: '/rear/perception/describe_model' in dict(services()), 'second node')
    code, findings = examine()
    assert code == 1, findings
    assert findings['/rear/perception'][0] == ('fail', 'is unconfigured')
    mismatch, shared, *_ = findings['/image']
    assert mismatch[0] == 'fail'
    assert 'the QoS of /right does not match: Best effort publisher' in mismatch[1]
    assert (shared[0], sorted(shared[1].split()[:2])) == ('warn', ['/left,', '/right'])
    assert findings['/camera_info'][0][0] == 'warn'
    assert 'uncalibrated' in findings['/camera_info'][0][1]
    shared = findings['/camera_info'][1]
    assert (shared[0], sorted(shared[1].split()[:2])) == ('warn', ['/left,', '/right'])


def test_the_room_that_images_need_follows_their_size(
    client: Any, start_camera: Callable[..., subprocess.Popen[bytes]]
) -> None:
    camera = start_camera('huge', focal=3000.0, reliability='RELIABLE', size=(3840, 2160))
    client.wait(lambda: 'huge' in client.node.get_node_names(), 'camera')
    _, findings = examine()
    ((level, detail),) = findings[f'profile of /huge (process {camera.pid})']
    wanted = 4 * 3840 * 2160 * 3 / 2**20
    assert level == 'warn'
    assert f'segment_size is 64 MB, expected at least {wanted:.0f}' in detail
