"""Every method on problems whose answers are known by hand."""

from __future__ import annotations

import doctest
import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any

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
from mtl_training.balancing.aggregation import AGGREGATORS
from mtl_training.balancing.mgda import shortest
from torch import Tensor

TASKS = ('a', 'b')
FRAMES = {'a': 9, 'b': 9}
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
            step = method(torch.stack(rows), named(losses.detach())).shared
        with torch.no_grad():
            point -= rate * step
    return point.detach()


@pytest.mark.parametrize('module', sorted({kind.__module__ for kind in METHODS.values()}))
def test_examples_in_docstrings_are_true(module: str) -> None:
    if module.endswith('aggregation'):
        pytest.importorskip('torchjd')
    found = doctest.testmod(importlib.import_module(module))
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
        balancer.begin_epoch(FRAMES)
        balancer.observe({'a': losses['a'] / number, 'b': losses['b']})
    balancer.begin_epoch(FRAMES)
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
    method.begin_epoch(FRAMES)
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
    method.begin_epoch(FRAMES)
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
        method.begin_epoch(FRAMES)
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
    step = method(gradients, dict(zip('abcd', losses, strict=True))).shared
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
    balance = method(gradients, named(torch.tensor([0.5, 2.0])))
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


# --------------------------------------------------------------------------------------- uniform


def test_uniform_weights_leave_those_of_the_tasks_aside() -> None:
    method = make_balancer('uniform', TASKS)
    assert not method.weighted
    assert [name for name, kind in METHODS.items() if not kind.weighted] == ['uniform']
    assert method(named(torch.tensor([3.0, 4.0]))).item() == 7


# ----------------------------------------------------------------------------------- log scaling


@pytest.mark.parametrize(('c', 'slopes'), [(1.0, (1 / 3, 1 / 11)), (0.0, (1 / 2, 1 / 10))])
def test_log_scaling_divides_gradients_by_losses(c: float, slopes: tuple[float, float]) -> None:
    losses = torch.tensor([2.0, 10.0], requires_grad=True)
    total = make_balancer('log_scaling', TASKS, c=c)(named(losses))
    assert total.item() == pytest.approx(math.log(c + 2) + math.log(c + 10), rel=1e-5)
    total.backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx(slopes, rel=1e-5)


def test_without_offset_the_sizes_of_losses_do_not_matter() -> None:
    """k_t |x - p_t|^2 / 2 of any k_t: sum_t 2 (x - p_t) / |x - p_t|^2 = 0 half way."""

    class Logs(LossBalancer):
        def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
            return make_balancer('log_scaling', TASKS, c=0.0)(losses)

    point = PLACES[1].clone() / 2
    point.requires_grad_()
    total = Logs(TASKS)(named(quadratics(point)))
    (slope,) = torch.autograd.grad(total, point)
    torch.testing.assert_close(slope, torch.zeros(2), atol=1e-6, rtol=0)


# ------------------------------------------------------------------------------------------- lps


def test_lps_is_the_scheme_of_mt_cp() -> None:
    """Means are (4, 1), (2, 1), (1, 0.9); kappa 2."""
    method = make_balancer('lps', TASKS, kappa=2.0)
    losses = named(torch.tensor([1.0, 10.0]))
    epoch(method, (5.0, 1.5), (3.0, 0.5))
    assert method(losses).item() == 11.0  # the first epoch
    epoch(method, (2.0, 1.0))
    assert method(losses).item() == pytest.approx(5 / 4 * 1 + 5 / 1 * 10)  # L_tot / L_t
    epoch(method, (1.0, 0.9))
    rho = torch.tensor([2 / 4, 1 / 1]) / (3 / 5)
    spread = rho.mean() + 2 * (rho - rho.mean())
    assert method(losses).item() == pytest.approx((spread @ torch.tensor([1.0, 10.0])).item())
    epoch(method)
    rho = torch.tensor([1 / 2, 0.9 / 1]) / (1.9 / 3)
    spread = rho.mean() + 2 * (rho - rho.mean())
    assert method(losses).item() == pytest.approx((spread @ torch.tensor([1.0, 10.0])).item())


