"""What every system of the literature must do: train, learn, become a bundle, be understood.

Backbones are ResNets with few, narrow blocks; the figures of the papers are in each system's file.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mtl_training.checkpoints.checkpoint import build_network, config_tasks
from mtl_training.checkpoints.config import Config, load_config
from mtl_training.datasets.batches import Examples, loader
from mtl_training.datasets.rooms import Rooms
from mtl_training.deploy.comparison import compare_with_torch
from mtl_training.deploy.deployable import Deployable
from mtl_training.deploy.graph import to_onnx
from mtl_training.evaluation.predictors import normalise
from mtl_training.labels import CLASS_SETS
from mtl_training.loop.optimizer import make_optimizer
from mtl_training.loop.train import train
from mtl_training.models import SYSTEMS
from mtl_training.models.backbones import BACKBONES
from mtl_training.models.pyramids import ResNetPyramid
from mtl_training.tasks import multi_task_loss, weighted_sum

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'
SMALL = {'layers': (1, 1, 1, 1), 'channels': (16, 32, 48, 64), 'out_indices': (1, 2, 3, 4)}
# Systems made for dilated ResNets; the others take any pyramid.
DILATED = ('cross_stitch', 'sluice', 'nddr', 'mtan')
# Options that keep a test small, and tasks of systems that do not take any number of them.
OPTIONS: dict[str, dict[str, Any]] = {
    'tif': {'width': 16, 'fuse_width': 16},
    'mt_cp': {'width': 32},
    'pad_net': {'width': 32},
    'pap_net': {'width': 32},
    'psd': {'orders': 2},
    'jtrl': {'width': 32},
}
STEPS = 300
TASKS = {'jtrl': ['semantic', 'depth']}


@pytest.fixture(autouse=True)
def _small_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, 'small', (ResNetPyramid, 'resnet18', SMALL))
    dilated = {**SMALL, 'layers': (2, 2, 2, 2), 'output_stride': 8}  # MTAN needs two blocks
    monkeypatch.setitem(BACKBONES, 'small_d8', (ResNetPyramid, 'resnet18', dilated))


def configure(system: str, *overrides: str) -> Config:
    """A short run of a system."""
    config = load_config(
        TINY, ['optim.max_steps=2', 'run.validate_every=0', 'run.picture_every=0', *overrides]
    )
    model = dataclasses.replace(
        config.model,
        system=system,
        backbone='small_d8' if system in DILATED else 'small',
        options=OPTIONS.get(system, {}),
    )
    tasks = tuple(TASKS.get(system, ['semantic', 'depth', 'normals', 'edges']))
    return dataclasses.replace(config, model=model, tasks=tasks)


@pytest.fixture(params=list(SYSTEMS))
def system(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def batch_of(config: Config, rooms: Path, height: int, width: int) -> dict[str, torch.Tensor]:
    """Four images of the training split."""
    frames = Rooms(rooms, 'train', CLASS_SETS[config.task_set])
    data = Examples(frames, config_tasks(config), height=height, width=width, canonical_focal=277.0)
    return next(iter(loader(data, 0, batch_size=4)))


def test_two_steps_of_the_training_loop(system: str, rooms: Path, tmp_path: Path) -> None:
    last = train(configure(system), rooms, tmp_path)
    rows = (tmp_path / 'log.csv').read_text().splitlines()
    assert len(rows) == 3
    assert 'nan' not in rows[-1]
    assert last.stat().st_size > 1000


def test_it_learns_four_images_by_heart(system: str, rooms: Path) -> None:
    """The loss falls by nine tenths, without edges, which a grid of H/4 cannot draw."""
    config = configure(system)
    config = dataclasses.replace(config, tasks=tuple(t for t in config.tasks if t != 'edges'))
    torch.manual_seed(0)
    net = build_network(config, pretrained=False).train()
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    tasks, batch = config_tasks(config), batch_of(config, rooms, 32, 48)
    images = normalise(batch['image'], net.mean, net.std)
    optimizer = make_optimizer(net, dataclasses.replace(config.optim, lr=4e-3, weight_decay=0.0))
    first = total = torch.inf
    for step in range(STEPS):
        predictions = net.predictions(images)
        losses = bounded(multi_task_loss(predictions.final, batch, tasks))
        extra = [
            weighted_sum(bounded(multi_task_loss(a.logits, batch, tasks)), tasks) * a.weight
            for a in predictions.auxiliary
        ]
        loss = weighted_sum(losses, tasks)
        total = loss.item()
        first = total if step == 0 else first
        if total < 0.1 * first:
            break
        optimizer.zero_grad()
        (loss + sum(extra) + sum(net.penalties(losses).values())).backward()
        optimizer.step()
    assert total < 0.1 * first, f'{first:.3f} -> {total:.3f}'


def bounded(losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Losses that are 0 where all is right: the likelihood of depth falls without end."""
    if 'depth' not in losses:
        return losses
    return {**losses, 'depth': torch.nn.functional.softplus(losses['depth'])}


def deployable(system: str) -> Deployable:
    """A network of two tasks: exporting takes a second for about fifteen nodes."""
    config = dataclasses.replace(configure(system), tasks=('semantic', 'depth'))
    torch.manual_seed(0)
    net = build_network(config, pretrained=False)
    with torch.no_grad():  # statistics and weights that folding has to respect
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    net.eval()
    return Deployable(net, config_tasks(config), mean=net.mean, std=net.std)


def test_it_becomes_a_graph_that_says_the_same_and_that_tensorrt_understands(system: str) -> None:
    if SYSTEMS[system].not_exportable:
        pytest.skip(f'{system} cannot be exported: {SYSTEMS[system].not_exportable}')
    module = deployable(system)
    model = to_onnx(module, (64, 96)).SerializeToString()
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    found = compare_with_torch(model, module, images, threads=1)
    refused = [str(agreement) for agreement in found if not agreement.ok]
    assert refused == []
    trt = pytest.importorskip('tensorrt_rtx', reason='the compiler that needs no GPU; x86_64 only')
    tensorrt = pytest.importorskip('mtl_perception.engines.tensorrt_build')
    backends = pytest.importorskip('mtl_perception.engines.engine')
    assert len(tensorrt.build_plan(trt, model, backends.EngineOptions(max_batch=2))) > 1000
