"""Losses against values worked out by hand; what has no label has no influence."""

from __future__ import annotations

import math

import pytest
import torch
from mtl_training.labels import ROBOT_GROUPS
from mtl_training.tasks import (
    EdgesTask,
    HumanPartsTask,
    L1Depth,
    LaplaceDepth,
    NormalsTask,
    SaliencyTask,
    SemanticTask,
)
from torch import Tensor

SEMANTIC = SemanticTask(classes=ROBOT_GROUPS[:2])


def pixels(*values: float) -> Tensor:
    """[1, 1, 1, n]"""
    return torch.tensor(values).view(1, 1, 1, -1)


@pytest.mark.parametrize('task', [SEMANTIC, HumanPartsTask(classes=ROBOT_GROUPS[:2])])
def test_cross_entropy_of_two_labelled_pixels(task: SemanticTask | HumanPartsTask) -> None:
    logits = torch.tensor([[[[0.0, 1.0, 9.0]], [[0.0, 0.0, 0.0]]]])  # [1, 2, 1, 3]
    target = torch.tensor([[[0, 1, 255]]])
    expected = (math.log(2) + math.log(1 + math.e)) / 2
    assert task.loss(logits, target).item() == pytest.approx(expected)


def test_class_weights_scale_the_cross_entropy_of_their_class() -> None:
    logits = torch.tensor([[[[0.0, 1.0]], [[0.0, 0.0]]]])
    task = SemanticTask(classes=ROBOT_GROUPS[:2], class_weights=(0.5, 3.0))
    expected = (0.5 * math.log(2) + 3.0 * math.log(1 + math.e)) / 2
    assert task.loss(logits, torch.tensor([[[0, 1]]])).item() == pytest.approx(expected)


def test_depth_l1_leaves_out_zero() -> None:
    loss = L1Depth().loss(pixels(1.0, 2.0, 50.0), pixels(1.5, 4.0, 0.0))
    assert loss.item() == pytest.approx(1.25)


def test_log_laplace_is_the_likelihood_that_torch_knows() -> None:
    mean, log_scale, depth = pixels(0.2, 1.0, 7.0), pixels(-1.0, 0.5, 3.0), pixels(1.5, 4.0, 0.0)
    likelihood = torch.distributions.Laplace(mean, log_scale.exp()).log_prob(depth.log())
    loss = LaplaceDepth().loss(torch.cat([mean, log_scale], dim=1), depth)
    assert loss.item() == pytest.approx(-likelihood[..., :2].mean().item(), rel=1e-6)


def test_gradients_of_log_depth_leave_out_scale_and_what_has_no_label() -> None:
    depth = torch.tensor([[[[1.0, 2.0, 4.0], [2.0, 0.0, 8.0]]]])
    logits = torch.zeros(1, 2, 2, 3)
    logits[:, 0] = (3 * torch.where(depth > 0, depth, 1.0)).log()[:, 0]
    weighed, plain = LaplaceDepth(gradients=0.5), LaplaceDepth()
    scaled = weighed.loss(logits, depth) - plain.loss(logits, depth)
    assert scaled.item() == pytest.approx(0, abs=1e-6)

    # Errors 0, 0.1, 0.4 in the first row, 0, -, 1 in the second one. Neighbours across differ by
    # 0.1 and 0.3, those along columns by 0 and 0.6; every second pixel leaves 0 and 0.4, and
    # every fourth and eighth no pair.
    logits[0, 0] += torch.tensor([[0.0, 0.1, 0.4], [0.0, 7.0, 1.0]])
    expected = 0.5 * ((0.1 + 0.3) / 2 + (0 + 0.6) / 2 + 0.4) / 4
    added = weighed.loss(logits, depth) - plain.loss(logits, depth)
    assert added.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(('per_element', 'divisor'), [(False, 2), (True, 6)])
def test_normals_are_made_unit_and_averaged(per_element: bool, divisor: int) -> None:
    """Over pixels as in ATRC, or over elements as in the survey's code: a third of it."""
    logits = torch.tensor([[0.0, 0.0, -9.0], [3.0, 0.0, -4.0], [1.0, 1.0, 1.0]])
    target = torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    # 0 for the first pixel, .6 + 0 + .2 for the second, no third.
    loss = NormalsTask(per_element=per_element).loss(
        logits.T.reshape(1, 3, 1, 3), target.T.reshape(1, 3, 1, 3)
    )
    assert loss.item() == pytest.approx(0.8 / divisor)


@pytest.mark.parametrize('w', [0.8, 0.95])
def test_edges_weigh_positives_by_w(w: float) -> None:
    logits, target = pixels(0.0, 2.0, 0.0, 8.0), pixels(1.0, 0.0, 0.0, 255.0)
    expected = w * math.log(2) + (1 - w) * (math.log(1 + math.exp(2)) + math.log(2))
    assert EdgesTask(edge_weight=w).loss(logits, target).item() == pytest.approx(expected / 3)


def test_saliency_weighs_by_the_share_of_negatives() -> None:
    logits, target = pixels(0.0, 2.0, 0.0, 8.0), pixels(1.0, 0.0, 0.0, 255.0)
    expected = 2 / 3 * math.log(2) + 1 / 3 * (math.log(1 + math.exp(2)) + math.log(2))
    assert SaliencyTask().loss(logits, target).item() == pytest.approx(expected / 3)


def test_saliency_of_two_classes_is_the_cross_entropy_that_torch_knows() -> None:
    """With weights 1 - w, w of the classes and a mean over pixels, as in ATRC."""
    torch.manual_seed(0)
    logits, target = torch.randn(1, 2, 1, 5), torch.tensor([[[1, 0, 0, 0, 255]]])
    w = 3 / 4
    total = torch.nn.functional.cross_entropy(
        logits, target, weight=torch.tensor([1 - w, w]), ignore_index=255, reduction='sum'
    )
    loss = SaliencyTask(two_class=True).loss(logits, target[None].float())
    assert loss.item() == pytest.approx(total.item() / 4)
