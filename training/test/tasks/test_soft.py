"""What networks learn of a teacher's probabilities, distributions and vectors, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from mtl_training.labels import NYUD40, ROBOT_GROUPS
from mtl_training.tasks import (
    EdgesTask,
    HumanPartsTask,
    L1Depth,
    LaplaceDepth,
    NormalsTask,
    SaliencyTask,
    SemanticTask,
    Task,
    grouped,
)
from torch import Tensor

THREE = ROBOT_GROUPS[:3]
TASKS = [
    SemanticTask(classes=THREE, class_weights=(0.5, 1.0, 3.0)),
    HumanPartsTask(),
    EdgesTask(edge_weight=0.8),
    SaliencyTask(),
    SaliencyTask(two_class=True),
    NormalsTask(),
    L1Depth(),
    LaplaceDepth(),
]
ALIKE = torch.ones(2)  # both networks see the same focal length


def pixels(*values: float) -> Tensor:
    """[1, 1, 1, n]"""
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


@pytest.mark.parametrize('temperature', [1.0, 3.0])
@pytest.mark.parametrize('task', TASKS, ids=lambda task: type(task).__name__)
def test_the_loss_is_smallest_where_the_network_says_what_the_teacher_says(
    task: Task, temperature: float
) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, task.channels, 4, 5, dtype=torch.float64)
    logits = (logits.abs() if isinstance(task, L1Depth) else logits).requires_grad_()
    soft = task.soften(logits.detach(), ALIKE, temperature)
    loss = task.soft_loss(logits, soft, temperature)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-7)
    for _ in range(5):
        other = logits.detach() + 0.3 * torch.randn_like(logits)
        assert task.soft_loss(other, soft, temperature) > loss


def test_labels_are_the_hardest_of_soft_targets() -> None:
    """Where a teacher is sure, the loss is that with labels: the same weights of classes, too."""
    torch.manual_seed(0)
    semantic = TASKS[0]
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(3, (2, 4, 5))
    sure = torch.nn.functional.one_hot(labels).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(semantic.soft_loss(logits, sure, 1), semantic.loss(logits, labels))
    for binary in TASKS[2:4]:
        answer, truth = torch.randn(2, 1, 4, 5), torch.randint(2, (2, 1, 4, 5)).float()
        torch.testing.assert_close(binary.soft_loss(answer, truth, 1), binary.loss(answer, truth))
    depth = torch.rand(2, 1, 4, 5) + torch.tensor([0.0, 1, -2, 2, 3])  # nothing in a column
    soft = torch.cat([depth, torch.zeros_like(depth)], dim=1)
    for task in (L1Depth(), LaplaceDepth(), LaplaceDepth(gradients=0.5)):
        logits = torch.randn(2, task.channels, 4, 5)
        torch.testing.assert_close(task.soft_loss(logits, soft, 1), task.loss(logits, depth))


def test_temperature_divides_logits_and_keeps_the_size_of_gradients() -> None:
    """z / T = log 3, 0 is 3 : 1; and far above all logits, dL/dz = (z - v) / N (Hinton, Eq. 4)."""
    task = SemanticTask(classes=THREE[:2])
    teacher = torch.tensor([2 * math.log(3), 0.0]).view(1, 2, 1, 1)
    soft = task.soften(teacher, ALIKE, 2)
    torch.testing.assert_close(soft.flatten(), torch.tensor([0.75, 0.25]))
    assert task.soft_loss(0 * teacher, soft, 2).item() == pytest.approx(4 * math.log(2))

    edges = EdgesTask(edge_weight=0.8)
    positive = edges.soften(teacher[:, :1], ALIKE, 2)
    assert positive.item() == pytest.approx(0.75)
    expected = 4 * (0.8 * 0.75 + 0.2 * 0.25) * math.log(2)
    assert edges.soft_loss(pixels(0), positive.double(), 2).item() == pytest.approx(expected)

    z = torch.tensor([1.0, -3.0, 2.0], dtype=torch.float64).view(1, 3, 1, 1).requires_grad_()
    v = torch.tensor([-2.0, 0.5, 1.5], dtype=torch.float64).view(1, 3, 1, 1)
    three = SemanticTask(classes=THREE)
    (gradient,) = torch.autograd.grad(three.soft_loss(z, three.soften(v, ALIKE, 1e4), 1e4), z)
    torch.testing.assert_close(gradient, (z - v).detach() / 3, rtol=1e-3, atol=0)


def test_saliency_weighs_by_the_share_of_negatives_that_the_teacher_sees() -> None:
    """w = (0.1 + 0.7) / 2 = 0.4; pixels weigh 0.4 * 0.9 + 0.6 * 0.1, and 0.4 * 0.3 + 0.6 * 0.7."""
    loss = SaliencyTask().soft_loss(pixels(0, 0), pixels(0.9, 0.3), 1)
    assert loss.item() == pytest.approx((0.42 + 0.54) / 2 * math.log(2))


def test_depth_is_the_cross_entropy_of_two_distributions() -> None:
    """Against the integral of -p log q, p and q Laplace distributions that torch knows."""
    depth, scale = pixels(1.5, 4.0), pixels(0.3, 1.2)
    mean, log_scale = pixels(0.2, 1.5), pixels(-1.0, 0.5)
    x = torch.linspace(-30, 30, 600_001, dtype=torch.float64).view(-1, 1, 1, 1)
    p = torch.distributions.Laplace(depth.log(), scale).log_prob(x).exp()
    q = torch.distributions.Laplace(mean, log_scale.exp()).log_prob(x)
    integral = -torch.trapezoid(p * q, x, dim=0).mean()
    logits, soft = torch.cat([mean, log_scale], dim=1), torch.cat([depth, scale], dim=1)
    loss = LaplaceDepth().soft_loss(logits, soft, 1)
    assert loss.item() == pytest.approx(integral.item(), rel=1e-5)


def test_depth_without_a_distribution_goes_by_the_confidence_of_the_teacher() -> None:
    """The scale at which depth is within a factor of 1.25 at even odds counts half."""
    scale = pixels(0, math.log(1.25) / math.log(2), 5)
    soft = torch.cat([pixels(1, 2, 0), scale], dim=1)
    loss = L1Depth().soft_loss(pixels(2, 6, 9), soft, 1)
    assert loss.item() == pytest.approx((1 * 1 + 0.5 * 4) / 1.5)


def test_depth_is_taken_to_the_focal_length_of_the_network_that_learns() -> None:
    zoom = torch.tensor([2.0])
    metres = L1Depth().soften(torch.tensor([3.0]).view(1, 1, 1, 1), zoom, 1)
    assert metres.flatten().tolist() == [6, 0]
    logits = torch.tensor([math.log(3), math.log(0.2)]).view(1, 2, 1, 1)
    assert LaplaceDepth().soften(logits, zoom, 1).flatten().tolist() == pytest.approx([6, 0.2])


def test_groups_have_the_probabilities_of_their_classes() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 40, 2, 3)
    task = grouped(SemanticTask(classes=NYUD40), ROBOT_GROUPS)
    soft = task.soften(task.gather(logits), ALIKE, 1)
    places = {label.name: place for place, label in enumerate(NYUD40)}
    members = [places[name] for name in ('table', 'desk', 'counter')]
    group = next(place for place, label in enumerate(ROBOT_GROUPS) if label.name == 'table')
    expected = logits.softmax(dim=1)[:, members].sum(dim=1)
    torch.testing.assert_close(soft[:, group], expected)
