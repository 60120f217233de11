"""Image messages to RGB arrays, and arrays to the data of image messages."""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from . import PerceptionError, one_line

try:
    import simplejpeg
except ImportError:  # OpenCV decodes, too, and hides damage
    simplejpeg = None

Kind = Literal['encoding', 'size', 'step', 'truncated', 'damaged']

_Picture = NDArray[np.uint8]


class ImageError(PerceptionError):
    """An image message that cannot be read.

    Attributes:
        kind: what to count it under.
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


@dataclass(frozen=True)
class Encoding:
    """How an encoding lies in ``data``, and how it becomes RGB.

    Attributes:
        sample: bytes per sample.
        samples: per pixel of a row.
        convert: to RGB. Of [height, width(, samples)] pixels, or of the bytes of all rows,
            [rows, step], and the width, where colour lies in rows of its own.
        color_rows: rows of colour below the picture, per row of it.
        pairs: whether pixels share colour along x, and along y.
    """

    sample: int
    samples: int
    convert: Callable[..., _Picture]
    color_rows: float = 0
    pairs: tuple[bool, bool] = (False, False)


def _semiplanar_420(code: int) -> Callable[[NDArray[Any], int], _Picture]:
    """Rows of luma, then half as many rows of colour in pairs."""
    return lambda rows, width: np.asarray(cv2.cvtColor(rows[:, :width], code), np.uint8)


# BT.601 in the limited range, as OpenCV takes all YUV: from (y, u, v, 1).
_YUV_TO_RGB = np.array([[1.164, 0, 1.596], [1.164, -0.391, -0.813], [1.164, 2.018, 0]])
_YUV_TO_RGB = np.column_stack([_YUV_TO_RGB, -_YUV_TO_RGB @ [16, 128, 128]])


def _semiplanar_444(rows: NDArray[Any], width: int) -> _Picture:
    """Rows of luma, then as many rows of colour, each twice as long."""
    height, step = rows.shape[0] // 3, rows.shape[1]
    color = rows[height:].reshape(height, 2 * step)[:, : 2 * width].reshape(height, width, 2)
    yuv = np.dstack([rows[:height, :width], color])
    return np.asarray(cv2.transform(yuv, _YUV_TO_RGB), np.uint8)


# OpenCV names Bayer patterns by the second row's second and third pixel: its BG is the RGGB of ROS.
# 8UCx says nothing about colour; it is taken as OpenCV means it: grey, BGR, BGRA.
_GRAY, _BGR, _RGBA, _BGRA = (
    _color(code)
    for code in (cv2.COLOR_GRAY2RGB, cv2.COLOR_BGR2RGB, cv2.COLOR_RGBA2RGB, cv2.COLOR_BGRA2RGB)
)
_UYVY, _YUYV = (
    Encoding(1, 2, _color(code), pairs=(True, False))
    for code in (cv2.COLOR_YUV2RGB_UYVY, cv2.COLOR_YUV2RGB_YUY2)
)
_NV12, _NV21 = (
    Encoding(1, 1, _semiplanar_420(code), color_rows=0.5, pairs=(True, True))
    for code in (cv2.COLOR_YUV2RGB_NV12, cv2.COLOR_YUV2RGB_NV21)
)
_BAYER = {
    'rggb': _color(cv2.COLOR_BayerBG2RGB),
    'bggr': _color(cv2.COLOR_BayerRG2RGB),
    'gbrg': _color(cv2.COLOR_BayerGR2RGB),
    'grbg': _color(cv2.COLOR_BayerGB2RGB),
}
ENCODINGS: dict[str, Encoding] = {
    'rgb8': Encoding(1, 3, _as_is),
    'bgr8': Encoding(1, 3, _BGR),
    'rgba8': Encoding(1, 4, _RGBA),
    'bgra8': Encoding(1, 4, _BGRA),
    'mono8': Encoding(1, 1, _GRAY),
    'mono16': Encoding(2, 1, _narrow(_GRAY)),
    'rgb16': Encoding(2, 3, _narrow(_as_is)),
    'bgr16': Encoding(2, 3, _narrow(_BGR)),
    'rgba16': Encoding(2, 4, _narrow(_RGBA)),
    'bgra16': Encoding(2, 4, _narrow(_BGRA)),
    '8UC1': Encoding(1, 1, _GRAY),
    '8UC3': Encoding(1, 3, _BGR),
    '8UC4': Encoding(1, 4, _BGRA),
    'yuv422': _UYVY,
    'uyvy': _UYVY,
    'yuv422_yuy2': _YUYV,
    'yuyv': _YUYV,
    'nv12': _NV12,
    'nv21': _NV21,
    'nv24': Encoding(1, 1, _semiplanar_444, color_rows=2),
    **{f'bayer_{name}8': Encoding(1, 1, convert) for name, convert in _BAYER.items()},
    **{f'bayer_{name}16': Encoding(2, 1, _narrow(convert)) for name, convert in _BAYER.items()},
}
_MOSAICS = {f'bayer_{name}{bits}': _BAYER[name] for name in _BAYER for bits in (8, 16)}

_JPEG, _PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
_PNG_END = b'IEND\xaeB`\x82'  # the last chunk's type and checksum, which are always the same
_MARK, _SCAN, _END = 0xFF, 0xDA, 0xD9  # what begins a marker of a JPEG, and two of them
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers that tell the size
MOST_PIXELS = 2**26  # of a compressed image: more than cameras of robots have
_JPEG_SCAN, _JPEG_END = b'\xff\xda', b'\xff\xd9'
# Whether damage inside of a JPEG is noticed.
STRICT_JPEG = simplejpeg is not None
# Cheap cameras fill up a whole scan before its end marker; libjpeg warns of every byte.
_PADDING = re.compile(r'(\d+) extraneous bytes before marker 0xd9')
_HARMLESS_PADDING = 16


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
    layout = ENCODINGS[encoding]
    if height <= 0 or width <= 0:
        raise ImageError('size', f'the image is {width}x{height}, expected pixels')
    for size, paired, name in zip((width, height), layout.pairs, ('width', 'height'), strict=True):
        if paired and size % 2:
            raise ImageError('size', f'the {name} is {size}, expected an even one for {encoding}')
    pixel = layout.sample * layout.samples
    rows = height + round(layout.color_rows * height)
    buffer = np.frombuffer(data, np.uint8)
    if rows > height and step * height == buffer.size == width * rows:
        step = width  # the driver has counted the colour in
    if step < width * pixel:
        raise ImageError(
            'step', f'step is {step}, expected at least {width * pixel} for {width} {encoding}'
        )
    if buffer.size < step * rows:
        raise ImageError(
            'truncated',
            f'data has {buffer.size} bytes, expected {step * rows} ({rows} rows of {step})',
        )
    try:
        if rows > height:
            return layout.convert(buffer[: step * rows].reshape(rows, step), width)
        dtype = np.dtype(np.uint8 if layout.sample == 1 else '>u2' if is_bigendian else '<u2')
        shape, strides = (height, width, layout.samples), (step, pixel, layout.sample)
        pixels = np.ndarray(shape, dtype, buffer, strides=strides)
        if layout.samples == 1:
            pixels = pixels[..., 0]
        if layout.sample == 2:
            pixels = pixels.astype(np.uint16)  # this machine's byte order
        return layout.convert(pixels)
    except cv2.error as error:
        raise ImageError('size', f'{width}x{height} {encoding}: {one_line(error)}') from error


def decode_compressed(data: Any, format: str = '') -> NDArray[np.uint8]:
    """Decode the fields of a sensor_msgs/CompressedImage of a camera.

    The content decides, not ``format``, in which drivers write all sorts of things, but where it
    cannot: image_transport stores the mosaic of Bayer images as gray ones. EXIF orientation is not
    applied, since the calibration is for the pixels as they are.

    Args:
        data: JPEG, PNG, or what else OpenCV reads, as any buffer of bytes.
        format: as image_transport writes it, such as ``bayer_rggb8; png compressed``.

    Returns:
        [height, width, 3] RGB.

    Raises:
        ImageError: empty, no picture, cut off (OpenCV alone fills what is missing with gray), or,
            where ``STRICT_JPEG``, a damaged JPEG.
    """
    kind = format.partition(';')[0].strip()
    if 'compressedDepth' in format or kind in ('16UC1', '32FC1'):
        raise ImageError('encoding', f'format is {format!r}, expected a colour or gray image')
    content = bytes(data)
    if not content:
        raise ImageError('size', 'the compressed image is empty')
    _check_whole(content)
    _check_claim(content)
    pixels = _strict_jpeg(content) if STRICT_JPEG and content.startswith(_JPEG) else None
    mosaic = _MOSAICS.get(kind)
    if pixels is None:
        pixels = _read_any(content, format, as_stored=mosaic is not None)
    if mosaic is not None and pixels.ndim == 2:
        convert = mosaic if pixels.dtype == np.uint8 else _narrow(mosaic)
        try:
            return convert(pixels)
        except cv2.error as error:
            raise ImageError('size', f'{pixels.shape[::-1]} {kind}: {one_line(error)}') from error
    return _GRAY(pixels) if pixels.ndim == 2 else np.asarray(pixels, np.uint8)


def _read_any(content: bytes, format: str, *, as_stored: bool) -> NDArray[Any]:
    """Decode by OpenCV to [H, W, 3] RGB of 8 bits, or what is stored in gray to [H, W] as it is."""
    array = np.frombuffer(content, np.uint8)
    try:
        stored: Any = cv2.imdecode(array, cv2.IMREAD_UNCHANGED) if as_stored else None
        if stored is not None and stored.ndim == 2:
            return np.asarray(stored)
        image: Any = cv2.imdecode(array, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # for example a header that claims more pixels than OpenCV allows
        image = None
    if image is None:
        if content.startswith((_JPEG, _PNG)):
            raise ImageError('truncated', f'the compressed image ({format!r}) is damaged')
        raise ImageError(
            'encoding', f'the compressed image ({format!r}) is no picture, expected JPEG or PNG'
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image))


def _strict_jpeg(content: bytes) -> NDArray[np.uint8] | None:
    """Decode a JPEG to [H, W, 3] RGB, or [H, W] if it is gray; None where OpenCV knows better.

    Both use libjpeg-turbo, with equal results, but OpenCV keeps what it complains about to itself.
    """
    try:
        gray = simplejpeg.decode_jpeg_header(content)[2] == 'Gray'
    except ValueError:
        return None
    space = 'GRAY' if gray else 'RGB'
    try:
        pixels = simplejpeg.decode_jpeg(content, space, strict=True)
    except ValueError as error:
        try:
            pixels = simplejpeg.decode_jpeg(content, space, strict=False)
        except ValueError:  # a kind of JPEG that it does not know
            return None
        padding = _PADDING.search(str(error))
        if padding is None or int(padding[1]) > _HARMLESS_PADDING:
            raise ImageError('damaged', f'the JPEG is damaged: {one_line(error)}') from error
    return np.asarray(pixels[..., 0] if gray else pixels, np.uint8)


def _check_whole(content: bytes) -> None:
    """Raise if a JPEG or PNG does not end; bytes after the end are allowed (padding)."""
    if content.startswith(_JPEG):
        # Neither marker occurs inside a scan's data; a thumbnail before it has both.
        whole = content.rfind(_JPEG_END) > content.rfind(_JPEG_SCAN)
    else:
        whole = not content.startswith(_PNG) or _PNG_END in content
    if not whole:
        raise ImageError('truncated', f'the compressed image ends after {len(content)} bytes')


def _check_claim(content: bytes) -> None:
    """Raise if a JPEG or PNG claims to be larger than any camera's: a few bytes can fill memory."""
    width, height = _claimed_size(content)
    if width * height > MOST_PIXELS:
        raise ImageError(
            'size',
            f'the compressed image is {width}x{height}, expected {MOST_PIXELS} pixels at most',
        )


def _claimed_size(content: bytes) -> tuple[int, int]:
    """Width and height in the header of a PNG or JPEG; 0 where there is none."""
    if content.startswith(_PNG):
        width, height = struct.unpack_from('>II', content.ljust(24, b'\0'), 16)
        return width, height
    place = 2 if content.startswith(_JPEG) else len(content)
    while place + 9 <= len(content):
        mark, marker, length, _, height, width = struct.unpack_from('>BBHBHH', content, place)
        if mark != _MARK or marker in (_SCAN, _END):
            break
        if marker in _FRAMES:
            return width, height
        place += 1 if marker == _MARK else 2 + length  # markers may be filled up
    return 0, 0


# Encodings of the node's own images: type of a sample, samples per pixel.
LAYOUTS: Mapping[str, tuple[str, int]] = {
    'mono8': ('uint8', 1),
    'rgb8': ('uint8', 3),
    '16UC1': ('uint16', 1),
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
