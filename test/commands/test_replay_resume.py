"""``mtl_perception replay --resume`` knows its inputs again; progress is for terminals only."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rosbags', reason='recordings need rosbags')
pytest.importorskip('onnxruntime', reason='runs the tiny network')

from mtl_perception.commands import cli
from mtl_perception.commands import replay as command
from mtl_perception.offline.inputs import fingerprint

SAMPLE = Path(__file__).parents[2] / 'resource' / 'sample' / 'rooms'
WORDS = ('--start', '1', '--duration', '1.5', '--outputs', 'semantic')


@pytest.fixture
def replay(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command; ``stop`` interrupts it when so many steps of all inputs are written."""
    monkeypatch.setattr('mtl_perception.offline.writing._CHECKPOINT_S', 0.0)

    def run(*words: object, stop: int = 0) -> int:
        engine = ('--bundle', str(tiny_bundle), '--backend', 'onnxruntime')
        written = 0

        class Bar(command.ProgressBar):
            def update(self, done: int) -> None:
                nonlocal written
                written += 1
                if written == stop:
                    raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(command, 'ProgressBar', Bar)
            return cli.main(['replay', *map(str, words), *WORDS, *engine])

    return run


def test_a_moved_input_is_known_again(replay: Any, tmp_path: Path, capsys: Any) -> None:
    """As a lone file elsewhere, under another name; but not another recording under the old one."""
    source = tmp_path / 'monday'
    shutil.copytree(SAMPLE, source)
    assert replay(source, tmp_path / 'whole' / 'out') == 0
    assert replay(source, tmp_path / 'part' / 'out', stop=9) == 130
    moved = tmp_path / 'archive' / 'tuesday.mcap'
    moved.parent.mkdir()
    (source / 'rooms.mcap').rename(moved)
    content = bytearray(moved.read_bytes())
    content[len(content) // 2] ^= 1
    (source / 'rooms.mcap').write_bytes(content)
    capsys.readouterr()
    assert replay(source, tmp_path / 'part' / 'out', '--resume') == 1
    assert 'made with another input; start' in capsys.readouterr().err
    assert replay(moved, tmp_path / 'part' / 'out', '--resume') == 0
    files = [tmp_path / name / 'out' / 'out.mcap' for name in ('whole', 'part')]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_of_several_inputs_the_finished_ones_are_left_alone(
    replay: Any, tmp_path: Path, capsys: Any
) -> None:
    sources = [tmp_path / name for name in ('a.mcap', 'b.mcap', 'c.mcap')]
    for source in sources:
        shutil.copy(SAMPLE / 'rooms.mcap', source)
    out = tmp_path / 'out'
    assert replay(*sources, out, stop=20) == 130
    assert sorted(path.name for path in out.iterdir()) == ['.b.partial', 'a']
    first = (out / 'a' / 'a.mcap').stat()
    capsys.readouterr()
    assert replay(*sources, out, '--resume') == 0
    assert capsys.readouterr().out.count('15 frames in') == 3
    assert (out / 'a' / 'a.mcap').stat().st_mtime_ns == first.st_mtime_ns
    assert replay(sources[1], tmp_path / 'b') == 0
    whole = (tmp_path / 'b' / 'b.mcap').read_bytes()
    assert (out / 'b' / 'b.mcap').read_bytes() == whole
    assert replay(*sources, out, '--resume', '--every', '2') == 1  # finished, but by another job
    assert 'no part of' in capsys.readouterr().err
    assert (out / 'a' / 'a.mcap').stat().st_mtime_ns == first.st_mtime_ns


def test_large_inputs_are_known_by_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mtl_perception.offline.inputs._BLOCK', 16)
    monkeypatch.setattr('mtl_perception.offline.inputs._READ', 256)
    one, other = tmp_path / 'one', tmp_path / 'other'
    content = bytes(range(256)) * 40 + b'end'
    one.write_bytes(content)
    found = {fingerprint([one])}
    for changed in (b'x' + content[1:], content[:-1] + b'x', content + b'x', content[:-1]):
        other.write_bytes(changed)
        found.add(fingerprint([other]))
    assert len(found) == 5
    other.write_bytes(content)
    assert fingerprint([other]) in found
    assert fingerprint([one, other]) not in found


@pytest.mark.parametrize('terminal', [True, False])
def test_progress_is_for_terminals(terminal: bool, tiny_bundle: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    words = ['replay', str(SAMPLE), str(tmp_path / 'out'), *WORDS, '--bundle', str(tiny_bundle)]
    child = subprocess.Popen(
        [sys.executable, '-m', 'mtl_perception.commands.cli', *words, '--backend', 'onnxruntime'],
        stdout=subprocess.PIPE,
        stderr=slave if terminal else subprocess.PIPE,
        text=True,
    )
    os.close(slave)
    seen = b''
    while terminal:
        try:
            seen += os.read(master, 4096)
        except OSError:  # the child has closed its end
            break
    out, error = child.communicate()
    os.close(master)
    assert child.returncode == 0
    assert not error
    assert '\r' not in out
    assert bool(re.search(rb'\[#*-*\] +\d+% \d+/\d\d images, \d+\.\d/s', seen)) is terminal
    assert seen.endswith(b'\r\x1b[K') is terminal  # it leaves nothing behind
