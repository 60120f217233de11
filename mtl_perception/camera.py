"""Camera geometry: intrinsics from a calibration, letterbox onto the network's grid, rays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .lenses import CameraError as CameraError
from .lenses import lens_of

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
# A ray must project back onto its pixel this closely (pixels); outside the lens model it cannot.
_RAY_TOLERANCE = 0.5
# Pixels of the longer side of ``CameraModel.small``.
_SMALL = 64
# Rays of z == 1 end short of 90 degrees from the axis: here at 89.9.
_STEEPEST = 1e3


@dataclass(frozen=True)
class CameraModel:
    """A pinhole camera with an optional lens model, at one image size.

    Pixel (0, 0) has its centre at u = v = 0. Skew (K[1]) is not modelled.

    Attributes:
        width, height: of the image, pixels.
        fx, fy, cx, cy: intrinsics, pixels.
        distortion_model: of ``DISTORTION_MODELS``; empty without distortion.
        distortion: its coefficients; empty for a pinhole.
        rectification: R of its CameraInfo, row-major 3x3: from this camera to its rectified image.
        projection: P, row-major 3x4: the camera of that image, at this size; empty without one.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = ''
    distortion: tuple[float, ...] = ()
    rectification: tuple[float, ...] = IDENTITY
    projection: tuple[float, ...] = ()

    @classmethod
    def from_calibration(
        cls,
        width: int,
        height: int,
        k: Sequence[float],
        d: Sequence[float] = (),
        distortion_model: str = '',
        *,
        roi: tuple[int, int, int, int] = (0, 0, 0, 0),
        binning: tuple[int, int] = (1, 1),
        rectification: Sequence[float] = IDENTITY,
        projection: Sequence[float] = (),
    ) -> CameraModel:
        """The camera behind a CameraInfo, at the size of the images that come with it.

        K, D and P are for the full calibrated resolution (REP 104); the region of interest is cut
        out of that, then binned. For a rectified topic pass the left 3x3 of P as K, and no D.

        Args:
            width, height: full calibrated resolution.
            k: the 9 values of K, row-major.
            d: distortion coefficients.
            distortion_model: of ``DISTORTION_MODELS`` or ``LENS_ALIASES``; if empty, the number of
                coefficients decides, as in OpenCV.
            roi: x_offset, y_offset, width, height in full resolution; a size of 0 means all of it.
            binning: pixels combined to one along x and y; 0 means 1.
            rectification: the 9 values of R, row-major; identity where they are no rotation.
            projection: the 12 values of P, row-major; left out without a focal length.

        Raises:
            CameraError: uncalibrated (focal length zero, negative or not finite), or values that
                make no camera.
        """
        k, d = [float(value) for value in k], tuple(float(value) for value in d)
        if width <= 0 or height <= 0:
            raise CameraError(f'the calibrated size is {width}x{height}, expected a positive size')
        if len(k) != 9:
            raise CameraError(f'K has {len(k)} values, expected 9')
        for index, name in ((0, 'fx = K[0]'), (4, 'fy = K[4]')):
            if not (math.isfinite(k[index]) and k[index] > 0):
                raise CameraError(
                    f'the camera is uncalibrated: {name} is {k[index]:g}, '
                    'expected a positive focal length in pixels'
                )
        for index, name in ((2, 'cx = K[2]'), (5, 'cy = K[5]')):
            if not math.isfinite(k[index]):
                raise CameraError(
                    f'the camera is uncalibrated: {name} is {k[index]:g}, expected a finite number'
                )
        x, y, roi_width, roi_height = roi
        roi_width, roi_height = roi_width or width - x, roi_height or height - y
        bin_x, bin_y = (max(1, value) for value in binning)
        out_width, out_height = roi_width // bin_x, roi_height // bin_y
        if not (0 <= x < x + roi_width <= width and 0 <= y < y + roi_height <= height):
            raise CameraError(
                f'the region of interest {roi_width}x{roi_height}+{x}+{y} '
                f'is not inside {width}x{height}'
            )
        if out_width == 0 or out_height == 0:
            raise CameraError(
                f'binning {bin_x}x{bin_y} leaves no pixel of {roi_width}x{roi_height}'
            )
        model, coefficients = lens_of(distortion_model, d)
        r, p = tuple(map(float, rectification)), tuple(map(float, projection))
        if not _is_rotation(r):
            r = IDENTITY
        if len(p) != 12 or not all(map(math.isfinite, p)) or min(p[0], p[5]) <= 0:
            p = ()
        full = cls(width, height, k[0], k[4], k[2], k[5], model, coefficients, r, p)
        cut = full._moved(1.0, 1.0, -x, -y, roi_width, roi_height)
        return cut.scaled(1 / bin_x, 1 / bin_y, width=out_width, height=out_height)

    def scaled(
        self, sx: float, sy: float, dx: float = 0.0, dy: float = 0.0, *, width: int, height: int
    ) -> CameraModel:
        """The camera after the image was resized by (sx, sy) and shifted by (dx, dy) pixels.

        Pixel centres: u' = (u + 0.5) * sx - 0.5 + dx.
        """
        return self._moved(sx, sy, 0.5 * sx - 0.5 + dx, 0.5 * sy - 0.5 + dy, width, height)

    def _moved(
        self, sx: float, sy: float, dx: float, dy: float, width: int, height: int
    ) -> CameraModel:
        """u' = u * sx + dx, v' = v * sy + dy."""
        projection = self.projection
        if projection:
            move = np.array([[sx, 0.0, dx], [0.0, sy, dy], [0.0, 0.0, 1.0]])
            projection = tuple((move @ np.reshape(projection, (3, 4))).ravel().tolist())
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=self.cx * sx + dx,
            cy=self.cy * sy + dy,
            projection=projection,
        )

    def for_image(self, width: int, height: int) -> CameraModel:
        """The camera for images of another size: same view, other resolution.

        Raises:
            CameraError: the shape differs by more than 1 %, so the image is not the same view.
        """
        if (width, height) == (self.width, self.height):
            return self
        if width <= 0 or height <= 0:
            raise CameraError(f'the image is {width}x{height}, expected a positive size')
        sx, sy = width / self.width, height / self.height
        if abs(sx / sy - 1) > 0.01:
            raise CameraError(
                f'the camera info is for {self.width}x{self.height} but the image is '
                f'{width}x{height}, expected the same size or the same aspect'
            )
        return self.scaled(sx, sy, width=width, height=height)

    def pinhole_error(self) -> float:
        """How far off a pixel is at most for who reads the image as that of a pinhole, pixels.

        That pinhole is P, or K where there is no P; it has no distortion.
        """
        return _pinhole_error(self)

    def small(self) -> CameraModel:
        """The same view at a few pixels, for what need not be exact."""
        scale = min(1.0, _SMALL / max(self.width, self.height))
        width, height = (max(1, round(scale * n)) for n in (self.width, self.height))
        return self.scaled(width / self.width, height / self.height, width=width, height=height)

    def rays(self) -> NDArray[np.float32]:
        """[H, W, 3] ray through each pixel centre, optical frame, z == 1; read-only, computed once.

        All NaN where the lens model has no ray in front of the camera for a pixel.
        """
        return _rays(self)


