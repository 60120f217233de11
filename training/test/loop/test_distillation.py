"""Teachers: what they say about pictures of another size, and what a network learns of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from mtl_training.datasets.batches import Batch, Examples, loader
from mtl_training.datasets.classes import CLASS_SETS
from mtl_training.evaluation.predictors import Maps
from mtl_training.loop.checkpoint import load_checkpoint
from mtl_training.loop.config import ConfigError, load_config
from mtl_training.loop.distillation import Teacher, open_teachers
from mtl_training.loop.run import prepare
from mtl_training.loop.step import make_step
from mtl_training.loop.train import train
from mtl_training.tasks import TASK_SETS, TaskSet

from mtl_perception.share import share

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'
QUIET = ('run.validate_every=0', 'run.picture_every=0', 'optim.max_steps=1')
CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def experts(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Single-task networks, by task."""
    out = tmp_path_factory.mktemp('experts')
    configs = {t: load_config(TINY, [*QUIET, f'tasks=[{t}]']) for t in ('semantic', 'depth')}
    return {task: train(config, labelled, out / task) for task, config in configs.items()}


def tasks_of(name: str) -> TaskSet:
    return TASK_SETS[name](CLASS_SETS[name])


def batch_of(data: Path, *settings: str) -> Batch:
    run = prepare(load_config(TINY, settings), Fabric(accelerator='cpu'), data)
    frames = Examples(
        run.split('train'), run.trained_tasks, height=64, width=96, canonical_focal=277.0
    )
    return next(iter(loader(frames, 0, batch_size=2)))


@pytest.mark.parametrize('name', ['rooms', 'pascal'])
def test_maps_become_the_targets_that_they_came_from(name: str) -> None:
    rng, zoom = np.random.default_rng(0), torch.tensor([0.5, 2.0])
    stored = {
        'semantic': rng.choice([0, 1, 255], (2, 8, 9)),
        'human_parts': rng.choice([0, 3, 255], (2, 8, 9)),
        'depth': rng.choice([0, 500, 1500], (2, 8, 9)).astype(np.uint16),
        'normals': rng.choice([0, 255, 100], (2, 8, 9, 3)),
        'edges': rng.choice([0, 1, 255], (2, 8, 9)),
        'saliency': rng.choice([0, 1, 255], (2, 8, 9)),
    }
    for task in tasks_of(name).values():
        frames = stored[task.name] if task.name == 'depth' else stored[task.name].astype(np.uint8)
        pairs = zip(frames, zoom.tolist(), strict=True)
        target = torch.stack([task.target(frame, factor) for frame, factor in pairs])
        again = task.of_maps(task.truth(target, zoom), zoom)
        assert again.dtype == target.dtype
        torch.testing.assert_close(again, target)


@pytest.mark.parametrize(('height', 'width'), [(64, 96), (32, 48), (128, 288)])
def test_labels_lie_where_the_picture_is(height: int, width: int) -> None:
    """A teacher that calls the red of a picture its depth, at half, equal and twice the size."""
    ramp = torch.arange(64).view(-1, 1) + torch.arange(96)
    image = torch.stack([ramp, 0 * ramp, 0 * ramp]).expand(2, 3, 64, 96).byte()
    asked: list[Batch] = []

    def predict(batch: Batch) -> Maps:
        asked.append(batch)
        return {'depth': batch['image'][:, 0].float().numpy()}

    tasks = {'depth': tasks_of('rooms')['depth']}
    teacher = Teacher(tasks, predict, height, width, canonical_focal=100.0)
    batch = {'image': image, 'fx': torch.tensor([100.0, 200.0])}
    found = teacher.labels(batch)['depth.taught']
    (seen,) = asked
    assert seen['image'].shape == (2, 3, height, width)
    assert seen['fx'].tolist() == [100 * height / 64, 200 * height / 64]
    metres = found[:, 0] * torch.tensor([1.0, 2.0]).view(-1, 1, 1)
    assert (metres - ramp).abs().max() <= 2  # of two pixels at half the size
    assert (metres - ramp).mean().abs() < 0.5


