"""``mtl_perception replay`` of pictures and videos, of several inputs, and of some tasks."""

from __future__ import annotations

import math
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags', reason='recordings need rosbags')
pytest.importorskip('onnxruntime', reason='runs the tiny network')

from mtl_perception import images
from mtl_perception.commands import cli
from mtl_perception.commands.replay import INCOMPLETE
from mtl_perception.offline.ground_truth import image_array
from mtl_perception.offline.recordings import RecordingReader

SAMPLE = Path(__file__).parents[2] / 'resource' / 'sample' / 'rooms'
WIDTH, HEIGHT = 192, 128  # twice the tiny network


@pytest.fixture
def replay(tiny_bundle: Path) -> Any:
    def run(*words: object) -> int:
        engine = ('--bundle', str(tiny_bundle), '--backend', 'onnxruntime')
        return cli.main(['replay', *map(str, words), *engine])

    return run


def stored(bag: Path, topic: str) -> dict[int, Any]:
    """Stamp in nanoseconds -> message."""
    with RecordingReader(bag) as reader:
        messages = [reader.unpack(message) for message in reader.messages([topic])]
    return {m.header.stamp.sec * 10**9 + m.header.stamp.nanosec: m for m in messages}


def red(level: int) -> np.ndarray:
    """A picture whose depth tells its level, as OpenCV stores colours."""
    return np.dstack([np.zeros((HEIGHT, WIDTH), np.uint8)] * 2 + [np.full((HEIGHT, WIDTH), level)])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """9.png, 10.png and 11.JPEG with red of 90, 100 and 110, and others that are no pictures."""
    folder = tmp_path / 'walk'
    folder.mkdir()
    cv2.imwrite(str(folder / '9.png'), red(90))
    cv2.imwrite(str(folder / '10.png'), red(100))
    (folder / '11.JPEG').write_bytes(cv2.imencode('.jpg', red(110))[1].tobytes())
    cv2.imwrite(str(folder / '9_depth.png'), np.full((HEIGHT, WIDTH), 1000, np.uint16))
    (folder / '.9.png').write_bytes(b'rubbish of a file browser')
    (folder / 'notes.txt').write_text('a walk')
    return folder


def depths(bag: Path) -> dict[int, float]:
    """Stamp -> depth, which is everywhere the same."""
    found = {t: image_array(message) for t, message in stored(bag, '/perception/depth').items()}
    return {stamp: float(np.median(depth)) for stamp, depth in found.items()}


