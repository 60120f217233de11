"""The command line: it describes, and what goes wrong is one line on stderr and exit status 1."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl_perception.commands import cli
from mtl_perception.engines.cache import EngineCache
from mtl_perception.engines.entries import Key


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


def test_letters_that_a_terminal_lacks_are_spelt_out(make_bundle: Callable[..., Path]) -> None:
    bundle = make_bundle(lambda d: d['tasks']['semantic']['classes'][0].update(name='Tür'))
    done = subprocess.run(
        [sys.executable, '-m', 'mtl_perception.commands.cli', 'inspect', str(bundle)],
        env={**os.environ, 'LANG': 'C', 'PYTHONIOENCODING': 'ascii'},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert r'0 T\xfcr, 1 green thing' in done.stdout


def test_inspect_lists_models_probes_and_layers(
    probed_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(['inspect', str(probed_bundle), '--backend', 'onnxruntime', '--layers']) == 0
    text = capsys.readouterr().out
    assert 'model:     fp32 model.onnx' in text
    assert 'probes:    yes' in text
    assert 'layers:    fp32: 13 (' in text
    assert 'agreement: semantic labels 1 ' in text


def test_build_checks_the_engine_and_says_why_it_is_that_one(
    probed_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(['build', str(probed_bundle), '--backend', 'onnxruntime']) == 0
    shown = capsys.readouterr()
    assert 'chosen:    onnxruntime fp32: asked for by name' in shown.out
    assert 'depth relative 0 ' in shown.out
    assert 'mtl_perception: checking onnxruntime ...' in shown.err


def test_the_cache_is_listed_and_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv('MTL_PERCEPTION_CACHE', str(tmp_path))
    key = Key('engine', 'b' * 64, 'openvino', '2026.4', 'a processor', 'bf16', 1)
    EngineCache().store(key, b'x' * 1000)
    assert cli.main(['engines']) == 0
    assert 'openvino 2026.4 bf16, model bbbbbbbbbbbb' in capsys.readouterr().out
    assert cli.main(['engines', '--prune']) == 0
    assert 'removed 0' in capsys.readouterr().out
    assert cli.main(['engines', '--prune', '--all']) == 0
    assert 'removed 1' in capsys.readouterr().out
    assert EngineCache().load(key) is None


def test_engines_are_compared_side_by_side(
    probed_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ['onnxruntime:fp32', 'onnxruntime:int8', 'tensorrt:fp16']
    options = ['--seconds', '0.5', '--batch', '2', '--threads', '1']
    arguments = ['bench', '--bundle', str(probed_bundle), *options, '--engines', *named]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert 'threads 1' in text
    assert 'fps, batch 2' in text
    lines = {
        tuple(line.split()[:2]): line
        for line in text.splitlines()
        if line.startswith(('onnxruntime', 'tensorrt'))
    }
    measured = lines[('onnxruntime', 'fp32')]
    assert '1.00x' in measured
    assert 'semantic labels 1 ' in measured
    assert 'has no int8_u8s8 model' in lines[('onnxruntime', 'int8')]
    assert ' - ' in lines[('tensorrt', 'fp16')]


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
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr('mtl_perception.commands.build.open_engine', broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(['build', str(tiny_bundle)])


@pytest.mark.parametrize(
    'arguments',
    [
        ['bench', '--size', '640'],
        ['bench', '--size', '0x480'],
        ['bench', '--engines', 'fast'],
        ['build', '--output', 'robot.plan'],
        ['demo', '--rate', '0'],
        ['demo', '--rate', 'nan'],
        ['replay', 'in', 'out', '--rate', '1e-12'],
        ['replay', 'in', 'out', '--duration', '1e300'],
        ['replay', 'in', 'out', '--start', 'nan'],
        ['replay', 'in', 'out', '--start', '-1'],
        ['replay', 'in', 'out', '--start', 'soon'],
        ['replay', 'in', 'out', '--label-confidence', '1.1'],
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


def test_topics_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(['topics']) == 0
    text = capsys.readouterr().out
    assert '~/depth: sensor_msgs/msg/Image 32FC1\n    metres along the optical axis' in text
    assert '/diagnostics: diagnostic_msgs/msg/DiagnosticArray' in text
    assert cli.main(['topics', '--markdown']) == 0
    assert '| `~/depth` | sensor_msgs/Image 32FC1 |' in capsys.readouterr().out


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the clone."""
    return subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )


def test_help_imports_nothing_heavy() -> None:
    done = run_python(
        'import sys; from mtl_perception.commands import cli\n'
        'try: cli.main(["--help"])\n'
        'except SystemExit: pass\n'
        'heavy = {"numpy", "cv2", "yaml", "onnxruntime", "rclpy", "rosbags"} & set(sys.modules)\n'
        'sys.exit(" ".join(heavy) or 0)'
    )
    assert done.returncode == 0, done.stderr
    assert 'demo' in done.stdout


@pytest.mark.parametrize('command', cli.COMMANDS)
def test_every_command_describes_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([command, '--help'])
    assert exit_.value.code == 0
    assert f'usage: mtl_perception {command}' in capsys.readouterr().out


def test_a_missing_package_is_one_line_that_names_it() -> None:
    done = run_python(
        'import sys; sys.modules["numpy"] = None\n'
        'from mtl_perception.commands import cli; sys.exit(cli.main(["build"]))'
    )
    assert done.returncode == 1
    assert done.stderr.startswith('mtl_perception: the Python package numpy cannot be imported')
    assert done.stderr.endswith('mtl_perception doctor tells more\n')
    assert done.stderr.count('\n') == 1


def test_a_fault_of_this_package_keeps_its_traceback() -> None:
    done = run_python(
        'import sys; sys.modules["mtl_perception.bundle"] = None\n'
        'from mtl_perception.commands import cli; sys.exit(cli.main(["build"]))'
    )
    assert 'Traceback' in done.stderr
