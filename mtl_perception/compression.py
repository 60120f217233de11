"""Images as image_transport's plugins ``compressed`` and ``compressedDepth`` compress them."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_QUALITY = 95  # of JPEGs, as in the plugin
_LEVEL = 1  # of PNGs; the plugin's 3 takes nearly twice the time for 5 % less
# Depth: the plugin's quantisation of 100. At d metres, steps are d^2 / 10100 metres wide.
_A = np.float32(100 * 101)
_MOST = 65535


def jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """JPEG of RGB pixels [H, W, 3]."""
    return _encode('.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), cv2.IMWRITE_JPEG_QUALITY, _QUALITY)


def png(pixels: NDArray[Any]) -> bytes:
    """PNG of one channel [H, W] of 8 or 16 bits, which keeps every value."""
    return _encode('.png', pixels, cv2.IMWRITE_PNG_COMPRESSION, _LEVEL)


def compressed_depth(depth: NDArray[np.float32]) -> bytes:
    """Depth [H, W] as quantised inverse depth: a header of 12 bytes, and a PNG of 16 bits.

    A step of q is a depth of A / (q - B), and 0 is no depth. The header (``ConfigHeader``) is the
    format INV_DEPTH, 0, as int32, and A and B as float32.

    Differs from the plugin: the largest depth is that of the image, at least 1 m, instead of 10 m,
    so that nothing is cut off; steps are rounded instead of cut; and what is nearer than 65535
    steps reach (15 cm) is no depth, where the plugin's counter starts anew.
    """
    given = np.isfinite(depth)
    far = depth.max(where=given, initial=1)
    b = 1 - _A / far
    given &= depth >= _A / (_MOST - b)
    steps = np.where(given, np.rint(_A / np.where(given, depth, far) + b), 0)
    return struct.pack('<iff', 0, _A, b) + png(steps.astype(np.uint16))


def _encode(kind: str, pixels: NDArray[Any], option: int, value: int) -> bytes:
    _, content = cv2.imencode(kind, pixels, [option, value])
    return content.tobytes()
