"""The demo, end to end over DDS: node process, recording, bag of outputs, picture, accuracy."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip('cv2')
pytest.importorskip('rosbags', reason='the demo reads and writes recordings with rosbags')

from mtl_perception.bundle import load_bundle  # noqa: E402
from mtl_perception.commands.demo_picture import montage_stamps  # noqa: E402
from mtl_perception.commands.display import table  # noqa: E402
from mtl_perception.commands.graph import Topic  # noqa: E402
from mtl_perception.offline.recordings import RecordingReader  # noqa: E402
from mtl_perception.offline.sample import SampleFrame, write_sample  # noqa: E402

WIDTH, HEIGHT = 192, 128
FOCAL = 200.0  # at the tiny network's 96x64 half of it, which is its canonical focal length


def encode(kind: str, array: np.ndarray) -> bytes:
    """Encode an array (BGR where it has three channels) as a picture."""
    return bytes(cv2.imencode(kind, array)[1])


def tiny_frames(count: int) -> Iterator[SampleFrame]:
    """Three upright bands that wander to the right, with what the tiny network says about them.

    Red is 5 m away, green and blue are 1 m away, and everything faces the camera.
    """
    for index in range(count):
        image = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)  # RGB
        truth = np.zeros((HEIGHT, WIDTH), np.uint8)
        third = WIDTH // 3
        for channel in range(3):
            columns = (np.arange(third) + channel * third + 4 * index) % WIDTH
            image[:, columns, channel] = 100 if channel == 0 else 200
            truth[:, columns] = channel
        metres = np.where(truth == 0, 5000, 1000).astype(np.uint16)
        towards = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        towards[...] = (128, 128, 0)  # RGB of (0, 0, -1)
        yield {
            'stamp_ns': 100_000_000_000 + index * 100_000_000,
            'rgb': encode('.jpg', image[..., ::-1]),
            'k': [FOCAL, 0, WIDTH / 2, 0, FOCAL, HEIGHT / 2, 0, 0, 1],
            'width': WIDTH,
            'height': HEIGHT,
            'depth_mm': encode('.png', metres),
            'semantic': encode('.png', truth),
            'normals': encode('.png', towards[..., ::-1]),
            'edges': encode('.png', np.where(truth == 2, 255, 0).astype(np.uint8)),
        }


@pytest.fixture(scope='module')
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of wandering bands."""
    folder = tmp_path_factory.mktemp('recordings') / 'bands'
    write_sample(folder, tiny_frames(30))
    return folder


