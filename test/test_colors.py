"""Pictures for people: colours mean what the legends say, and the montage shows every task."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_perception.bundle import SemanticClass, load_bundle
from mtl_perception.colors import (
    BEYOND,
    depth_color,
    montage,
    normals_color,
    overlay,
    probability_color,
    semantic_color,
)
from mtl_perception.pipeline import Prediction

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


@pytest.fixture
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle)


def prediction(*names, width=96, height=48):
    rng = np.random.default_rng(0)
    arrays = {
        'semantic': rng.integers(0, 3, (height, width), np.uint8),
        'depth': rng.uniform(0.2, 12, (height, width)).astype(np.float32),
        'normals': np.broadcast_to(np.float32([0, 0, -1]), (height, width, 3)),
        'edges': rng.integers(0, 256, (height, width), np.uint8),
        'saliency': rng.integers(0, 256, (height, width), np.uint8),
    }
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    return Prediction({name: arrays[name] for name in names}, None, image, True)


def test_the_montage_grows_by_a_column_per_task(bundle):
    one = montage(prediction('semantic'), bundle)
    all_tasks = ('semantic', 'depth', 'normals', 'edges', 'saliency')
    full = montage(prediction(*all_tasks), bundle)
    assert full.dtype == np.uint8
    assert full.shape[2] == 3
    assert full.shape[0] == one.shape[0]
    column = (full.shape[1] - one.shape[1]) / 4
    assert column >= 96
    image_only = montage(prediction(), bundle)
    assert one.shape[1] - image_only.shape[1] == pytest.approx(column)


def test_rows_of_a_montage_share_titles_and_may_lack_a_task(bundle):
    single = montage(prediction('semantic', 'depth'), bundle)
    double = montage([prediction('semantic', 'depth'), prediction('semantic')], bundle)
    assert double.shape[1] == single.shape[1]
    assert single.shape[0] < double.shape[0] < 2 * single.shape[0]


def test_the_legend_shows_the_classes_that_are_there(bundle):
    given = prediction('semantic')
    given.arrays['semantic'][:] = 1

    def has(picture, color):
        return (picture == color).all(-1).sum() >= 100

    picture = montage(given, bundle)
    assert has(picture, (30, 200, 30))
    assert not has(picture, (200, 30, 30))
    given.arrays['semantic'][:, :10] = 0
    assert has(montage(given, bundle), (200, 30, 30))
