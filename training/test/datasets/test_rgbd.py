"""RGB-D folders, made here and real ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mtl_training.datasets import open_data
from mtl_training.datasets.classes import NYUD40
from mtl_training.datasets.dataset import DataError
from mtl_training.datasets.derive import Intrinsics, normals_of
from mtl_training.datasets.rgbd import RGBD

REAL = Path(
    os.environ.get('MTL_TRAINING_RGBD', Path(__file__).parents[4] / 'shared' / 'data' / 'rgbd')
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two frames of a floor that is 1.2 m to 1.7 m away, 64x48."""
    entries = []
    for index, name in enumerate(('desk_0', 'hall_0')):
        cv2.imwrite(str(tmp_path / f'{name}.jpg'), np.full((48, 64, 3), (200, 100, 0), np.uint8))
        inverse = np.linspace(1 / 1700, 1 / 1200, 48)[:, None].repeat(64, axis=1)
        depth = np.rint(1 / inverse).astype(np.uint16)
        depth[:, :4] = 0
        cv2.imwrite(str(tmp_path / f'{name}.png'), depth)
        entries.append({'name': name, 'k': [60 + index, 61, 31.5, 23.5]})
    (tmp_path / 'frames.json').write_text(json.dumps(entries))
    return tmp_path


def test_depth_is_read_and_normals_are_derived(folder: Path) -> None:
    data = open_data(folder, 'test', NYUD40)
    assert data.tasks == ('depth', 'normals')
    assert list(data.frames) == ['desk_0', 'hall_0']
    assert len(data) == 2
    sample = data.read(1, ['depth', 'normals'])
    assert sample.fx == 61
    np.testing.assert_allclose(sample.arrays['image'][9, 9], (0, 100, 200), atol=3)
    assert sample.arrays['depth'].dtype == np.uint16
    assert sample.arrays['depth'][47, :5].tolist() == [0, 0, 0, 0, 1200]
    camera = Intrinsics(61, 61, 31.5, 23.5)
    expected = normals_of(np.asarray(sample.arrays['depth'], np.uint16), camera)
    np.testing.assert_array_equal(sample.arrays['normals'], expected)
    assert sample.arrays['normals'][20, 30, 1] < 100  # upwards
    assert sample.arrays['normals'][20, 2].tolist() == [0, 0, 0]
    assert sorted(data.read(0, []).arrays) == ['image']
    assert sorted(data.read(0, ['normals']).arrays) == ['image', 'normals']


def test_what_is_wrong_is_told(folder: Path) -> None:
    data = RGBD(folder, 'train', NYUD40)
    cv2.imwrite(str(folder / 'desk_0.png'), np.zeros((48, 64), np.uint8))
    with pytest.raises(DataError, match=r'desk_0\.png is uint8 \[48, 64\], expected uint16'):
        data.read(0, ['depth'])
    cv2.imwrite(str(folder / 'desk_0.png'), np.zeros((24, 32), np.uint16))
    with pytest.raises(DataError, match=r'is uint16 \[24, 32\], expected uint16 \[48, 64\]'):
        data.read(0, ['depth'])
    (folder / 'hall_0.jpg').unlink()
    with pytest.raises(DataError, match=r'hall_0\.jpg is missing or is not a picture'):
        data.read(1, ['depth'])
    for text, message in {
        '[]': 'lists no frames',
        '[{"name": "a"}]': 'expected a list of objects with name and k',
        '[{"name": "a", "k": [1, 2, 3]}]': 'expected a list of objects with name and k',
        '{': 'cannot be read',
    }.items():
        (folder / 'frames.json').write_text(text)
        with pytest.raises(DataError, match=message):
            RGBD(folder, 'train', NYUD40)


@pytest.mark.skipif(not REAL.is_dir(), reason=f'the RGB-D frames are not at {REAL}')
def test_real_frames_have_depth_and_normals() -> None:
    data = open_data(REAL, 'train', NYUD40)
    for index in range(0, len(data), 40):
        arrays = data.read(index, ['depth', 'normals']).arrays
        depth, normals = arrays['depth'], arrays['normals']
        assert 0.3 < np.median(depth[depth > 0]) / 1000 < 5
        valid = normals.any(axis=-1)
        assert 0.3 < valid.mean() < (depth > 0).mean()
        assert (normals[valid][:, 2] < 128).mean() > 0.95  # towards the camera