def test_lps_keeps_weights_from_falling_below_0() -> None:
    """rho = (0.1, 1) / (1.1 / 2) = (2, 20) / 11, of mean 1."""
    method = make_balancer('lps', TASKS)  # kappa 7.5
    for losses in ((1.0, 1.0), (0.1, 1.0)):
        epoch(method, losses)
    method.begin_epoch(FRAMES)
    losses = torch.tensor([1.0, 1.0], requires_grad=True)
    method(named(losses)).backward()
    assert losses.grad is not None
    assert losses.grad[0] == 0
    assert losses.grad[1].item() == pytest.approx(1 + 7.5 * 9 / 11, rel=1e-5)


def test_lps_knows_tasks_only_that_it_has_seen() -> None:
    method = make_balancer('lps', TASKS)
    method.begin_epoch(FRAMES)
    method.observe({'a': torch.tensor(2.0)})
    method.begin_epoch(FRAMES)
    assert method(named(torch.tensor([1.0, 10.0]))).item() == 11.0  # a alone: 2/2; b: unknown
    method.observe({'a': torch.tensor(1.0)})
    method.begin_epoch(FRAMES)
    assert method(named(torch.tensor([1.0, 10.0]))).item() == 11.0


# ------------------------------------------------------------------------------------------- dtp


def test_dtp_is_equation_9() -> None:
    method = make_balancer('dtp', TASKS, gamma={'a': 1.0, 'b': 2.0}, alpha=0.5)
    assert isinstance(method, LossBalancer)
    assert method.wants_figures
    losses = named(torch.tensor([1.0, 10.0]))
    assert method(losses).item() == 11.0  # nothing is known yet
    method.look({'a': 0.2, 'b': 0.6})
    method.look({'a': 0.4, 'b': 0.8})  # moves half the way: 0.3 and 0.7
    expected = -(0.7**1) * math.log(0.3) - 10 * 0.3**2 * math.log(0.7)
    assert method(losses).item() == pytest.approx(expected, rel=1e-5)
    method.look({'a': 0.3})  # of b no figure
    assert method(losses).item() == pytest.approx(expected, rel=1e-5)


def test_dtp_has_a_weight_for_tasks_of_no_use() -> None:
    method = make_balancer('dtp', TASKS)
    assert isinstance(method, LossBalancer)
    method.look({'a': 0.0, 'b': 1.0})
    expected = -0.999 * math.log(0.001)
    assert method(named(torch.tensor([1.0, 10.0]))).item() == pytest.approx(expected, rel=1e-4)


# --------------------------------------------------------------------------- one task in each step


def drawn(method: LossBalancer, steps: int, losses: dict[str, Tensor]) -> list[str]:
    names = []
    for _ in range(steps):
        names += [task for task, loss in losses.items() if loss is method(losses)]
        method.observe(losses)
    return names


@pytest.mark.parametrize(('temperature', 'share'), [(1.0, 1 / 10), (2.0, 1 / 4), (1e6, 1 / 2)])
def test_tasks_are_drawn_by_the_frames_that_they_have(temperature: float, share: float) -> None:
    """n = (10, 90): 1 to 9, or at T = 2 1 to 3."""
    method = make_balancer('sampling', TASKS, temperature=temperature)
    assert isinstance(method, LossBalancer)
    method.begin_epoch({'a': 10, 'b': 90})
    names = drawn(method, 2000, named(torch.tensor([1.0, 2.0])))
    assert len(names) == 2000
    assert names.count('a') / 2000 == pytest.approx(share, abs=0.03)


def test_the_draws_of_a_step_are_always_the_same() -> None:
    losses = named(torch.tensor([1.0, 2.0]))
    one, two, other = (make_balancer('sampling', TASKS, seed=seed) for seed in (0, 0, 1))
    assert isinstance(one, LossBalancer)
    first = drawn(one, 20, losses)
    two.load_state_dict(one.state_dict())
    assert isinstance(two, LossBalancer)
    assert isinstance(other, LossBalancer)
    assert drawn(two, 20, losses) == drawn(one, 20, losses) != first
    assert drawn(other, 20, losses) != first


