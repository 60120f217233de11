"""CameraInfo messages to camera models and back, and which CameraInfo belongs to an image."""

from __future__ import annotations

from collections import OrderedDict
from threading import Condition
from typing import Any

from sensor_msgs.msg import CameraInfo

from ..camera import CameraError, CameraModel, Letterbox

# CameraInfos that are kept for images that may still come.
_KEPT = 32


class CameraInfos:
    """The CameraInfos of one camera, found again by stamp.

    Most drivers publish a CameraInfo with each image, with the same stamp and at nearly the same
    time, in either order. Others publish a constant one at a rate of its own. So an image waits
    for its own CameraInfo, but only as long as that has been worth while: after one wait in vain
    the newest of the same frame is taken at once, until stamps are seen to match again.
    """

    def __init__(self) -> None:
        self._infos: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._arrived = Condition()
        self._matching = True
        self._missed: tuple[int, int] | None = None

    def add(self, info: Any) -> None:
        """Keep a sensor_msgs/CameraInfo."""
        key = _stamp(info.header)
        with self._arrived:
            self._infos.pop(key, None)
            self._infos[key] = info
            while len(self._infos) > _KEPT:
                self._infos.popitem(last=False)
            if key == self._missed:  # it was only late
                self._matching = True
            self._arrived.notify()

    def match(self, header: Any, timeout_s: float) -> tuple[Any | None, bool]:
        """The CameraInfo for an image's header.

        Args:
            header: std_msgs/Header of the image.
            timeout_s: how long to wait for the one with the image's stamp.

        Returns:
            The CameraInfo, or None where none of the same frame came; and whether it has the
            image's own stamp.
        """
        key = _stamp(header)
        with self._arrived:
            if self._matching and timeout_s > 0:
                self._matching = self._arrived.wait_for(lambda: key in self._infos, timeout_s)
            info = self._infos.get(key)
            if info is not None:
                self._matching = True
                return info, True
            self._missed = key
            for candidate in reversed(self._infos.values()):
                if candidate.header.frame_id == header.frame_id:
                    return candidate, False
            return None, False


def camera_model(info: Any, *, rectified: bool) -> CameraModel:
    """The camera behind the images that come with a CameraInfo.

    Args:
        info: sensor_msgs/CameraInfo.
        rectified: whether the images are rectified: P is then the camera, else K and D.

    Raises:
        CameraError: uncalibrated, or values that make no camera.
    """
    p = info.p
    matrix = [p[0], p[1], p[2], p[4], p[5], p[6], p[8], p[9], p[10]] if rectified else info.k
    return CameraModel.from_calibration(
        info.width,
        info.height,
        matrix,
        () if rectified else info.d,
        '' if rectified else info.distortion_model,
        roi=(info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height),
        binning=(info.binning_x, info.binning_y),
    )


def grid_camera_info(info: Any, camera: CameraModel, grid: Letterbox, *, rectified: bool) -> Any:
    """The CameraInfo of the output grid.

    Args:
        info: sensor_msgs/CameraInfo that came with the image.
        camera: its camera, scaled to the grid.
        grid: how the image sits on the grid.
        rectified: whether the images are rectified.

    Returns:
        sensor_msgs/CameraInfo without region of interest and binning: K, D and P hold for the
        grid as it is. The header is left empty.
    """
    out = CameraInfo()
    out.width, out.height = camera.width, camera.height
    out.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    out.distortion_model = camera.distortion_model or 'plumb_bob'
    out.d = list(camera.distortion) or [0.0] * 5
    out.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0] if rectified else info.r
    try:
        p = grid.camera(camera_model(info, rectified=True))
    except CameraError:  # P is empty where the driver does not rectify
        return out
    # Tx = -fx * baseline scales with fx.
    tx, ty = info.p[3] * p.fx / info.p[0], info.p[7] * p.fy / info.p[5]
    out.p = [p.fx, 0.0, p.cx, tx, 0.0, p.fy, p.cy, ty, 0.0, 0.0, 1.0, 0.0]
    return out


def _stamp(header: Any) -> tuple[int, int]:
    return header.stamp.sec, header.stamp.nanosec
