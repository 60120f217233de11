"""``mtl_perception replay --ray``: a cluster makes the same bytes, also when a worker is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rosbags', reason='recordings need rosbags')
pytest.importorskip('onnxruntime', reason='runs the tiny network')

from mtl_perception.commands import cli
from mtl_perception.commands import replay as command

SAMPLE = Path(__file__).parents[2] / 'resource' / 'sample' / 'rooms'
WORDS = ('--outputs', 'depth,semantic', '--keep', '/camera/camera_info', '--duration', '4')


@pytest.fixture
def replay(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr('mtl_perception.offline.runners._PIECE', 2)

    def run(source: Path, out: Path, *words: str) -> int:
        engine = ('--bundle', str(tiny_bundle), '--backend', 'onnxruntime')
        return cli.main(['replay', str(source), str(out), *words, *engine])

    return run


@pytest.fixture(scope='module')
def cluster() -> Iterator[str]:
    """A cluster of two workers on this machine; its address."""
    ray = pytest.importorskip('ray', reason='starts a cluster')
    context = ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=2**27, log_to_driver=False
    )
    yield context.address_info['address']
    ray.shutdown()


def workers() -> list[int]:
    """Processes of the cluster that do a piece; the cluster is a child of this process."""

    def children(parent: int) -> list[int]:
        found = []
        for path in Path('/proc').glob('[0-9]*/stat'):
            try:
                name, _, fields = path.read_text().rpartition(') ')
            except OSError:
                continue
            if int(fields.split()[1]) == parent:
                found.append(int(name.split()[0]))
        return found

    def does_a_piece(pid: int) -> bool:
        return b'run_piece' in Path(f'/proc/{pid}/cmdline').read_bytes()

    return [p for child in children(os.getpid()) for p in children(child) if does_a_piece(p)]


def test_a_cluster_makes_the_same_bytes_though_a_worker_is_killed(
    cluster: str, replay: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = []

    class Bar(command.ProgressBar):
        def update(self, done: int) -> None:
            if not killed and done > 4:
                for worker in workers()[:1]:
                    os.kill(worker, signal.SIGKILL)
                    killed.append(worker)

    assert replay(SAMPLE, tmp_path / 'serial' / 'out', *WORDS) == 0
    with monkeypatch.context() as patch:
        patch.setattr(command, 'ProgressBar', Bar)
        assert replay(SAMPLE, tmp_path / 'ray' / 'out', *WORDS, '--ray', cluster) == 0
    assert killed
    assert f'2 workers of the Ray cluster at {cluster}' in capsys.readouterr().out
    files = [(tmp_path / name / 'out' / 'out.mcap').read_bytes() for name in ('serial', 'ray')]
    assert files[0] == files[1]


def test_a_token_is_taken_from_the_environment(
    cluster: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    """By another process, which does not know how the cluster was started."""
    token = Path.home() / '.ray' / 'auth_token'
    environment = {k: v for k, v in os.environ.items() if not k.startswith('RAY_')}
    environment['RAY_AUTH_TOKEN'] = token.read_text().strip() if token.exists() else 'any'
    words = ['replay', str(SAMPLE), str(tmp_path / 'out'), '--ray', cluster, '--duration', '0.5']
    engine = ['--bundle', str(tiny_bundle), '--backend', 'onnxruntime']
    done = subprocess.run(
        [sys.executable, '-m', 'mtl_perception.commands.cli', *words, *engine],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'out').exists()


def test_what_fails_in_a_worker_is_said_here(cluster: str, tmp_path: Path, capsys: Any) -> None:
    words = ['replay', str(SAMPLE), str(tmp_path / 'out'), '--ray', cluster]
    assert cli.main([*words, '--precision', 'int8', '--backend', 'tensorrt']) == 1
    assert 'no room for 1 CPUs and a GPU' in capsys.readouterr().err
    assert cli.main([*words, '--threads', '3']) == 1
    assert 'no room for 3 CPUs' in capsys.readouterr().err
    assert cli.main([*words, '--precision', 'bf16', '--backend', 'onnxruntime']) == 1
    error = capsys.readouterr().err
    assert 'bf16' in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / 'out').exists()


def test_where_no_cluster_is_that_is_said(replay: Any, tmp_path: Path, capfd: Any) -> None:
    with socket.socket() as nobody:
        nobody.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{nobody.getsockname()[1]}'
        assert replay(SAMPLE, tmp_path / 'out', '--ray', address) == 1
    error = capfd.readouterr().err
    assert f'no Ray cluster at {address}: ' in error
    assert len(error.splitlines()) == 1


def test_ray_is_optional(
    replay: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'ray', None)
    assert replay(SAMPLE, tmp_path / 'out', '--ray', 'auto') == 1
    assert 'pip install ray' in capsys.readouterr().err
