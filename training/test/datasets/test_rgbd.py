"""RGB-D folders, made here and real ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mtl_training.datasets import open_data
from mtl_training.datasets.dataset import DataError
from mtl_training.datasets.derive import Intrinsics, normals_of
from mtl_training.datasets.rgbd import plain
from mtl_training.labels import NYUD40

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
    data = plain(folder, 'train', NYUD40)
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
            plain(folder, 'train', NYUD40)


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


def picture(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def depth_picture(path: Path, value: int, height: int = 48, width: int = 64) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width), value, np.uint16))


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    """TUM's layout: three colour pictures, of which depth was taken 5 ms, 15 ms, 25 ms later."""
    folder = tmp_path / 'rgbd_dataset_freiburg2_desk'
    lists = {'rgb': [], 'depth': []}
    for index, apart in enumerate((0.005, 0.015, 0.025)):
        stamp = 1305031102.1 + index
        for kind, at in (('rgb', stamp), ('depth', stamp + apart)):
            lists[kind].append(f'{at:.6f} {kind}/{at:.6f}.png')
        picture(folder / 'rgb' / f'{stamp:.6f}.png', 48, 64)
        depth_picture(folder / 'depth' / f'{stamp + apart:.6f}.png', 5000 * (index + 1))
    for kind, lines in lists.items():
        text = '\n'.join(['# timestamp filename', *lines, ''])
        (folder / f'{kind}.txt').write_text(text)
    return folder


def test_a_sequence_of_tum_is_paired_by_time_and_in_metres(sequence: Path) -> None:
    data = open_data(sequence, 'train', NYUD40)
    assert list(data.frames) == ['1305031102.100000', '1305031103.100000']  # 25 ms are too much
    samples = [data.read(index, ['depth']) for index in range(2)]
    assert [sample.fx for sample in samples] == [520.9, 520.9]
    assert [int(sample.arrays['depth'][0, 0]) for sample in samples] == [1000, 2000]


def test_the_nearest_depth_is_taken_whether_before_or_after(sequence: Path) -> None:
    depths = sequence / 'depth.txt'
    depth_picture(sequence / 'depth' / 'before.png', 9000)
    depths.write_text(depths.read_text() + '1305031102.097 depth/before.png\n')
    assert open_data(sequence, 'train', NYUD40).read(0, ['depth']).arrays['depth'][0, 0] == 1800


def test_a_sequence_of_another_camera_says_which(sequence: Path, tmp_path: Path) -> None:
    other = sequence.rename(tmp_path / 'mine')
    with pytest.raises(DataError, match=r'expected freiburg1, .* in its name, or intrinsics'):
        open_data(other, 'train', NYUD40)
    (other / 'intrinsics.txt').write_text('61 62 31.5 23.5\n')
    assert open_data(other, 'train', NYUD40).read(0, []).fx == 61
    (other / 'intrinsics.txt').write_text('61 62 31.5\n')
    with pytest.raises(DataError, match='expected the four numbers fx fy cx cy'):
        open_data(other, 'train', NYUD40)


@pytest.mark.parametrize(
    ('text', 'message'),
    [('# nothing\n', 'lists no frames'), ('now rgb/a.png\n', 'is not a list of time stamps')],
)
def test_a_wrong_list_of_a_sequence_is_told(sequence: Path, text: str, message: str) -> None:
    (sequence / 'depth.txt').write_text(text)
    with pytest.raises(DataError, match=rf'depth\.txt {message}.*from the home page of the RGB-D'):
        open_data(sequence, 'train', NYUD40)
    (sequence / 'depth.txt').write_text('1 depth/a.png\n')
    with pytest.raises(DataError, match=r'rgb\.txt has no picture within 0\.02 s of one of depth'):
        open_data(sequence, 'train', NYUD40)


def test_an_export_of_scannet_has_the_size_of_its_depth(tmp_path: Path) -> None:
    (tmp_path / 'intrinsic').mkdir()
    k = '61 0 31.5 0\n0 62 23.5 0\n0 0 1 0\n0 0 0 1\n'
    (tmp_path / 'intrinsic' / 'intrinsic_depth.txt').write_text(k)
    for name in (0, 10, 9):
        picture(tmp_path / 'color' / f'{name}.jpg', 97, 130)
        depth_picture(tmp_path / 'depth' / f'{name}.png', 1000 + name)
    data = open_data(tmp_path, 'train', NYUD40)
    assert list(data.frames) == ['0', '9', '10']
    sample = data.read(2, ['depth', 'normals'])
    assert {array.shape[:2] for array in sample.arrays.values()} == {(48, 64)}
    assert sample.arrays['depth'][0, 0] == 1010
    assert sample.fx == 61
    (tmp_path / 'intrinsic' / 'intrinsic_depth.txt').write_text('61 62')
    with pytest.raises(DataError, match='is not a matrix of 4x4 numbers'):
        open_data(tmp_path, 'train', NYUD40)


def test_pictures_that_no_list_names_are_faults(folder: Path) -> None:
    data = open_data(folder, 'train', NYUD40)
    assert list(data.faults()) == []
    picture(folder / 'attic_0.jpg', 48, 64)
    assert list(data.faults()) == [f'{folder}: 1 frames are not listed, such as attic_0.jpg']