def test_tasks_take_turns_among_those_with_labels() -> None:
    method = make_balancer('alternating', 'abc')
    assert isinstance(method, LossBalancer)
    all_three = {task: torch.tensor(float(n)) for n, task in enumerate('abc')}
    assert drawn(method, 4, all_three) == ['a', 'b', 'c', 'a']
    assert drawn(method, 1, {'a': all_three['a']}) == ['a']
    assert drawn(method, 1, {'a': all_three['a'], 'c': all_three['c']}) == ['c']
    assert drawn(method, 2, all_three) == ['b', 'a']


# -------------------------------------------------------------------------------------- gradnorm


def test_gradnorm_is_equation_7() -> None:
    """|g| = (3, 4); losses fell to (1/2, 1/4): r = (4/3, 2/3). G_mean = 3.5, alpha 1."""
    method = make_balancer('gradnorm', TASKS, alpha=1.0)
    gradients = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    (weight,) = method.parameters()
    first = method(gradients, named(torch.tensor([8.0, 8.0])))
    assert first.shared.tolist() == [3, 4]  # there is no L(0) yet
    assert weight.grad is None
    method.observe(named(torch.tensor([8.0, 8.0])))
    method(gradients, named(torch.tensor([4.0, 2.0])))
    assert weight.grad is not None
    assert weight.grad.tolist() == [-3, 4]  # 3 < 3.5 * 4/3 and 4 > 3.5 * 2/3
    with torch.no_grad():
        weight.copy_(torch.tensor([6.0, 2.0]))
    balance = method(gradients, named(torch.tensor([4.0, 2.0])))
    assert weight.tolist() == [1.5, 0.5]  # of sum 2 again
    assert balance.shared.tolist() == [4.5, 2.0]
    assert balance.own.tolist() == [1.5, 0.5]
    assert weight.grad.tolist() == [3, -4]  # G = (4.5, 2), to be 3.25 (4/3, 2/3)


def test_alpha_spreads_what_gradnorm_wants() -> None:
    """r = (4/3, 2/3), G = (4, 3), mean 3.5: alpha 0 wants equal ones, 3 much more of the first."""
    gradients, losses = torch.tensor([[4.0, 0.0], [0.0, 3.0]]), named(torch.tensor([2.0, 1.0]))
    for alpha, signs in ((0.0, [4, -3]), (3.0, [-4, 3])):
        method = make_balancer('gradnorm', TASKS, alpha=alpha)
        method.observe(named(torch.tensor([1.0, 1.0])))
        method(gradients, losses)
        (weight,) = method.parameters()
        assert weight.grad is not None
        assert weight.grad.tolist() == signs


def test_gradnorm_begins_with_the_mean_of_some_steps() -> None:
    method = make_balancer('gradnorm', TASKS, initial=2, alpha=1.0)
    (weight,) = method.parameters()
    gradients = torch.eye(2)
    for losses in ((1.0, 1.0), (3.0, 1.0), (100.0, 1.0)):
        method.observe(named(torch.tensor(losses)))
    method(gradients, named(torch.tensor([1.9, 1.0])))  # of (2, 1): a has learnt more
    assert weight.grad is not None
    assert weight.grad.tolist() == [1, -1]
    late = make_balancer('gradnorm', TASKS, initial=2)
    late.observe(named(torch.tensor([1.0, 1.0])))
    late(gradients, named(torch.tensor([1.0, 2.0])))
    assert next(late.parameters()).grad is None


