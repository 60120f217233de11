"""Programs without the packages that they need end with one sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

ROOT = Path(__file__).resolve().parents[2]
BOTH = 'colcon build --base-paths src src/mtl_perception/mtl_perception_msgs'


def run(package: str, tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a module while a package cannot be imported, as where it was not built."""
    (tmp_path / 'sitecustomize.py').write_text(f'import sys\nsys.modules[{package!r}] = None\n')
    path = os.pathsep.join([str(tmp_path), *sys.path[1:]])
    return subprocess.run(
        [sys.executable, '-m', *command],
        env={**os.environ, 'PYTHONPATH': path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    'command',
    [
        ('mtl_perception.ros',),
        ('mtl_perception.commands.cli', 'bench'),
        ('mtl_perception.commands.cli', 'demo', '--output', 'output'),
    ],
)
def test_without_its_messages_a_program_names_the_command_that_builds_both(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    output = [str(tmp_path / word) if word == 'output' else word for word in command]
    done = run('mtl_perception_msgs', tmp_path, *output)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert 'mtl_perception_msgs is not built' in line
    assert BOTH in line
    assert done.stdout == '', 'nothing was begun'
    assert not (tmp_path / 'output').exists()


def test_messages_of_an_older_version_are_told_from_none(tmp_path: Path) -> None:
    old = tmp_path / 'mtl_perception_msgs'
    for name, text in (('', ''), ('msg', 'class PerceptionStatus: ...\n'), ('srv', '')):
        (old / name).mkdir(exist_ok=True, parents=True)
        (old / name / '__init__.py').write_text(text)
    done = run('no_package', tmp_path, 'mtl_perception.ros')
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert 'mtl_perception_msgs is an older one' in line
    assert BOTH in line


def test_the_sources_of_the_messages_are_not_taken_for_them() -> None:
    """In a clone, Python takes the folder of their sources for a package without content."""
    path = os.environ.get('PYTHONPATH', '').split(os.pathsep)
    built = [entry for entry in path if Path(entry, 'mtl_perception_msgs', '__init__.py').exists()]
    environment = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join(entry for entry in path if entry not in built),
    }

    def start(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, '-m', *command],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    for command in (('mtl_perception.ros',), ('mtl_perception.commands.cli', 'bench')):
        done = start(*command)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert 'mtl_perception_msgs is not built' in line
    report = start('mtl_perception.commands.cli', 'doctor').stdout
    assert re.search('^fail  mtl_perception_msgs +is not installed: the node needs', report, re.M)


def test_without_ros_a_program_says_so(tmp_path: Path) -> None:
    done = run('rclpy', tmp_path, 'mtl_perception.ros')
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert 'rclpy' in line
    assert 'setup.bash' in line


def test_the_command_is_that_of_the_readme() -> None:
    assert BOTH in (ROOT / 'README.md').read_text()
