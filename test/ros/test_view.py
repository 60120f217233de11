"""rviz2 is started in the frame of the camera, whatever it is called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

# As the installed program does.
MAIN = 'import sys; from mtl_perception.commands.cli import main; sys.exit(main())'


def test_the_program_gets_the_frame_of_the_images_and_its_own_arguments(
    client: Any,
    start_node: Callable[..., Any],
    driver: Any,
    tiny_bundle: Path,
    tmp_path: Path,
) -> None:
    start_node(remaps={'__ns': '/robot', 'image': '/image'}, bundle=tiny_bundle, autostart=True)
    given = ['-d', 'my.rviz', '--ros-args']
    for name in ('semantic_color', 'normals_color', 'edges'):
        given += ['-r', f'/perception/{name}:=/robot/perception/{name}']
    echo = shutil.which('echo')
    assert echo is not None
    with (tmp_path / 'view').open('wb') as output:
        view = subprocess.Popen(
            [sys.executable, '-c', MAIN, 'view', echo, *given],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )
    client.wait(driver.images.get_subscription_count, 'the wish of the view for pictures')
    image = driver.image(np.zeros((64, 96, 3), np.uint8))
    image.header.frame_id = 'head/left_eye'

    def ended() -> bool:
        driver.publish(image)
        return view.poll() is not None

    client.wait(ended, 'the program')
    assert view.returncode == 0
    (line,) = (
        line
        for line in (tmp_path / 'view').read_text().splitlines()
        if not line.startswith('rviz2 waits for the first message on /robot/perception/')
    )
    assert line.split() == ['-f', 'head/left_eye', *given]


def test_a_missing_rviz_is_one_sentence() -> None:
    command = [sys.executable, '-c', MAIN, 'view', 'rviz2-that-is-missing', '-d', 'x']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count('\n') == 1
    assert 'rviz2-that-is-missing is not there' in done.stderr
