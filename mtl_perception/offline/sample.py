"""The sample recording: a camera and its ground truth, as topics of a rosbag2 folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from .cdr import RecordingError, Types
from .recordings import RecordingWriter

FRAME_ID = 'camera_optical_frame'
IMAGE_TOPIC = '/camera/image_raw/compressed'
CAMERA_INFO_TOPIC = '/camera/camera_info'
# Ground truth: topic, key of a SampleFrame, CompressedImage.format as image_transport spells it.
GROUND_TRUTH = {
    'depth': ('/ground_truth/depth', 'depth_mm', '16UC1; png compressed '),
    'semantic': ('/ground_truth/semantic', 'semantic', 'mono8; png compressed mono8'),
    'normals': ('/ground_truth/normals', 'normals', 'rgb8; png compressed bgr8'),
    'edges': ('/ground_truth/edges', 'edges', 'mono8; png compressed mono8'),
}


class GroundTruth(TypedDict, total=False):
    """What is known of a moment, as encoded files; a moment may have none."""

    depth_mm: bytes  # PNG uint16 millimetres, 0 = no surface
    semantic: bytes  # PNG uint8 class ids of the bundle, 255 = void
    normals: bytes  # PNG RGB, (n + 1) / 2 * 255 in the optical frame, (0, 0, 0) = void
    edges: bytes  # PNG uint8, 0 or 255


class SampleFrame(GroundTruth):
    """One moment of a sample recording; pictures are encoded files, not arrays."""

    stamp_ns: int
    rgb: bytes  # JPEG, width x height
    k: Sequence[float]  # row-major 3x3 intrinsics in pixels of width x height
    width: int
    height: int


def write_sample(folder: str | Path, frames: Iterable[SampleFrame]) -> int:
    """Write a camera with its ground truth as a recording that the demo plays.

    Args:
        folder: where; replaced when it holds a recording already.
        frames: moments in the order of time.

    Returns:
        How many frames were written.

    Raises:
        RecordingError: No frames, or the folder cannot be used.
    """
    count = 0
    with RecordingWriter(folder) as writer:
        types = writer.types
        for frame in frames:
            count += 1
            stamp = frame['stamp_ns']
            header = types.header(stamp, FRAME_ID)
            pictures = [(IMAGE_TOPIC, frame['rgb'], 'rgb8; jpeg compressed bgr8')]
            pictures += [
                (topic, frame[key], encoding)  # type: ignore[literal-required]
                for topic, key, encoding in GROUND_TRUTH.values()
                if key in frame
            ]
            info = _camera_info(types, header, frame)
            writer.write(CAMERA_INFO_TOPIC, 'sensor_msgs/msg/CameraInfo', stamp, info)
            for topic, picture, encoding in pictures:
                kind = 'sensor_msgs/msg/CompressedImage'
                data = np.frombuffer(picture, np.uint8)
                packed = types.pack(kind, header=header, format=encoding, data=data)
                writer.write(topic, kind, stamp, packed)
    if not count:
        raise RecordingError(f'no frames to write to {folder}')
    return count


def _camera_info(types: Types, header: Any, frame: SampleFrame) -> bytes:
    """Serialize the CameraInfo of an undistorted pinhole camera."""
    k = np.asarray(frame['k'], np.float64).reshape(3, 3)
    region = types.make(
        'sensor_msgs/msg/RegionOfInterest',
        x_offset=0,
        y_offset=0,
        height=0,
        width=0,
        do_rectify=False,
    )
    return types.pack(
        'sensor_msgs/msg/CameraInfo',
        header=header,
        height=frame['height'],
        width=frame['width'],
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=k.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([k, np.zeros((3, 1))]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=region,
    )