def test_gradnorm_makes_gradients_alike() -> None:
    """Losses that never change are all learnt equally little: |w_t g_t| become equal."""
    method = make_balancer('gradnorm', TASKS)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.001)
    losses, gradients = named(torch.tensor([1.0, 1.0])), torch.tensor([[1.0, 0.0], [0.0, 9.0]])
    method.observe(losses)
    for _ in range(1000):
        method(gradients, losses)
        optimizer.step()
    first, second = method(gradients, losses).shared.tolist()
    assert first == pytest.approx(second, rel=0.05)
    assert first == pytest.approx(1.8, rel=0.05)  # w = (1.8, 0.2)


# ------------------------------------------------------------------------------------ pareto mtl


@pytest.mark.parametrize('preference', [1, 2, 3])
def test_pareto_mtl_finds_the_trade_off_that_one_prefers(preference: int) -> None:
    """Its losses are closest to the vector: within pi / 16 of (cos, sin)(k pi / 8)."""
    method = make_balancer('pareto_mtl', TASKS, preference=preference)
    point = torch.tensor([0.5, -0.5], requires_grad=True)  # equal losses
    places = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    for _ in range(600):
        losses = (point - places).square().sum(1)
        rows = [torch.autograd.grad(loss, point, retain_graph=True)[0] for loss in losses]
        step = method(torch.stack(rows), named(losses.detach())).shared
        with torch.no_grad():
            point -= 0.005 * step
    losses = (point - places).square().sum(1)
    angle = math.atan2(losses[1].item(), losses[0].item())
    assert abs(angle - preference * math.pi / 8) < math.pi / 16 + 0.02
    assert abs(point[1].item()) < 0.05  # on the line between the tasks: Pareto optimal


def test_the_first_phase_of_pareto_mtl_looks_for_the_preferred_region() -> None:
    """u = (1, 0) is preferred to (0, 1): L_2 > L_1 violates, and beta = 1: a = (-1, 1)."""
    method = make_balancer('pareto_mtl', TASKS, vectors=[[2, 0], [0, 1]], preference=0)
    gradients = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    outside, inside = named(torch.tensor([1.0, 2.0])), named(torch.tensor([2.0, 1.0]))
    balance = method(gradients, outside)
    assert balance.shared.tolist() == balance.own.tolist() == [-1, 1]
    balance = method(gradients, inside)  # as MGDA, of sum 2
    assert balance.shared.tolist() == pytest.approx([1, 1])
    balance = method(gradients, outside)  # lambda and beta: shortest of (1,0), (0,1), (-1,1)
    combined = shortest(np.array([[1.0, 0, -1], [0, 1, 1], [-1, 1, 2]]))
    a = combined[:2] + combined[2] * np.array([-1, 1])
    assert balance.own.tolist() == pytest.approx(2 * a / np.abs(a).sum(), abs=1e-5)
    assert balance.own.tolist() != pytest.approx([1, 1], abs=0.1)


def test_the_first_phase_of_pareto_mtl_has_an_end() -> None:
    method = make_balancer('pareto_mtl', TASKS, vectors=[[1, 0], [0, 1]], preference=0, search=2)
    losses = named(torch.tensor([1.0, 2.0]))
    weights = [method(torch.eye(2), losses).own.tolist() for _ in range(3)]
    assert weights[0] == weights[1] == [-1, 1]
    assert min(weights[2]) >= 0


# -------------------------------------------------------------------------------------- graddrop


def dropped(gradients: Tensor, values: Tensor, **options: Any) -> Tensor:
    """Means of what remains, of 4000 draws: [B, ...] of [T, B, ...]."""
    method = make_balancer('graddrop', TASKS, **options)
    assert isinstance(method, GradientBalancer)
    found = []
    for _ in range(4000):
        method.see([values])
        step = method(gradients.flatten(1), named(torch.ones(2))).shared
        found.append(step.view(values.shape))
    return torch.stack(found)


def test_graddrop_keeps_one_sign_by_its_share() -> None:
    """G = (3, -1): P = 1/2 (1 + 2/4) = 3/4."""
    gradients = torch.tensor([3.0, -1.0]).view(2, 1, 1)
    found = dropped(gradients, torch.ones(1, 1)).flatten()
    assert set(found.tolist()) == {3.0, -1.0}
    assert (found == 3).float().mean().item() == pytest.approx(0.75, abs=0.03)


