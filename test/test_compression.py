"""Compressed images lose nothing but what their format does, read as image_transport reads them."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mtl_perception.compression import compressed_depth, jpeg, png
from mtl_perception.images import read_image

NOISE = np.random.default_rng(5)
A = 100 * 101  # of a quantisation of 100, the plugin's default


def decoded(content: bytes) -> np.ndarray:
    """Depth as compressed_depth_image_transport decodes it (ConfigHeader, codec.cpp)."""
    format, a, b = struct.unpack_from('<iff', content)
    assert format == 0, 'INV_DEPTH'
    assert a == A
    steps = cv2.imdecode(np.frombuffer(content, np.uint8, offset=12), cv2.IMREAD_UNCHANGED)
    assert steps.dtype == np.uint16
    with np.errstate(divide='ignore'):
        depth = np.float32(a) / (steps.astype(np.float32) - np.float32(b))
    return np.where(steps != 0, depth, np.float32(np.nan))


@pytest.mark.parametrize('far', [0.2, 1.0, 9.999, 80.0, 500.0])
def test_depth_is_exact_to_half_a_step(far: float) -> None:
    depth = NOISE.uniform(0.16, far, (60, 80)).astype(np.float32)
    found = decoded(compressed_depth(depth[:, ::2]))
    assert abs(1 / found - 1 / depth[:, ::2]).max() <= 0.51 / A


def test_what_is_no_depth_is_nan_and_the_farthest_is_kept() -> None:
    depth = np.array([[np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-40, 0.1, 42.5, 1.0]], np.float32)
    found = decoded(compressed_depth(depth))
    np.testing.assert_allclose(found, [[np.nan] * 7 + [42.5, 1.0]], rtol=1e-3)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 0.0, -1e30, 1e-40, 1e-30, 2.5, 1e6])
def test_depth_without_variety(value: float) -> None:
    found = decoded(compressed_depth(np.full((3, 4), value, np.float32)))
    expected = value if value in (2.5, 1e6) else np.nan
    np.testing.assert_allclose(found, np.full((3, 4), expected), rtol=1e-4)


def test_ids_survive_and_pictures_keep_their_colours() -> None:
    ids = NOISE.integers(0, 256, (40, 50), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(png(ids), np.uint8), -1), ids)
    picture = np.empty((48, 64, 3), np.uint8)
    picture[:] = (200, 120, 20)
    message = SimpleNamespace(format='rgb8; jpeg compressed bgr8', data=jpeg(picture[::2]))
    found = read_image(message)
    assert found.shape == (24, 64, 3)
    assert abs(found.astype(int) - (200, 120, 20)).max() <= 4
