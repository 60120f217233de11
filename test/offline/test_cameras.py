"""The camera of a recording is found among its topics."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtl_perception.offline.cameras import find_camera
from mtl_perception.offline.cdr import RecordingError

COMPRESSED, RAW = 'sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/Image'
INFO = 'sensor_msgs/msg/CameraInfo'
TRUTH = {'/ground_truth/depth': COMPRESSED, '/ground_truth/camera_info': INFO}
BAG = Path('bag')


def test_the_camera_of_a_recording_is_found() -> None:
    sample = {
        '/camera/image_raw/compressed': COMPRESSED,
        '/camera/camera_info': INFO,
        '/another/image': RAW,
        **TRUTH,
    }
    camera = find_camera(BAG, sample)
    assert (camera.image, camera.transport) == ('/camera/image_raw/compressed', 'compressed')
    camera = find_camera(BAG, {'/zed/image': RAW, '/zed/camera_info': INFO, **TRUTH})
    assert camera.remaps == {'image': '/zed/image', 'camera_info': '/zed/camera_info'}


@pytest.mark.parametrize(
    ('image', 'others'),
    [('', '/right/image'), ('/left/image', '/right/image'), ('/right/image', '/left/image')],
)
def test_images_and_info_are_of_one_camera(image: str, others: str) -> None:
    """By the alphabet it would be the info of another camera."""
    topics = {
        '/all/camera_info': INFO,
        '/before/image': RAW,
        **{f'/{name}/image': RAW for name in ('left', 'right')},
        **{f'/{name}/camera_info': INFO for name in ('left', 'right')},
    }
    camera = find_camera(BAG, topics, image=image)
    assert camera.image == (image or '/left/image')
    assert camera.info == camera.image.replace('image', 'camera_info')
    assert camera.others == (others,)


def test_raw_images_of_colour_come_first() -> None:
    topics = {
        '/a/depth/image_raw': RAW,
        '/a/depth/camera_info': INFO,
        '/b/image_raw/compressed': COMPRESSED,
        '/b/image_raw': RAW,
        '/b/camera_info': INFO,
    }
    camera = find_camera(BAG, topics)
    assert (camera.image, camera.others) == ('/b/image_raw', ('/a/depth/image_raw',))


def test_a_single_info_elsewhere_is_that_of_single_images() -> None:
    topics = {'/robot/cam/image': RAW, '/robot/cam/image/compressed': COMPRESSED, '/info': INFO}
    assert find_camera(BAG, topics).info == '/info'
    with pytest.raises(RecordingError, match=r'no CameraInfo beside .* /cam/image, only /info'):
        find_camera(BAG, {**topics, '/cam/image': RAW})


@pytest.mark.parametrize(
    ('topics', 'image', 'words'),
    [
        ({'/front/image': RAW}, '', r'bag has no topic of type .*CameraInfo'),
        ({'/front/camera_info': INFO}, '', r'bag has no topic of type .*Image'),
        (
            {'/a/image': RAW, '/a/camera_info': INFO},
            '/b/image',
            'no images on /b/image, only on /a/image',
        ),
    ],
)
def test_what_is_missing_is_said(topics: dict[str, str], image: str, words: str) -> None:
    with pytest.raises(RecordingError, match=words):
        find_camera(BAG, topics, image=image)
