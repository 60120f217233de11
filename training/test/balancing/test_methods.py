"""Every method on problems whose answers are known by hand."""

from __future__ import annotations

import doctest
import importlib
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from mtl_training.balancing import (
    METHODS,
    BalancingError,
    GradientBalancer,
    LossBalancer,
    make_balancer,
)
from mtl_training.balancing.mgda import shortest
from torch import Tensor

TASKS = ('a', 'b')
# Two tasks that disagree about a point of the plane: each is happy at its own place.
PLACES = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
SHARPNESS = torch.tensor([1.0, 100.0])


def quadratics(point: Tensor) -> Tensor:
    """L_t = k_t / 2 |x - p_t|^2."""
    return SHARPNESS / 2 * (point - PLACES).square().sum(1)


def named(losses: Tensor) -> dict[str, Tensor]:
    return dict(zip(TASKS, losses, strict=True))


def descend(method: LossBalancer | GradientBalancer, *, steps: int, rate: float) -> Tensor:
    """Where plain gradient descent ends, from a place that is on nobody's way."""
    point = torch.tensor([4.0, -2.0], requires_grad=True)
    for _ in range(steps):
        losses = quadratics(point)
        if isinstance(method, LossBalancer):
            (step,) = torch.autograd.grad(method(named(losses)), point)
        else:
            rows = [torch.autograd.grad(loss, point, retain_graph=True)[0] for loss in losses]
            step = method(torch.stack(rows), losses.detach()).shared
        with torch.no_grad():
            point -= rate * step
    return point.detach()


@pytest.mark.parametrize('module', ['fixed', 'uncertainty', 'dwa', 'mgda'])
def test_examples_in_docstrings_are_true(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f'mtl_training.balancing.{module}'))
    assert found.failed == 0


@pytest.mark.parametrize(
    'method', [name for name, kind in METHODS.items() if issubclass(kind, LossBalancer)]
)
def test_losses_are_known_by_their_names(method: str) -> None:
    torch.manual_seed(0)
    balancer = make_balancer(method, TASKS)
    for parameter in balancer.parameters():
        torch.nn.init.normal_(parameter)
    losses = {'a': torch.tensor(2.0), 'b': torch.tensor(5.0)}
    for number in range(1, 3):
        balancer.begin_epoch()
        balancer.observe({'a': losses['a'] / number, 'b': losses['b']})
    balancer.begin_epoch()
    assert torch.equal(balancer(losses), balancer(dict(reversed(losses.items()))))


# --------------------------------------------------------------------------------- fixed weights


def test_fixed_weights_end_where_the_sharper_task_wants() -> None:
    """sum_t k_t (x - p_t) = 0: x = 100/101 of the way to b's place."""
    found = descend(make_balancer('fixed', TASKS), steps=2000, rate=0.01)
    torch.testing.assert_close(found, PLACES[1] * 100 / 101)


# ----------------------------------------------------------------------------------- uncertainty


def test_uncertainty_is_equation_6() -> None:
    """L_1 / (2 s_1^2) + L_2 / (2 s_2^2) + log(s_1 s_2), with sigmas of 2 and 3."""
    method = make_balancer('uncertainty', TASKS)
    with torch.no_grad():
        for (name, log_variance), sigma in zip(method.named_parameters(), (2, 3), strict=True):
            assert name.startswith('log_variance.')
            log_variance.fill_(2 * math.log(sigma))
    total = method(named(torch.tensor([5.0, 7.0])))
    assert total.item() == pytest.approx(5 / (2 * 4) + 7 / (2 * 9) + math.log(2 * 3))


def test_uncertainty_comes_to_rest_where_every_task_counts_a_half() -> None:
    method = make_balancer('uncertainty', TASKS)
    losses = named(torch.tensor([0.2, 30.0]))
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5)
    for _ in range(400):
        optimizer.zero_grad()
        method(losses).backward()
        optimizer.step()
    for task, log_variance in zip(TASKS, method.parameters(), strict=True):
        assert log_variance.item() == pytest.approx(losses[task].log().item(), abs=1e-3)


# ------------------------------------------------------------------------------------------- dwa


def epoch(method: LossBalancer, *losses: tuple[float, float]) -> None:
    method.begin_epoch()
    for pair in losses:
        method.observe(named(torch.tensor(pair)))


def test_dwa_is_equation_8() -> None:
    """Means are (4, 2), then (2, 2): r = (1/2, 1), and T = 2."""
    method = make_balancer('dwa', TASKS)
    assert isinstance(method, LossBalancer)
    epoch(method, (5.0, 1.0), (3.0, 3.0))
    assert method(named(torch.tensor([1.0, 10.0]))).item() == 11.0  # the first two: all alike
    epoch(method, (2.0, 2.0))
    assert method(named(torch.tensor([1.0, 10.0]))).item() == 11.0
    epoch(method)
    a, b = math.exp(0.5 / 2), math.exp(1 / 2)
    expected = 2 * (a * 1 + b * 10) / (a + b)
    assert method(named(torch.tensor([1.0, 10.0]))).item() == pytest.approx(expected)
    epoch(method)  # no steps between: nothing is known of the last epoch
    assert method(named(torch.tensor([1.0, 10.0]))).item() == 11.0