def _is_rotation(r: Sequence[float]) -> bool:
    if len(r) != 9:
        return False
    matrix = np.reshape(r, (3, 3))
    return bool(np.abs(matrix @ matrix.T - np.eye(3)).max() < 0.01)


@lru_cache(maxsize=32)
def _pinhole_error(camera: CameraModel) -> float:
    small = camera.small()
    rays = compute_rays(small)
    fx, fy, cx, cy = small.fx, small.fy, small.cx, small.cy
    if small.projection:
        fx, cx, fy, cy = (small.projection[index] for index in (0, 2, 5, 6))
    v, u = np.indices(rays.shape[:2])
    error = np.hypot(fx * rays[..., 0] + cx - u, fy * rays[..., 1] + cy - v)
    error = error[np.isfinite(error)]
    return float(error.max(initial=0.0)) * camera.width / small.width


@lru_cache(maxsize=8)
def _rays(camera: CameraModel) -> NDArray[np.float32]:
    return compute_rays(camera)


def compute_rays(camera: CameraModel) -> NDArray[np.float32]:
    """``CameraModel.rays``, which keeps them, without keeping them."""
    u, v = np.meshgrid(np.arange(camera.width, dtype=float), np.arange(camera.height, dtype=float))
    x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
    if camera.distortion:
        x, y = _undistort(camera, np.stack([x, y], axis=-1))
    rays = np.stack([x, y, np.where(np.isnan(x), np.nan, 1.0)], axis=-1).astype(np.float32)
    rays.setflags(write=False)
    return rays


