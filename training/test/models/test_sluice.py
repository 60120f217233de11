"""Sluice networks: what alpha and beta mix, and what the penalty asks for."""

from __future__ import annotations

import pytest
import torch
from mtl_training.models import ModelError, build
from mtl_training.models.cross_stitch import CrossStitchUnit
from mtl_training.models.sluice import LayerMixture, SluiceUnit, overlap
from torch import Tensor, nn
from torch.nn import functional as F

NYUD = {'semantic': 40, 'depth': 1}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope='module')
def image() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ('backbone', 'channels'),
    [('resnet50_d8', (256, 512, 1024, 2048)), ('resnet18_d8', (64, 128, 256, 512))],
)
def test_parameters_are_single_tasks_with_alpha_beta_and_projections(
    backbone: str, channels: tuple[int, ...]
) -> None:
    with torch.device('meta'):
        sluice, single = (build(system, backbone, NYUD) for system in ('sluice', 'single_task'))
    *others, last = channels
    projections = sum(width * last + 2 * last for width in others)
    more = 4 * 4**2 + 2 * (4 + projections)
    assert parameters(sluice) == parameters(single) + more


def test_without_sharing_and_skips_it_is_the_single_task_networks(image: Tensor) -> None:
    torch.manual_seed(0)
    single = build('single_task', 'resnet18_d8', NYUD).eval()
    net = build('sluice', 'resnet18_d8', NYUD, own=1.0).eval()
    missing, unexpected = net.load_state_dict(single.state_dict(), strict=False)
    assert unexpected == []
    assert all(name.startswith(('sluices', 'mixtures')) for name in missing)
    with torch.no_grad():
        for mixture in net.mixtures.values():
            mixture.beta.copy_(torch.tensor([0.0, 0.0, 0.0, 1.0]))
        expected, found = single(image), net(image)
    for task in NYUD:
        torch.testing.assert_close(found[task], expected[task])


def test_a_subspace_is_shared_and_the_other_is_not() -> None:
    """alpha can give one half of the channels to the other task and keep the other half."""
    unit = SluiceUnit(2, 1.0)
    with torch.no_grad():
        unit.alpha.copy_(torch.eye(4)[[2, 1, 0, 3]])  # the first halves change places
    a, b = torch.randn(2, 6, 3, 4), torch.randn(2, 6, 3, 4)
    mixed = unit({'a': a, 'b': b})
    torch.testing.assert_close(mixed['a'], torch.cat([b[:, :3], a[:, 3:]], dim=1))
    torch.testing.assert_close(mixed['b'], torch.cat([a[:, :3], b[:, 3:]], dim=1))


def test_with_subspaces_mixed_alike_it_is_a_cross_stitch_unit() -> None:
    torch.manual_seed(0)
    x = {task: torch.randn(2, 6, 3, 4) for task in 'abc'}
    alpha = torch.randn(3, 3)
    stitch, sluice = CrossStitchUnit(3, 6), SluiceUnit(3, 0.9)
    with torch.no_grad():
        stitch.alpha.copy_(alpha[..., None].expand(3, 3, 6))
        sluice.alpha.copy_(torch.kron(alpha, torch.eye(2)))
        for task, expected in stitch(x).items():
            torch.testing.assert_close(sluice(x)[task], expected)


def test_beta_mixes_the_stages() -> None:
    torch.manual_seed(0)
    mixture = LayerMixture((4, 6, 8)).eval()
    stages = [torch.randn(2, 4, 8, 12), torch.randn(2, 6, 4, 6), torch.randn(2, 8, 4, 6)]
    torch.testing.assert_close(mixture.beta.detach(), torch.tensor([0.05, 0.05, 0.9]))
    with torch.no_grad():
        mixture.beta.copy_(torch.tensor([2.0, 0.0, 3.0]))
        small = F.interpolate(stages[0], (4, 6), mode='bilinear')
        expected = 2 * mixture.project[0](small) + 3 * stages[2]
        torch.testing.assert_close(mixture(stages), expected)


@pytest.mark.parametrize('tasks', [1, 2, 5])
def test_units_begin_convex(tasks: int) -> None:
    alpha = SluiceUnit(tasks, 0.9).alpha.detach()
    assert alpha.shape == (2 * tasks, 2 * tasks)
    torch.testing.assert_close(alpha.sum(dim=1), torch.ones(2 * tasks))
    torch.testing.assert_close(alpha.diag(), torch.full((2 * tasks,), 0.9))


def test_the_penalty_is_the_overlap_of_the_halves() -> None:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(18, 8)).Q.mT.reshape(8, 2, 3, 3)  # orthonormal filters
    assert overlap(basis) < 1e-10
    assert overlap(3 * basis) < 1e-10
    same = torch.cat([basis[:4], 2 * basis[:4]])  # the halves span the same space
    torch.testing.assert_close(overlap(same), torch.tensor(1.0))
    weight = torch.randn(8, 2, 3, 3)
    g1, g2 = (F.normalize(half.flatten(1), dim=1).mT for half in weight.split(4))
    torch.testing.assert_close(overlap(weight), torch.linalg.norm(g1.mT @ g2) ** 2 / 4)


@pytest.mark.parametrize('backbone', ['resnet18_d8', 'resnet50_d8'])
def test_the_penalty_is_of_what_writes_each_stage(backbone: str) -> None:
    torch.manual_seed(0)
    net = build('sluice', backbone, {'depth': 1}, orthogonality=0.5)
    penalty = net.penalties({})['orthogonality']
    penalty.backward()
    touched = [name for name, p in net.named_parameters() if p.grad is not None]
    assert len(touched) == 4
    stages = net.backbones['depth'].stages
    convs = [[m for m in stage[-1].modules() if isinstance(m, nn.Conv2d)][-1] for stage in stages]
    assert all(conv.weight.grad is not None for conv in convs)
    torch.testing.assert_close(penalty, 0.5 * sum(overlap(conv.weight) for conv in convs))


def test_a_loss_reaches_every_encoder_and_no_other_head(image: Tensor) -> None:
    torch.manual_seed(0)
    net = build('sluice', 'resnet18_d8', NYUD).train()
    net.predictions(image).final['depth'].square().mean().backward()
    others = ('heads.semantic', 'mixtures.semantic')
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == name.startswith(others), name


def test_other_backbones_are_refused_in_one_sentence() -> None:
    with pytest.raises(ModelError, match='sluice works on the stages of a dilated ResNet'):
        build('sluice', 'resnet50', NYUD)
