"""What learns how fast, and what decays: the choices of the literature's recipes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mtl_training.checkpoints.config import ConfigError, OptimConfig
from mtl_training.loop.optimizer import make_optimizer, set_learning_rate
from mtl_training.loop.schedule import learning_rate
from mtl_training.models import Network, build
from mtl_training.models.backbones import BACKBONES
from mtl_training.models.pyramids import ResNetPyramid
from torch import nn

TASKS = {'semantic': 5, 'depth': 1}
SMALL = {'layers': (1, 1, 1, 1), 'channels': (8, 8, 16, 16), 'out_indices': (1, 2, 3, 4)}


@pytest.fixture(autouse=True)
def _small_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        BACKBONES, 'small_d8', (ResNetPyramid, 'resnet18', {**SMALL, 'output_stride': 8})
    )


def optim(**values: Any) -> OptimConfig:
    return OptimConfig(**{'lr': 1.0, 'max_steps': 100, **values})


class Toy(Network):
    """A matrix and a norm."""

    def __init__(self) -> None:
        super().__init__({'depth': 1}, mean=(0, 0, 0), std=(1, 1, 1))
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def learning_rates(self, *, adaptive: bool) -> dict[str, float]:
        return {'norm.': 3.0}


def after_a_step(config: OptimConfig, *, gradient: float) -> dict[str, float]:
    """Values of parameters that were 1, after a step with equal gradients."""
    net = Toy()
    optimizer = make_optimizer(net, config)
    set_learning_rate(optimizer, 0.1)
    for parameter in net.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()
    return {name: round(p.flatten()[0].item(), 6) for name, p in net.named_parameters()}


def factors_of(net: Network, config: OptimConfig) -> dict[str, float]:
    """By the names of all parameters."""
    groups = make_optimizer(net, config).param_groups
    factor = {id(p): group['factor'] for group in groups for p in group['params']}
    return {name: factor[id(p)] for name, p in net.named_parameters()}


def test_parts_learn_as_fast_as_their_network_asks() -> None:
    found = after_a_step(optim(optimizer='sgd', weight_decay=0.0), gradient=1.0)
    assert found['conv.weight'] == 0.9
    assert found['norm.weight'] == pytest.approx(1 - 3 * 0.1)


@pytest.mark.parametrize(('decay_norms', 'expected'), [(False, 1.0), (True, 1 - 3 * 0.1 * 0.5)])
@pytest.mark.parametrize('optimizer', ['sgd', 'adamw'])
def test_norms_and_biases_decay_if_they_are_told_to(
    optimizer: str, decay_norms: bool, expected: float
) -> None:
    config = optim(optimizer=optimizer, weight_decay=0.5, decay_norms=decay_norms)
    found = after_a_step(config, gradient=0.0)
    assert found['conv.weight'] == pytest.approx(1 - 0.1 * 0.5)
    assert found['norm.weight'] == pytest.approx(expected)
    assert (found['conv.bias'] == 1.0) == (not decay_norms)


def test_decay_of_adam_is_a_part_of_the_gradient() -> None:
    """So that its size does not matter, alone: a step of Adam has the size of the rate."""
    found = after_a_step(optim(optimizer='adam', weight_decay=0.5), gradient=0.0)
    assert found['conv.weight'] == pytest.approx(0.9)


@pytest.mark.parametrize('system', ['cross_stitch', 'nddr', 'sluice'])
def test_what_joins_the_tasks_learns_fast_under_sgd_only(system: str) -> None:
    """Adam moves a parameter by the learning rate, however small its gradients are."""
    torch.manual_seed(0)
    net = build(system, 'small_d8', TASKS)
    joints = ('stitch', 'nddr', 'sluices')
    for kind, expected in (('sgd', 100.0), ('adam', 1.0), ('adamw', 1.0)):
        for name, factor in factors_of(net, optim(optimizer=kind)).items():
            joint = name.startswith(joints) or name.endswith('.beta')
            assert factor == (expected if joint else 1.0), name


@pytest.mark.parametrize('system', ['mtl_baseline', 'cross_stitch'])
def test_backbones_have_their_share_of_the_rate(system: str) -> None:
    net = build(system, 'small_d8', TASKS)
    for name, factor in factors_of(net, optim(optimizer='sgd', backbone_factor=0.1)).items():
        whole = 100.0 if name.startswith('stitch') else 1.0
        assert factor == (0.1 if name.startswith('backbone') else whole), name
    assert set(factors_of(net, optim(optimizer='adamw')).values()) == {1.0}


def test_a_share_needs_a_backbone_that_is_whole() -> None:
    with pytest.raises(ConfigError, match=r'optim.backbone_factor is 0.1, expected 1: Toy takes'):
        make_optimizer(Toy(), optim(backbone_factor=0.1))


def test_units_of_cross_stitch_hardly_move_in_five_steps_of_adamw() -> None:
    torch.manual_seed(0)
    net = build('cross_stitch', 'small_d8', TASKS).train()
    config = optim(lr=1e-4)
    optimizer = make_optimizer(net, config)
    before = [unit.alpha.detach().clone() for unit in net.stitch]
    for _ in range(5):
        set_learning_rate(optimizer, config.lr)
        optimizer.zero_grad()
        logits = net.predictions(torch.rand(2, 3, 32, 32)).final
        sum(x.square().mean() for x in logits.values()).backward()
        optimizer.step()
    moved = max((u.alpha - a).abs().max().item() for u, a in zip(net.stitch, before, strict=True))
    assert 0 < moved < 1e-3


def test_schedule() -> None:
    config = optim(warmup_steps=10)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 50) == pytest.approx(0.5**0.9)
    assert learning_rate(config, 100) == 0


def test_a_schedule_by_epochs_is_that_of_their_first_steps() -> None:
    config = optim(poly_by='epoch', power=1.0)
    rates = [learning_rate(config, step, step % 25) for step in range(100)]
    assert rates[:25] == [1.0] * 25
    assert rates[25:50] == [0.75] * 25  # a quarter of the epochs is over
    assert rates[99] == 0.25
