"""Runs that are judged while they go by: figures, pages, and depth cameras as ground truth."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

cv2 = pytest.importorskip('cv2')
pytest.importorskip('rosbags', reason='reads recordings')
pytest.importorskip('onnxruntime', reason='runs the tiny network')

from mtl_perception.commands import cli  # noqa: E402
from mtl_perception.commands import replay as command  # noqa: E402
from mtl_perception.offline.recordings import RecordingWriter  # noqa: E402

SAMPLE = Path(__file__).parents[2] / 'resource' / 'sample' / 'rooms'
WIDTH, HEIGHT = 96, 64


def figures(text: str) -> list[str]:
    """The lines with figures of tasks."""
    return re.findall(r'^  \w+ .*\(\d+ frames\)$', text, re.MULTILINE)


@pytest.fixture
def replay(make_bundle: Any) -> Any:
    """Runs the command with the tiny network; its classes are as many as the sample's."""

    def many(description: dict[str, Any]) -> None:
        colors = [{'id': i, 'name': f'class {i}', 'color': [i, 0, 0]} for i in range(18)]
        description['tasks']['semantic']['classes'] = colors

    bundle = make_bundle(many, name='many')

    def run(source: Path, *words: str, name: str = 'replay') -> int:
        engine = [] if name == 'evaluate' else ['--backend', 'onnxruntime']
        return cli.main([name, str(source), *words, '--bundle', str(bundle), *engine])

    return run


