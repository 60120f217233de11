"""Two processes are one with a batch of twice the size."""

from __future__ import annotations

import csv
import runpy
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from mtl_training.checkpoints.checkpoint import read_checkpoint
from mtl_training.checkpoints.config import load_config
from mtl_training.loop.processes import to_device
from mtl_training.loop.train import train
from mtl_training.models import SYSTEMS, build
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'
PLAIN = Path(__file__).with_name('plain.py')
SETTINGS = [
    'model={system: plain, backbone: none}',
    'task_set=nyud',
    'tasks=[semantic, depth, normals]',
    'augment={scale: [1, 1]}',  # no borders: there are as many labelled pixels in each process
    'optim={lr: 0.01, max_steps: 5, optimizer: sgd, ema_decay: 0.9, clip_norm: 0.5}',
    'run={validate_every: 3, validate_frames: 2, picture_every: 0, log_every: 1, threads: 1}',
    'run.accelerator=cpu',
]


def in_two_processes(data: Path, out: Path, *words: str) -> Path:
    """``mtl_training train`` with the plain system, two frames in each process."""
    command = [sys.executable, str(PLAIN), 'train', str(TINY)]
    command += ['--data', str(data), '--out', str(out)]
    for setting in (*SETTINGS, 'run.devices=2', 'optim.batch_size=2'):
        command += ['--set', setting]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [str(out / 'last.safetensors')]  # said once
    return out / 'last.safetensors'


@pytest.mark.parametrize(
    'balancing',
    [
        '{method: uncertainty}',
        '{method: dwa}',
        '{method: mgda, options: {normalization: loss+}}',
        '{method: mgda, options: {normalization: loss+, features: true}}',
        '{method: log_scaling}',
        '{method: dtp, options: {alpha: 0.5}}',
        '{method: sampling}',
        '{method: gradnorm}',
        '{method: graddrop, options: {leak: 1.0}}',
        '{method: adversarial, options: {steps: 2, width: 8}}',
    ],
)
def test_two_processes_are_one_with_twice_the_batch(
    balancing: str, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SYSTEMS, 'plain', runpy.run_path(str(PLAIN))['Plain'])
    setting = f'balancing={balancing}'
    config = load_config(TINY, [*SETTINGS, setting, 'optim.batch_size=4'])
    one = train(config, labelled, tmp_path / 'one')
    two = in_two_processes(labelled, tmp_path / 'two', '--set', setting)
    expected, found = load_file(one), load_file(two)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    rows = [list(csv.DictReader((path.parent / 'log.csv').open())) for path in (one, two)]
    assert len(rows[0]) == 5
    for mine, theirs in zip(*rows, strict=True):
        for name in mine.keys() - {'seconds', 'waiting'}:
            assert float(mine[name]) == pytest.approx(float(theirs[name]), rel=1e-4, abs=1e-6), name


def test_two_processes_resume_as_if_they_had_not_been_interrupted(
    labelled: Path, tmp_path: Path
) -> None:
    whole = in_two_processes(labelled, tmp_path / 'whole')
    in_two_processes(labelled, tmp_path / 'parts', '--time-budget', '0')
    assert read_checkpoint(tmp_path / 'parts' / 'last.safetensors')[1]['progress']['step'] == 1
    parts = in_two_processes(labelled, tmp_path / 'parts', '--resume')
    expected, found = load_file(whole), load_file(parts)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_norms_that_count_over_all_gpus_keep_what_belongs_to_them() -> None:
    """timm's norms hold the activation, which torch's own conversion would drop.

    Without GPUs, only what they do in use can be compared.
    """
    torch.manual_seed(0)
    net = build('tif', 'tf_efficientnet_lite0', {'depth': 1}, width=8, fuse_width=8).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = net(image)['depth']
    names = list(net.state_dict())
    several = Mock(world_size=2, device=torch.device('cuda'))
    assert to_device(net, several) is net
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm)]
    assert norms
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert list(net.state_dict()) == names
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(image)['depth'], expected)
