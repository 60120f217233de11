"""Cross-stitch networks: the survey's figures, and what the units combine."""

from __future__ import annotations

import pytest
import torch
from mtl_training.checkpoints.config import OptimConfig
from mtl_training.loop.optimizer import make_optimizer
from mtl_training.models import ModelError, build
from mtl_training.models.cross_stitch import CrossStitchUnit
from mtl_training.papers.describe import by_kind, describe
from torch import Tensor

NYUD = {'semantic': 40, 'depth': 1}
PASCAL = {'semantic': 21, 'human_parts': 7, 'saliency': 1, 'normals': 3, 'edges': 1}


@pytest.fixture(scope='module')
def image() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ('backbone', 'tasks', 'size', 'parameters', 'macs'),
    [
        ('resnet50_d8', NYUD, (480, 640), 79_292_841, 383_387_877_376),
        ('resnet18_d8', PASCAL, (512, 512), 79_525_921, 334_635_859_968),
    ],
)
def test_figures_are_those_of_the_authors_code(
    backbone: str, tasks: dict[str, int], size: tuple[int, int], parameters: int, macs: int
) -> None:
    """Survey Table V prints 80 M, 192 G and 80 M, 167 G; G are MACs / 2."""
    with torch.device('meta'):
        parts = describe(build('cross_stitch', backbone, tasks), size)
    assert parts[0].parameters == parameters
    assert parts[0].written.total == macs
    kinds = {part.kind: part for part in by_kind(parts)}
    assert sum(part.written.total for part in kinds.values()) == macs
    assert kinds['ResNetPyramid'].written.total > 0.5 * macs


def test_the_identity_is_the_single_task_networks(image: Tensor) -> None:
    torch.manual_seed(0)
    single = build('single_task', 'resnet18_d8', NYUD).eval()
    stitched = build('cross_stitch', 'resnet18_d8', NYUD, own=1.0).eval()
    missing, unexpected = stitched.load_state_dict(single.state_dict(), strict=False)
    assert missing == [f'stitch.{stage}.alpha' for stage in range(4)]
    assert unexpected == []
    with torch.no_grad():
        expected, found = single(image), stitched(image)
    for task in NYUD:
        torch.testing.assert_close(found[task], expected[task], rtol=0, atol=0)


def test_a_swap_is_the_other_tasks_backbone(image: Tensor) -> None:
    """With alpha_AB = alpha_BA = 1 after the last stage the heads change places."""
    torch.manual_seed(0)
    net = build('cross_stitch', 'resnet18_d8', {'semantic': 3, 'depth': 3}, own=1.0).eval()
    swapped = build('cross_stitch', 'resnet18_d8', {'semantic': 3, 'depth': 3}, own=1.0).eval()
    weights = net.state_dict()
    other = {'semantic': 'depth', 'depth': 'semantic'}
    for name in list(weights):
        group, task, *rest = name.split('.')
        if group == 'heads':
            weights[name] = net.state_dict()['.'.join([group, other[task], *rest])]
    weights['stitch.3.alpha'] = weights['stitch.3.alpha'].flip(0)
    swapped.load_state_dict(weights)
    with torch.no_grad():
        before, after = net(image), swapped(image)
    for task in before:
        torch.testing.assert_close(after[other[task]], before[task])


@pytest.mark.parametrize(('tasks', 'own', 'other'), [(1, 1, 0), (2, 0.9, 0.1), (5, 0.8, 0.05)])
def test_units_begin_as_the_surveys(tasks: int, own: float, other: float) -> None:
    alpha = CrossStitchUnit(tasks, 3).alpha
    for i in range(tasks):
        for j in range(tasks):
            expected = torch.full((3,), own if i == j else other, dtype=torch.float32)
            torch.testing.assert_close(alpha[i, j].detach(), expected)


def test_the_unit_is_a_matrix_for_each_channel() -> None:
    torch.manual_seed(0)
    unit = CrossStitchUnit(3, 4)
    torch.nn.init.normal_(unit.alpha)
    x = {task: torch.randn(2, 4, 3, 5) for task in 'abc'}
    stacked = torch.stack(list(x.values()))  # [T, B, C, h, w]
    for index, combined in enumerate(unit(x).values()):
        expected = torch.einsum('jc,jbchw->bchw', unit.alpha[index], stacked)
        torch.testing.assert_close(combined, expected)


def test_a_loss_reaches_every_encoder_and_no_other_head(image: Tensor) -> None:
    torch.manual_seed(0)
    net = build('cross_stitch', 'resnet18_d8', NYUD).train()
    net.predictions(image).final['depth'].square().mean().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == name.startswith('heads.semantic'), name
    last = net.stitch[3].alpha.grad
    assert last[1].any()
    assert not last[0].any()  # semantic's combination is read by semantic's head only


def test_units_learn_a_hundred_times_as_fast() -> None:
    net = build('cross_stitch', 'resnet18_d8', NYUD)
    optimizer = make_optimizer(net, OptimConfig(lr=1e-3, max_steps=1, optimizer='sgd'))
    factors = {id(p): g['factor'] for g in optimizer.param_groups for p in g['params']}
    for name, parameter in net.named_parameters():
        assert factors[id(parameter)] == (100 if name.startswith('stitch') else 1), name


def test_other_backbones_are_refused_in_one_sentence() -> None:
    with pytest.raises(ModelError, match='not on resnet18; expected one of resnet18_d8, resnet50'):
        build('cross_stitch', 'resnet18', NYUD)
