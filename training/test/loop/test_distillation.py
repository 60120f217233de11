"""Teachers: what they say about pictures of another size, and what a network learns of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from mtl_training.checkpoints.checkpoint import load_checkpoint
from mtl_training.checkpoints.config import ConfigError, DistillConfig, load_config
from mtl_training.datasets.batches import Batch, Examples, loader
from mtl_training.evaluation.predictors import Maps
from mtl_training.labels import CLASS_SETS
from mtl_training.loop.distillation import (
    HardTeacher,
    SoftTeacher,
    centres,
    open_teachers,
    sampled,
)
from mtl_training.loop.run import prepare
from mtl_training.loop.step import make_step, sub_sample
from mtl_training.loop.train import train
from mtl_training.models import Network, Predictions
from mtl_training.tasks import TASK_SETS, L1Depth, TaskSet
from torch import Tensor
from torch.nn import functional

from mtl_perception.camera import Letterbox
from mtl_perception.share import share

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'
QUIET = ('run.validate_every=0', 'run.picture_every=0', 'optim.max_steps=1')
CPU = torch.device('cpu')
INDOOR, ROOMS = (str(share('bundles') / f'tif_lite0_{name}') for name in ('indoor', 'rooms'))


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
    teacher = HardTeacher(
        tasks=tasks, predict=predict, height=height, width=width, canonical_focal=100.0
    )
    batch = {'image': image, 'fx': torch.tensor([100.0, 200.0])}
    found = teacher.targets(batch)['depth.taught']
    (seen,) = asked
    assert seen['image'].shape == (2, 3, height, width)
    assert seen['fx'].tolist() == [100 * height / 64, 200 * height / 64]
    metres = found[:, 0] * torch.tensor([1.0, 2.0]).view(-1, 1, 1)
    assert (metres - ramp).abs().max() <= 2  # of two pixels at half the size
    assert (metres - ramp).mean().abs() < 0.5


class Red(Network):
    """Calls the mean red of 4x4 pixels their depth."""

    def predictions(self, image: Tensor) -> Predictions:
        return Predictions({'depth': functional.avg_pool2d(image[:, :1], 4)})


@pytest.mark.parametrize(('height', 'width'), [(64, 96), (32, 48), (128, 288)])
def test_soft_targets_lie_where_the_picture_is(height: int, width: int) -> None:
    """On a quarter of the picture's grid, in metres of a teacher of half the focal length."""
    ramp = torch.arange(64).view(-1, 1) + torch.arange(96)
    image = torch.stack([ramp, 0 * ramp, 0 * ramp]).expand(2, 3, 64, 96).byte()
    depth = {'depth': L1Depth()}
    teacher = SoftTeacher(
        tasks=depth,
        height=height,
        width=width,
        canonical_focal=100.0,
        net=Red({'depth': 1}, mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255)),
        own=depth,
        own_focal=50.0,
        temperature=1.0,
    )
    soft = teacher.targets({'image': image, 'fx': torch.tensor([100.0, 200.0])})['depth.soft']
    found = soft[:, 0] / (2 * height / 64)
    expected = functional.avg_pool2d(ramp[None].float(), 4).expand(2, 16, 24)
    difference = found - expected
    if (height, width) == (64, 96):
        torch.testing.assert_close(found, expected)
    assert difference[:, 1:-1, 1:-1].abs().max() < 0.6
    assert difference.abs().max() <= 4  # at half the size, half a pixel of its grid


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


def test_soft_targets_stay_whole_on_a_coarser_grid() -> None:
    batch = {'a': torch.rand(1, 4, 6), 'a.soft': torch.rand(1, 3, 2, 3)}
    coarse = sub_sample(batch, 2, 3)
    torch.testing.assert_close(coarse['a'], batch['a'][:, 1::2, 1::2])
    assert coarse['a.soft'] is batch['a.soft']


def test_soft_experts_teach_how_likely_all_is(experts: dict[str, Path], labelled: Path) -> None:
    """Once for a batch, without graphs, whatever its parts and the grid of labels."""
    settings = [*QUIET, 'tasks=[semantic, depth]', f'distill.teachers=[{experts["semantic"]}]']
    settings += ['distill.weight=3', 'distill.soft=true', 'distill.temperature=2']
    settings += ['optim.accumulate=2', 'optim.loss_stride=2']
    config = load_config(TINY, settings)
    run = prepare(config, Fabric(accelerator='cpu'), labelled)
    (teacher,) = run.teachers
    assert isinstance(teacher, SoftTeacher)
    batch = batch_of(labelled, *settings)
    passes: list[bool] = []
    net = next(teacher.net.children())
    net.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    step = make_step(run, batch, rate=1e-9)
    assert passes == [False]
    assert not any(module.training for module in teacher.net.modules())

    fresh = prepare(config, Fabric(accelerator='cpu'), labelled)
    net, _ = load_checkpoint(experts['semantic'])
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (net.mean, net.std))
    image = (batch['image'] / 255 - mean) / std
    with torch.no_grad():
        likely = (net.predictions(image).final['semantic'] / 2).softmax(dim=1)
        parts = [fresh.net.train().predictions(part).final['semantic'] for part in image.chunk(2)]
        entropy = -(likely * (torch.cat(parts) / 2).log_softmax(dim=1)).sum(dim=1)
    expected = 3 * 2**2 * entropy.mean()
    assert step.losses['taught_semantic'].item() == pytest.approx(expected.item(), rel=1e-3)
    assert 'taught_depth' not in step.losses


