"""Image messages to RGB arrays, and arrays to the data of image messages."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from . import PerceptionError, one_line

Kind = Literal['encoding', 'size', 'step', 'truncated']

_Picture = NDArray[np.uint8]


class ImageError(PerceptionError):
    """An image message that cannot be read.

    Attributes:
        kind: ``encoding``, ``size``, ``step`` or ``truncated``: what to count it under.
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _color(code: int) -> Callable[[NDArray[Any]], _Picture]:
    return lambda pixels: np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def _as_is(pixels: NDArray[Any]) -> _Picture:
    return pixels


def _narrow(then: Callable[[NDArray[Any]], _Picture]) -> Callable[[NDArray[Any]], _Picture]:
    """16 bit to 8: 65535 becomes 255, rounded, as cv_bridge does."""
    return lambda pixels: then(cv2.convertScaleAbs(pixels, alpha=255 / 65535))


# encoding -> bytes per sample, samples per pixel, conversion to RGB. OpenCV names Bayer patterns by
# the second row's second and third pixel: its BG is the RGGB of ROS. 8UCx says nothing about
# colour; it is taken as OpenCV means it: grey, BGR, BGRA.
_GRAY, _BGR, _BGRA = (
    _color(code) for code in (cv2.COLOR_GRAY2RGB, cv2.COLOR_BGR2RGB, cv2.COLOR_BGRA2RGB)
)
_UYVY, _YUYV = _color(cv2.COLOR_YUV2RGB_UYVY), _color(cv2.COLOR_YUV2RGB_YUY2)
ENCODINGS: dict[str, tuple[int, int, Callable[[NDArray[Any]], _Picture]]] = {
    'rgb8': (1, 3, _as_is),
    'bgr8': (1, 3, _BGR),
    'rgba8': (1, 4, _color(cv2.COLOR_RGBA2RGB)),
    'bgra8': (1, 4, _BGRA),
    'mono8': (1, 1, _GRAY),
    'mono16': (2, 1, _narrow(_GRAY)),
    'rgb16': (2, 3, _narrow(_as_is)),
    'bgr16': (2, 3, _narrow(_BGR)),
    '8UC1': (1, 1, _GRAY),
    '8UC3': (1, 3, _BGR),
    '8UC4': (1, 4, _BGRA),
    'yuv422': (1, 2, _UYVY),
    'uyvy': (1, 2, _UYVY),
    'yuv422_yuy2': (1, 2, _YUYV),
    'yuyv': (1, 2, _YUYV),
    'bayer_rggb8': (1, 1, _color(cv2.COLOR_BayerBG2RGB)),
    'bayer_bggr8': (1, 1, _color(cv2.COLOR_BayerRG2RGB)),
    'bayer_gbrg8': (1, 1, _color(cv2.COLOR_BayerGR2RGB)),
    'bayer_grbg8': (1, 1, _color(cv2.COLOR_BayerGB2RGB)),
}

_JPEG, _PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
_PNG_END = b'IEND\xaeB`\x82'  # the last chunk's type and checksum, which are always the same
_JPEG_SCAN, _JPEG_END = b'\xff\xda', b'\xff\xd9'


def read_image(message: Any) -> NDArray[np.uint8]:
    """Decode an image message of a camera, of rclpy or of a recording.

    Args:
        message: sensor_msgs/Image or CompressedImage.

    Returns:
        [height, width, 3] RGB.

    Raises:
        ImageError: see ``decode`` and ``decode_compressed``.
    """
    if hasattr(message, 'format'):
        return decode_compressed(message.data, message.format)
    return decode(
        message.encoding,
        message.height,
        message.width,
        message.step,
        message.data,
        bool(message.is_bigendian),
    )