def test_a_replay_is_judged_as_its_bag_would_be(
    replay: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('plotly', reason='its library is in the page')
    out, page = tmp_path / 'out', tmp_path / 'report.html'
    words = ('--duration', '2', '--report', str(page))
    assert replay(SAMPLE, str(out), *words) == 0
    told = capsys.readouterr().out
    while_going = figures(told)
    assert re.search(r'^  flicker   semantic 0\.\d+ share of points', told, re.MULTILINE)
    assert replay(out, '--input', str(SAMPLE), name='evaluate') == 0
    assert figures(capsys.readouterr().out) == while_going
    assert len(while_going) == 4
    found = re.search(r'id="data">(.*?)</script>', page.read_text(), re.S)
    assert found is not None
    report = json.loads(found[1])
    titles = [section['title'] for section in report['sections']]
    assert {'Accuracy', 'Over time', 'Calibration of confidences', 'Rates and latency'} <= {*titles}
    assert {'image', 'depth', 'depth truth', 'depth error'} <= {*report['film']['layers']}


def test_what_is_resumed_is_judged_as_a_whole(
    replay: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = ('--duration', '2', '--evaluate')
    assert replay(SAMPLE, str(tmp_path / 'whole'), *words) == 0
    whole = figures(capsys.readouterr().out)

    class Bar(command.ProgressBar):
        def update(self, done: int) -> None:
            if done == 12:
                raise KeyboardInterrupt

    monkeypatch.setattr('mtl_perception.offline.writing._CHECKPOINT_S', 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(command, 'ProgressBar', Bar)
        assert replay(SAMPLE, str(tmp_path / 'part'), *words) == 130
    assert replay(SAMPLE, str(tmp_path / 'part'), *words, '--resume') == 0
    assert figures(capsys.readouterr().out) == whole


@pytest.fixture
def rgbd(tmp_path: Path) -> Path:
    """Two colour cameras, and a depth camera in the frame of the left one, half as large, late.

    The tiny network says 5 m everywhere, which is true of the left half; the rest is unknown.
    """
    path = tmp_path / 'rgbd'
    depth = np.zeros((HEIGHT // 2, WIDTH // 2), np.uint16)
    depth[:, : WIDTH // 4] = 5000
    color = np.full((HEIGHT, WIDTH, 3), (100, 60, 20), np.uint8)
    k = np.array([100, 0, WIDTH / 2, 0, 100, HEIGHT / 2, 0, 0, 1], float)
    with RecordingWriter(path) as writer:
        types = writer.types

        def image(frame: str, stamp: int, array: np.ndarray, encoding: str) -> bytes:
            return types.pack(
                'sensor_msgs/msg/Image',
                header=types.header(stamp, frame),
                height=array.shape[0],
                width=array.shape[1],
                encoding=encoding,
                is_bigendian=0,
                step=array.strides[0],
                data=np.frombuffer(array.tobytes(), np.uint8),
            )

        region = types.make(
            'sensor_msgs/msg/RegionOfInterest',
            **dict.fromkeys(('x_offset', 'y_offset', 'height', 'width'), 0),
            do_rectify=False,
        )
        for index in range(4):
            stamp = 10**9 + index * 10**8
            for camera in ('left', 'right'):
                info = types.pack(
                    'sensor_msgs/msg/CameraInfo',
                    header=types.header(stamp, camera),
                    height=HEIGHT,
                    width=WIDTH,
                    distortion_model='plumb_bob',
                    d=np.zeros(5),
                    k=k,
                    r=np.eye(3).ravel(),
                    p=np.insert(k, [3, 6, 9], 0),
                    binning_x=0,
                    binning_y=0,
                    roi=region,
                )
                writer.write(f'/{camera}/camera_info', 'sensor_msgs/msg/CameraInfo', stamp, info)
                picture = image(camera, stamp, color, 'rgb8')
                writer.write(f'/{camera}/image', 'sensor_msgs/msg/Image', stamp, picture)
            # The second one is too late to be of its image.
            late = 15_000_000 if index != 1 else 25_000_000
            picture = image('left', stamp + late, depth, '16UC1')
            writer.write('/stereo/image', 'sensor_msgs/msg/Image', stamp + late, picture)
    return path


def test_a_depth_camera_is_the_truth_of_the_colour_camera_whose_pixels_it_has(
    replay: Any, rgbd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(rgbd, str(tmp_path / 'out'), '--evaluate', '--camera', '/left/image') == 0
    (line,) = figures(capsys.readouterr().out)
    assert re.search(r'depth .*absrel 0,.*coverage 1  \(3 frames\)', line)


def test_every_camera_has_figures_and_a_page_of_its_own(
    replay: Any, rgbd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('plotly', reason='its library is in the page')
    cameras = ('--camera', '/left/image', '--camera', '/right/image')
    words = ('--report', str(tmp_path / 'page.html'))
    assert replay(rgbd, str(tmp_path / 'out'), *cameras, *words) == 0
    text = capsys.readouterr().out
    left, right = text.split('left:\n')[1].split('right:\n')
    assert len(figures(left)) == 1
    assert 'There is no ground truth' in right
    assert 'depth of frame left is not registered' in right
    assert re.search(r'^  truth +/stereo/image$', left, re.MULTILINE)
    assert not re.search('^  truth', right, re.MULTILINE)
    pages = [(tmp_path / f'page_{name}.html').read_text() for name in ('left', 'right')]
    assert '["ground truth","/stereo/image"]' in pages[0]
    assert 'Note: depth of frame left is not registered' in pages[1]
    assert 'ground truth"' not in pages[1]


def test_pictures_are_run_without_a_truth(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'photos').mkdir()
    for index in range(3):
        picture = np.full((HEIGHT, WIDTH, 3), 20 * index, np.uint8)
        cv2.imwrite(str(tmp_path / 'photos' / f'{index}.png'), picture)
    words = [f'{tiny_bundle}@onnxruntime:fp32', '--input', str(tmp_path / 'photos'), '--fov', '60']
    assert cli.main(['evaluate', *words]) == 0
    assert 'There is no ground truth' in capsys.readouterr().out
    assert cli.main(['compare', words[0], *words]) == 0
    text = capsys.readouterr().out
    assert '3 frames, 3 of them equal bit by bit.' in text
    assert 'depth' in text  # metric by --fov


def test_several_inputs_have_a_page_each(
    replay: Any, rgbd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('plotly', reason='its library is in the page')
    words = ('--camera', '/left/image', '--report', str(tmp_path / 'page.html'))
    other = shutil.copytree(rgbd, tmp_path / 'other')
    assert replay(rgbd, str(other), str(tmp_path / 'out'), *words) == 0
    assert len(figures(capsys.readouterr().out)) == 2
    assert (tmp_path / 'page_rgbd.html').exists()
    assert (tmp_path / 'page_other.html').exists()


def test_a_terminal_sees_how_far_the_judging_is(tiny_bundle: Path, rgbd: Path) -> None:
    terminal, end = pty.openpty()
    words = ['evaluate', f'{tiny_bundle}@onnxruntime:fp32', '--input', str(rgbd)]
    program = [sys.executable, '-m', 'mtl_perception.commands.cli', *words]
    done = subprocess.run(
        [*program, '--image', '/left/image'],
        stdout=subprocess.PIPE,
        stderr=end,
        text=True,
        check=True,
    )
    os.close(end)
    shown = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert '1/4 frames' in shown
    assert shown.endswith('\r\x1b[K')  # and it is gone at the end
    assert figures(done.stdout)


def test_what_the_network_is_sure_of_becomes_labels(
    replay: Any, rgbd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Confidences are 0.39 of the classes and 0.24 of depth; one frame has no true depth."""
    out, data = str(tmp_path / 'out'), tmp_path / 'data'
    words = ('--camera', '/left/image', '--pseudo-labels', str(data), '--label-confidence', '0.3')
    assert replay(rgbd, out, *words) == 0
    assert '4 frames with labels' in capsys.readouterr().out
    lists = [data / split / 'frames.jsonl' for split in ('train', 'val', 'test')]
    names = [[json.loads(line)['name'] for line in path.open()] for path in lists]
    assert names[0] == [f'rgbd_{10**9 + index * 10**8}' for index in range(4)]
    assert names[1] == names[2] == [f'../train/{name}' for name in names[0]]
    first, second = names[0][:2]
    semantic, true = (
        cv2.imread(str(data / 'train' / f'{first}_{task}.png'), cv2.IMREAD_UNCHANGED)
        for task in ('semantic', 'depth')
    )
    assert semantic.shape == (HEIGHT, WIDTH)
    assert (semantic == 1).all()
    assert true[0].tolist() == [5000] * (WIDTH // 2) + [0] * (WIDTH // 2)
    # Of what no pixel has a label, the frame has none.
    tasks = {line['name']: line['tasks'] for line in map(json.loads, lists[0].open())}
    assert 'depth' in tasks[first]
    assert 'depth' not in tasks[second]
    assert not (data / 'train' / f'{second}_depth.png').exists()
    picture = cv2.imread(str(data / 'train' / f'{first}_rgb.jpg'))
    assert picture[9, 9].tolist() == pytest.approx([20, 60, 100], abs=4)
    # Going on adds what is new; of another bundle nothing is added.
    lists[0].write_text(''.join(lists[0].read_text().splitlines(keepends=True)[:3]))
    assert replay(rgbd, out, *words) == 0
    assert '1 frames with labels' in capsys.readouterr().out
    (data / 'classes.json').write_text('["sky"]')
    assert replay(rgbd, out, *words) == 1
    assert 'has other classes' in capsys.readouterr().err
    assert replay(rgbd, out, *words[:3], str(tmp_path)) == 1
    assert 'is not empty' in capsys.readouterr().err


def test_a_sure_network_labels_depth_itself(replay: Any, rgbd: Path, tmp_path: Path) -> None:
    words = ('--camera', '/left/image', '--label-confidence', '0.2')
    data = tmp_path / 'data'
    assert replay(rgbd, str(tmp_path / 'out'), *words, '--pseudo-labels', str(data)) == 0
    second = f'rgbd_{11 * 10**8}'
    depth, normals, edges = (
        cv2.imread(str(data / 'train' / f'{second}_{task}.png'), cv2.IMREAD_UNCHANGED)
        for task in ('depth', 'normals', 'edges')
    )
    assert (abs(depth.astype(int) - 5000) < 100).all()
    assert normals[5, 5].tolist() == [0, 128, 128]  # BGR, towards the camera
    assert (edges == 0).all()
