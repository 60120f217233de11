"""Where the package's own files are, for every way to install it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mtl_perception
from mtl_perception.share import ShareError, message_definition, share

ROOT = Path(__file__).resolve().parents[1]
NAMES = (
    'bundles/tif_lite0_rooms/bundle.yaml',
    'sample/rooms/metadata.yaml',
    'config/fastdds.xml',
    'config/perception.yaml',
    'config/perception.rviz',
    'launch/perception.launch.py',
    'mtl_perception_msgs/msg/PerceptionStatus.msg',
)


def found(modules: Path, *names: str) -> list[str]:
    """What a process that imports the package from ``modules`` finds, or the error it gets."""
    code = (
        'import sys; from mtl_perception.share import ShareError, share\n'
        'try: print(*map(share, sys.argv[1:]), sep="\\n")\n'
        'except ShareError as error: print(error)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, *names],
        env={**os.environ, 'PYTHONPATH': str(modules), 'AMENT_PREFIX_PATH': ''},
        cwd=modules,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_checkout_has_them() -> None:
    for name in NAMES:
        assert share(name).is_file()
    assert share('bundles') == ROOT / 'resource' / 'bundles'
    assert share('config') == ROOT / 'config'


@pytest.mark.parametrize(
    ('modules', 'prefix'),
    [
        ('lib/python3.12/site-packages', ''),  # colcon, a virtual environment, pip --user
        ('local/lib/python3.12/dist-packages', 'local'),  # pip on Debian and Ubuntu
        ('', ''),  # pip --target
    ],
)
def test_an_installation_has_them_in_the_nearest_share_folder(
    tmp_path: Path, modules: str, prefix: str
) -> None:
    package = tmp_path / modules / 'mtl_perception'
    shutil.copytree(Path(mtl_perception.__file__).parent, package)
    for folder in {tmp_path, tmp_path / prefix}:
        path = folder / 'share' / 'mtl_perception' / 'config' / 'fastdds.xml'
        path.parent.mkdir(parents=True)
        path.touch()
    expected = tmp_path / prefix / 'share' / 'mtl_perception' / 'config' / 'fastdds.xml'
    assert found(package.parent, 'config/fastdds.xml') == [str(expected)]


def test_pip_installs_all_of_them_where_they_are_found(tmp_path: Path) -> None:
    pytest.importorskip('setuptools', '70.1', reason='older ones build with the package wheel')
    source = tmp_path / 'source'  # building leaves folders behind
    shutil.copytree(
        ROOT,
        source,
        ignore=lambda folder, names: {n for n in names if n.startswith('.') or n == 'build'},
    )
    target = tmp_path / 'target'
    subprocess.run(
        [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-build-isolation',
         '--no-index', '--target', str(target), str(source)],
        check=True,
    )  # fmt: skip
    assert found(target, *NAMES) == [str(target / 'share' / 'mtl_perception' / n) for n in NAMES]


def test_a_sourced_workspace_knows_messages_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the messages are those that the running nodes were built with."""
    kind = 'mtl_perception_msgs/msg/PerceptionStatus'
    sourced = tmp_path / 'share' / 'mtl_perception_msgs' / 'msg' / 'PerceptionStatus.msg'
    sourced.parent.mkdir(parents=True)
    sourced.touch()
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'/nowhere{os.pathsep}{tmp_path}')
    assert message_definition(kind) == sourced
    monkeypatch.delenv('AMENT_PREFIX_PATH')
    assert message_definition(kind) == ROOT / 'mtl_perception_msgs' / 'msg' / 'PerceptionStatus.msg'
    assert message_definition('zoo_msgs/msg/Animal') is None


@pytest.mark.parametrize('linked', [False, True])
def test_a_clone_is_used_as_it_is(tmp_path: Path, linked: bool) -> None:
    """Also through the link of colcon build --symlink-install, whatever is installed beside it."""
    clone, build = tmp_path / 'src' / 'perception', tmp_path / 'build'
    shutil.copytree(Path(mtl_perception.__file__).parent, clone / 'mtl_perception')
    for home in (clone, tmp_path / 'share' / 'mtl_perception'):
        (home / 'config').mkdir(parents=True)
        (home / 'config' / 'fastdds.xml').touch()
    build.mkdir()
    (build / 'mtl_perception').symlink_to(clone / 'mtl_perception')
    expected = str(clone / 'config' / 'fastdds.xml')
    assert found(build if linked else clone, 'config/fastdds.xml') == [expected]


def test_what_is_missing_is_named_with_the_places() -> None:
    with pytest.raises(ShareError, match=r'config/nothing.xml.*share/mtl_perception/config'):
        share('config/nothing.xml')