def test_pictures_are_replayed_in_natural_order(
    replay: Any, pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / 'out'
    assert replay(pictures, out, '--focal', '400', '--rate', '4') == 0
    said = capsys.readouterr().out
    assert '3 pictures' in said
    assert '1 pictures of 16-bit gray' in said
    # 400 px at 192 are 200 px at the network's 96; the tiny bundle is metric at 100.
    assert list(depths(out)) == [0, 250_000_000, 500_000_000]
    assert list(depths(out).values()) == pytest.approx([9.0, 10.0, 11.0], abs=0.11)
    info = stored(out, '/perception/camera_info')[0]
    assert (info.width, info.k[0], info.k[2], info.k[5]) == (96, 200.0, 47.5, 31.5)


def test_a_field_of_view_is_a_focal_length(replay: Any, pictures: Path, tmp_path: Path) -> None:
    assert replay(pictures, tmp_path / 'out', '--fov', 2 * math.degrees(math.atan(96 / 400))) == 0
    assert stored(tmp_path / 'out', '/perception/camera_info')[0].k[0] == pytest.approx(200.0)
    assert replay(pictures, tmp_path / 'no', '--fov', '60', '--outputs', 'smell') == 1


def test_pictures_of_an_unknown_camera_have_no_depth(
    replay: Any, pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    assert replay(pictures, tmp_path / 'out') == 0
    assert '--focal or --fov' in capsys.readouterr().out
    assert depths(tmp_path / 'out') == {}
    assert len(stored(tmp_path / 'out', '/perception/semantic')) == 3
    assert replay(pictures, tmp_path / 'relative', '--allow-uncalibrated', '--every', '2') == 0
    assert depths(tmp_path / 'relative') == {0: 4.5, 200_000_000: pytest.approx(5.5, abs=0.06)}


def test_a_damaged_picture_is_counted(
    replay: Any, pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    (pictures / '10.png').write_bytes((pictures / '10.png').read_bytes()[:200])
    assert replay(pictures, tmp_path / 'out', '--fov', '90') == INCOMPLETE
    assert '1 images could not be used: truncated' in capsys.readouterr().out
    assert list(depths(tmp_path / 'out')) == [0, 200_000_000]


def exif(order: str, orientation: int) -> bytes:
    """EXIF data that says nothing but how a picture is turned."""
    mark = b'II' if order == '<' else b'MM'
    head = struct.pack(f'{order}HIHHHIHHI', 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return mark + head


def with_exif(picture: bytes, data: bytes) -> bytes:
    if picture.startswith(b'\xff\xd8'):
        data = b'Exif\0\0' + data
        return picture[:2] + b'\xff\xe1' + struct.pack('>H', 2 + len(data)) + data + picture[2:]
    block = b'eXIf' + data
    end = 33  # of IHDR
    record = struct.pack('>I', len(data)) + block + struct.pack('>I', crc32(block))
    return picture[:end] + record + picture[end:]


@pytest.mark.parametrize('strict', [True, False], ids=['simplejpeg', 'opencv'])
def test_pictures_are_taken_as_they_are_stored(
    strict: bool, replay: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV turns by EXIF data, unless it is told not to; a calibration is of what is stored."""
    if not strict:
        monkeypatch.setattr(images, 'STRICT_JPEG', False)
    half = red(60)
    half[:, WIDTH // 2 :] = red(160)[:, WIDTH // 2 :]
    for name in ('plain', 'turned'):
        (tmp_path / name).mkdir()
        for index, (suffix, order) in enumerate((('.jpg', '<'), ('.jpg', '>'), ('.png', '>'))):
            content = cv2.imencode(suffix, half)[1].tobytes()
            if name == 'turned':
                content = with_exif(content, exif(order, (6, 3, 8)[index]))
            (tmp_path / name / f'{index}{suffix}').write_bytes(content)
    turned = cv2.imread(str(tmp_path / 'turned' / '0.jpg'))
    assert turned.shape[:2] == (WIDTH, HEIGHT)  # so it is one that OpenCV turns
    for name in ('plain', 'turned'):
        assert replay(tmp_path / name, tmp_path / f'{name}_out', '--fov', '70') == 0
        said = capsys.readouterr().out
        assert ('3 of them ask in EXIF data to be shown turned' in said) == (name == 'turned')
    plain, turned = (
        [m.data.tobytes() for m in stored(tmp_path / f'{n}_out', '/perception/depth').values()]
        for n in ('plain', 'turned')
    )
    assert plain == turned


def test_a_video_is_taken_as_it_is_stored(replay: Any, tmp_path: Path, capsys: Any) -> None:
    path = video(tmp_path / 'drive.mp4', 'mp4v')
    content = bytearray(path.read_bytes())
    matrix = content.index(b'tkhd') + 44
    content[matrix : matrix + 36] = struct.pack('>9i', 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    turned = cv2.VideoCapture(str(path)).read()[1]
    assert turned.shape[:2] == (WIDTH, HEIGHT)  # so it is one that OpenCV turns
    assert replay(path, tmp_path / 'out', '--fov', '70') == 0
    said = capsys.readouterr().out
    assert 'it asks to be shown turned by' in said
    info = stored(tmp_path / 'out', '/perception/camera_info')[0]
    assert (info.width, info.height) == (96, 64)


def video(path: Path, code: str) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 12.5, (WIDTH, HEIGHT))
    if not writer.isOpened():
        pytest.skip(f'this OpenCV does not write {path.suffix}')
    for level in range(60, 120, 10):
        writer.write(np.asarray(red(level), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(('name', 'code'), [('drive.mp4', 'mp4v'), ('drive.avi', 'MJPG')])
def test_a_video_has_its_own_times(replay: Any, name: str, code: str, tmp_path: Path) -> None:
    path = video(tmp_path / name, code)
    assert replay(path, tmp_path / 'out', '--focal', '400') == 0
    found = depths(tmp_path / 'out')
    assert list(found) == [80_000_000 * index for index in range(6)]
    assert list(found.values()) == pytest.approx([6.0, 7.0, 8.0, 9.0, 10.0, 11.0], abs=0.45)
    words = ('--fov', '90', '--rate', '2', '--start', '1', '--duration', '1')
    assert replay(path, tmp_path / 'slow', *words) == 0
    assert list(depths(tmp_path / 'slow')) == [1_000_000_000, 1_500_000_000]


def test_a_video_that_is_cut_off_is_replayed_up_to_there(
    replay: Any, tiny_bundle: Path, tmp_path: Path
) -> None:
    """In a process of its own, since FFmpeg asks once whether to talk to the terminal."""
    path = video(tmp_path / 'drive.avi', 'MJPG')
    content = path.read_bytes()
    place = content.index(b'movi')
    for _ in range(4):
        place = content.index(b'00dc', place + 1)
    path.write_bytes(content[: place + 100])  # within the fourth image
    words = ['replay', str(path), str(tmp_path / 'out'), '--fov', '60']
    engine = ['--bundle', str(tiny_bundle), '--backend', 'onnxruntime']
    done = subprocess.run(
        [sys.executable, '-m', 'mtl_perception.commands.cli', *words, *engine],
        capture_output=True,
        text=True,
    )
    assert done.returncode == INCOMPLETE
    count = len(depths(tmp_path / 'out'))
    assert 0 < count < 6
    assert f'ends after {count} of its 6 images' in done.stdout
    assert done.stderr == ''
    # Who takes only what is there misses nothing.
    assert replay(path, tmp_path / 'out', '--fov', '60', '--duration', '0.1') == 0


def test_several_inputs_have_an_output_each(
    replay: Any, pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    """One that cannot be read does not stop the others."""
    other = tmp_path / 'again' / 'walk'
    other.parent.mkdir()
    pictures.rename(other)
    drive = video(tmp_path / 'drive.avi', 'MJPG')
    (tmp_path / 'walk').mkdir()
    out = tmp_path / 'outs'
    words = ('--outputs', 'semantic', '--every', '2')
    assert replay(drive, other, tmp_path / 'walk', out, *words) == 1
    assert str(tmp_path / 'walk') in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ['again_walk', 'drive']
    assert len(stored(out / 'drive', '/perception/semantic')) == 3
    assert len(stored(out / 'again_walk', '/perception/semantic')) == 2
    assert replay(drive, drive, out) == 1
    assert 'rename one' in capsys.readouterr().err


def test_names_of_dates_are_whole_and_known_again(
    replay: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of folders nothing is an ending; what is there already is a replay, and left or replaced."""
    days = [tmp_path / 'walk_2024.11.28', tmp_path / 'walk_2024.11.29']
    for day in days:
        shutil.copytree(pictures, day)
    out, words = tmp_path / 'outs', ('--fov', '60', '--outputs', 'semantic')
    for resume in ((), ('--resume',), ()):
        assert replay(*days, out, *words, *resume) == 0
        assert sorted(path.name for path in out.iterdir()) == [day.name for day in days]
    assert (out / days[0].name / f'{days[0].name}.mcap').is_file()
    monkeypatch.chdir(tmp_path)
    assert replay(days[0], *words) == 0
    assert len(stored(tmp_path / 'walk_2024.11.28_outputs', '/perception/semantic')) == 3


def test_without_a_place_the_output_is_named_after_the_input(
    replay: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert replay('walk') == 0
    assert len(stored(tmp_path / 'walk_outputs', '/perception/semantic')) == 3


def test_only_some_tasks(replay: Any, pictures: Path, tmp_path: Path, capsys: Any) -> None:
    assert replay(pictures, tmp_path / 'out', '--fov', '60', '--tasks', 'depth,edges') == 0
    with RecordingReader(tmp_path / 'out') as reader:
        counts = {topic.rpartition('/')[2]: n for topic, n in reader.counts.items()}
    of_tasks = ('depth', 'depth_confidence', 'edges', 'camera_info')
    assert counts == {'label_info': 1, **dict.fromkeys(of_tasks, 3)}
    assert replay(pictures, tmp_path / 'no', '--tasks', 'smell') == 1
    assert "'smell'" in capsys.readouterr().err
    assert replay(pictures, tmp_path / 'no', '--tasks', 'edges', '--outputs', 'depth') == 1
    assert 'no output depth of the tasks edges' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('walk', 'out', '--keep', '/tf'), '--keep'),
        (('walk', 'out', '--camera', '/image'), '--camera'),
        ((SAMPLE, 'out', '--rate', '5'), '--rate'),
        ((SAMPLE, 'out', '--fov', '60'), '/camera/camera_info says the focal length'),
        (('walk/notes.txt', 'out'), 'expected a rosbag2 folder'),
        (('nowhere', 'out'), 'nowhere: no such file'),
    ],
)
def test_what_does_not_fit_is_said(
    words: Any,
    message: str,
    replay: Any,
    pictures: Path,
    tmp_path: Path,
    capfd: Any,
    monkeypatch: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert replay(*words) == 1
    assert message in capfd.readouterr().err
    assert not (tmp_path / 'out').exists()
