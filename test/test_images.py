"""Every encoding gives the same picture; broken messages are told apart by kind."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
import pytest

from mtl_perception.images import ENCODINGS, ImageError, decode, decode_compressed, payload

WIDTH, HEIGHT = 32, 24
RNG = np.random.default_rng(0)


@pytest.fixture
def rgb():
    """A smooth picture, so that chroma subsampling and demosaicing hardly change it."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([8 * u, 10 * v, 100 + 4 * u], -1).clip(0, 255).astype(np.uint8)


def packed(rows, padding=0):
    """The rows' bytes with padding of 0xAB at each end: data and step."""
    flat = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    padded = np.full((flat.shape[0], flat.shape[1] + padding), 0xAB, np.uint8)
    padded[:, : flat.shape[1]] = flat
    return array('B', padded.tobytes()), padded.shape[1]


def yuv422(rgb, luma_first):
    """The driver's side: BT.601 limited range, chroma of each pair averaged."""
    r, g, b = rgb.astype(float).transpose(2, 0, 1)
    y = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    u = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    v = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    pairs = np.stack([(u[:, ::2] + u[:, 1::2]) / 2, (v[:, ::2] + v[:, 1::2]) / 2], -1)
    chroma = pairs.reshape(y.shape)
    order = [y, chroma] if luma_first else [chroma, y]
    return np.stack(order, -1).round().astype(np.uint8)


def bayer(rgb, pattern):
    mosaic = np.empty(rgb.shape[:2], np.uint8)
    for index, color in enumerate(pattern):
        row, column = divmod(index, 2)
        mosaic[row::2, column::2] = rgb[row::2, column::2, 'rgb'.index(color)]
    return mosaic


def encoded(encoding, rgb):
    """What a driver would send for a picture, and how far from it the decoder may end."""
    gray = rgb[..., 1]
    alpha = np.full((*rgb.shape[:2], 1), 9, np.uint8)
    bgr = rgb[..., ::-1]
    table = {
        'rgb8': (rgb, 0),
        'bgr8': (bgr, 0),
        '8UC3': (bgr, 0),
        'rgba8': (np.concatenate([rgb, alpha], -1), 0),
        'bgra8': (np.concatenate([bgr, alpha], -1), 0),
        '8UC4': (np.concatenate([bgr, alpha], -1), 0),
        'mono8': (gray, 0),
        '8UC1': (gray, 0),
        'mono16': (gray.astype(np.uint16) * 257, 0),
        'rgb16': (rgb.astype(np.uint16) * 257, 0),
        'bgr16': (bgr.astype(np.uint16) * 257, 0),
        'yuv422': (yuv422(rgb, luma_first=False), 10),
        'uyvy': (yuv422(rgb, luma_first=False), 10),
        'yuv422_yuy2': (yuv422(rgb, luma_first=True), 10),
        'yuyv': (yuv422(rgb, luma_first=True), 10),
        'bayer_rggb8': (bayer(rgb, 'rggb'), 12),
        'bayer_bggr8': (bayer(rgb, 'bggr'), 12),
        'bayer_gbrg8': (bayer(rgb, 'gbrg'), 12),
        'bayer_grbg8': (bayer(rgb, 'grbg'), 12),
    }
    rows, tolerance = table[encoding]
    expected = np.repeat(rows_gray(rgb), 3, -1) if is_gray(encoding) else rgb
    return rows, expected, tolerance


def is_gray(encoding):
    return encoding in ('mono8', 'mono16', '8UC1')


def rows_gray(rgb):
    return rgb[..., 1:2]


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_every_encoding_shows_the_same_picture(encoding, padding, rgb):
    rows, expected, tolerance = encoded(encoding, rgb)
    data, step = packed(rows, padding)
    result = decode(encoding, HEIGHT, WIDTH, step, data)
    assert result.shape == (HEIGHT, WIDTH, 3)
    assert result.dtype == np.uint8
    inner = (slice(2, -2), slice(2, -2))
    difference = np.abs(result[inner].astype(int) - expected[inner])
    assert difference.max() <= tolerance


@pytest.mark.parametrize('encoding', ['mono16', 'rgb16', 'bgr16'])
def test_big_endian_is_honoured(encoding, rgb):
    rows = RNG.integers(0, 65536, encoded(encoding, rgb)[0].shape, np.uint16)
    little, step = packed(rows.astype('<u2'))
    big, _ = packed(rows.astype('>u2'), 4)
    np.testing.assert_array_equal(
        decode(encoding, HEIGHT, WIDTH, step, little, is_bigendian=0),
        decode(encoding, HEIGHT, WIDTH, step + 4, big, is_bigendian=1),
    )


