"""The official file of NYU Depth V2, written here in its own format, becomes a data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mtl_training.cli import main
from mtl_training.datasets import open_data, prepare_nyud
from mtl_training.labels import NYUD40
from numpy.typing import NDArray
from scipy.io import savemat

h5py = pytest.importorskip('h5py')

WALL, BED = 4, 7  # of 894 raw classes, here
FLOOR_HEIGHT = 1.1  # metres below the camera


def scene() -> dict[str, NDArray[np.generic]]:
    """A floor with two beds and an unlabelled strip; arrays [H, W] as MATLAB has them."""
    rows, columns = np.mgrid[:480, :640]
    below = np.maximum(rows - 253.736, 40) / 519.470
    depth = (FLOOR_HEIGHT / below).astype(np.float32)
    raw = depth.copy()
    raw[:, 300:340] = 0  # filled in
    labels = np.full((480, 640), WALL, np.uint16)
    labels[200:400, 100:200] = labels[200:400, 200:300] = BED
    labels[:, 500:] = 0
    instances = np.ones((480, 640), np.uint8)
    instances[:, 200:300] = 2
    image = np.stack([rows // 2, columns // 3, np.full_like(rows, 77)], axis=-1).astype(np.uint8)
    return {
        'images': image,
        'depths': depth,
        'rawDepths': raw,
        'labels': labels,
        'instances': instances,
    }


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Three frames, of which the second is for testing; the first one is darker."""
    folder = tmp_path / 'official'
    folder.mkdir()
    with h5py.File(folder / 'nyu_depth_v2_labeled.mat', 'w') as file:
        for name, array in scene().items():
            file[name] = np.stack([array.T] * 3)
    savemat(folder / 'splits.mat', {'trainNdxs': [[1], [3]], 'testNdxs': [[2]]})
    mapping = np.full((1, 894), 40, np.uint8)
    mapping[0, [WALL - 1, BED - 1]] = 1, 4
    savemat(folder / 'classMapping40.mat', {'mapClass': mapping})
    return folder / 'nyu_depth_v2_labeled.mat'


def prepare(official: Path, out: Path) -> int:
    return main(['data', 'prepare', 'nyud', str(official), str(out)])


def test_it_is_read_as_rooms_are(official: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    assert prepare(official, out) == 0
    names = {s: list(open_data(out, s, NYUD40).frames) for s in ('train', 'val', 'test')}
    assert names == {'train': ['0001', '0003'], 'val': ['0002'], 'test': ['0002']}
    data = open_data(out, 'val', NYUD40)
    assert data.tasks == ('semantic', 'depth', 'normals', 'edges')
    sample = data.read(0, data.tasks)
    assert sample.fx == 518.858
    arrays = sample.arrays
    assert {array.shape[:2] for array in arrays.values()} == {(425, 560)}
    whole = scene()
    inside = slice(45, 470), slice(40, 600)
    np.testing.assert_allclose(arrays['image'], whole['images'][inside], atol=6)
    expected = {WALL: 0, BED: 3, 0: 255}
    np.testing.assert_array_equal(
        arrays['semantic'], np.vectorize(expected.get)(whole['labels'][inside])
    )
    np.testing.assert_allclose(arrays['depth'] / 1000, whole['depths'][inside], atol=0.0006)
    # A floor looks upwards, which is -y; there are no normals where depth was filled in.
    normal = arrays['normals'][400, 100] / 127.5 - 1
    np.testing.assert_allclose(normal, (0, -1, 0), atol=0.02)
    assert not arrays['normals'][:, 262:298].any()
    # Two beds are one class and two objects.
    border = 200 - 40
    assert set(np.flatnonzero(arrays['edges'][250 - 45, 100:200]) + 100) == {border - 1, border}
    camera = json.loads((out / 'train' / 'frames.jsonl').read_text().splitlines()[0])
    assert (camera['cx'], camera['cy']) == pytest.approx((285.582, 208.736))


def test_it_is_checked_as_whole(
    official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(official, tmp_path / 'out') == 0
    assert main(['data', 'check', str(tmp_path / 'out')]) == 0
    assert capsys.readouterr().out == f'{tmp_path / "out"}: 4 frames, no faults\n'


def test_an_interrupted_run_leaves_nothing_and_goes_on(
    official: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / 'out'
    written: list[str] = []
    really = prepare_nyud.write_frame

    def write(prefix: Path, *rest: object) -> None:
        if prefix.name == '0003' and '0003' not in written:
            written.append(prefix.name)
            (prefix.parent / '.0003_rgb.ab.tmp.jpg').write_text('half of it')
            raise KeyboardInterrupt
        written.append(prefix.name)
        really(prefix, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare_nyud, 'write_frame', write)
    monkeypatch.setattr('os.cpu_count', lambda: 1)
    assert prepare(official, out) == 130
    assert not out.exists()
    assert prepare(official, out) == 0
    assert sorted(written) == ['0001', '0002', '0003', '0003']  # what was whole is kept
    assert not list(tmp_path.glob('*.part'))
    assert not list(out.glob('*/.*'))
    assert prepare(official, out) == 1
    assert f'{out} exists already, expected a folder to be made' in capsys.readouterr().err


def test_what_is_not_the_official_file_is_told_in_one_line(
    official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*, file: Path = official) -> str:
        assert prepare(file, tmp_path / 'out') == 1
        assert not (tmp_path / 'out').exists()
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        return lines[0]

    folder = official.parent
    source = 'the data set is from the home page of NYU Depth V2 at New York University'
    (folder / 'other.mat').write_bytes(official.read_bytes()[:5000])
    assert 'other.mat is missing or damaged' in told(file=folder / 'other.mat')
    with h5py.File(folder / 'other.mat', 'w') as file:
        file['images'] = np.zeros((1, 3, 640, 480), np.uint8)
        file['depths'] = np.zeros((1, 480, 640), np.float32)
    line = told(file=folder / 'other.mat')
    assert 'has depths of [1, 480, 640], expected [N, 640, 480]' in line
    assert source in line
    savemat(folder / 'splits.mat', {'trainNdxs': [[1], [4]], 'testNdxs': [[2]]})
    assert 'splits.mat has trainNdxs that are not among the 3 frames' in told()
    (folder / 'splits.mat').unlink()
    assert 'splits.mat is missing, damaged or has no trainNdxs' in told()
    savemat(folder / 'classMapping40.mat', {'mapClass': [[1, 41]]})
    assert 'classMapping40.mat has classes 1..41, expected 0..40' in told()
