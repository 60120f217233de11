"""./run on a machine with ROS: it adds to that ROS and changes nothing it was compiled against."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Python as far as ./run asks it: makes environments of itself and notes what pip is told.
PYTHON = """#!/bin/bash
case "$1 $2" in
  '-m venv') mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
  '-m pip') echo "$@" >>"$PIP_LOG" ;;
  *) exec REAL "$@" ;;
esac
"""
COLCON = """#!/bin/bash
while [ "$1" != --install-base ]; do shift; done
mkdir -p "$2"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with what ./run reads, and programs that do not install anything."""
    root = tmp_path / 'checkout'
    (root / 'mtl_perception').mkdir(parents=True)
    for name in ('run', 'setup.py', 'setup.cfg', 'package.xml'):
        shutil.copy(ROOT / name, root / name)
    for name in ('mtl_perception_msgs', 'test/interfaces'):
        shutil.copytree(ROOT / name, root / name)
    for name, text in (('python3', PYTHON.replace('REAL', sys.executable)), ('colcon', COLCON)):
        (tmp_path / 'bin').mkdir(exist_ok=True)
        (tmp_path / 'bin' / name).write_text(text)
        (tmp_path / 'bin' / name).chmod(0o755)
    return root


def ros_modules(folder: Path, numpy: str) -> None:
    """What an installed ROS and its NumPy look like to an import."""
    for name, text in (('rclpy', ''), ('cv2', ''), ('numpy', f'__version__ = {numpy!r}\n')):
        (folder / name).mkdir(parents=True)
        (folder / name / '__init__.py').write_text(text)


@pytest.mark.skipif(not (shutil.which('g++') and shutil.which('cmake')), reason='./run needs them')
@pytest.mark.parametrize(
    ('distro', 'numpy', 'constraint'),
    [
        # ONNX Runtime of a network with opset 18 wants NumPy 1.21.6 or newer.
        ('humble', '1.21.5', 'numpy>=1.21.5,<2'),
        ('jazzy', '1.26.4', 'numpy>=1.26.4,<2'),
        ('lyrical', '2.3.1', 'numpy>=2.3.1,<3'),
    ],
)
def test_an_installed_ros_keeps_its_major_numpy_and_opencv(
    checkout: Path, tmp_path: Path, distro: str, numpy: str, constraint: str
) -> None:
    ros_modules(tmp_path / 'ros', numpy)
    log = tmp_path / 'pip.log'
    environment = {
        **os.environ,
        'PATH': f'{tmp_path / "bin"}{os.pathsep}{os.environ["PATH"]}',
        'PYTHONPATH': str(tmp_path / 'ros'),
        'PIP_LOG': str(log),
        'PYTHON': 'python3',
        'ROS_DISTRO': distro,
    }
    command = [str(checkout / 'run'), 'exec', 'true']

    def run(variables: dict[str, str]) -> str:
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stderr

    run(environment)
    assert run(environment) == '', 'there is nothing left to do'
    own = checkout / '.venv' / 'bin'
    (own / 'python3').symlink_to('python')  # as in a real one
    active = {**environment, 'PATH': f'{own}{os.pathsep}{environment["PATH"]}'}
    assert run(active) == '', 'nor while .venv is active'
    constraints = checkout / '.venv' / 'constraints.txt'
    assert constraints.read_text().strip() == constraint
    runtime, package = log.read_text().splitlines()
    assert f'-c {constraints}' in runtime
    assert 'onnxruntime' in runtime
    assert 'opencv' not in runtime
    assert 'ros-rclpy' not in runtime
    assert package.endswith(f'--no-deps --no-build-isolation -e {checkout}')
