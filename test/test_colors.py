"""Colours for people mean what the legends say."""

from __future__ import annotations

import numpy as np

from mtl_perception.bundle import SemanticClass
from mtl_perception.colors import (
    BEYOND,
    depth_color,
    normals_color,
    overlay,
    probability_color,
    semantic_color,
)

CLASSES = (SemanticClass(0, 'wall', (10, 20, 30)), SemanticClass(7, 'floor', (40, 50, 60)))


def test_classes_have_their_colours_and_the_rest_is_black():
    ids = np.array([[0, 7], [255, 3]], np.uint8)
    expected = [[[10, 20, 30], [40, 50, 60]], [[0, 0, 0], [0, 0, 0]]]
    np.testing.assert_array_equal(semantic_color(ids, CLASSES), expected)
    np.testing.assert_array_equal(semantic_color(ids[:, ::-1], CLASSES)[0, 1], [10, 20, 30])


def test_near_is_red_and_far_is_blue():
    near, far = depth_color(np.array([[0.4, 9.0]], np.float32))[0].astype(int)
    assert near[0] > near[2] + 50
    assert far[2] > far[0] + 50


def test_unknown_and_beyond_have_colours_of_their_own():
    depth = np.array([[np.nan, np.inf]], np.float32)
    unknown, beyond = depth_color(depth)[0]
    assert tuple(unknown) == (0, 0, 0)
    assert tuple(beyond) == BEYOND
    every = depth_color(np.geomspace(0.3, 10, 2000).astype(np.float32)[None])[0].astype(int)
    for special in (unknown, beyond):
        assert np.abs(every - special).max(-1).min() > 40


def test_depth_outside_the_scale_keeps_the_end_colour():
    depth = np.array([[0.3, 0.01, 10.0, 500.0, 0.0, -1.0, -np.inf]], np.float32)
    colors = depth_color(depth)[0]
    np.testing.assert_array_equal(colors[1], colors[0])
    np.testing.assert_array_equal(colors[3], colors[2])
    assert (colors[4:] == 0).all()  # no depth at all


def test_a_scale_from_zero_still_has_colours():
    first, last = depth_color(np.array([[0.02, 9.0]], np.float32), 0.0, 10.0)[0].astype(int)
    assert first[0] > first[2] + 50
    assert last[2] > last[0] + 50


def test_normals_look_like_a_normal_map():
    directions = {
        'ahead': ((0, 0, -1), (128, 128, 255)),
        'floor': ((0, -1, 0), (128, 255, 128)),
        'ceiling': ((0, 1, 0), (128, 0, 128)),
        'facing right': ((1, 0, 0), (255, 128, 128)),
        'none': ((np.nan, np.nan, np.nan), (0, 0, 0)),
    }
    for normal, expected in directions.values():
        result = normals_color(np.array([[normal]], np.float32))[0, 0]
        assert np.abs(result.astype(int) - expected).max() <= 1


def test_probability_is_a_drawing():
    np.testing.assert_array_equal(
        probability_color(np.array([[0, 255]], np.uint8)), [[[255] * 3, [0] * 3]]
    )


def test_overlay_keeps_the_outlines():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0] = 200
    result = overlay(image, np.full((2, 2, 3), (200, 0, 0), np.uint8)).astype(int)
    assert (result[0] > result[1]).any()
    assert (result[1, :, 0] > 100).all()
