"""`mtl_training data check`: every kind of damage is one line, and what is whole is said to be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mtl_training.cli import main
from mtl_training.datasets.augment import Sample
from mtl_training.datasets.check import faults_of
from mtl_training.labels import NYUD40
from mtl_training.tasks import every

TASKS = every(NYUD40)


def check(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    code = main(['data', 'check', str(path)])
    return code, capsys.readouterr().out.splitlines()


@pytest.fixture
def broken(rooms: Path, tmp_path: Path) -> Path:
    """A copy of the rooms that a test may damage."""
    return Path(shutil.copytree(rooms, tmp_path / 'broken'))


def test_a_whole_set_has_no_faults(rooms: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(rooms, capsys) == (0, [f'{rooms}: 17 frames, no faults'])


def test_every_damage_is_one_line_that_names_the_file(
    broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = broken / 'train'
    (train / '000001_0_rgb.jpg').unlink()
    for name in ('000002_0_depth.png', '000003_0_rgb.jpg'):
        data = (train / name).read_bytes()
        (train / name).write_bytes(data[: len(data) // 2])  # a copy that was cut short
    cv2.imwrite(str(train / '000004_0_semantic.png'), np.full((64, 96), 77, np.uint8))
    cv2.imwrite(str(train / '000005_0_edges.png'), np.zeros((32, 48), np.uint8))
    cv2.imwrite(str(train / '000006_0_depth.png'), np.full((64, 96), 200, np.uint8))
    shutil.copy(train / '000000_0_rgb.jpg', train / '000099_0_rgb.jpg')
    shutil.rmtree(broken / 'test')
    code, lines = check(broken, capsys)
    assert code == 1
    source = '; the data set is from `mtl_training rooms render`'
    for line, start in zip(
        lines,
        (
            f'{train}: 1 frames are not listed, such as 000099_0',
            f'{train}/000001_0_rgb.jpg is missing or is not a picture{source}',
            f'{train}/000002_0_depth.png is missing or is not a picture{source}',
            f'{train}/000003_0_rgb.jpg is missing or is not a picture{source}',
            f'{train}/000004_0_semantic.png has the id 77, expected 0..40 or 255{source}',
            f'{train}, 000005_0: edges is 48x32, expected 96x64 as the picture',
            f'{train}/000006_0_depth.png is uint8 [64, 96], expected uint16 [H, W]{source}',
            f'{broken}/test/frames.jsonl is missing or is not a text{source}',
            f'{broken}: 13 frames, 8 faults',
        ),
        strict=True,
    ):
        assert line.startswith(start), line


def test_a_frame_is_listed_once(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (broken / 'train' / 'frames.jsonl').open('a') as frames:
        frames.write(json.dumps({'name': '000000_0', 'fx': 80}) + '\n')
    code, lines = check(broken, capsys)
    assert code == 1
    assert lines == [
        f'{broken}/train: 000000_0 is listed 2 times',
        f'{broken}: 18 frames, 1 fault',
    ]


def frame(**arrays: object) -> Sample:
    whole = {'image': np.zeros((4, 8, 3), np.uint8)}
    return Sample({**whole, **{name: np.asarray(array) for name, array in arrays.items()}}, 8.0)


@pytest.mark.parametrize(
    ('sample', 'fault'),
    [
        (frame(depth=np.full((4, 8), 0, np.uint16)), 'no pixel has a label of depth'),
        (frame(depth=np.full((4, 8), 3, np.uint16)), 'half of the depths are below 0.003 m'),
        (frame(depth=np.full((4, 8), 61000, np.uint16)), 'half of the depths are below 61 m'),
        (frame(semantic=np.full((4, 8), 255, np.uint8)), 'no pixel has a label of semantic'),
        (frame(semantic=np.full((4, 8), 40, np.uint8)), 'semantic labels have the id 40'),
        (frame(human_parts=np.full((4, 8), 7, np.uint8)), 'human_parts labels have the id 7'),
        (frame(edges=np.full((4, 8), 2, np.uint8)), 'edges labels have the value 2'),
        (frame(normals=np.full((4, 8, 3), 200, np.uint8)), 'normals look away'),
        (frame(normals=np.full((4, 8, 3), 128, np.uint8)), 'normals are not of length 1'),
        (Sample(frame().arrays, 0.5), 'the focal length is 0.5 px, expected 1 to 64'),
        (Sample(frame().arrays, 500.0), 'the focal length is 500 px'),
    ],
)
def test_labels_that_cannot_be(sample: Sample, fault: str) -> None:
    if 'normals' in fault and 'away' in fault:
        sample.arrays['normals'] = np.full((4, 8, 3), (128, 128, 255), np.uint8)
    found = list(faults_of(sample, TASKS))
    assert len(found) == 1
    assert found[0].startswith(fault)


def test_labels_that_can_be_are_left_in_peace() -> None:
    towards = np.full((4, 8, 3), (128, 128, 0), np.uint8)
    towards[0] = 0
    sample = frame(
        depth=np.full((4, 8), 900, np.uint16),
        normals=towards,
        edges=np.full((4, 8), 255, np.uint8),
        human_parts=np.full((4, 8), 255, np.uint8),
    )
    assert not list(faults_of(sample, TASKS))


def test_a_wall_beside_a_camera_that_looks_past_it_faces_the_camera() -> None:
    normals = np.zeros((4, 8, 3), np.uint8)
    normals[:, :3] = np.round((np.array([0.95, 0, 0.31]) + 1) * 127.5)  # z > 0, and n . ray < 0
    sample = Sample({**frame().arrays, 'normals': normals}, 2.0)
    assert not list(faults_of(sample, TASKS))
    normals[:, :3] = np.round((np.array([-0.95, 0, -0.31]) + 1) * 127.5)
    assert list(faults_of(sample, TASKS)) == [
        'normals look away from the camera, expected n . ray < 0'
    ]


def test_a_mixture_is_as_whole_as_its_sets(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixture = tmp_path / 'mixture.yaml'
    entries = [{'path': 'broken'}, {'path': 'broken', 'weight': 3}, {'path': 'gone'}]
    mixture.write_text(json.dumps(entries[:2]))
    assert check(mixture, capsys) == (0, [f'{mixture}: 17 frames, no faults'])
    mixture.write_text(json.dumps(entries))
    code, lines = check(mixture, capsys)
    assert code == 1
    assert lines[0].startswith(f'{tmp_path}/gone is not a data set that can be read')
    mixture.write_text(json.dumps([{'path': 'broken', 'only': ['kitchen'], 'splits': ['val']}]))
    code, lines = check(mixture, capsys)
    assert code == 1
    assert 'no frames are left of 4 by only' in lines[0]
    assert lines[1] == f'{mixture}: 17 frames, 1 fault'


def test_damage_in_a_worker_process_is_one_line(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (broken / 'train' / '000001_0_rgb.jpg').unlink()
    tiny = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'
    words = ['train', str(tiny), '--data', str(broken), '--out', str(tmp_path / 'run')]
    assert main([*words, '--set', 'data.workers=1']) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f'mtl_training train: {broken}/train/000001_0_rgb.jpg is missing or is')
    assert 'Traceback' not in told
