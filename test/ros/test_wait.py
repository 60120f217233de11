"""A playback begins when there is somebody to hear it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

MAIN = 'import sys; from mtl_perception.commands.cli import main; sys.exit(main())'


def test_a_program_is_started_when_the_node_is_active_and_not_before(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    log = tmp_path / 'wait'
    with log.open('wb') as output:
        waiting = subprocess.Popen(
            [sys.executable, '-c', MAIN, 'wait', '/perception', 'echo', 'plays', '--clock', '10'],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )
    try:
        start_node(bundle=tiny_bundle)
        client.transition('configure')
        hint = 'Waiting for /perception to be active.'
        client.wait(lambda: hint in log.read_text(), 'the hint')
        assert waiting.poll() is None
        client.transition('activate')
        client.wait(lambda: waiting.poll() is not None, 'the program')
    finally:
        waiting.kill()
    assert waiting.returncode == 0
    assert log.read_text().splitlines() == [hint, 'plays --clock 10']


@pytest.mark.parametrize(('program', 'name'), [(['player-that-is-missing'], 'player'), ([], 'no')])
def test_a_missing_program_is_told_at_once(program: list[str], name: str) -> None:
    command = [sys.executable, '-c', MAIN, 'wait', '/perception', *program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count('\n') == 1
    assert name in done.stderr
    assert 'is not there' in done.stderr
