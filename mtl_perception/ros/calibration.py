"""CameraInfo messages to camera models, and which CameraInfo belongs to an image."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

from ..camera import IDENTITY, CameraModel
from .messages import stamp_ns

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
        self._infos: OrderedDict[int, Any] = OrderedDict()
        self._lock = Lock()
        self._matching = True
        self._missed: int | None = None

    def add(self, info: Any) -> None:
        """Keep a sensor_msgs/CameraInfo."""
        stamp = stamp_ns(info.header)
        with self._lock:
            self._infos.pop(stamp, None)
            self._infos[stamp] = info
            while len(self._infos) > _KEPT:
                self._infos.popitem(last=False)
            if stamp == self._missed:  # it was only late
                self._matching = True

    def due(self, header: Any) -> bool:
        """Whether the CameraInfo with an image's stamp is still to come, as far as one can tell."""
        with self._lock:
            return self._matching and stamp_ns(header) not in self._infos

    def match(self, header: Any, *, waited: bool) -> tuple[Any | None, bool]:
        """The CameraInfo for an image.

        Args:
            header: std_msgs/Header of the image.
            waited: whether the image has waited for the one with its stamp.

        Returns:
            The CameraInfo, or None where none of the same frame came; and whether it has the
            image's own stamp.
        """
        stamp = stamp_ns(header)
        with self._lock:
            info = self._infos.get(stamp)
            if info is not None:
                self._matching = True
                return info, True
            self._missed = stamp
            if waited:
                self._matching = False
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
    return CameraModel.from_calibration(
        info.width,
        info.height,
        [p[0], p[1], p[2], p[4], p[5], p[6], p[8], p[9], p[10]] if rectified else info.k,
        () if rectified else info.d,
        '' if rectified else info.distortion_model,
        roi=(info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height),
        binning=(info.binning_x, info.binning_y),
        rectification=IDENTITY if rectified else info.r,
        projection=p,
    )