def test_experts_teach_what_they_know(
    experts: dict[str, Path], labelled: Path, tmp_path: Path
) -> None:
    """Their own predictions are the targets; of an empty batch, too."""
    paths = [str(path) for path in experts.values()]
    settings = [*QUIET, 'tasks=[semantic, depth, edges]', f'distill.teachers={paths}']
    config = load_config(TINY, [*settings, 'distill.weight=3'])
    run = prepare(config, Fabric(accelerator='cpu'), labelled)
    assert [list(teacher.tasks) for teacher in run.teachers] == [['semantic'], ['depth']]
    batch = batch_of(labelled, *settings)
    for task in ('semantic', 'depth'):
        batch[task] = torch.full_like(batch[task], 255 if task == 'semantic' else 0)
        batch[f'{task}.labelled'] = torch.zeros(2, dtype=torch.bool)
    step = make_step(run, batch, rate=1e-9)

    net, _ = load_checkpoint(experts['depth'])
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (net.mean, net.std))
    image = (batch['image'] / 255 - mean) / std
    with torch.no_grad():
        canonical = net.eval()(image)['depth'][:, :1].exp() * 277 / config.data.canonical_focal
        fresh = prepare(config, Fabric(accelerator='cpu'), labelled)
        logits = fresh.net.train().predictions(image).final['depth']
        expected = 3 * run.tasks['depth'].loss(logits, canonical)
    assert step.losses['taught_depth'].item() == pytest.approx(expected.item(), rel=1e-3)
    assert step.losses['depth'] == 0
    assert step.losses['taught_semantic'] > 0
    assert 'taught_edges' not in step.losses
    heads = {n for n, p in run.net.named_parameters() if p.grad is not None and p.grad.any()}
    assert any('depth' in name for name in heads)


def test_a_network_comes_to_agree_with_its_teacher(
    experts: dict[str, Path], labelled: Path
) -> None:
    config = load_config(
        TINY, [*QUIET, 'tasks=[depth]', f'distill.teachers=[{experts["depth"]}]', 'weights={}']
    )
    run = prepare(config, Fabric(accelerator='cpu'), labelled)
    batch = batch_of(labelled, *QUIET, 'tasks=[depth]')
    batch['depth'] *= 0
    batch['depth.labelled'][:] = False
    losses = [make_step(run, batch, rate=0.003).losses['taught_depth'].item() for _ in range(15)]
    assert losses[-1] < losses[0] - 0.25


def test_a_bundle_teaches_a_robot(labelled: Path) -> None:
    bundle = str(share('bundles') / 'tif_lite0_rooms')
    settings = [*QUIET, 'tasks=[depth, semantic, normals]', f'distill.teachers=[{bundle}]']
    run = prepare(load_config(TINY, settings), Fabric(accelerator='cpu'), labelled)
    batch = batch_of(labelled, *settings)
    (teacher,) = run.teachers
    labels = teacher.labels(batch)
    assert {name: tuple(x.shape) for name, x in labels.items()} == {
        'depth.taught': (2, 1, 64, 96),
        'semantic.taught': (2, 64, 96),
        'normals.taught': (2, 3, 64, 96),
    }
    assert (labels['depth.taught'] > 0).all()
    torch.testing.assert_close(labels['normals.taught'].norm(dim=1), torch.ones(2, 64, 96))
    assert make_step(run, batch, rate=1e-3).losses['total'].isfinite()


def test_teachers_without_anything_to_teach_are_told(experts: dict[str, Path]) -> None:
    tasks, classes = tasks_of('rooms'), CLASS_SETS['rooms']
    path = str(experts['depth'])
    with pytest.raises(ConfigError, match='has depth; left to be taught: semantic, normals') as e:
        open_teachers([path, path], tasks, classes, 277.0, CPU)
    assert path in str(e.value)