def test_a_hot_dwa_weighs_all_alike() -> None:
    method = make_balancer('dwa', TASKS, temperature=1e6)
    assert isinstance(method, LossBalancer)
    for losses in ((8.0, 1.0), (1.0, 1.0)):
        epoch(method, losses)
    method.begin_epoch()
    assert method(named(torch.tensor([1.0, 10.0]))).item() == pytest.approx(11.0, rel=1e-5)


def test_the_state_of_dwa_survives_a_checkpoint_within_an_epoch() -> None:
    one = make_balancer('dwa', TASKS)
    two = make_balancer('dwa', TASKS)
    assert isinstance(one, LossBalancer)
    assert isinstance(two, LossBalancer)
    epoch(one, (5.0, 1.0))
    epoch(one, (2.0, 2.0))
    two.load_state_dict(one.state_dict())
    for method in (one, two):
        method.observe(named(torch.tensor([4.0, 1.0])))
        method.begin_epoch()
    losses = named(torch.tensor([1.0, 10.0]))
    assert one(losses) == two(losses)
    assert one(losses).item() != 11.0


# ------------------------------------------------------------------------------------------ mgda


def test_two_gradients_have_their_closed_form() -> None:
    """Eq. 4: clip((g_2 - g_1) g_2 / |g_1 - g_2|^2)."""
    rng = np.random.default_rng(0)
    for vectors in rng.standard_normal((100, 2, 3)) * rng.uniform(0.1, 10, (100, 2, 1)):
        g1, g2 = vectors
        expected = np.clip((g2 - g1) @ g2 / ((g1 - g2) @ (g1 - g2)), 0, 1)
        alpha = shortest(vectors @ vectors.T)
        assert alpha[0] == pytest.approx(expected, abs=1e-6)
        assert alpha.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ('vectors', 'expected'),
    [
        (np.diag([1.0, 2.0, 4.0]), np.array([16, 4, 1]) / 21),  # alpha_t ~ 1 / |g_t|^2
        ([[1.0, 0.0], [2.0, 1.0], [3.0, -1.0]], [1, 0, 0]),  # the others are longer, and no help
        ([[1.0, 1.0], [1.0, -1.0], [5.0, 0.0]], [0.5, 0.5, 0]),
        ([[2.0, 0.0], [-1.0, 0.0], [0.0, 9.0]], [1 / 3, 2 / 3, 0]),  # Pareto stationary
        ([[0.0, 3.0]], [1]),
        ([[0.0, 0.0], [1.0, 0.0]], [1, 0]),
    ],
)
def test_the_shortest_vector_of_a_hull(vectors: object, expected: object) -> None:
    matrix = np.asarray(vectors, float)
    np.testing.assert_allclose(shortest(matrix @ matrix.T), expected, atol=1e-6)


@pytest.mark.parametrize('normalization', ['none', 'l2', 'loss', 'loss+'])
@pytest.mark.parametrize('seed', range(5))
def test_no_task_loses_along_the_step(normalization: str, seed: int) -> None:
    torch.manual_seed(seed)
    gradients, losses = torch.randn(4, 6) * torch.logspace(-2, 2, 4)[:, None], torch.rand(4)
    method = make_balancer('mgda', 'abcd', normalization=normalization)
    step = method(gradients, losses).shared
    scale = gradients.norm(dim=1) * step.norm()
    assert (gradients @ step >= -1e-4 * scale).all()
    plain = gradients.sum(0)
    assert (gradients @ plain < -1e-2 * gradients.norm(dim=1) * plain.norm()).any()


@pytest.mark.parametrize(
    ('normalization', 'divisors'),
    [('none', (1, 1)), ('l2', (3, 4)), ('loss', (0.5, 2)), ('loss+', (1.5, 8))],
)
def test_normalizations_divide_the_gradients(
    normalization: str, divisors: tuple[float, float]
) -> None:
    """Orthogonal vectors of lengths a and b meet at (b^2, a^2) / (a^2 + b^2)."""
    gradients = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    method = make_balancer('mgda', TASKS, normalization=normalization)
    balance = method(gradients, torch.tensor([0.5, 2.0]))
    a, b = 3 / divisors[0], 4 / divisors[1]
    expected = torch.tensor([b * b * a, a * a * b]) / (a * a + b * b)
    torch.testing.assert_close(balance.shared, expected)
    assert balance.own.tolist() == [1, 1]  # tasks descend in what is theirs as ever


def test_mgda_goes_to_the_line_between_the_tasks_and_stays_there() -> None:
    """Every point of it is Pareto optimal; with fixed weights b would have nearly all it wants."""
    found = descend(make_balancer('mgda', TASKS, normalization='l2'), steps=4000, rate=0.01)
    direction = PLACES[1] / PLACES[1].norm()
    along = found @ direction
    assert (found - along * direction).norm() < 0.02
    assert 0.5 < along < 4.5


# -------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: make_balancer('luck', TASKS), 'unknown balancing method .luck., expected one of'),
        (lambda: make_balancer('fixed', TASKS, x=1), "fixed has no option 'x'; it has: none"),
        (lambda: make_balancer('mgda', TASKS, norm=1), 'it has: normalization, features'),
        (lambda: make_balancer('mgda', TASKS, normalization='l1'), "'l1', expected one of none"),
        (lambda: make_balancer('dwa', TASKS, temperature=0), 'temperature of dwa is 0'),
    ],
)
def test_mistakes_are_told(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BalancingError, match=message) as caught:
        make()
    assert '\n' not in str(caught.value)
