"""Predictions to the bytes of an organised point cloud, in place in one buffer."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .bundle import UNLABELLED
from .camera import CameraModel
from .pipeline import Prediction

# sensor_msgs/PointField datatypes.
_UINT32, _FLOAT32 = 6, 7

# name, offset in bytes, datatype, count; all little-endian.
FIELDS: tuple[tuple[str, int, int, int], ...] = (
    ('x', 0, _FLOAT32, 1),
    ('y', 4, _FLOAT32, 1),
    ('z', 8, _FLOAT32, 1),
    ('rgb', 12, _FLOAT32, 1),
    ('label', 16, _UINT32, 1),
    ('normal_x', 20, _FLOAT32, 1),
    ('normal_y', 24, _FLOAT32, 1),
    ('normal_z', 28, _FLOAT32, 1),
)
POINT_STEP = 32


@dataclass(frozen=True)
class Cloud:
    """The content of an organised sensor_msgs/PointCloud2.

    Attributes:
        height, width: points.
        data: height * row_step bytes.
    """

    height: int
    width: int
    data: array[int]

    fields = FIELDS
    point_step = POINT_STEP

    @property
    def row_step(self) -> int:
        """Bytes of a row."""
        return self.width * POINT_STEP


class CloudBuilder:
    """Makes the clouds of one camera, in one buffer for as long as its grid keeps its size.

    One point per pixel, or per ``Options.cloud_stride`` pixels in both directions, row-major, in
    the optical frame: x y z in metres, NaN where depth is not finite; rgb packed as PCL packs it
    (bytes b, g, r, 0); label, 255 where unlabelled; the unit normal, NaN where there is none.
    """

    def __init__(self) -> None:
        self._no_alpha = np.frombuffer(b'\xff\xff\xff\0', np.uint32)
        self._resize(0, 0)

    def fill(self, prediction: Prediction) -> Cloud:
        """Make the cloud of a prediction with metric depth.

        Args:
            prediction: ``depth`` is required; without ``semantic`` all labels are 255, without
                ``normals`` all normals NaN.

        Returns:
            A cloud whose data the next call overwrites.

        Raises:
            ValueError: no calibration or no metric depth, or a calibration of another size.
        """
        arrays, calibration = prediction.arrays, prediction.calibration
        if calibration is None or not prediction.metric or 'depth' not in arrays:
            raise ValueError('a cloud needs metric depth of a calibrated camera')
        height, width = arrays['depth'].shape
        if (calibration.width, calibration.height) != (width, height):
            raise ValueError(
                f'the calibration is for {calibration.width}x{calibration.height}, '
                f'expected {width}x{height}'
            )
        stride = prediction.options.cloud_stride
        every = (slice(None, None, stride), slice(None, None, stride))
        depth = arrays['depth'][every]
        if (self._cloud.height, self._cloud.width) != depth.shape:
            self._resize(*depth.shape)
        self._back_project(depth, calibration, stride)
        image = np.ascontiguousarray(prediction.image[every])
        cv2.cvtColor(image, cv2.COLOR_RGB2BGRA, dst=self._bgra)
        np.bitwise_and(self._bgra.view(np.uint32)[..., 0], self._no_alpha, out=self._rgb)
        semantic, normals = arrays.get('semantic'), arrays.get('normals')
        self._label[...] = UNLABELLED if semantic is None else semantic[every]
        normals = self._no_normals if normals is None else np.ascontiguousarray(normals[every])
        cv2.mixChannels(
            [
                *self._xyz.view(np.int32),
                self._rgb.view(np.int32),
                self._label,
                normals.view(np.int32),
            ],
            [self._bits],
            [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7],
        )
        return self._cloud

    def _resize(self, height: int, width: int) -> None:
        self._cloud = Cloud(height, width, array('B', bytes(height * width * POINT_STEP)))
        # Bits are moved as int32, whatever they mean: no conversion can touch a NaN.
        self._bits = np.frombuffer(self._cloud.data, np.int32).reshape(height, width, 8)
        self._xyz = np.empty((3, height, width), np.float32)
        self._bgra = np.empty((height, width, 4), np.uint8)
        self._rgb = np.empty((height, width), np.uint32)
        self._label = np.empty((height, width), np.int32)
        self._no_normals = np.full((height, width, 3), np.nan, np.float32)
        self._rays_of: tuple[CameraModel, int] | None = None
        self._sees_all = True  # whether every pixel has a ray
        self._rays = np.empty((3, height, width), np.float32)

    def _back_project(
        self, depth: NDArray[np.float32], calibration: CameraModel, stride: int
    ) -> None:
        """X = depth * ray; NaN in all three where depth is not finite or the lens has no ray."""
        if (calibration, stride) != self._rays_of:
            self._rays[...] = np.moveaxis(calibration.rays()[::stride, ::stride], -1, 0)
            self._rays_of = calibration, stride
            self._sees_all = not np.isnan(self._rays[2]).any()
        z = self._xyz[2]
        np.copyto(z, depth)
        np.copyto(z, np.nan, where=~np.isfinite(depth))
        np.multiply(self._rays[:2], z, out=self._xyz[:2])
        if not self._sees_all:
            z *= self._rays[2]
