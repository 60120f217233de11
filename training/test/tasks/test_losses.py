"""Losses against values worked out by hand; what has no label has no influence."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from mtl_training.tasks.losses import LOSSES, multi_task_loss, weighted_sum
from mtl_training.tasks.task import NYUD, PASCAL, ROOMS, choose
from torch import Tensor


def pixels(*values: float) -> Tensor:
    """[1, 1, 1, n]"""
    return torch.tensor(values).view(1, 1, 1, -1)


def test_cross_entropy_of_two_labelled_pixels() -> None:
    logits = torch.tensor([[[[0.0, 1.0, 9.0]], [[0.0, 0.0, 0.0]]]])  # [1, 2, 1, 3]
    target = torch.tensor([[[0, 1, 255]]])
    expected = (math.log(2) + math.log(1 + math.e)) / 2
    assert LOSSES['cross_entropy'](logits, target, NYUD['semantic']).item() == pytest.approx(
        expected
    )


def test_class_weights_scale_the_cross_entropy_of_their_class() -> None:
    logits = torch.tensor([[[[0.0, 1.0]], [[0.0, 0.0]]]])
    target = torch.tensor([[[0, 1]]])
    task = replace(NYUD['semantic'], class_weights=(0.5, 3.0))
    expected = (0.5 * math.log(2) + 3.0 * math.log(1 + math.e)) / 2
    assert LOSSES['cross_entropy'](logits, target, task).item() == pytest.approx(expected)


def test_depth_l1_leaves_out_zero() -> None:
    loss = LOSSES['l1'](pixels(1.0, 2.0, 50.0), pixels(1.5, 4.0, 0.0), NYUD['depth'])
    assert loss.item() == pytest.approx(1.25)


def test_log_laplace_is_the_likelihood_that_torch_knows() -> None:
    mean, log_scale, depth = pixels(0.2, 1.0, 7.0), pixels(-1.0, 0.5, 3.0), pixels(1.5, 4.0, 0.0)
    expected = (
        -torch.distributions.Laplace(mean, log_scale.exp()).log_prob(depth.log())[..., :2].mean()
    )
    loss = LOSSES['log_laplace'](torch.cat([mean, log_scale], dim=1), depth, ROOMS['depth'])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_normals_are_made_unit_and_averaged_over_pixels() -> None:
    prediction = torch.tensor([[0.0, 0.0, -9.0], [3.0, 0.0, -4.0], [1.0, 1.0, 1.0]]).T.view(
        1, 3, 1, 3
    )
    target = torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, -1.0], [0.0, 0.0, 0.0]]).T.view(1, 3, 1, 3)
    # 0 for the first pixel, .6 + 0 + .2 for the second, no third; by elements it would be .8 / 6.
    loss = LOSSES['normal_l1'](prediction, target, NYUD['normals'])
    assert loss.item() == pytest.approx(0.8 / 2)


def test_edges_weigh_positives_by_w() -> None:
    logits, target = pixels(0.0, 0.0, 0.0, 8.0), pixels(1.0, 0.0, 0.0, 255.0)
    for tasks, w in ((NYUD, 0.8), (PASCAL, 0.95)):
        loss = LOSSES['balanced_bce'](logits, target, tasks['edges'])
        assert loss.item() == pytest.approx(math.log(2) * (w + 2 * (1 - w)) / 3)


def test_saliency_weighs_by_the_share_of_negatives() -> None:
    logits, target = pixels(0.0, 0.0, 0.0, 8.0), pixels(1.0, 0.0, 0.0, 255.0)
    loss = LOSSES['hed_bce'](logits, target, PASCAL['saliency'])
    assert loss.item() == pytest.approx(math.log(2) * (2 / 3 + 2 * (1 / 3)) / 3)


NOTHING: dict[str, Tensor] = {
    'semantic': torch.full((1, 4, 4), 255),
    'depth': torch.zeros(1, 1, 4, 4),
    'normals': torch.zeros(1, 3, 4, 4),
    'edges': torch.full((1, 1, 4, 4), 255.0),
    'saliency': torch.full((1, 1, 4, 4), 255.0),
}


@pytest.mark.parametrize('name', list(ROOMS))
def test_without_labels_loss_and_gradient_are_zero(name: str) -> None:
    logits = torch.randn(1, ROOMS[name].channels, 4, 4, requires_grad=True)
    loss = LOSSES[ROOMS[name].loss](logits, NOTHING[name], ROOMS[name])
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_total_is_the_weighted_sum() -> None:
    torch.manual_seed(0)
    tasks = choose(NYUD, ['depth', 'edges'], {'depth': 3.0})
    outputs = {name: torch.rand(1, 1, 4, 4) for name in tasks}
    batch = {'depth': torch.rand(1, 1, 4, 4) + 1, 'edges': torch.ones(1, 1, 4, 4)}
    losses = multi_task_loss(outputs, batch, tasks)
    assert weighted_sum(losses, tasks).item() == pytest.approx(
        3 * losses['depth'].item() + 50 * losses['edges'].item()
    )


def test_unknown_task_is_named() -> None:
    with pytest.raises(ValueError, match="unknown task 'deth', expected one of semantic, depth"):
        choose(NYUD, ['deth'])