def start_demo(output: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start ``mtl_perception demo`` on a DDS domain of its own."""
    environment = {
        **os.environ,
        'ROS_DOMAIN_ID': str(101 + os.getpid() % 100),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'OMP_NUM_THREADS': '1',
    }
    return subprocess.Popen(
        [
            sys.executable,
            '-m',
            'mtl_perception.commands.cli',
            'demo',
            '--output',
            output,
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        # A shell's background jobs ignore Ctrl-C, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def nodes_of(parent: int) -> list[int]:
    """Process ids of the children of a process."""
    children = Path(f'/proc/{parent}/task/{parent}/children')
    return [int(text) for text in children.read_text(encoding='ascii').split()]


def gone(process: int) -> bool:
    """Whether a process has ended."""
    try:
        return ') Z ' in Path(f'/proc/{process}/stat').read_text(encoding='ascii')
    except OSError:
        return True


def test_the_demo_leaves_a_bag_a_picture_and_its_accuracy(
    tiny_bundle: Path, recording: Path, tmp_path: Path
) -> None:
    pytest.importorskip('rclpy', reason='the demo needs ROS 2')
    output = tmp_path / 'output'
    process = start_demo(output, '--bundle', tiny_bundle, '--recording', recording)
    text, error = process.communicate(timeout=240)
    assert process.returncode == 0, error + text
    assert sorted(path.name for path in output.iterdir()) == ['bag', 'montage.png', 'node.log']

    with RecordingReader(output / 'bag') as bag:
        topics = bag.topics
        stamps = {m.time_ns for m in bag.messages(['/perception/semantic'])}
    for name in ('semantic', 'depth', 'normals', 'edges', 'points', 'camera_info', 'status'):
        assert f'/perception/{name}' in topics
        assert f'/perception/{name}' in text
    assert topics['/perception/points'] == 'sensor_msgs/msg/PointCloud2'
    assert topics['/perception/semantic_color'] == 'sensor_msgs/msg/Image'
    assert all(100e9 < stamp < 110e9 for stamp in stamps), 'on the time line of the recording'

    # The ground truth is what the tiny network says; JPEG blurs the borders of the bands.
    miou = float(re.search(r'miou ([\d.]+)', text)[1])  # type: ignore[index]
    assert miou > 0.9
    assert float(re.search(r'absrel ([\d.]+)', text)[1]) < 0.2  # type: ignore[index]
    assert float(re.search(r'median ([\d.]+)', text)[1]) < 1  # type: ignore[index]
    answered = re.search(r'^(\d+) of 30 images were answered', text, re.MULTILINE)
    judged = re.search(r'\((\d+) frames\)', text)
    assert answered is not None
    assert judged is not None
    assert 10 <= int(judged[1]) <= int(answered[1])

    picture = cv2.imread(str(output / 'montage.png'))
    assert picture is not None
    assert picture.std() > 10


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_ends_its_node(
    tiny_bundle: Path, recording: Path, tmp_path: Path, number: signal.Signals
) -> None:
    pytest.importorskip('rclpy', reason='the demo needs ROS 2')
    output = tmp_path / 'output'
    process = start_demo(
        output, '--bundle', tiny_bundle, '--recording', recording, '--rate', '0.05'
    )
    end = time.monotonic() + 100
    while not (nodes := nodes_of(process.pid)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert 'Traceback' not in error
    assert all(gone(node) for node in nodes)
    assert sorted(path.name for path in output.iterdir()) == ['node.log']


def test_a_node_that_cannot_start_is_one_line(
    tiny_bundle: Path, recording: Path, tmp_path: Path
) -> None:
    """The bundle is good when the demo looks at it, but the engine cannot open its model."""
    import hashlib

    import yaml

    pytest.importorskip('rclpy', reason='the demo needs ROS 2')
    bundle = tmp_path / 'bundle'
    bundle.mkdir()
    (bundle / 'model.onnx').write_bytes(b'no model')
    description = yaml.safe_load((tiny_bundle / 'bundle.yaml').read_text(encoding='utf-8'))
    description['model']['sha256'] = hashlib.sha256(b'no model').hexdigest()
    (bundle / 'bundle.yaml').write_text(yaml.safe_dump(description), encoding='utf-8')
    process = start_demo(tmp_path / 'o', '--bundle', bundle, '--recording', recording)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 1
    assert re.fullmatch(r'mtl_perception: the node could not start: .*model\.onnx.*\n', error)


def test_rate_and_latency_of_a_topic() -> None:
    topic = Topic('/perception/depth', 'sensor_msgs/msg/Image', latched=False)
    assert topic.rate() == 0
    for index in range(11):
        topic.arrived(50.0 + index / 10)
        topic.latencies_ms.append(10.0 * index)
    assert topic.rate() == pytest.approx(10)
    assert topic.rate(now=51.0) == pytest.approx(10)
    assert topic.rate(now=99.0) == 0
    line = table([topic])[1].split()
    assert line == ['/perception/depth', '11', '10.0', '50.0', '95.0']


def test_the_picture_shows_different_moments_of_which_all_outputs_came(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    names = [f'/perception/{task}' for task in bundle.tasks]
    topics = {name: Topic(name, 'sensor_msgs/msg/Image', latched=False) for name in names}
    for topic in topics.values():
        topic.stamps.update(range(100))
    assert montage_stamps(topics, bundle, 4) == [12, 37, 62, 87]
    topics['/perception/depth'].stamps = {7, 50, 200}
    assert montage_stamps(topics, bundle, 4) == [7, 50]
    topics['/perception/depth'].stamps = set()
    assert montage_stamps(topics, bundle, 4) == []
