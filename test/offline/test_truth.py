"""Ground truth in recordings: found by topic, decoded to metres, of these pixels only."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import numpy as np
import pytest

cv2 = pytest.importorskip('cv2')

from mtl_perception.offline.cameras import Sight  # noqa: E402
from mtl_perception.offline.cdr import RecordingError  # noqa: E402
from mtl_perception.offline.truth import (  # noqa: E402
    TruthReader,
    depth_array,
    truth_topics,
)

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
MILLIMETRES = np.array([[0, 1500, 40000], [2000, 1, 65535]], np.uint16)
HEADER = SimpleNamespace(frame_id='camera')


def image(array: np.ndarray, encoding: str, *, padding: int = 0, big: bool = False) -> object:
    ordered = array.astype(array.dtype.newbyteorder('>' if big else '<'))
    rows = ordered.view(np.uint8).reshape(len(array), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    return SimpleNamespace(
        header=HEADER,
        height=array.shape[0],
        width=array.shape[1],
        encoding=encoding,
        is_bigendian=int(big),
        step=rows.shape[1],
        data=rows.tobytes(),
    )


def png(array: np.ndarray, format: str, header: bytes = b'') -> object:
    data = np.frombuffer(header + cv2.imencode('.png', array)[1].tobytes(), np.uint8)
    return SimpleNamespace(header=HEADER, format=format, data=data)


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('padding', [0, 6])
def test_integers_are_millimetres_and_floats_metres(big: bool, padding: int) -> None:
    expected = MILLIMETRES.astype(float) / 1000
    integers = image(MILLIMETRES, '16UC1', padding=padding, big=big)
    assert depth_array(integers) == pytest.approx(expected)
    floats = image(expected.astype(np.float32), '32FC1', padding=padding, big=big)
    assert depth_array(floats) == pytest.approx(expected)


def test_compressed_depth_is_read_as_its_transports_write_it() -> None:
    expected = MILLIMETRES.astype(float) / 1000
    assert depth_array(png(MILLIMETRES, '16UC1; png compressed ')) == pytest.approx(expected)
    header = struct.pack('<iff', 0, 0.0, 0.0)
    assert depth_array(png(MILLIMETRES, '16UC1; compressedDepth png', header)) == pytest.approx(
        expected
    )
    # compressed_depth_image_transport: quantised = A / metres + B, 0 = unknown.
    a, b = 1000.0, 1.0
    quantised = np.array([[0, 501, 251]], np.uint16)
    header = struct.pack('<iff', 0, a, b)
    found = depth_array(png(quantised, '32FC1; compressedDepth png', header))
    assert found == pytest.approx(np.array([[0, 2, 4]]))


def test_other_encodings_and_damage_are_told() -> None:
    with pytest.raises(RecordingError, match="encoding 'rgb8', expected 16UC1 or 32FC1"):
        depth_array(image(np.zeros((2, 2, 3), np.uint8), 'rgb8'))
    damaged = SimpleNamespace(header=HEADER, format='16UC1; png', data=np.zeros(9, np.uint8))
    with pytest.raises(RecordingError, match='cannot be decoded'):
        depth_array(damaged)


def read(reader: TruthReader, message: object, frame_id: str = 'camera') -> dict:
    return reader.read({'/depth': message}, frame_id, (6, 4))


def test_depth_of_another_frame_is_of_other_pixels() -> None:
    message = image(MILLIMETRES, '16UC1')
    reader = TruthReader({'/depth': 'depth'}, lambda stored: stored)
    assert read(reader, message)['depth'][0, 1] == pytest.approx(1.5)
    assert read(reader, message, '/camera')['depth'][0, 1] == pytest.approx(1.5)
    assert reader.problems() == []
    assert read(reader, message, 'camera_color') == {}
    assert read(reader, message, 'camera_color') == {}
    (problem,) = reader.problems()
    assert 'depth of frame camera is not registered' in problem
    assert '2 times' in problem


def test_truth_of_another_view_or_that_is_damaged_is_left_out_and_said() -> None:
    reader = TruthReader({'/depth': 'depth'}, lambda stored: stored)
    square = image(MILLIMETRES[:, :2], '16UC1')
    cut = image(MILLIMETRES, '16UC1')
    cut.data = cut.data[:-1]  # type: ignore[attr-defined]
    empty = png(MILLIMETRES, '16UC1; compressedDepth png')
    empty.data = empty.data[:3]  # type: ignore[attr-defined]
    for message in (square, cut, empty):
        assert read(reader, message) == {}
    problems = ' '.join(reader.problems())
    assert 'depth of 2x2 is not of the view of images of 6x4' in problems
    assert 'depth of 11 bytes, expected 2 rows' in problems
    assert 'cannot be decoded' in problems


def test_the_truth_of_a_recording_is_found() -> None:
    color = '/camera/color/image_raw'
    depth = '/camera/depth/image_rect_raw'
    aligned = '/camera/aligned_depth_to_color/image_raw'
    topics = dict.fromkeys((color, depth, aligned, '/other/aligned_depth/image'), IMAGE)
    assert truth_topics(topics, color) == {aligned: 'depth'}
    assert truth_topics({color: IMAGE, depth: IMAGE}, color) == {depth: 'depth'}
    assert truth_topics({color: IMAGE, '/camera/depth/camera_info': 'x'}, color) == {}
    sample = {'/ground_truth/semantic': COMPRESSED, '/ground_truth/depth': COMPRESSED}
    assert truth_topics({**topics, **sample}, color) == {
        '/ground_truth/semantic': 'semantic',
        '/ground_truth/depth': 'depth',
    }


def test_what_a_node_said_is_not_the_truth() -> None:
    topics = dict.fromkeys(('/camera/image', '/perception/depth', '/perception/semantic'), IMAGE)
    topics['/perception/depth_confidence'] = IMAGE
    assert truth_topics(topics, '/camera/image') == {}


def test_depth_is_found_by_what_images_show_and_by_their_frame() -> None:
    color = '/oak/rgb/image_raw'
    topics = dict.fromkeys((color, '/oak/depth/raw', '/oak/stereo/image', '/oak/confidence'), IMAGE)
    sights = {
        color: Sight('rgb', 'colour'),
        '/oak/depth/raw': Sight('left', 'depth'),
        '/oak/stereo/image': Sight('/rgb', 'depth'),  # nothing but its content says so
        '/oak/confidence': Sight('rgb', 'depth'),  # 32FC1, too
    }
    assert truth_topics(topics, color, sights) == {'/oak/stereo/image': 'depth'}
    sights['/oak/depth/raw'] = Sight('rgb', 'gray')
    del topics['/oak/stereo/image']
    assert truth_topics(topics, color, sights) == {}
