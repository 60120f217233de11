"""A replay is judged camera by camera, against truth of its own pixels only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rosbags', reason='packs messages')

from mtl_perception.bundle import load_bundle
from mtl_perception.camera import Letterbox
from mtl_perception.offline.judging import Judge
from mtl_perception.offline.recordings import Recorded, Types
from mtl_perception.pipeline import Frame, Prediction

HEIGHT, WIDTH = 64, 96
KIND = 'sensor_msgs/msg/Image'
TYPES = Types()


def prediction(camera: str, depth: float) -> Prediction:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    return Prediction(
        frame=Frame(image, camera=camera, frame_id=f'{camera}_optical', stamp=10**9),
        grid=Letterbox.fit(WIDTH, HEIGHT, WIDTH, HEIGHT),
        arrays={'depth': np.full((HEIGHT, WIDTH), depth, np.float32)},
        image=image,
        calibration=None,
        metric=True,
        timings_ms={},
    )


def depth_message(frame_id: str, millimetres: int) -> Recorded:
    depth = np.full((HEIGHT * 2, WIDTH * 2), millimetres, np.uint16)
    data = TYPES.pack(
        KIND,
        header=TYPES.header(10**9, frame_id),
        height=HEIGHT * 2,
        width=WIDTH * 2,
        encoding='16UC1',
        is_bigendian=0,
        step=WIDTH * 4,
        data=np.frombuffer(depth.tobytes(), np.uint8),
    )
    return Recorded('/depth', KIND, 10**9, data)


def judge(tiny_bundle: Path, *, pages: bool) -> Judge:
    def unpack(message: Recorded) -> object:
        return TYPES.unpack(message.type, message.data)

    return Judge(load_bundle(tiny_bundle), {'/depth': 'depth'}, unpack, pages=pages)


@pytest.mark.parametrize('pages', [False, True])
def test_cameras_are_judged_apart(tiny_bundle: Path, pages: bool) -> None:
    watching = judge(tiny_bundle, pages=pages)
    watching.add(prediction('front', 2.0), {'/depth': depth_message('front_optical', 2000)}, {})
    watching.add(prediction('rear', 3.0), {'/depth': depth_message('rear_optical', 2000)}, {})
    watching.add(prediction('rear', 3.0), {}, {})
    scores = watching.scores()
    assert scores['front'][0]['depth']['absrel'] == pytest.approx(0)
    assert scores['rear'][0]['depth']['absrel'] == pytest.approx(0.5)
    assert scores['rear'][1] == {'depth': 1}
    assert watching.problem() == ''


def test_depth_that_is_not_registered_is_said_and_not_used(tiny_bundle: Path) -> None:
    watching = judge(tiny_bundle, pages=False)
    watching.add(prediction('front', 2.0), {'/depth': depth_message('lidar', 2000)}, {})
    assert watching.scores()['front'] == ({}, {})
    assert 'depth of frame lidar is not registered' in watching.problem()


def test_several_cameras_have_a_page_each(tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip('plotly', reason='its library is in the page')
    one, two = judge(tiny_bundle, pages=True), judge(tiny_bundle, pages=True)
    for camera in ('front', 'rear'):
        two.add(prediction(camera, 2.0), {}, {})
    one.add(prediction('front', 2.0), {}, {})
    path = tmp_path / 'report.html'
    assert one.write(path, 'Replay', {}) == [path]
    assert [page.name for page in two.write(path, 'Replay', {})] == [
        'report_front.html',
        'report_rear.html',
    ]
    assert '<title>Replay, rear</title>' in (tmp_path / 'report_rear.html').read_text()
