"""Every encoding gives the same picture; broken messages are told apart by kind."""

from __future__ import annotations

import struct
import zlib
from array import array

import cv2
import numpy as np
import pytest

from mtl_perception.images import (
    ENCODINGS,
    STRICT_JPEG,
    ImageError,
    decode,
    decode_compressed,
    payload,
)

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
    y, u, v = yuv444(rgb)
    pairs = np.stack([(u[:, ::2] + u[:, 1::2]) / 2, (v[:, ::2] + v[:, 1::2]) / 2], -1)
    chroma = pairs.reshape(y.shape)
    order = [y, chroma] if luma_first else [chroma, y]
    return np.stack(order, -1).round().astype(np.uint8)


def yuv444(rgb):
    r, g, b = rgb.astype(float).transpose(2, 0, 1)
    y = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    u = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    v = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    return y, u, v


def nv12(rgb, order=(0, 1)):
    """Rows of luma, then of chroma of 2x2 pixels, by default u before v."""
    y, *chroma = yuv444(rgb)
    height, width = y.shape
    means = [c.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for c in chroma]
    pairs = np.stack([means[index] for index in order], -1).reshape(height // 2, width)
    return np.concatenate([y, pairs]).round().astype(np.uint8)


def nv24(rgb):
    """Rows of luma, then of chroma, each of which fills two rows of the luma's length."""
    y, u, v = yuv444(rgb)
    return np.concatenate([y, np.stack([u, v], -1).reshape(-1, y.shape[1])]).round().astype('B')


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
        'rgba16': (np.concatenate([rgb, alpha], -1).astype(np.uint16) * 257, 0),
        'bgra16': (np.concatenate([bgr, alpha], -1).astype(np.uint16) * 257, 0),
        'nv12': (nv12(rgb), 12),
        'nv21': (nv12(rgb, (1, 0)), 12),
        'nv24': (nv24(rgb), 3),
    }
    for name in ('rggb', 'bggr', 'gbrg', 'grbg'):
        mosaic = bayer(rgb, name)
        table[f'bayer_{name}8'] = mosaic, 12
        table[f'bayer_{name}16'] = mosaic.astype(np.uint16) * 257, 12
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
    data, step = packed(rows[:HEIGHT], padding)
    if encoding == 'nv24':  # its rows of colour are twice as long, with the padding at their end
        data += packed(rows[HEIGHT:].reshape(HEIGHT, -1), 2 * padding)[0]
    elif len(rows) > HEIGHT:
        data += packed(rows[HEIGHT:], padding)[0]
    result = decode(encoding, HEIGHT, WIDTH, step, data)
    assert result.shape == (HEIGHT, WIDTH, 3)
    assert result.dtype == np.uint8
    inner = (slice(2, -2), slice(2, -2))
    difference = np.abs(result[inner].astype(int) - expected[inner])
    assert difference.max() <= tolerance


