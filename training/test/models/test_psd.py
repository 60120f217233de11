"""PSD: structures sum to one, match, are transferred, and spread as far as they should."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mtl_training.labels import NYUD40
from mtl_training.models import build
from mtl_training.models.psd import StructureDiffusion, aggregate, graphlet, neighbours, transfer
from mtl_training.papers.describe import describe
from mtl_training.tasks import nyud
from torch import nn

PAIR = {'semantic': 40, 'depth': 1}
FOUR = {name: task.channels for name, task in nyud(NYUD40).items()}


def test_costs_are_near_those_in_the_tables_of_others() -> None:
    """ATRC's table: 4.71 M, 21.1 G. Its version was not released; widths are our reading."""
    with torch.device('meta'):
        whole = describe(build('psd', 'hrnet_w18_small_v2', FOUR), (425, 560))[0]
    assert whole.parameters == 4_698_992
    assert whole.parameters / 1e6 == pytest.approx(4.71, rel=0.01)
    assert whole.written.total / 1e9 == pytest.approx(21.1, rel=0.02)


def test_neighbours_are_read_row_by_row_at_a_distance() -> None:
    x = torch.arange(30.0).reshape(1, 1, 5, 6)
    around = [n[0, 0, 2, 3].item() for n in neighbours(x, 2)]
    assert around == [1, 3, 5, 13, 15, 17, 25, 27, 29]
    assert [n[0, 0, 0, 0].item() for n in neighbours(x, 1)] == [0, 0, 0, 0, 0, 1, 0, 6, 7]


def test_graphlets_sum_to_one_and_find_what_is_alike() -> None:
    torch.manual_seed(0)
    structure = graphlet(torch.randn(2, 8, 5, 6), 1)
    assert structure.shape == (2, 9, 5, 6)
    torch.testing.assert_close(structure.sum(1), torch.ones(2, 5, 6))
    halves = torch.zeros(1, 2, 5, 6)
    halves[:, 0, :, :3] = halves[:, 1, :, 3:] = 10.0
    left, _, right = graphlet(halves, 1)[0, :, 2, 2].unflatten(0, (3, 3)).sum(0)
    assert left > 0.49
    assert right < 0.01


def test_graphlets_are_the_formula() -> None:
    """softmax over the 3x3 neighbours q of <E(p), E(q)> / sqrt(D), of a pixel with all of them."""
    torch.manual_seed(0)
    e = torch.randn(1, 16, 3, 3, dtype=torch.double)
    likeness = [math.exp((e[0, :, 1, 1] * e[0, :, i, j]).sum() / 4) for i, j in np.ndindex(3, 3)]
    expected = torch.tensor(likeness, dtype=torch.double) / sum(likeness)
    torch.testing.assert_close(graphlet(e, 1)[0, :, 1, 1], expected)


def test_structures_are_transferred_by_how_well_they_match() -> None:
    def one(index: int) -> torch.Tensor:
        return nn.functional.one_hot(torch.tensor(index), 9).float().reshape(1, 9, 1, 1)

    own = one(2)
    assert torch.equal(transfer({'depth': own, 'semantic': own}, 'depth'), own)  # nothing new
    torch.testing.assert_close(transfer({'depth': own, 'semantic': one(5)}, 'depth'), own)
    half = (one(2) + one(5)) / 2  # its cosine with `own` is sqrt(1/2)
    degree = 0.5**0.5
    expected = (own + degree * half) / (1 + degree)
    torch.testing.assert_close(transfer({'depth': own, 'semantic': half}, 'depth'), expected)
    torch.manual_seed(0)
    graphlets = {task: graphlet(torch.randn(2, 8, 5, 6), 1) for task in FOUR}
    torch.testing.assert_close(transfer(graphlets, 'edges').sum(1), torch.ones(2, 5, 6))


def test_the_scope_is_multiplied_with_every_order() -> None:
    for orders in (1, 2, 3):
        module = StructureDiffusion(PAIR, 4, orders)
        for embed in module.embed.values():  # all neighbours alike: only aggregation is seen
            nn.init.zeros_(embed.weight)
        features = {task: torch.zeros(1, 4, 41, 41, requires_grad=True) for task in PAIR}
        module(features)['depth'][0, 0, 20, 20].backward()
        seen = features['depth'].grad[0, 0] != 0
        side = 3**orders
        assert int(seen.sum()) == side * side
        first, last = 20 - side // 2, 20 + side // 2
        assert seen[first : last + 1, first : last + 1].all()
        assert not features['semantic'].grad.any()  # structures travel between tasks, not features


def test_diffusion_is_the_formula() -> None:
    torch.manual_seed(0)
    module = StructureDiffusion(PAIR, 4, 1)
    features = {task: torch.randn(1, 4, 6, 8) for task in PAIR}
    structures = {task: graphlet(module.embed[task](f), 1) for task, f in features.items()}
    mean = aggregate(features['depth'], transfer(structures, 'depth'), 1)
    torch.testing.assert_close(module(features)['depth'], (features['depth'] + mean) / 2)
    nn.init.zeros_(module.gamma['depth'])
    torch.testing.assert_close(module(features)['depth'], features['depth'])


@pytest.mark.parametrize(('backbone', 'stride'), [('resnet18_d8', 8), ('resnet18', 4)])
def test_two_steps_reach_every_parameter(backbone: str, stride: int) -> None:
    torch.manual_seed(0)
    net = build('psd', backbone, PAIR, auxiliary={'normals': 3}, width=16).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    for _ in range(2):
        predictions = net.predictions(torch.randn(2, 3, 64, 96))
        (initial,) = predictions.auxiliary
        logits = [*predictions.final.values(), *initial.logits.values()]
        loss = sum(x.square().mean() for x in logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    assert list(initial.logits) == [*PAIR, 'normals']
    assert predictions.final['depth'].shape == (2, 1, 64 // stride, 96 // stride)
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
