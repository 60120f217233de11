"""The layout of the rooms data: its classes, its list, and what is told about damage."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from mtl_training.datasets import open_data
from mtl_training.datasets.dataset import DataError
from mtl_training.datasets.rooms import Rooms, list_frames
from mtl_training.labels import NYUD40, NYUD_ID, PASCAL21, ROBOT_GROUPS, LabelClass

from mtl_perception.bundle import default_bundle, load_bundle
from mtl_perception.camera import CameraModel
from mtl_perception.offline.pseudo_labels import PseudoLabels
from mtl_perception.pipeline import Frame


def test_one_folder_has_the_classes_of_nyud_or_the_groups_of_a_robot(rooms: Path) -> None:
    stored = cv2.imread(str(rooms / 'train' / '000001_0_semantic.png'), cv2.IMREAD_GRAYSCALE)
    ids = {
        len(classes): Rooms(rooms, 'train', classes).read(1, ['semantic']).arrays['semantic']
        for classes in (NYUD40, ROBOT_GROUPS)
    }
    chairs, ceiling = stored == NYUD_ID['chair'], stored == NYUD_ID['ceiling']
    assert (chairs | ceiling).any()
    assert set(ids[40][chairs]) | set(ids[40][ceiling]) <= {4, 21}
    assert set(ids[18][chairs]) | set(ids[18][ceiling]) <= {5, 2}
    for array in ids.values():
        np.testing.assert_array_equal(array == 255, stored == 0)


def test_classes_that_the_files_do_not_tell_apart_are_refused(rooms: Path) -> None:
    with pytest.raises(DataError, match="train has NYUD's 40 classes, expected them or groups"):
        Rooms(rooms, 'train', PASCAL21)


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / 'frames.jsonl').write_text('{"name": "a", "fx": 1.0}\n{"name": "b", "f')
    assert [frame.prefix.name for frame in list_frames(tmp_path)] == ['a']


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'frames.jsonl is missing or is not a text'),
        ('', 'lists no frames'),
        ('not json\n', 'line 1'),
        ('{"name": "a"}\n', 'line 1'),
    ],
)
def test_unusable_lists_are_told_in_one_sentence(
    tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / 'frames.jsonl').write_text(text)
    with pytest.raises(DataError, match=message):
        list_frames(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / 'frames.jsonl').write_text('{"name": "gone", "fx": 1.0}\n')
    data = Rooms(tmp_path, '', ROBOT_GROUPS)
    with pytest.raises(DataError, match=r'gone_rgb\.jpg is missing'):
        data.read(0, ())


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / 'frames.jsonl').write_text('{"name": "a", "fx": 1.0}\n')
    (tmp_path / 'a_rgb.jpg').write_bytes(np.zeros(10, np.uint8).tobytes())
    data = Rooms(tmp_path, '', ROBOT_GROUPS)
    with pytest.raises(DataError, match='is not a picture'):
        data.read(0, ())


def test_what_a_replay_is_sure_of_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Labels of the shipped bundle's groups, for a network of groups and for one of 40 classes."""
    bundle = load_bundle(default_bundle())
    floor, chair = 1, 5
    image = np.full((256, 320, 3), 90, np.uint8)
    frame = Frame(image, CameraModel(320, 256, 277.0, 277.0, 159.5, 127.5), stamp=7)
    half = np.arange(320) < 160
    sure = np.where(half, 255, 50).astype(np.uint8) + np.zeros((256, 1), np.uint8)
    normals = np.zeros((256, 320, 3), np.float32)
    normals[..., 1] = -1
    arrays = {
        'semantic': np.full((256, 320), chair, np.uint8),
        'semantic_confidence': sure,
        'depth': np.full((256, 320), 2.5, np.float32),
        'depth_confidence': sure,
        'normals': normals,
        'edges': np.array([0, 128, 255], np.uint8)[np.arange(320) % 3] + 0 * sure,
    }
    arrays['semantic'][:128] = floor
    labels = PseudoLabels(tmp_path / 'data', bundle, 0.5)
    labels.add('first', frame, arrays, {})
    depth = np.full((128, 160), 1.25, np.float32)  # of a depth camera
    labels.add('second', frame, arrays, {'depth': depth})
    for split in ('train', 'val', 'test'):
        data = open_data(tmp_path / 'data', split, ROBOT_GROUPS)
        assert data.tasks == ('semantic', 'depth', 'normals', 'edges')
        assert list(data.faults()) == []
        sample = data.read(0, data.tasks)
        assert sample.fx == 277
        found = {task: array[[0, 255]][:, [0, 1, 2, 319]] for task, array in sample.arrays.items()}
        assert found['semantic'].tolist() == [[floor] * 3 + [255], [chair] * 3 + [255]]
        assert found['depth'].tolist() == [[2500] * 3 + [0]] * 2
        assert found['normals'][0].tolist() == [[128, 0, 128]] * 3 + [[0, 0, 0]]
        assert found['edges'][0, :3].tolist() == [0, 255, 1]
        assert data.read(1, ['depth']).arrays['depth'][0, [0, 319]].tolist() == [1250, 1250]
    nyud = open_data(tmp_path / 'data', 'train', NYUD40).read(0, ['semantic'])
    # A floor may be a floor mat, a chair is a chair.
    assert nyud.arrays['semantic'][[0, 255], 0].tolist() == [255, NYUD_ID['chair'] - 1]
    with pytest.raises(DataError, match='none of which is trained'):
        open_data(tmp_path / 'data', 'train', [LabelClass('road', (0, 0, 0))])
    (tmp_path / 'data' / 'classes.json').write_text('{}')
    with pytest.raises(DataError, match='expected a list of names'):
        open_data(tmp_path / 'data', 'train', ROBOT_GROUPS)
