"""The process ends as it is asked to, at any moment, and says in one line why it cannot begin."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

# With a mark once signals are taken: before, Python itself is what they meet.
PROGRAM = """
import sys
from mtl_perception.ros import ending

class Marked(ending.Ending):
    def __init__(self):
        super().__init__()
        print('begun', flush=True)

ending.Ending = Marked
from mtl_perception.ros.__main__ import main
main()
"""
# Moments after that, in seconds: imports, ROS, configuring, opening the engine, running.
LAST_S = 3.0
STOPS = 6
STOP_S = 0.15  # the stop of an idle node takes about twice that


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, '-c', PROGRAM, '--ros-args', *map(str, arguments)],
        env={**os.environ, 'OMP_NUM_THREADS': '1', **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize('signals', [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT] * 3])
def test_signals_at_random_moments_end_the_node_quietly(
    tiny_bundle: Path, signals: list[signal.Signals]
) -> None:
    moments = random.Random(len(signals) + signals[0])
    for _ in range(7):
        process = start('-p', f'bundle:={tiny_bundle}', '-p', 'autostart:=true')
        assert process.stdout is not None
        assert process.stdout.readline() == 'begun\n'
        time.sleep(moments.uniform(0, LAST_S))
        for number in signals:
            process.send_signal(number)
            time.sleep(moments.uniform(0, 0.02))
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        for word in ('Traceback', 'ERROR', 'KeyboardInterrupt', 'terminate'):
            assert word not in output


def test_signals_at_random_moments_of_the_stop_change_nothing(tiny_bundle: Path) -> None:
    moments = random.Random(6)
    for _ in range(STOPS):
        process = start('-p', f'bundle:={tiny_bundle}', '-p', 'autostart:=true')
        assert process.stdout is not None
        lines = iter(process.stdout.readline, '')
        assert any('on onnxruntime' in line for line in lines), 'ready'
        for _ in range(3):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            time.sleep(moments.uniform(0, STOP_S))
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        for word in ('Traceback', 'ERROR', 'KeyboardInterrupt', 'terminate', 'ended before'):
            assert word not in output


def test_a_terminal_of_ascii_is_told_as_well(tmp_path: Path) -> None:
    process = start(
        '-p', f'bundle:={tmp_path}/Tür', '-p', 'autostart:=true', LANG='C', PYTHONIOENCODING='ascii'
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'Tür: no such folder' in output
    process = start('--', 'Tür', LANG='C', PYTHONIOENCODING='ascii')
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert r"unexpected argument 'T\xfcr'" in output


def test_an_autostart_that_fails_is_an_exit_code(
    start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    node = start_node(bundle='/no/such/folder', autostart=True, code=1)
    assert node.process.wait(60) == 1
    (line,) = [line for line in node.text().splitlines() if 'Cannot configure' in line]
    assert '/no/such/folder: no such folder' in line


def test_a_node_without_autostart_says_what_it_waits_for(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    node = start_node(bundle=tiny_bundle)
    assert client.state() == 'unconfigured'
    client.wait(lambda: 'waiting for a lifecycle manager' in node.text(), 'the line')
    assert 'ros2 lifecycle set /perception configure' in node.text()


@pytest.mark.parametrize('text', ['a: [1', 'perception: 1\n'], ids=['syntax', 'structure'])
def test_a_broken_parameter_file_is_told_without_a_traceback(tmp_path: Path, text: str) -> None:
    file = tmp_path / 'mine.yaml'
    file.write_text(text)
    process = start('--params-file', file)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'Traceback' not in output
    assert 'mine.yaml' in output


def test_an_argument_that_is_none_of_ros_is_told() -> None:
    process = start('--', '--autostart')
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "unexpected argument '--autostart'; parameters and remaps follow --ros-args" in output


def test_closed_outputs_change_no_exit_code(tmp_path: Path) -> None:
    command = f'{sys.executable} -m mtl_perception.ros --ros-args'
    errors = tmp_path / 'errors'
    done = subprocess.run(f'{command} -p device:=99 >&- 2>{errors}', shell=True, check=False)
    assert done.returncode == 1
    (line,) = errors.read_text().splitlines()
    assert line.startswith('perception_node: ')
    pipe = f'{command} -- stray 2>&1 >/dev/null | true; exit ${{PIPESTATUS[0]}}'
    assert subprocess.run(['bash', '-c', pipe], check=False).returncode == 2


@pytest.mark.parametrize('home', ['', '/proc/nowhere'], ids=['none', 'read-only'])
def test_without_a_home_the_log_is_on_the_terminal(
    home: str, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ('HOME', 'ROS_HOME', 'ROS_LOG_DIR', 'XDG_CACHE_HOME', 'MTL_PERCEPTION_CACHE'):
        monkeypatch.delenv(name, raising=False)
    environment = {'HOME': home} if home else {}
    process = start('-p', f'bundle:={tiny_bundle}', **environment)
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if 'waiting for' in line:
            process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, lines
    assert any('no log files: ' in line for line in lines)
    assert not any('Traceback' in line for line in lines)