def test_graddrop_leaves_tasks_alone_that_agree() -> None:
    gradients = torch.tensor([[3.0, -3.0, 0.0], [1.0, -1.0, 0.0]]).view(2, 1, 3)
    found = dropped(gradients, torch.ones(1, 3))
    assert (found == torch.tensor([4.0, -4.0, 0.0])).all()


def test_the_signs_of_features_make_images_comparable() -> None:
    """Of two images with A = (1, -1): both want a to grow in size, one pulls harder for b."""
    values = torch.tensor([[1.0], [-1.0]])
    gradients = torch.tensor([[[2.0], [-2.0]], [[-4.0], [-1.0]]])  # G_a = 4, G_b = -4 + 1 = -3
    found = dropped(gradients, values)[..., 0]
    assert {tuple(pair) for pair in found.tolist()} == {(2.0, -2.0), (-4.0, -1.0)}
    assert (found[:, 0] == 2).float().mean().item() == pytest.approx(4 / 7, abs=0.03)


def test_leaks_let_a_share_through() -> None:
    gradients = torch.tensor([3.0, -1.0]).view(2, 1, 1)
    found = dropped(gradients, torch.ones(1, 1), leak={'a': 0.0, 'b': 0.5}).flatten()
    assert set(found.tolist()) == {3.0 - 0.5, -1.0}
    assert set(dropped(gradients, torch.ones(1, 1), leak=1.0).flatten().tolist()) == {2.0}


# ----------------------------------------------------------------------------------- adversarial


def test_discriminators_of_scales_are_averaged() -> None:
    """Each of two is at a loss: log 2 for each of two tasks, times w / (1 - w)."""
    method = make_balancer('adversarial', TASKS, weight=0.2)
    assert isinstance(method, LossBalancer)
    method.meet([3, 5])
    for parameter in method.parameters():
        torch.nn.init.zeros_(parameter)
    features = [torch.randn(2, channels, 4, 4, requires_grad=True) for channels in (3, 5)]
    loss = sum((x.square().mean() for x in features), torch.zeros(()))
    found = method.penalties({'a': loss, 'b': 2 * loss}, features)
    assert found['discriminator'].item() == pytest.approx(0.2 / 0.8 * 2 * math.log(2))


def test_what_made_gradients_hears_more_of_the_discriminator_with_every_step() -> None:
    """alpha = 2 / (1 + exp(-10 p)) - 1 for p = 0, 1/2 and 1."""
    torch.manual_seed(0)
    method = make_balancer('adversarial', TASKS, steps=2)
    assert isinstance(method, LossBalancer)
    method.meet([3])
    feature = torch.randn(2, 3, 4, 4, requires_grad=True)
    found = []
    for _ in range(3):
        losses = {'a': feature.square().mean(), 'b': feature.exp().mean()}
        (penalty,) = method.penalties(losses, [feature]).values()
        found.append(torch.autograd.grad(penalty, feature)[0].norm().item())
        method.observe(losses)
    assert found[0] == 0
    expected = (2 / (1 + math.exp(-5)) - 1) / (2 / (1 + math.exp(-10)) - 1)
    assert found[1] / found[2] == pytest.approx(expected, rel=1e-4)


# --------------------------------------------------------------------------------------- torchjd

CONFLICT = torch.tensor([[4.0, 0.0, 0.0], [-1.0, 1.0, 0.0]])


@pytest.mark.parametrize('aggregator', AGGREGATORS)
def test_aggregators_of_torchjd_make_one_step(aggregator: str) -> None:
    pytest.importorskip('torchjd')
    method = make_balancer('torchjd', TASKS, aggregator=aggregator)
    balance = method(CONFLICT, named(torch.ones(2)))
    assert balance.shared.shape == (3,)
    assert balance.shared.any()
    assert balance.own.tolist() == [1, 1]
    mean = CONFLICT.mean(0)
    assert (CONFLICT @ mean).min() < 0  # b loses by the mean
    if aggregator not in ('graddrop', 'cagrad'):  # which promise no such thing
        assert (CONFLICT @ balance.shared).min() >= -1e-4


