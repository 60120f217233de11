"""A node under fire, for a short while; fire.py is the script for a long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')
pytest.importorskip('onnx', reason='makes the tiny network of the tests')

FIRE = Path(__file__).parent / 'fire.py'


@pytest.mark.parametrize(
    ('scenario', 'size', 'words'),
    [
        ('messages', 60, 'raw: 30 = '),
        ('turns', 4, '4 turns of the lifecycle'),
        ('frames', 20, '20 images with all outputs'),
        ('trouble', 5, '5 turns of trouble, 20 sizes answered, 1 kills'),
        ('twins', 2, '2 images answered by both'),
    ],
)
def test_the_node_stands(scenario: str, size: int, words: str) -> None:
    command = [sys.executable, str(FIRE), scenario, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert words in done.stdout
