"""Data sets as their authors publish them, on tiny files in exactly those formats."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mtl_training.cli import main
from mtl_training.datasets import open_data
from mtl_training.datasets.dataset import ClassesError, DataError
from mtl_training.labels import CITYSCAPES19, NYUD40, PASCAL21, LabelClass
from PIL import Image
from scipy.io import savemat

SHAPE = (40, 60)
INDOORS = (425, 560)


def write(path: Path, array: np.ndarray) -> None:
    """As .npy, or as a picture, RGB if it has colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.npy':
        np.save(path, array)
        return
    assert cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)


def faults(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    main(['data', 'check', str(folder)])
    return capsys.readouterr().out.splitlines()[:-1]


def picture() -> np.ndarray:
    return np.full((*SHAPE, 3), (0, 100, 200), np.uint8)


# NYUD_MT


@pytest.fixture
def nyud_mt(tmp_path: Path) -> Path:
    """One frame of train and one of val."""
    (tmp_path / 'gt_sets').mkdir()
    for split, name in {'train': '0003', 'val': '0001'}.items():
        (tmp_path / 'gt_sets' / f'{split}.txt').write_text(name + '\n')
        ids = np.zeros(INDOORS, np.uint8)
        ids[10:] = 40
        depth = np.full(INDOORS, 1.2344, np.float32)
        depth[0] = 0
        depth[1] = 70
        normals = np.zeros((*INDOORS, 3), np.float32)
        normals[5:] = (0.6, 0, -0.8)
        edges = np.zeros(INDOORS, np.float32)
        edges[7] = 1
        write(tmp_path / 'images' / f'{name}.jpg', np.full((*INDOORS, 3), (0, 100, 200), np.uint8))
        write(tmp_path / 'segmentation' / f'{name}.png', ids)
        write(tmp_path / 'depth' / f'{name}.npy', depth)
        write(tmp_path / 'normals' / f'{name}.npy', normals)
        write(tmp_path / 'edge' / f'{name}.npy', edges)
    return tmp_path


def test_nyud_of_the_survey(nyud_mt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [list(open_data(nyud_mt, split, NYUD40).frames) for split in ('train', 'test')] == [
        ['0003'],
        ['0001'],
    ]
    data = open_data(nyud_mt, 'val', NYUD40)
    sample = data.read(0, data.tasks)
    arrays = sample.arrays
    assert sample.fx == 518.858
    assert arrays['semantic'][:, 0].tolist() == [255] * 10 + [39] * 415
    assert arrays['depth'][:3, 0].tolist() == [0, 0, 1234]
    assert arrays['normals'][4, 0].tolist() == [0, 0, 0]
    np.testing.assert_allclose(arrays['normals'][5, 0] / 127.5 - 1, (0.6, 0, -0.8), atol=0.005)
    assert np.flatnonzero(arrays['edges'][:, 0]).tolist() == [7]
    assert faults(nyud_mt, capsys) == [
        f'{nyud_mt}, train: 1 frames, expected 795',
        f'{nyud_mt}, val: 1 frames, expected 654',
    ]


def test_damage_in_nyud_of_the_survey(nyud_mt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (nyud_mt / 'gt_sets' / 'train.txt').write_text('0003\n0001\n')
    path = nyud_mt / 'depth' / '0003.npy'
    path.write_bytes(path.read_bytes()[:99])
    write(nyud_mt / 'edge' / '0001.npy', np.zeros((*INDOORS, 1)))
    lines = faults(nyud_mt, capsys)
    source = '; the data set is from NYUD_MT.tgz, which the repositories of the survey and of ATRC '
    assert f'{nyud_mt}, train: 0001 is in the other split, too' in lines
    assert f'{path} is missing or is not an array of NumPy{source}link' in lines
    wrong = f'{nyud_mt}/edge/0001.npy is float64 [425, 560, 1], expected 2 axes{source}link'
    assert lines.count(wrong) == 2


def test_pictures_of_another_size_have_another_focal_length(nyud_mt: Path) -> None:
    write(nyud_mt / 'images' / '0001.jpg', picture())
    with pytest.raises(DataError, match=r'0001\.jpg is 60x40, expected 560x425 or 640x480'):
        open_data(nyud_mt, 'val', NYUD40).read(0, [])


# PASCAL_MT


def annotation(parts: dict[str, np.ndarray], class_index: int = 15) -> dict[str, object]:
    """What a file of PASCAL-Part has: MATLAB structures within structures."""
    members = np.zeros((1, len(parts)), [('part_name', object), ('mask', object)])
    for index, (name, mask) in enumerate(parts.items()):
        members[0, index] = (name, mask.astype(np.uint8))
    body = np.zeros(
        (1, 1), [('class', object), ('class_ind', object), ('mask', object), ('parts', object)]
    )
    body[0, 0] = ('person', class_index, np.ones(SHAPE, np.uint8), members)
    whole = np.zeros((1, 1), [('imname', object), ('objects', object)])
    whole[0, 0] = ('2008_000003', body)
    return {'anno': whole}


@pytest.fixture
def pascal(tmp_path: Path) -> Path:
    """A frame with a person for training, one without for validation."""
    lists = tmp_path / 'ImageSets' / 'Context'
    lists.mkdir(parents=True)
    (tmp_path / 'human_parts').mkdir()
    (tmp_path / 'semseg' / 'VOC12').mkdir(parents=True)
    (tmp_path / 'semseg' / 'pascal-context').mkdir()
    (tmp_path / 'pascal-context' / 'trainval').mkdir(parents=True)
    head, hand, foot = (np.zeros(SHAPE, bool) for _ in range(3))
    head[:10, :10], hand[10:20, :10], foot[30:, :10] = True, True, True
    for split, name in {'train': '2008_000003', 'val': '2008_000004'}.items():
        (lists / f'{split}.txt').write_text(name + '\n')
        write(tmp_path / 'JPEGImages' / f'{name}.jpg', picture())
        parts = {'rear': head, 'lhand': hand, 'rfoot': foot} if split == 'train' else {}
        savemat(tmp_path / 'human_parts' / f'{name}.mat', annotation(parts))
        semantic = Image.fromarray(np.repeat([[0], [15], [20], [255]], 10, axis=0).astype(np.uint8))
        semantic = semantic.resize(SHAPE[::-1], Image.Resampling.NEAREST).convert('P')
        semantic.putpalette([value % 256 for value in range(40, 808)])
        where = 'VOC12' if split == 'train' else 'pascal-context'
        semantic.save(tmp_path / 'semseg' / where / f'{name}.png')
        context = np.full(SHAPE, 420, np.uint16)  # trees
        context[:, 30:] = 440  # a wall
        labels = tmp_path / 'pascal-context' / 'trainval' / f'{name}.mat'
        savemat(labels, {'LabelMap': context})
        normals = np.full((*SHAPE, 3), (128, 128, 255), np.uint8)
        write(tmp_path / 'normals_distill' / f'{name}.png', normals)
        saliency = np.full(SHAPE, 127, np.uint8)
        saliency[:, :20] = 128
        write(tmp_path / 'sal_distill' / f'{name}.png', saliency)
    return tmp_path


def test_pascal_context(pascal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = open_data(pascal, 'train', PASCAL21)
    assert data.tasks == ('semantic', 'human_parts', 'saliency', 'normals', 'edges')
    assert [len(data.classes[task]) for task in ('semantic', 'human_parts')] == [21, 7]
    arrays = data.read(0, data.tasks).arrays
    assert arrays['semantic'][::10, 0].tolist() == [0, 15, 20, 255]
    assert arrays['human_parts'][::10, 0].tolist() == [1, 4, 0, 6]
    assert np.flatnonzero(arrays['saliency'][0]).tolist() == list(range(20))
    assert not arrays['normals'][:, :30].any()  # trees
    assert (arrays['normals'][:, 30:] == (128, 128, 255)).all()
    line = np.flatnonzero(arrays['edges'][20])
    assert len(line) == 1
    assert line[0] in (29, 30)
    nobody = open_data(pascal, 'test', PASCAL21).read(0, data.tasks).arrays
    assert (nobody['human_parts'] == 255).all()
    assert nobody['semantic'][::10, 0].tolist() == [0, 15, 20, 255]
    assert faults(pascal, capsys) == [
        f'{pascal}, train: 1 frames, expected 4998',
        f'{pascal}, val: 1 frames, expected 5105',
    ]


def test_animals_have_no_human_parts(pascal: Path) -> None:
    mask = np.ones(SHAPE, bool)
    savemat(pascal / 'human_parts' / '2008_000003.mat', annotation({'head': mask}, 12))
    arrays = open_data(pascal, 'train', PASCAL21).read(0, ['human_parts']).arrays
    assert (arrays['human_parts'] == 255).all()


def test_damage_in_pascal_context(pascal: Path) -> None:
    data = open_data(pascal, 'train', PASCAL21)
    mask = np.ones(SHAPE, bool)
    savemat(pascal / 'human_parts' / '2008_000003.mat', annotation({'tail': mask}))
    with pytest.raises(DataError, match=r'is not an annotation of PASCAL-Part: .*tail'):
        data.read(0, ['human_parts'])
    labels = pascal / 'pascal-context' / 'trainval' / '2008_000003.mat'
    labels.write_bytes(labels.read_bytes()[:150])
    with pytest.raises(DataError, match=r'000003\.mat is missing, damaged or has no LabelMap'):
        data.read(0, ['edges'])
    path = pascal / 'semseg' / 'VOC12' / '2008_000003.png'
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r'VOC12/2008_000003\.png is missing or is not a picture'):
        data.read(0, ['semantic'])
    Image.fromarray(np.full(SHAPE, 21, np.uint8)).save(path)
    with pytest.raises(DataError, match=r'has the id 21, expected 0\.\.20 or 255.*PASCAL_MT'):
        data.read(0, ['semantic'])
    with pytest.raises(ClassesError, match="has VOC's 21 classes"):
        open_data(pascal, 'train', NYUD40)


# Cityscapes


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """A frame for training and one for validation; every column has another of the 34 ids."""
    for split, name in {'train': 'ulm/ulm_000000_000019', 'val': 'lindau/lindau_0_19'}.items():
        ids = np.tile(np.arange(60, dtype=np.uint8) % 34, (40, 1))
        write(tmp_path / 'leftImg8bit' / split / f'{name}_leftImg8bit.png', picture())
        write(tmp_path / 'gtFine' / split / f'{name}_gtFine_labelIds.png', ids)
        camera = tmp_path / 'camera' / split / f'{name}_camera.json'
        camera.parent.mkdir(parents=True)
        camera.write_text(json.dumps({'intrinsic': {'fx': 66.5, 'fy': 67, 'u0': 30, 'v0': 20}}))
    return tmp_path


def test_cityscapes(cityscapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = open_data(cityscapes, 'train', CITYSCAPES19)
    assert list(data.frames) == ['ulm/ulm_000000_000019']
    sample = data.read(0, ['semantic'])
    assert sample.fx == 66.5
    row = sample.arrays['semantic'][0, :34]
    names = {7: 'road', 11: 'building', 17: 'pole', 23: 'sky', 24: 'person', 26: 'car'}
    assert {index: CITYSCAPES19[row[index]].name for index in names} == names
    assert sorted(row[row != 255]) == list(range(19))
    assert row[33] == 18  # bicycle
    assert list(open_data(cityscapes, 'test', CITYSCAPES19).frames) == ['lindau/lindau_0_19']
    ground = (LabelClass('ground', (0, 0, 0), ('road', 'sidewalk')),)
    groups = open_data(cityscapes, 'train', ground).read(0, ['semantic']).arrays['semantic']
    assert np.flatnonzero(groups[0, :34] == 0).tolist() == [7, 8]
    (cityscapes / 'leftImg8bit' / 'val' / 'lindau' / 'lindau_0_19_leftImg8bit.png').rename(
        cityscapes / 'leftImg8bit' / 'val' / 'lindau' / 'lindau_1_19_leftImg8bit.png'
    )
    lines = faults(cityscapes, capsys)
    assert lines[:3] == [
        f'{cityscapes}, train: 1 frames, expected 2975',
        f'{cityscapes}, val: 1 frames, expected 500',
        f'{cityscapes}, val: lindau/lindau_0_19 has labels and no picture',
    ]
    assert 'lindau_1_19_gtFine_labelIds.png is missing or is not a picture' in lines[3]
    assert len(lines) == 4


def test_damage_in_cityscapes(cityscapes: Path) -> None:
    data = open_data(cityscapes, 'train', CITYSCAPES19)
    name = 'train/ulm/ulm_000000_000019'
    (cityscapes / 'camera' / f'{name}_camera.json').write_text('{}')
    with pytest.raises(DataError, match=r'camera\.json has no intrinsic with fx; .* Cityscapes'):
        data.read(0, [])
    write(cityscapes / 'gtFine' / f'{name}_gtFine_labelIds.png', np.full(SHAPE, 34, np.uint8))
    with pytest.raises(DataError, match=r'has the id 34, expected 0\.\.33 or 255'):
        data.read(0, ['semantic'])
    with pytest.raises(ClassesError, match='has 19 classes'):
        open_data(cityscapes, 'train', NYUD40)


# KITTI depth


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    """Two cameras of one drive for training, one of another for validation."""
    day = '2011_09_26'
    for split, drive, cameras in (('train', '0001', '23'), ('val', '0002', '2')):
        name = f'{day}_drive_{drive}_sync'
        for camera in cameras:
            depth = np.zeros(SHAPE, np.uint16)
            depth[20, ::2] = 256 * 12 + 64  # 12.25 m
            depth[10, ::2] = 256 * 70
            truth = tmp_path / split / name / 'proj_depth' / 'groundtruth' / f'image_0{camera}'
            write(truth / '0000000005.png', depth)
            raw = tmp_path / 'raw' / day / name / f'image_0{camera}' / 'data'
            write(raw / '0000000005.png', picture())
    lines = [f'P_rect_0{c}: 7{c}.5 0 30 4.4 0 72.5 20 0.2 0 0 1 0.003' for c in (2, 3)]
    calibration = tmp_path / 'raw' / day / 'calib_cam_to_cam.txt'
    calibration.write_text('\n'.join(['calib_time: 09-Jan-2012', *lines, '']))
    return tmp_path


def test_kitti_depth(kitti: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = open_data(kitti, 'train', CITYSCAPES19)
    assert list(data.frames) == [
        f'2011_09_26_drive_0001_sync/image_0{camera}/0000000005' for camera in (2, 3)
    ]
    assert data.tasks == ('depth',)
    samples = [data.read(index, ['depth']) for index in range(2)]
    assert [sample.fx for sample in samples] == [72.5, 73.5]
    depth = samples[0].arrays['depth']
    assert depth[20, :4].tolist() == [12250, 0, 12250, 0]
    assert not depth[10].any()  # beyond 65.5 m
    assert len(open_data(kitti, 'test', CITYSCAPES19)) == 1
    assert faults(kitti, capsys) == []


def test_damage_in_kitti_depth(kitti: Path) -> None:
    path = kitti / 'raw' / '2011_09_26' / 'calib_cam_to_cam.txt'
    path.write_text('P_rect_02: \n')
    with pytest.raises(DataError, match=r"has 'P_rect_02: ', expected numbers; .* KITTI"):
        open_data(kitti, 'train', CITYSCAPES19)
    path.write_text('P_rect_00: 1\n')
    with pytest.raises(DataError, match=r'calib_cam_to_cam\.txt has no P_rect_02'):
        open_data(kitti, 'train', CITYSCAPES19)
