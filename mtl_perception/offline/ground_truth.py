"""Images of a node's outputs, and pictures of ground truth, as arrays of one grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..images import LAYOUTS
from .cdr import RecordingError


def image_array(message: Any) -> NDArray[Any]:
    """View an Image message of the node's outputs as an array.

    Args:
        message: sensor_msgs/Image, mono8, rgb8, 32FC1 or 32FC3, in the byte order of this machine.

    Returns:
        [H, W] or [H, W, 3].

    Raises:
        RecordingError: Another encoding.
    """
    if message.encoding not in LAYOUTS:
        raise RecordingError(f'image encoding {message.encoding!r} is not one of the node')
    kind, channels = LAYOUTS[message.encoding]
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    used = rows[:, : message.width * channels * np.dtype(kind).itemsize]
    shape = (message.height, message.width, channels)[: 3 if channels > 1 else 2]
    array: NDArray[Any] = np.ascontiguousarray(used).view(kind).reshape(shape)
    return array


def truth_array(task: str, picture: NDArray[np.uint8]) -> NDArray[Any]:
    """Decode a ground-truth PNG of a sample recording.

    Args:
        task: ``semantic``, ``depth``, ``normals`` or ``edges``.
        picture: the file's bytes.

    Returns:
        Class ids uint8 [H, W]; metres float32 [H, W], 0 = unknown; unit vectors float32 [H, W, 3],
        (0, 0, 0) = unknown; or edges uint8 [H, W], 0 or 1.

    Raises:
        RecordingError: The picture cannot be decoded.
    """
    data = np.frombuffer(picture, np.uint8)
    array: Any = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if array is None:
        raise RecordingError(f'a ground-truth picture of {task} cannot be decoded')
    decode: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
        'semantic': lambda ids: ids,
        'depth': lambda millimetres: millimetres.astype(np.float32) * np.float32(1e-3),
        'normals': _normals,
        'edges': lambda gray: (gray > 127).astype(np.uint8),
    }
    return decode[task](array)


def nearest(array: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resample [H, W, ...] to [height, width, ...] by the nearest pixel centre."""
    if array.shape[:2] == (height, width):
        return array
    rows = ((np.arange(height) + 0.5) * array.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * array.shape[1] / width).astype(np.intp)
    sampled: NDArray[Any] = array[rows[:, None], columns[None, :]]
    return sampled


def _normals(bgr: NDArray[Any]) -> NDArray[np.float32]:
    """n = 2 v / 255 - 1 in RGB; black is unknown."""
    normals: NDArray[np.float32] = bgr[..., ::-1] * np.float32(2 / 255) - np.float32(1)
    normals[(bgr == 0).all(axis=-1)] = 0
    return normals