def test_pcgrad_takes_from_each_what_the_other_minds() -> None:
    """g_1 - (g_1 g_2 / |g_2|^2) g_2 = (2, 2), g_2 - (g_2 g_1 / |g_1|^2) g_1 = (0, 1)."""
    pytest.importorskip('torchjd')
    method = make_balancer('torchjd', TASKS, aggregator='pcgrad')
    step = method(CONFLICT, named(torch.ones(2))).shared
    torch.testing.assert_close(step, torch.tensor([2.0, 3.0, 0.0]))


def test_mgda_of_torchjd_is_ours() -> None:
    pytest.importorskip('torchjd')
    torch.manual_seed(0)
    theirs = make_balancer('torchjd', 'abc', aggregator='mgda', arguments={'max_iters': 100_000})
    ours = make_balancer('mgda', 'abc')
    for _ in range(5):
        gradients, losses = torch.randn(3, 5), {task: torch.ones(()) for task in 'abc'}
        expected = theirs(gradients, losses).shared
        torch.testing.assert_close(ours(gradients, losses).shared, expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize('aggregator', ['graddrop', 'pcgrad', 'nash_mtl'])
def test_aggregators_go_on_where_they_were(aggregator: str) -> None:
    pytest.importorskip('torchjd')
    torch.manual_seed(0)
    names, matrices = 'abc', torch.randn(6, 3, 8)
    losses = {task: torch.ones(()) for task in names}
    one = make_balancer('torchjd', names, aggregator=aggregator)
    state = torch.get_rng_state()
    steps = [one(matrix, losses).shared for matrix in matrices[:3]]
    assert torch.equal(torch.get_rng_state(), state)  # the training's dice are left alone
    two = make_balancer('torchjd', names, aggregator=aggregator)
    two.load_state_dict(one.state_dict())
    for matrix in matrices[3:]:
        assert torch.equal(one(matrix, losses).shared, two(matrix, losses).shared)
    again = make_balancer('torchjd', names, aggregator=aggregator)
    assert torch.equal(again(matrices[0], losses).shared, steps[0])


def test_nash_mtl_begins_its_search_where_the_step_before_ended() -> None:
    pytest.importorskip('torchjd')
    torch.manual_seed(0)
    first, second = torch.randn(2, 2, 8)
    losses = named(torch.ones(2))
    method, anew = (make_balancer('torchjd', TASKS, aggregator='nash_mtl') for _ in range(2))
    method(first * 100, losses)
    assert not torch.equal(method(second, losses).shared, anew(second, losses).shared)


@pytest.mark.parametrize('aggregator', ['graddrop', 'pcgrad'])
def test_aggregators_draw_anew_in_every_step(aggregator: str) -> None:
    pytest.importorskip('torchjd')
    method = make_balancer('torchjd', 'abc', aggregator=aggregator)
    matrix = torch.tensor([[1.0, 0.2, 0.0], [-1.0, 0.5, 0.3], [-0.4, -1.0, 0.5]])  # a against all
    losses = {task: torch.ones(()) for task in 'abc'}
    assert len({tuple(method(matrix, losses).shared.tolist()) for _ in range(9)}) > 1


# ----------------------------------------------------------------------- where labels are missing


@pytest.mark.parametrize('method', sorted(set(METHODS) - {'pareto_mtl', 'torchjd'}))
def test_tasks_without_labels_are_left_as_they_are(method: str) -> None:
    """Before and after, the others are balanced as if there were no such task."""
    torch.manual_seed(0)
    balancer = make_balancer(method, ('a', 'none', 'b'))
    losses, gradients = named(torch.tensor([1.0, 2.0])), torch.randn(2, 4)
    for _ in range(3):
        balancer.begin_epoch({'a': 9, 'b': 9, 'none': 0})
        if isinstance(balancer, LossBalancer):
            balancer.look({'a': 0.5, 'b': 0.25})
            assert balancer(losses).isfinite()
        else:
            balancer.see([torch.ones(1, 4)])
            balance = balancer(gradients, losses)
            assert balance.shared.isfinite().all()
            assert balance.own.shape == (2,)
        balancer.observe(losses)
    if isinstance(balancer, LossBalancer):
        assert balancer({**losses, 'none': torch.tensor(3.0)}).isfinite()


# -------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: make_balancer('luck', TASKS), 'unknown balancing method .luck., expected one of'),
        (lambda: make_balancer('fixed', TASKS, x=1), "fixed has no option 'x'; it has: none"),
        (lambda: make_balancer('mgda', TASKS, norm=1), 'it has: normalization, features'),
        (lambda: make_balancer('mgda', TASKS, normalization='l1'), "'l1', expected one of none"),
        (
            lambda: make_balancer('dwa', TASKS, temperature=0),
            'dwa has the option temperature: 0; expected above 0',
        ),
        (
            lambda: make_balancer('lps', TASKS, kappa=-1),
            'lps has the option kappa: -1; expected 0 or more',
        ),
        (lambda: make_balancer('log_scaling', TASKS, c=-1), 'option c: -1'),
        (lambda: make_balancer('dtp', TASKS, gamma={'a': 1}), 'a number for all or each of a, b'),
        (lambda: make_balancer('dtp', TASKS, alpha=0), 'alpha of dtp is 0'),
        (
            lambda: make_balancer('sampling', TASKS, temperature=0),
            'sampling has the option temperature: 0',
        ),
        (
            lambda: make_balancer('gradnorm', TASKS, initial=0),
            'option initial: 0; expected 1 or more',
        ),
        (lambda: make_balancer('graddrop', TASKS, leak=2), 'option leak: 2; expected 0 to 1'),
        (lambda: make_balancer('graddrop', TASKS, leak={'a': 0, 'b': 2}), 'leak.b: 2; expected'),
        (
            lambda: make_balancer('graddrop', TASKS, leak={'a': 0}),
            'a share for all or each of a, b',
        ),
        (lambda: make_balancer('dwa', TASKS, temperature=math.nan), 'temperature: nan; expected'),
        (lambda: make_balancer('gradnorm', TASKS, features=1), 'features: 1; expected bool'),
        (lambda: make_balancer('adversarial', TASKS, weight=1), 'weight of adversarial is 1'),
        (lambda: make_balancer('torchjd', TASKS, aggregator='mgda', arguments=[1]), 'a mapping'),
        (lambda: make_balancer('pareto_mtl', TASKS, vectors=3), 'are 3, expected two or more'),
        (
            lambda: make_balancer('pareto_mtl', TASKS, vectors=[[1, 'x'], [0, 1]]),
            'a number for each',
        ),
        (lambda: make_balancer('pareto_mtl', TASKS, vectors=[[1], [0, 1]]), 'a number for each'),
        (
            lambda: make_balancer(
                'pareto_mtl', TASKS, vectors=[[1, math.inf], [0, 1]], preference=0
            ),
            'without end',
        ),
        (lambda: make_balancer('pareto_mtl', 'abc'), 'a number for each of a, b, c'),
        (lambda: make_balancer('pareto_mtl', TASKS, preference=5), 'is 5, expected 0 to 4'),
        (
            lambda: make_balancer('pareto_mtl', TASKS, vectors=[[1, -1], [0, 1]], preference=0),
            'numbers below 0',
        ),
        (lambda: make_balancer('torchjd', TASKS), 'torchjd needs the option aggregator'),
        (lambda: make_balancer('torchjd', TASKS, aggregator='x'), "'x', expected one of mgda"),
    ],
)
def test_mistakes_are_told(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BalancingError, match=message) as caught:
        make()
    assert '\n' not in str(caught.value)
