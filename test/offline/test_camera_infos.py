"""Which CameraInfo of a recording belongs to an image: the node's rules, with hindsight."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip('rosbags', reason='recordings need rosbags')

from mtl_perception.camera import CameraModel
from mtl_perception.offline.camera_infos import InfoTable
from mtl_perception.offline.cdr import Types
from mtl_perception.offline.messages import _camera_info

S = 1_000_000_000
TYPES = Types()


def info(stamp: int, frame: str = 'left', focal: float = 90.0) -> Any:
    camera = CameraModel.from_calibration(160, 120, [focal, 0, 80, 0, focal, 60, 0, 0, 1])
    fields = _camera_info(TYPES, camera, '')
    kind = 'sensor_msgs/msg/CameraInfo'
    return TYPES.make(kind, header=TYPES.header(stamp, frame), **fields)


def table(*infos: Any) -> InfoTable:
    made = InfoTable()
    for index, message in enumerate(infos):
        made.add(index * S, message)
    return made


def test_its_own_stamp_and_frame_come_first() -> None:
    found = table(info(S, focal=90), info(2 * S, focal=91)).match(S, '/left', 9 * S)
    assert found.own
    assert found.info.k[0] == 90
    assert not table(info(S)).match(S - 1, 'left', 9 * S).own


def test_an_empty_frame_says_nothing() -> None:
    assert table(info(S, frame='')).match(S, 'left', 0).own
    assert table(info(S)).match(S, '', 0).own


def test_another_camera_is_not_taken() -> None:
    found = table(info(S, frame='right')).match(S, 'left', 0)
    assert found.info is None
    assert found.problem == "no CameraInfo of frame 'left', only of 'right'"


def test_without_its_own_the_one_that_held_then_is_taken() -> None:
    infos = table(info(S, focal=90), info(2 * S, focal=91))
    assert infos.match(7 * S, 'left', S - 1).info.k[0] == 90
    assert infos.match(7 * S, 'left', S).info.k[0] == 91
    assert infos.match(7 * S, 'left', -1).info.k[0] == 90  # hindsight: the first one
    assert not infos.match(7 * S, 'left', S).own


def test_two_cameras_on_a_topic_are_noticed() -> None:
    same = table(info(S, focal=90), info(S, focal=50))
    assert 'with one stamp' in same.match(S, 'left', S).problem
    turns = table(*(info(i * S, focal=f) for i, f in enumerate((90, 50, 90, 50))))
    assert 'in turns' in turns.match(9 * S, 'left', 3 * S).problem
