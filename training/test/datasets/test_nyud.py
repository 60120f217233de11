"""NYUD: the frame round its pictures, ids and metres, on files made here and on the real ones."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mtl_training.datasets import open_data
from mtl_training.datasets.dataset import DataError
from mtl_training.datasets.nyud import NYUD
from mtl_training.labels import NYUD40, NYUD_ID, PASCAL21, ROBOT_GROUPS

REAL = Path(
    os.environ.get('MTL_TRAINING_NYUD', Path(__file__).parents[4] / 'shared' / 'data' / 'nyud')
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two frames of train and one of test; what a pixel holds tells its row."""
    for name, numbers in {'train': ('0003', '0004'), 'test': ('0001',)}.items():
        (tmp_path / f'{name}.txt').write_text('\n'.join(numbers) + '\n')
    rows = np.arange(480, dtype=np.uint16)[:, None].repeat(640, axis=1)
    for number in ('0001', '0003', '0004'):
        files = {
            f'images/{number}.jpg': np.full((480, 640, 3), (200, 100, 0), np.uint8),  # BGR
            f'labels40/{number}.png': (rows % 41).astype(np.uint8),
            f'depth8/{number}.png': (rows // 2).astype(np.uint8),
        }
        for file, array in files.items():
            (tmp_path / file).parent.mkdir(exist_ok=True)
            assert cv2.imwrite(str(tmp_path / file), array)
    return tmp_path


def test_the_white_frame_is_cut_off_and_the_focal_length_stays(folder: Path) -> None:
    sample = NYUD(folder, 'train', NYUD40).read(0, ['semantic', 'depth'])
    assert {array.shape[:2] for array in sample.arrays.values()} == {(425, 560)}
    assert sample.fx == pytest.approx(518.858)
    np.testing.assert_allclose(sample.arrays['image'][0, 0], (0, 100, 200), atol=3)
    ids, depth = sample.arrays['semantic'], sample.arrays['depth']
    assert ids[0, 0] == 45 % 41 - 1
    assert ids[424, 0] == 469 % 41 - 1
    assert (ids[41 * 2 - 45] == 255).all()  # void
    assert depth.dtype == np.uint16
    assert depth[0, 0] == round(39.2 * (22 + 0.66))
    assert depth[424, 559] == round(39.2 * (234 + 0.66))


def test_columns_are_cut_where_the_literature_does(folder: Path) -> None:
    columns = np.tile((np.arange(640) // 4).astype(np.uint8), (480, 1))
    cv2.imwrite(str(folder / 'depth8' / '0003.png'), columns)
    depth = NYUD(folder, 'train', NYUD40).read(0, ['depth']).arrays['depth']
    assert depth[0, 0] == round(39.2 * (40 // 4 + 0.66))
    assert depth[0, 559] == round(39.2 * (599 // 4 + 0.66))


def test_only_what_is_asked_for_is_read(folder: Path) -> None:
    (folder / 'depth8' / '0003.png').unlink()
    data = NYUD(folder, 'train', ROBOT_GROUPS)
    sample = data.read(0, ['semantic'])
    assert sorted(sample.arrays) == ['image', 'semantic']
    assert sample.arrays['semantic'][NYUD_ID['desk'] + 41 * 2 - 45, 0] == 6  # table
    with pytest.raises(DataError, match=r'depth8/0003\.png is missing or is not a picture'):
        data.read(0, ['depth'])


def test_edges_run_between_labels(folder: Path) -> None:
    labels = np.full((480, 640), 5, np.uint8)
    labels[:, 300:] = 0  # a seam
    labels[:, 304:] = 8
    cv2.imwrite(str(folder / 'labels40' / '0003.png'), labels)
    edges = NYUD(folder, 'train', ROBOT_GROUPS).read(0, ['edges']).arrays
    assert sorted(edges) == ['edges', 'image']
    assert set(np.flatnonzero(edges['edges'][9])) == {301 - 40, 302 - 40}


def test_splits_are_the_official_ones(folder: Path) -> None:
    assert [len(open_data(folder, split, NYUD40)) for split in ('train', 'val', 'test')] == [
        2,
        1,
        1,
    ]


def test_what_is_wrong_is_told(folder: Path) -> None:
    with pytest.raises(DataError, match="has NYUD's 40 classes, expected them or groups of them"):
        NYUD(folder, 'train', PASCAL21)
    cv2.imwrite(str(folder / 'labels40' / '0004.png'), np.zeros((425, 560), np.uint8))
    with pytest.raises(DataError, match=r'0004\.png is 560x425, expected 640x480'):
        NYUD(folder, 'train', NYUD40).read(1, ['semantic'])
    (folder / 'test.txt').write_text('\n')
    with pytest.raises(DataError, match=r'test\.txt lists no frames'):
        NYUD(folder, 'test', NYUD40)
    (folder / 'test.txt').unlink()
    with pytest.raises(
        DataError,
        match=r'test\.txt is missing .* from the home page of NYU',
    ):
        NYUD(folder, 'test', NYUD40)


@pytest.mark.skipif(not REAL.is_dir(), reason=f'NYU Depth V2 is not at {REAL}')
def test_the_real_set_is_indoors_and_labelled() -> None:
    data = [open_data(REAL, split, NYUD40) for split in ('train', 'test')]
    assert [len(split) for split in data] == [795, 654]
    for index in range(0, 654, 80):
        arrays = data[1].read(index, ['semantic', 'depth']).arrays
        labels = arrays['semantic'][arrays['semantic'] != 255]
        assert labels.size > 0.5 * arrays['semantic'].size
        assert labels.max() < 40
        assert 0.4 < np.median(arrays['depth']) / 1000 < 10
        assert np.asarray(arrays['image'])[0].mean() < 250  # no white frame


def test_a_set_that_is_not_the_official_one_is_a_fault(folder: Path) -> None:
    (folder / 'test.txt').write_text('0001\n0003\n')
    (folder / 'depth8' / '0009.png').write_bytes(b'')
    assert list(NYUD(folder, 'train', NYUD40).faults()) == [
        f'{folder}, train: 2 frames, expected 795',
        f'{folder}, train: 0003 is in the other split, too',
        f'{folder}/depth8: 1 frames are not listed, such as 0009',
    ]


def test_an_id_beyond_the_classes_is_told(folder: Path) -> None:
    cv2.imwrite(str(folder / 'labels40' / '0003.png'), np.full((480, 640), 41, np.uint8))
    for task in ('semantic', 'edges'):
        with pytest.raises(DataError, match=r'0003\.png has the id 41, expected 0\.\.40 or 255'):
            NYUD(folder, 'train', NYUD40).read(0, [task])
