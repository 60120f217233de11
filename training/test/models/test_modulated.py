"""Modulation units: the baseline at first, then each task's own view of shared channels."""

from __future__ import annotations

import pytest
import torch
from mtl_training.models import ModelError, build
from mtl_training.models.backbones import BACKBONES
from mtl_training.models.modulated import Modulated
from mtl_training.models.pyramids import ResNetPyramid
from torch import Tensor, nn

TASKS = {'semantic': 5, 'depth': 1}
SMALL = {'layers': (1, 1, 1, 1), 'channels': (8, 16, 24, 32), 'out_indices': (1, 2, 3, 4)}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, 'small', (ResNetPyramid, 'resnet18', SMALL))


def network(**options: object) -> Modulated:
    torch.manual_seed(0)
    net = build('modulated', 'small', TASKS, **options)
    assert isinstance(net, Modulated)
    return net.eval()


def logits_of(net: nn.Module, image: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = net(image)
    return found


def test_it_begins_as_the_baseline() -> None:
    net, baseline = network(), build('mtl_baseline', 'small', TASKS).eval()
    stages = {name: p.shape for name, p in net.stages.named_parameters()}
    assert len(stages) == len(list(baseline.backbone.parameters()))  # type: ignore[union-attr]
    shared = [net.stages, net.heads], [baseline.backbone, baseline.heads]
    for mine, theirs in zip(*shared, strict=True):
        for one, two in zip(mine.parameters(), theirs.parameters(), strict=True):  # type: ignore[union-attr]
            assert one.shape == two.shape
            two.data.copy_(one.data)
    image = torch.randn(1, 3, 64, 64)
    for task, logits in logits_of(net, image).items():
        torch.testing.assert_close(logits, logits_of(baseline, image)[task])


def test_units_scale_the_channels_of_one_task() -> None:
    net, image = network(stages=[3]), torch.randn(1, 3, 64, 64)
    before = logits_of(net, image)
    seen: list[Tensor] = []
    net.heads['depth'].register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0][3]))
    net(image)
    with torch.no_grad():
        scale = net.units[3]['depth'].scale
        scale.copy_(torch.arange(len(scale)).float())
    after = logits_of(net, image)
    assert torch.equal(before['semantic'], after['semantic'])
    assert not torch.equal(before['depth'], after['depth'])
    torch.testing.assert_close(seen[1], seen[0] * scale.view(-1, 1, 1))


def test_a_task_moves_its_own_units_and_what_is_shared() -> None:
    net = network()
    net(torch.randn(1, 3, 64, 64))['depth'].square().mean().backward()
    moved = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    assert {f'units.{stage}.depth.scale' for stage in range(4)} <= moved
    assert not [name for name in moved if 'semantic' in name]
    assert any(name.startswith('stages.0') for name in moved)
    shared = {id(p) for p in net.shared_parameters()}
    assert shared == {id(p) for p in net.stages.parameters()}


@pytest.mark.parametrize(('stages', 'passes'), [((), 1), ((3,), 1), ((1, 2), 2), ((0,), 2)])
def test_what_no_task_has_changed_is_computed_once(stages: tuple[int, ...], passes: int) -> None:
    net, calls = network(stages=stages), []
    net.stages[2 if stages == (1, 2) else 3].register_forward_hook(lambda *call: calls.append(1))
    net(torch.randn(1, 3, 64, 64))
    assert len(calls) == passes


def test_stages_that_there_are_not_are_told() -> None:
    with pytest.raises(ModelError, match='stages of modulated are'):
        build('modulated', 'small', TASKS, stages=[4])
    with pytest.raises(ModelError, match='ResNets and EfficientNets'):
        build('modulated', 'swin_tiny', TASKS)