def test_colour_that_is_counted_into_the_step_is_found(rgb):
    data, step = packed(nv12(rgb))
    longer = decode('nv12', HEIGHT, WIDTH, step * 3 // 2, data)
    np.testing.assert_array_equal(longer, decode('nv12', HEIGHT, WIDTH, step, data))


@pytest.mark.parametrize('encoding', [name for name in ENCODINGS if name.endswith('16')])
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
        ({'encoding': 'yuv422', 'width': 5}, 'size', 'width is 5, expected an even'),
        ({'encoding': 'nv12', 'height': 3}, 'size', 'height is 3, expected an even'),
        ({'encoding': 'nv21', 'step': 6, 'data': bytes(35)}, 'truncated', r'36 \(6 rows of 6'),
        ({'encoding': 'nv24', 'step': 6, 'data': bytes(71)}, 'truncated', r'72 \(12 rows of 6'),
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
        data = bytes(3 * step * height)
        assert decode(encoding, height, width, step, data).shape == (*size[::-1], 3)
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


@pytest.mark.parametrize('depth', [np.uint8, np.uint16])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_a_compressed_mosaic_becomes_colour(pattern, depth, rgb):
    """image_transport stores it as a gray image; only the format tells."""
    bits = np.iinfo(depth).bits
    mosaic = bayer(rgb, pattern).astype(depth) * (257 if bits == 16 else 1)
    data = cv2.imencode('.png', mosaic)[1].tobytes()
    result = decode_compressed(data, f'bayer_{pattern}{bits}; png compressed ')
    expected = decode(f'bayer_{pattern}8', HEIGHT, WIDTH, WIDTH, bayer(rgb, pattern).tobytes())
    np.testing.assert_array_equal(result, expected)
    assert (np.ptp(decode_compressed(data, 'mono8; png compressed '), axis=-1) == 0).all()


def test_a_mosaic_in_a_jpeg_becomes_colour_and_colour_stays(rgb):
    gray = np.full((HEIGHT, WIDTH), 90, np.uint8)
    gray[::2, ::2] = 200  # red
    jpeg = cv2.imencode('.jpg', gray, (cv2.IMWRITE_JPEG_QUALITY, 100))[1].tobytes()
    inner = decode_compressed(jpeg, 'bayer_rggb8; jpeg compressed ')[4:-4, 4:-4].reshape(-1, 3)
    np.testing.assert_allclose(inner, [[200, 90, 90]] * len(inner), atol=6)
    # This driver has made colour of it before.
    data = compressed('.png', rgb)
    np.testing.assert_array_equal(decode_compressed(data, 'bayer_rggb8; png compressed bgr8'), rgb)


needs_simplejpeg = pytest.mark.skipif(not STRICT_JPEG, reason='simplejpeg is not installed')


def detailed():
    v, u = np.mgrid[:240, :320]
    picture = np.stack([u % 256, v, (u + v) % 256], -1).astype(np.uint8)
    picture[60:120, 60:200] = RNG.integers(0, 256, (60, 140, 3))
    return picture


@needs_simplejpeg
@pytest.mark.parametrize(
    'options', [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 4)]
)
def test_a_jpeg_that_is_damaged_inside_is_refused(options):
    whole = compressed('.jpg', detailed(), *options)
    decode_compressed(whole)
    size = len(whole) - 700  # behind tables and before the end marker
    for cut in (size // 10, 3 * size // 10, size // 2):
        for start in range(690, len(whole) - 2 - cut, size // 7):
            with pytest.raises(ImageError, match='damaged') as caught:
                decode_compressed(whole[:start] + whole[start + cut :], 'jpeg')
            assert caught.value.kind == 'damaged'


@needs_simplejpeg
@pytest.mark.parametrize('gray', [False, True])
def test_both_decoders_of_jpeg_agree(gray, monkeypatch):
    picture = detailed()[..., 0] if gray else detailed()[..., ::-1]
    data = cv2.imencode('.jpg', picture)[1].tobytes()
    strict = decode_compressed(data)
    monkeypatch.setattr('mtl_perception.images.STRICT_JPEG', False)
    np.testing.assert_array_equal(strict, decode_compressed(data))


def test_padding_of_a_scan_is_no_damage():
    """Many USB cameras send a few bytes more before the end marker."""
    whole = compressed('.jpg', detailed())
    padded = whole[:-2] + bytes(9) + whole[-2:]
    np.testing.assert_array_equal(decode_compressed(padded), decode_compressed(whole))


@needs_simplejpeg
def test_more_than_padding_is_damage():
    whole = compressed('.jpg', detailed())
    with pytest.raises(ImageError, match='damaged'):
        decode_compressed(whole[:-2] + bytes(99) + whole[-2:])


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


# cv_bridge refuses to make colour of 8UCx, knows YUV by its older names only, and makes colour of
# 16-bit mosaics before it narrows them.
CV_BRIDGE = sorted(
    name
    for name in ENCODINGS
    if not name.startswith(('8UC', 'nv')) and name not in ('uyvy', 'yuyv')
    if not (name.startswith('bayer') and name.endswith('16'))
)


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


def png_claiming(width: int, height: int) -> bytes:
    """A whole PNG of black pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        size, check = struct.pack('>I', len(content)), struct.pack('>I', zlib.crc32(kind + content))
        return size + kind + content + check

    head = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * min(height, 64)))
    content = chunk(b'IHDR', head) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + content


def test_a_few_bytes_that_would_fill_memory_are_refused() -> None:
    assert decode_compressed(png_claiming(64, 64), 'png').shape == (64, 64, 3)
    with pytest.raises(ImageError, match='is 8193x8192, expected 67108864 pixels at most') as found:
        decode_compressed(png_claiming(8193, 8192), 'png')
    assert found.value.kind == 'size'


@pytest.mark.parametrize('options', [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]])
def test_a_jpeg_that_claims_too_much_is_refused(options: list[int]) -> None:
    content = bytearray(cv2.imencode('.jpg', np.zeros((48, 64, 3), np.uint8), options)[1])
    place = content.index(struct.pack('>HH', 48, 64))
    content[place : place + 4] = struct.pack('>HH', 65500, 65500)
    with pytest.raises(ImageError, match='is 65500x65500, expected'):
        decode_compressed(bytes(content), 'jpeg')
