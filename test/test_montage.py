"""The montage shows every task of every moment, with the legends of what is there."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_perception.bundle import load_bundle
from mtl_perception.camera import Letterbox
from mtl_perception.montage import montage
from mtl_perception.pipeline import Frame, Prediction


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
    return Prediction(
        frame=Frame(image),
        grid=Letterbox.fit(width, height, width, height),
        arrays={name: arrays[name] for name in names},
        image=image,
        calibration=None,
        metric=True,
        timings_ms={},
    )


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
