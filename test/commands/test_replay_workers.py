"""``mtl_perception replay --workers``: the same bytes, whoever made them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags', reason='recordings need rosbags')
pytest.importorskip('onnxruntime', reason='runs the tiny network')

from mtl_perception.commands import cli
from mtl_perception.commands import replay as command
from mtl_perception.commands.replay import INCOMPLETE

SAMPLE = Path(__file__).parents[2] / 'resource' / 'sample' / 'rooms'
WORDS = ('--outputs', 'depth,semantic,points', '--keep', '/camera/camera_info', '--duration', '3')


@pytest.fixture
def replay(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr('mtl_perception.offline.runners._PIECE', 4)

    def run(source: Path, out: Path, *words: str) -> int:
        engine = ('--bundle', str(tiny_bundle), '--backend', 'onnxruntime')
        return cli.main(['replay', str(source), str(out), *words, *engine])

    return run


def test_workers_and_batches_make_the_same_bytes(replay: Any, tmp_path: Path) -> None:
    """Also where the last piece is not full, and pieces are cut by batches."""
    for name, more in (('alone', ()), ('two', ('--workers', '2', '--batch', '3'))):
        assert replay(SAMPLE, tmp_path / name / 'out', *WORDS, *more) == 0
    files = [(tmp_path / name / 'out' / 'out.mcap').read_bytes() for name in ('alone', 'two')]
    assert files[0] == files[1]


def test_a_worker_that_is_killed_is_said_and_nothing_is_lost(
    replay: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('mtl_perception.offline.writing._CHECKPOINT_S', 0.0)

    class Bar(command.ProgressBar):
        def update(self, done: int) -> None:
            if done == 5:
                os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)

    assert replay(SAMPLE, tmp_path / 'whole' / 'out', *WORDS) == 0
    with monkeypatch.context() as patch:
        patch.setattr(command, 'ProgressBar', Bar)
        assert replay(SAMPLE, tmp_path / 'part' / 'out', *WORDS, '--workers', '2') == 1
    error = capsys.readouterr().err
    assert 'a worker process ended' in error
    assert len(error.splitlines()) == 1
    assert replay(SAMPLE, tmp_path / 'part' / 'out', *WORDS, '--workers', '2', '--resume') == 0
    files = [(tmp_path / name / 'out' / 'out.mcap').read_bytes() for name in ('whole', 'part')]
    assert files[0] == files[1]


def test_workers_read_pictures_and_videos_and_say_what_is_bad(
    replay: Any, tmp_path: Path, capsys: Any
) -> None:
    folder = tmp_path / 'walk'
    folder.mkdir()
    video = cv2.VideoWriter(
        str(tmp_path / 'walk.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (96, 64)
    )
    for index in range(3):
        picture = np.full((64, 96, 3), 50 * index, np.uint8)
        cv2.imwrite(str(folder / f'{index}.png'), picture)
        video.write(picture)
    video.release()
    (folder / '1.png').write_bytes((folder / '1.png').read_bytes()[:100])
    for name, more in (('alone', ()), ('two', ('--workers', '2'))):
        capsys.readouterr()
        assert replay(folder, tmp_path / name / 'out', '--fov', '60', *more) == INCOMPLETE
        assert '1 images could not be used: truncated' in capsys.readouterr().out
        assert replay(tmp_path / 'walk.avi', tmp_path / name / 'video', *more) == 0
        assert '3 frames without a calibration' in capsys.readouterr().out
    for file in ('out/out.mcap', 'video/video.mcap'):
        assert (tmp_path / 'alone' / file).read_bytes() == (tmp_path / 'two' / file).read_bytes()
