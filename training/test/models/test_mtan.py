"""MTAN: the survey's figures, and what its masks let through."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mtl_training.models import BACKBONES, ModelError, build
from mtl_training.models.mtan import MTAN, Attention, ends
from mtl_training.models.pyramids import ResNetPyramid
from mtl_training.papers.describe import by_kind, describe
from torch import Tensor, nn

NYUD = {'semantic': 40, 'depth': 1}
PASCAL = {'semantic': 21, 'human_parts': 7, 'saliency': 1, 'normals': 3, 'edges': 1}


@pytest.fixture(scope='module')
def image() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net() -> MTAN:
    torch.manual_seed(0)
    net = build('mtan', 'resnet18_d8', NYUD).eval()
    assert isinstance(net, MTAN)
    return net


@pytest.mark.parametrize(
    ('backbone', 'tasks', 'size', 'parameters', 'macs'),
    [
        ('resnet50_d8', NYUD, (480, 640), 72_052_713, 394_304_536_576),
        ('resnet18_d8', PASCAL, (512, 512), 36_613_425, 159_146_180_608),
    ],
)
def test_figures_are_those_of_the_authors_code(
    backbone: str, tasks: dict[str, int], size: tuple[int, int], parameters: int, macs: int
) -> None:
    """Survey Table V prints 72 M, 197 G and 37 M, 80 G; G are MACs / 2."""
    with torch.device('meta'):
        parts = describe(build('mtan', backbone, tasks), size)
    assert parts[0].parameters == parameters
    assert parts[0].written.total == macs
    assert sum(part.written.total for part in by_kind(parts)) == macs


def set_masks(attention: nn.Module, logit: float) -> None:
    """All masks sigmoid(logit), whatever the image."""
    for module in attention.modules():
        if isinstance(module, Attention):
            nn.init.zeros_(module[4].weight)
            nn.init.constant_(module[4].bias, logit)


def test_open_masks_are_the_multi_task_baseline(net: MTAN, image: Tensor) -> None:
    set_masks(net.attention, 1e3)
    baseline = build('mtl_baseline', 'resnet18_d8', NYUD).eval()
    weights = net.state_dict()
    baseline.load_state_dict({name: weights[name] for name in baseline.state_dict()})
    with torch.no_grad():
        expected, found = baseline(image), net(image)
    for task in NYUD:
        torch.testing.assert_close(found[task], expected[task])


def test_closed_masks_let_nothing_through(net: MTAN, image: Tensor) -> None:
    set_masks(net.attention[3]['depth'], -1e3)
    with torch.no_grad():
        one, other = net(image), net(image.flip(0, 2, 3))
    torch.testing.assert_close(one['depth'], other['depth'])
    assert not torch.allclose(one['semantic'], other['semantic'])


def test_masks_see_the_stage_and_the_refined_features_before_it(net: MTAN, image: Tensor) -> None:
    """The equations, written out for one task."""
    with torch.no_grad():
        u, p = ends(net.backbone.stages[0], net.backbone.stem(image))
        attended = net.attention[0]['depth'](u) * p
        for stage in (1, 2, 3):
            u, p = ends(net.backbone.stages[stage], p)
            refined = net.refine[stage - 1](attended)
            assert refined.shape[-2:] == u.shape[-2:] == (8, 12)
            mask = net.attention[stage]['depth'](torch.cat([u, refined], dim=1))
            assert mask.min() > 0
            assert mask.max() < 1
            attended = mask * p
        expected = net.heads['depth']([attended])
        torch.testing.assert_close(net.predictions(image).final['depth'], expected)


def test_tasks_share_encoder_and_refinement_and_nothing_else(image: Tensor) -> None:
    torch.manual_seed(0)
    net = build('mtan', 'resnet18_d8', NYUD).train()
    net.predictions(image).final['depth'].square().mean().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == ('semantic' in name), name


def test_any_size_will_do(net: MTAN) -> None:
    with torch.no_grad():
        logits = net.predictions(torch.randn(1, 3, 75, 90)).final
    assert logits['depth'].shape == (1, 1, 10, 12)


def test_stages_of_one_block_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {**BACKBONES['resnet18_d8'][2], 'layers': (2, 1, 2, 2)}
    monkeypatch.setitem(BACKBONES, 'short', (ResNetPyramid, 'resnet18', options))
    with pytest.raises(ModelError, match='expected two blocks or more'):
        build('mtan', 'short', NYUD)
