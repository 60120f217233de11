"""The layout of the rooms data: its classes, its list, and what is told about damage."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from mtl_training.datasets.classes import NYUD40, NYUD_ID, PASCAL21, ROBOT_GROUPS
from mtl_training.datasets.dataset import DataError
from mtl_training.datasets.rooms import Rooms, list_frames


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