def test_rgb8_is_read_without_a_copy(rgb):
    data, step = packed(rgb, 10)
    result = decode('rgb8', HEIGHT, WIDTH, step, data)
    assert np.shares_memory(result, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize('as_type', [bytes, bytearray, memoryview, lambda d: np.frombuffer(d, 'B')])
def test_any_buffer_will_do(as_type, rgb):
    data, step = packed(rgb)
    np.testing.assert_array_equal(decode('rgb8', HEIGHT, WIDTH, step, as_type(data.tobytes())), rgb)


GOOD = {'encoding': 'bgr8', 'height': 4, 'width': 6, 'step': 18, 'data': bytes(72)}


@pytest.mark.parametrize(
    ('change', 'kind', 'words'),
    [
        ({'encoding': 'rgb9'}, 'encoding', "'rgb9', expected one of rgb8"),
        ({'encoding': ''}, 'encoding', "encoding is ''"),
        ({'encoding': '16UC1'}, 'encoding', '16UC1'),
        ({'width': 0}, 'size', '0x4'),
        ({'height': 0, 'data': b''}, 'size', '6x0'),
        ({'step': 17}, 'step', 'step is 17, expected at least 18'),
        ({'step': 0}, 'step', 'step is 0'),
        ({'data': bytes(71)}, 'truncated', '71 bytes, expected 72'),
        ({'data': b''}, 'truncated', '0 bytes, expected 72'),
        ({'height': 2**31, 'step': 2**32 - 1}, 'truncated', 'expected'),
        ({'encoding': 'yuv422', 'width': 5}, 'size', 'even'),
    ],
)
def test_broken_messages_are_told_apart(change, kind, words):
    with pytest.raises(ImageError, match=words) as caught:
        decode(**{**GOOD, **change})
    assert caught.value.kind == kind
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('encoding', ENCODINGS)
@pytest.mark.parametrize('size', [(1, 1), (2, 1), (1, 2), (2, 2), (3, 3)])
def test_tiny_images_decode_or_are_refused(encoding, size):
    width, height = size
    step = 8 * width
    kinds = []
    try:
        assert decode(encoding, height, width, step, bytes(step * height)).shape == (*size[::-1], 3)
    except ImageError as error:
        kinds.append(error.kind)
    assert kinds in ([], ['size'])


def compressed(suffix, rgb, *parameters):
    return cv2.imencode(suffix, rgb[..., ::-1], parameters)[1].tobytes()


@pytest.mark.parametrize(
    ('suffix', 'format', 'tolerance'),
    [
        ('.jpg', 'rgb8; jpeg compressed bgr8', 12),
        ('.jpg', 'jpeg', 12),
        ('.png', 'png', 0),
        ('.png', 'rgb8; png compressed bgr8', 0),
        ('.png', '', 0),
        ('.bmp', 'bmp', 0),
    ],
)
def test_compressed_images_come_out_in_rgb(suffix, format, tolerance, rgb):
    data = array('B', compressed(suffix, rgb))
    result = decode_compressed(data, format)
    assert result.shape == rgb.shape
    assert np.abs(result.astype(int) - rgb).max() <= tolerance


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_truncation_is_noticed_wherever_it_cuts(suffix, rgb):
    picture = np.repeat(np.repeat(rgb, 8, 0), 8, 1)
    whole = compressed(suffix, picture)
    for length in (20, len(whole) // 2, len(whole) - 200, len(whole) - 1):
        with pytest.raises(ImageError) as caught:
            decode_compressed(whole[:length], 'jpeg')
        assert caught.value.kind == 'truncated'
    assert decode_compressed(whole + bytes(16), 'jpeg').shape == picture.shape


def test_truncation_is_noticed_behind_a_thumbnail(rgb):
    """The EXIF block holds a whole JPEG of its own, with an end marker."""
    whole, thumbnail = compressed('.jpg', rgb), compressed('.jpg', rgb[:8, :8])
    block = b'Exif\0\0' + thumbnail
    whole = whole[:2] + b'\xff\xe1' + (len(block) + 2).to_bytes(2, 'big') + block + whole[2:]
    assert decode_compressed(whole).shape == rgb.shape
    with pytest.raises(ImageError) as caught:
        decode_compressed(whole[:-40])
    assert caught.value.kind == 'truncated'


@pytest.mark.parametrize(
    ('data', 'format', 'kind'),
    [
        (b'', 'jpeg', 'size'),
        (b'hello', 'jpeg', 'encoding'),
        (b'\xff\xd8\xff\xda junk \xff\xd9', 'jpeg', 'truncated'),
        (b'anything', '16UC1; compressedDepth png', 'encoding'),
    ],
)
def test_what_is_no_picture(data, format, kind):
    with pytest.raises(ImageError) as caught:
        decode_compressed(data, format)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    'values',
    [
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 4, 3),
        np.arange(48, dtype=np.uint8).reshape(6, 8)[1:4, 2:5],
        np.array(np.nan, np.float32),
        np.zeros((0, 4), np.uint8),
    ],
)
def test_payload_is_the_arrays_bytes(values):
    data = payload(values)
    assert isinstance(data, array)
    assert data.typecode == 'B'
    assert data.tobytes() == values.tobytes()


def test_payload_takes_arrays_that_may_not_be_written():
    values = np.arange(6, dtype=np.uint8)
    values.setflags(write=False)
    assert payload(values).tolist() == [0, 1, 2, 3, 4, 5]


# cv_bridge refuses to make colour of 8UCx, and knows YUV by its older names only.
CV_BRIDGE = sorted(ENCODINGS.keys() - {'8UC1', '8UC3', '8UC4', 'uyvy', 'yuyv'})


# Whole pixels of padding: cv_bridge shears rows whose step is no multiple of the pixel.
@pytest.mark.parametrize('padding', [0, 24])
@pytest.mark.parametrize('encoding', CV_BRIDGE)
def test_same_as_cv_bridge(encoding, padding, rgb):
    bridge = pytest.importorskip('cv_bridge', reason='cv_bridge is not installed').CvBridge()
    message = pytest.importorskip('sensor_msgs.msg').Image()
    rows, _, _ = encoded(encoding, rgb)
    if encoding.endswith('16'):
        rows = RNG.integers(0, 65536, rows.shape, np.uint16)
    message.data, message.step = packed(rows, padding)
    message.encoding, message.height, message.width = encoding, HEIGHT, WIDTH
    ours = decode(encoding, HEIGHT, WIDTH, message.step, message.data, message.is_bigendian)
    np.testing.assert_array_equal(ours, bridge.imgmsg_to_cv2(message, 'rgb8'))