def decode(
    encoding: str, height: int, width: int, step: int, data: Any, is_bigendian: bool | int = False
) -> NDArray[np.uint8]:
    """Decode the fields of a sensor_msgs/Image.

    Args:
        encoding: one of ``ENCODINGS``.
        height, width: pixels.
        step: bytes per row, with padding.
        data: any buffer of bytes (array.array, bytes, uint8 array).
        is_bigendian: byte order of 16-bit samples.

    Returns:
        [height, width, 3] RGB. For ``rgb8`` a view of ``data``, its rows perhaps padded, else new.

    Raises:
        ImageError: unknown encoding, no pixels, rows shorter than they must be, too few bytes.
    """
    if encoding not in ENCODINGS:
        raise ImageError(
            'encoding', f'encoding is {encoding!r}, expected one of {", ".join(ENCODINGS)}'
        )
    depth, channels, convert = ENCODINGS[encoding]
    if height <= 0 or width <= 0:
        raise ImageError('size', f'the image is {width}x{height}, expected pixels')
    if convert in (_UYVY, _YUYV) and width % 2:
        raise ImageError('size', f'the width is {width}, expected an even one for {encoding}')
    pixel = depth * channels
    if step < width * pixel:
        raise ImageError(
            'step', f'step is {step}, expected at least {width * pixel} for {width} {encoding}'
        )
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size < step * height:
        raise ImageError(
            'truncated',
            f'data has {buffer.size} bytes, expected {step * height} ({height} rows of {step})',
        )
    dtype = np.dtype(np.uint8 if depth == 1 else '>u2' if is_bigendian else '<u2')
    shape, strides = (height, width, channels), (step, pixel, depth)
    pixels = np.ndarray(shape, dtype, buffer, strides=strides)
    if channels == 1:
        pixels = pixels[..., 0]
    if depth == 2:
        pixels = pixels.astype(np.uint16)  # this machine's byte order
    try:
        return convert(pixels)
    except cv2.error as error:
        raise ImageError('size', f'{width}x{height} {encoding}: {one_line(error)}') from error


def decode_compressed(data: Any, format: str = '') -> NDArray[np.uint8]:
    """Decode the fields of a sensor_msgs/CompressedImage of a camera.

    The content decides, not ``format``: drivers write all sorts there. EXIF orientation is not
    applied, since the calibration is for the pixels as they are.

    Args:
        data: JPEG, PNG, or what else OpenCV reads, as any buffer of bytes.
        format: only to refuse compressed depth images.

    Returns:
        [height, width, 3] RGB.

    Raises:
        ImageError: empty, not a picture, or cut off (OpenCV alone fills what is missing with gray).
    """
    kind = format.partition(';')[0].strip()
    if 'compressedDepth' in format or kind in ('16UC1', '32FC1'):
        raise ImageError('encoding', f'format is {format!r}, expected a colour or gray image')
    content = bytes(data)
    if not content:
        raise ImageError('size', 'the compressed image is empty')
    _check_whole(content)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image: Any = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # for example a header that claims more pixels than OpenCV allows
        image = None
    if image is None:
        if content.startswith((_JPEG, _PNG)):
            raise ImageError('truncated', f'the compressed image ({format!r}) is damaged')
        raise ImageError(
            'encoding', f'the compressed image ({format!r}) is no picture, expected JPEG or PNG'
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image), np.uint8)


def _check_whole(content: bytes) -> None:
    """Raise if a JPEG or PNG does not end; bytes after the end are allowed (padding)."""
    if content.startswith(_JPEG):
        # Neither marker occurs inside a scan's data; a thumbnail before it has both.
        whole = content.rfind(_JPEG_END) > content.rfind(_JPEG_SCAN)
    else:
        whole = not content.startswith(_PNG) or _PNG_END in content
    if not whole:
        raise ImageError('truncated', f'the compressed image ends after {len(content)} bytes')


# Encodings of the node's own images: type of a sample, samples per pixel.
LAYOUTS: Mapping[str, tuple[str, int]] = {
    'mono8': ('uint8', 1),
    'rgb8': ('uint8', 3),
    '32FC1': ('float32', 1),
    '32FC3': ('float32', 3),
}


def payload(values: NDArray[Any]) -> array[int]:
    """The bytes of an array as the ``data`` of an Image: one copy, or two of a strided view.

    rosidl takes ``array.array('B')`` as it is; anything else it checks or converts by element.
    """
    data = array('B')
    if values.size:
        data.frombytes(np.ascontiguousarray(values).data.cast('B'))
    return data
