"""The camera of a recording is found among its topics."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtl_perception.offline.cameras import find_camera
from mtl_perception.offline.recordings import RecordingError


def test_the_camera_of_a_recording_is_found() -> None:
    compressed, raw = 'sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/Image'
    info = 'sensor_msgs/msg/CameraInfo'
    sample = {
        '/camera/image_raw/compressed': compressed,
        '/camera/camera_info': info,
        '/another/image': raw,
        '/ground_truth/depth': compressed,
    }
    camera = find_camera(Path('bag'), sample)
    assert (camera.image, camera.transport) == ('/camera/image_raw/compressed', 'compressed')
    other = {'/zed/image': raw, '/zed/camera_info': info, '/ground_truth/depth': compressed}
    camera = find_camera(Path('bag'), other)
    assert camera.remaps == {'image': '/zed/image', 'camera_info': '/zed/camera_info'}
    with pytest.raises(RecordingError, match=r'bag has no topic of type .*CameraInfo'):
        find_camera(Path('bag'), {'/front/image': raw})
