"""Contents as messages, as another program reads them."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

pytest.importorskip('sensor_msgs', reason='ROS 2 for Python is not installed')

from std_msgs.msg import Header

from mtl_perception.calibration import stamp_ns
from mtl_perception.camera import CameraModel
from mtl_perception.clouds import Cloud
from mtl_perception.images import LAYOUTS, read_image
from mtl_perception.offline.ground_truth import image_array
from mtl_perception.outputs import OUTPUTS
from mtl_perception.pipeline import Frame
from mtl_perception.ros.messages import camera_info, header_of, image, message_class, point_cloud


@pytest.mark.parametrize('encoding', LAYOUTS)
def test_an_image_holds_its_pixels(encoding: str) -> None:
    dtype, channels = LAYOUTS[encoding]
    shape = (4, 6, channels)[: 2 + (channels > 1)]
    wide = np.arange(2 * 4 * 6 * channels).reshape(4, -1, *shape[2:]).astype(dtype)
    pixels = wide[:, :6]  # the content of a letterbox: not contiguous
    message = image(pixels, encoding)
    assert (message.height, message.width, message.encoding) == (4, 6, encoding)
    assert message.step == 6 * channels * np.dtype(dtype).itemsize
    np.testing.assert_array_equal(image_array(message), pixels)


def test_a_message_is_filled_again_without_new_memory_and_follows_the_size() -> None:
    first = image(np.full((4, 6), 7, np.uint8), 'mono8')
    data = first.data
    again = image(np.full((4, 6), 9, np.uint8), 'mono8', first)
    assert again is first
    assert again.data is data
    assert bytes(data) == b'\x09' * 24
    for shape in ((4, 8), (8, 8)):
        pixels = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
        other = image(pixels, '32FC1', first)
        assert (other.height, other.width, other.step) == (*shape, 4 * shape[1])
        np.testing.assert_array_equal(image_array(other), pixels)


def test_the_bytes_of_a_cloud_are_not_copied() -> None:
    cloud = Cloud(2, 3, array('B', bytes(2 * 3 * 32)))
    first = point_cloud(cloud)
    assert first.data is cloud.data
    larger = Cloud(4, 3, array('B', bytes(4 * 3 * 32)))
    again = point_cloud(larger, first)
    assert again.data is larger.data
    assert (again.height, again.row_step, len(again.fields)) == (4, 96, 8)


def test_equal_cameras_have_messages_whose_headers_are_their_own() -> None:
    """Threads of several nodes in a process fill them in."""
    camera = CameraModel(6, 4, 5.0, 5.0, 2.5, 1.5)
    one, other = camera_info(camera), camera_info(camera)
    one.header, other.header = Header(frame_id='one'), Header(frame_id='other')
    assert (one.header.frame_id, other.header.frame_id) == ('one', 'other')
    assert list(one.k) == list(other.k) == [5.0, 0.0, 2.5, 0.0, 5.0, 1.5, 0.0, 0.0, 1.0]


def test_the_camera_side_reads_what_this_side_writes() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    np.testing.assert_array_equal(read_image(image(pixels, 'rgb8')), pixels)


@pytest.mark.parametrize('stamp', [0, 1_700_000_000_123_456_789, 999_999_999])
def test_the_header_is_the_frame_s(stamp: int) -> None:
    header = header_of(Frame(np.zeros((1, 1, 3), np.uint8), frame_id='camera', stamp=stamp))
    assert header.frame_id == 'camera'
    assert stamp_ns(header) == stamp
    assert 0 <= header.stamp.nanosec < 10**9


def test_every_type_of_the_table_has_a_class() -> None:
    for output in OUTPUTS:
        package, _, name = output.type.split('/')
        found = message_class(output)
        assert (found.__module__.partition('.')[0], found.__name__) == (package, name)
