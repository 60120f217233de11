"""JTRL: two tasks in turn, each state from the other's last."""

from __future__ import annotations

import pytest
import torch
from mtl_training.models import ModelError, build
from mtl_training.models.jtrl import JTRL, TAM
from torch import nn

PAIR = {'depth': 1, 'semantic': 40}


def small() -> JTRL:
    torch.manual_seed(0)
    return build('jtrl', 'resnet18', PAIR, width=16)


@pytest.mark.parametrize('tasks', [{'depth': 1}, {**PAIR, 'edges': 1}])
def test_it_takes_exactly_two_tasks(tasks: dict[str, int]) -> None:
    with pytest.raises(ModelError, match='jtrl alternates between two tasks; found depth') as error:
        build('jtrl', 'resnet18', tasks)
    assert '\n' not in str(error.value)


def test_states_alternate_from_coarse_to_fine() -> None:
    """D_1, S_1, D_2, S_2 ..: a state sees those before it and none of those after it."""
    net = small().train()
    predictions = net.predictions(torch.randn(2, 3, 64, 96))
    scales = [auxiliary.logits for auxiliary in reversed(predictions.auxiliary)]
    states = [(number, task) for number in range(4) for task in PAIR]  # in their order
    for position, (number, task) in enumerate(states):
        net.zero_grad()
        [*scales, predictions.final][number][task].square().mean().backward(retain_graph=True)
        seen = [
            net.states[n][t].attend.fuse[0].weight.grad is not None
            and bool(net.states[n][t].attend.fuse[0].weight.grad.any())
            for n, t in states
        ]
        assert seen == [other <= position for other in range(8)], (number, task)


def test_every_state_is_predicted() -> None:
    net = small().eval()
    with torch.no_grad():
        predictions = net.predictions(torch.randn(1, 3, 64, 96))
        full = net(torch.randn(1, 3, 64, 96))
    grids = [predictions.final, *(a.logits for a in predictions.auxiliary)]
    for number, logits in enumerate(grids):
        assert {t: tuple(x.shape) for t, x in logits.items()} == {
            t: (1, c, 16 >> number, 24 >> number) for t, c in PAIR.items()
        }
    assert full['semantic'].shape == (1, 40, 64, 96)


@pytest.mark.parametrize(
    ('tasks', 'order'),
    [
        ({'depth': 1, 'semantic': 40}, ['depth', 'semantic']),
        ({'semantic': 40, 'depth': 1}, ['depth', 'semantic']),
        ({'normals': 3, 'edges': 1}, ['normals', 'edges']),
        ({'edges': 1, 'normals': 3}, ['edges', 'normals']),
    ],
)
def test_depth_goes_first_or_the_first_task(tasks: dict[str, int], order: list[str]) -> None:
    """D of the paper is depth; a network does not depend on how its tasks are listed."""
    with torch.device('meta'):
        net = build('jtrl', 'resnet18', tasks, width=16)
        assert [list(states) for states in net.states] == [order] * 4
        assert list(net(torch.zeros(2, 3, 64, 96))) == list(tasks)


def test_attention_balances_and_never_closes() -> None:
    """f_b of equal features is that feature, whatever the balance; 1 + M is between 1 and 2."""
    torch.manual_seed(0)
    module = TAM(8).eval()
    f, g = torch.randn(1, 8, 4, 6), torch.randn(1, 8, 4, 6)
    seen = []
    module.look.register_forward_hook(lambda _m, inputs, _out: seen.append(inputs[0]))
    module(f, f)
    torch.testing.assert_close(seen[0], f)
    nn.init.zeros_(module.balance.weight)
    for bias, expected in ((100.0, f), (-100.0, g)):
        nn.init.constant_(module.balance.bias, bias)
        module(f, g)
        torch.testing.assert_close(seen[-1], expected)
    nn.init.zeros_(module.look[1].weight)
    for bias, factor in ((-100.0, 1.0), (100.0, 2.0)):
        nn.init.constant_(module.look[1].bias, bias)
        plain = module.fuse(torch.cat([factor * f, factor * g], dim=1))
        torch.testing.assert_close(module(f, g), plain)


@pytest.mark.parametrize('backbone', ['resnet50', 'resnet18_d8', 'hrnet_w18_small_v2'])
def test_any_pyramid_will_do(backbone: str) -> None:
    with torch.device('meta'):
        net = build('jtrl', backbone, PAIR).eval()
        assert net(torch.zeros(1, 3, 64, 96))['depth'].shape == (1, 1, 64, 96)


def test_two_steps_reach_every_parameter() -> None:
    net = small().train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    for _ in range(2):
        predictions = net.predictions(torch.randn(2, 3, 64, 96))
        everything = [predictions.final, *(a.logits for a in predictions.auxiliary)]
        loss = sum(x.square().mean() for logits in everything for x in logits.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