def _undistort(camera: CameraModel, points: NDArray[np.float64]) -> Sequence[NDArray[np.float64]]:
    """Invert the lens model for [H, W, 2] normalised points; NaN where it cannot be inverted."""
    identity, d = np.eye(3), np.array(camera.distortion)
    distorted = points.reshape(-1, 1, 2)
    criteria = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 50, 1e-9)
    api: Any = cv2  # the stubs follow one version of OpenCV; robots run 4.5 to 5.0
    with np.errstate(all='ignore'):
        if camera.distortion_model == 'equidistant':
            # theta is the radius of the distorted point; beyond the curve's top it has no inverse.
            ideal = api.fisheye.undistortPoints(distorted, identity, d)
            again = api.fisheye.distortPoints(ideal, identity, d)
        else:
            if hasattr(api, 'undistortPointsIter'):  # 4.x; 5.x takes criteria in undistortPoints
                ideal = api.undistortPointsIter(distorted, identity, d, None, None, criteria)
            else:
                ideal = api.undistortPoints(distorted, identity, d, criteria=criteria)
            ahead = cv2.convertPointsToHomogeneous(ideal).reshape(-1, 1, 3)
            again = api.projectPoints(ahead, np.zeros(3), np.zeros(3), identity, d)[0]
        error = (again - distorted).reshape(-1, 2) * (camera.fx, camera.fy)
        good = np.hypot(error[:, 0], error[:, 1]) < _RAY_TOLERANCE
        good &= np.abs(ideal).max((1, 2)) < _STEEPEST
    ideal = np.where(good[:, None], ideal.reshape(-1, 2), np.nan).reshape(points.shape)
    return ideal[..., 0], ideal[..., 1]


@dataclass(frozen=True)
class Letterbox:
    """How a camera image sits on the network's grid.

    The image is scaled isotropically to fit and centred; what is left over is filled by repeating
    its border. The content region, without that padding, is the output grid of all topics:
    640x480 on 320x256 becomes 320x240.

    Attributes:
        camera_width, camera_height: of the image.
        width, height: of the network's grid.
        scale: network pixels per camera pixel, before rounding the content to whole pixels.
        content_width, content_height: of the content region.
        left, top: where it starts on the grid.
    """

    camera_width: int
    camera_height: int
    width: int
    height: int
    scale: float
    content_width: int
    content_height: int
    left: int
    top: int

    @classmethod
    def fit(cls, camera_width: int, camera_height: int, width: int, height: int) -> Letterbox:
        """Fit a camera image of one size onto a grid of another.

        Raises:
            CameraError: the image has no pixels.
        """
        if camera_width <= 0 or camera_height <= 0:
            raise CameraError(f'the image is {camera_width}x{camera_height}, expected pixels')
        scale = min(width / camera_width, height / camera_height)
        content_width = max(1, min(width, round(camera_width * scale)))
        content_height = max(1, min(height, round(camera_height * scale)))
        left, top = (width - content_width) // 2, (height - content_height) // 2
        return cls(
            camera_width, camera_height, width, height,
            scale, content_width, content_height, left, top,
        )  # fmt: skip

    def forward(
        self, image: NDArray[np.uint8], out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Put an image onto the grid.

        Args:
            image: [camera_height, camera_width, 3] RGB; rows may be padded (a strided view).
            out: [H, W, 3] to write into, for example one frame of a batch.

        Returns:
            [H, W, 3], ``out`` if that was given.
        """
        if image.shape != (self.camera_height, self.camera_width, 3):
            raise CameraError(
                f'the image has the shape {list(image.shape)}, '
                f'expected {[self.camera_height, self.camera_width, 3]}'
            )
        if out is None:
            out = np.empty((self.height, self.width, 3), np.uint8)
        content = self.crop(out)
        if content.shape == image.shape:
            np.copyto(content, image)
        else:
            method = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
            size = (self.content_width, self.content_height)
            result = cv2.resize(image, size, dst=content, interpolation=method)
            if not np.may_share_memory(result, out):  # OpenCV took a buffer of its own
                np.copyto(content, result)
        bottom, right = self.top + self.content_height, self.left + self.content_width
        out[:, : self.left] = out[:, self.left : self.left + 1]
        out[:, right:] = out[:, right - 1 : right]
        out[: self.top] = out[self.top]
        out[bottom:] = out[bottom - 1]
        return out

    def crop(self, array: NDArray[Any]) -> NDArray[Any]:
        """The content region of an [H, W, ...] array of the grid, as a view."""
        return array[
            self.top : self.top + self.content_height, self.left : self.left + self.content_width
        ]

    def camera(self, camera: CameraModel) -> CameraModel:
        """The camera of the output grid (the content region), for the camera of the image.

        Raises:
            CameraError: the calibration is for images of another shape.
        """
        width, height = self.content_width, self.content_height
        sx, sy = width / self.camera_width, height / self.camera_height
        camera = camera.for_image(self.camera_width, self.camera_height)
        return camera.scaled(sx, sy, width=width, height=height)