def test_the_default_bundle_is_a_soft_teacher_of_groups(labelled: Path) -> None:
    """Its network has 40 classes; as a bundle it says the same, as labels."""
    tasks, classes = tasks_of('rooms'), CLASS_SETS['rooms']
    del tasks['edges']
    batch = batch_of(labelled)
    (hard,), (soft,) = (
        open_teachers(DistillConfig((INDOOR,), soft=soft), tasks, classes, 277.0, CPU)
        for soft in (False, True)
    )
    assert isinstance(soft, SoftTeacher)
    assert soft.net.kept == ('semantic', 'depth', 'normals')  # nobody asks it for edges
    labels, targets = hard.targets(batch), soft.targets(batch)
    likely = targets['semantic.soft']
    assert likely.shape == (2, len(classes), 16, 24)
    torch.testing.assert_close(likely.sum(dim=1), torch.ones(2, 16, 24))
    large = functional.interpolate(likely, scale_factor=4, mode='bilinear')
    assert (large.argmax(dim=1) == labels['semantic.taught']).float().mean() > 0.9
    depth = functional.interpolate(targets['depth.soft'][:, :1], scale_factor=4, mode='bilinear')
    assert (depth / labels['depth.taught'] - 1).abs().median() < 0.02
    vectors = functional.interpolate(targets['normals.soft'], scale_factor=4, mode='bilinear')
    assert (vectors * labels['normals.taught']).sum(dim=1).mean() > 0.98


def test_a_teacher_sees_pictures_where_the_node_puts_them_and_labels_those_pixels() -> None:
    """Pictures of 48x96 for a teacher of 64x64: scaled by 2 / 3, in its rows 16 to 47."""
    rows = torch.arange(48.0)[:, None].expand(48, 96) * 5
    batch = {
        'image': rows.expand(1, 3, 48, 96).round().byte(),
        'fx': torch.tensor([300.0]),
        'depth': torch.ones(1, 1, 48, 96),
    }
    teacher = HardTeacher(
        tasks={'depth': tasks_of('rooms')['depth']},
        height=64,
        width=64,
        canonical_focal=300.0,
        predict=lambda seen: {'depth': seen['image'][:, 0].float().numpy()},
    )
    seen, box = teacher.seen(batch)
    picture = batch['image'][0].permute(1, 2, 0).numpy()
    there = Letterbox.fit(96, 48, 64, 64).forward(picture)
    np.testing.assert_allclose(seen['image'][0].permute(1, 2, 0), there, atol=3)
    assert seen['fx'].item() == pytest.approx(200)
    taught = teacher.targets(batch)['depth.taught'][0, 0]
    assert (taught - rows).abs().max() <= 6  # a row of the teacher is one and a half
    # Soft targets of a quarter of the size, from maps of the teacher.
    found = sampled(seen['image'][:, :1].float(), centres((12, 24), box))[0, 0]
    expected = rows.reshape(12, 4, 24, 4).mean(dim=(1, 3))
    np.testing.assert_allclose(found, expected, atol=3)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (['distill.temperature=4'], 'labels have no temperature; expected 1, or distill.soft'),
        (['distill.soft=true'], 'distill.teachers names none'),
        (
            ['distill.soft=true', f'distill.teachers=[{ROOMS}]'],
            'no network can be made of a teacher: .*tif_lite0_rooms cannot be read as a checkp',
        ),
        (
            [
                'distill.soft=true',
                f'distill.teachers=[{INDOOR}]',
                'task_set=streets',
                'tasks=[semantic, depth]',
            ],
            'tif_lite0_indoor cannot say how likely .* 40 classes apart, .* gathered into road',
        ),
    ],
)
def test_soft_teachers_that_cannot_be_are_told(
    labelled: Path, settings: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(load_config(TINY, [*QUIET, *settings]), Fabric(accelerator='cpu'), labelled)


def test_a_bundle_teaches_a_robot(labelled: Path) -> None:
    settings = [*QUIET, 'tasks=[depth, semantic, normals]', f'distill.teachers=[{ROOMS}]']
    run = prepare(load_config(TINY, settings), Fabric(accelerator='cpu'), labelled)
    batch = batch_of(labelled, *settings)
    (teacher,) = run.teachers
    labels = teacher.targets(batch)
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
        open_teachers(DistillConfig((path, path)), tasks, classes, 277.0, CPU)
    assert path in str(e.value)
