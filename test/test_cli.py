"""The command line: it describes, and what goes wrong is one line on stderr and exit status 1."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl_perception import cli


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail and return its one line."""
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith('mtl_perception: ')
    assert error.count('\n') == 1
    return error


def test_inspect_describes_bundle_and_engine(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(['inspect', str(tiny_bundle)]) == 0
    text = capsys.readouterr().out
    assert text.startswith('tiny 1.0.0 (Apache-2.0)')
    assert '96x64 RGB' in text
    assert 'focal length of 100 px' in text
    assert 'depth (depth float32, depth_confidence uint8, 0.5 to 10 m)' in text
    assert '0 red thing, 1 green thing, 2 blue thing' in text
    assert 'provider CPUExecutionProvider' in text


def test_a_bundle_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 'no such folder' in error_of(capsys, 'inspect', str(tmp_path / 'nothing'))


def test_a_bundle_with_a_wrong_hash_is_one_line(
    make_bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(description: dict[str, Any]) -> None:
        description['model']['sha256'] = '0' * 64

    assert 'sha256' in error_of(capsys, 'inspect', str(make_bundle(spoil)))


def test_an_unknown_backend_is_one_line(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_of(capsys, 'inspect', str(tiny_bundle), '--backend', 'abacus')
    assert "unknown backend 'abacus'" in error


def test_a_recording_that_is_not_there_is_one_line(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('rclpy', reason='the demo needs ROS 2')
    pytest.importorskip('rosbags', reason='the demo needs rosbags')
    error = error_of(
        capsys,
        'demo',
        '--bundle',
        str(tiny_bundle),
        '--recording',
        str(tmp_path / 'nothing'),
        '--output',
        str(tmp_path / 'output'),
    )
    assert 'is not a recording' in error


def test_errors_nobody_expected_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_options: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, '_doctor', broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(['doctor'])


@pytest.mark.parametrize(
    'arguments',
    [
        ['bench', '--size', '640'],
        ['bench', '--size', '0x480'],
        ['demo', '--rate', '0'],
        ['demo', '--rate', 'nan'],
        ['replay'],
        [],
    ],
)
def test_wrong_usage_is_exit_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2
    assert 'usage: mtl_perception' in capsys.readouterr().err


def test_parameters_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(['parameters']) == 0
    assert "image_transport: string (raw, compressed), default 'raw'" in capsys.readouterr().out
    assert cli.main(['parameters', '--markdown']) == 0
    assert '| `bundle` |' in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    code = (
        'import sys; from mtl_perception import cli\n'
        'try: cli.main(["--help"])\n'
        'except SystemExit: pass\n'
        'heavy = {"numpy", "cv2", "onnxruntime", "rclpy", "rosbags"} & set(sys.modules)\n'
        'sys.exit(" ".join(heavy) or 0)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 'demo' in done.stdout
    assert 'replay' not in done.stdout
