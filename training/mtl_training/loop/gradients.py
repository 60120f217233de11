"""Steps of balancing methods that look at the gradients of every task."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mtl_training.balancing import GradientBalancer
from mtl_training.datasets.batches import Batch
from mtl_training.loop.losses import Losses, losses_of, mean_of, predictions_of
from mtl_training.loop.processes import average_gradients, mean
from mtl_training.loop.run import Run

PENALTY = 'penalty'  # not a task: what is added to each step as it is


class Descent(NamedTuple):
    """What became of a batch.

    Attributes:
        losses: means over its parts and all processes, without graphs.
        factors: by which a method multiplied the tasks' weighted losses, if it did so.
        gradients: see ``angles``.
    """

    losses: Losses
    factors: Mapping[str, Tensor]
    gradients: dict[str, Tensor]


def descend_balanced(
    run: Run, parts: Sequence[Batch], balancer: GradientBalancer, weights: Mapping[str, float]
) -> Descent:
    """Give every parameter the gradient that a method decides upon.

    What the tasks share gets the method's step; other parameters get the sum of the tasks'
    gradients, times the method's factors. Penalties of the network are not balanced.

    Args:
        parts: of the batch.
        weights: of the tasks that it has labels of.
    """
    shared = SharedFeatures(run) if balancer.of == 'features' else SharedParameters(run)
    found: list[Losses] = []
    rows: dict[str, list[Tensor]] = {}  # of every task, by part: the gradient of what is shared,
    own: dict[str, list[Tensor | None]] = {}  # and of the rest, summed over parts
    for part in parts:
        with shared.exposed():
            losses = losses_of(run, part, predictions_of(run, part))
        found.append(losses.averaged(run.fabric))
        terms: dict[str, Tensor] = {}  # a task comes last, whose pass gives back the graph
        if losses.penalties:
            terms[PENALTY] = torch.stack(list(losses.penalties.values())).sum()
        terms |= losses.objectives(weights)
        for number, (name, term) in enumerate(terms.items(), 1):
            row, rest = gradients(
                term / len(parts), shared.tensors, shared.others, again=number < len(terms)
            )
            rows.setdefault(name, []).append(row)
            own[name] = summed(own[name], rest) if name in own else rest
    means = mean_of(found)

    pooled = {name: shared.pool(shared.join(rows.pop(name))) for name in list(rows)}
    step = pooled.pop(PENALTY, None)
    own_factors: dict[str, Tensor | float] = {PENALTY: 1.0}
    factors: dict[str, Tensor] = {}
    compared: dict[str, Tensor] = {}
    if pooled:
        names, stacked = list(pooled), torch.stack(list(pooled.values()))
        pooled.clear()  # rows are as large as the network
        if run.measures_gradients:
            compared = angles(names, stacked)
        if balancer.wants_values:
            balancer.see(shared.values())
        balance = balancer(stacked, means.objectives(weights))
        step = balance.shared if step is None else balance.shared + step
        own_factors |= zip(names, balance.own, strict=True)
        if balance.weights is not None:
            factors = dict(zip(names, balance.weights, strict=True))

    for index, parameter in enumerate(shared.others):
        heard = [(own_factors[name], rest[index]) for name, rest in own.items()]
        weighted = [factor * gradient for factor, gradient in heard if gradient is not None]
        parameter.grad = torch.stack(weighted).sum(0) if weighted else None
    if step is not None:
        shared.descend(step)
    average_gradients(shared.others, run.fabric)
    return Descent(means, factors, compared)


def angles(names: Sequence[str], rows: Tensor) -> dict[str, Tensor]:
    """How the gradients [T, N] of tasks lie: ``norm_A``, and ``cosine_A_B`` of each pair."""
    norms = rows.norm(dim=1)
    cosines = (rows @ rows.mT) / norms.outer(norms).clamp(min=1e-30)
    first, second = torch.triu_indices(len(names), len(names), offset=1)
    return dict(zip(angle_names(names), [*norms, *cosines[first, second]], strict=True))


def angle_names(tasks: Sequence[str]) -> list[str]:
    """What ``angles`` tells of tasks."""
    pairs = itertools.combinations(tasks, 2)
    return [f'norm_{task}' for task in tasks] + [f'cosine_{a}_{b}' for a, b in pairs]


class SharedParameters:
    """What the tasks share, as parameters, of which every process has a copy.

    Attributes:
        tensors: what gradients are of.
        others: parameters that ``descend`` leaves alone, or adds to.
    """

    def __init__(self, run: Run) -> None:
        self.fabric = run.fabric
        self.tensors = [p for p in run.net.shared_parameters() if p.requires_grad]
        known = {id(p) for p in self.tensors}
        self.others = [p for p in run.net.parameters() if p.requires_grad and id(p) not in known]

    @contextmanager
    def exposed(self) -> Iterator[None]:
        """Parameters are leaves of every graph: nothing needs to be done to get at them."""
        yield

    def join(self, rows: Sequence[Tensor]) -> Tensor:
        """The gradient [N] of a batch from those of its parts."""
        return functools.reduce(torch.add, rows)

    def pool(self, rows: Tensor) -> Tensor:
        """Gradients [..., N] of this process's batch -> of all processes' [..., N]."""
        return mean(rows, self.fabric)

    def values(self) -> list[Tensor]:
        """What pooled gradients are of."""
        return list(self.tensors)

    def descend(self, step: Tensor) -> None:
        """Take a step [N] as gradient."""
        for parameter, piece in zip(self.tensors, pieces(step, self.tensors), strict=True):
            parameter.grad = piece


class SharedFeatures:
    """What the tasks share, as features: the outputs of ``Network.shared_features``.

    Every process has those of its own images, part by part of its batch: together they are the
    features of one large batch.
    """

    def __init__(self, run: Run) -> None:
        self.fabric = run.fabric
        self.modules = run.net.shared_features()
        self.before: list[Tensor] = []  # features as the encoder left them
        self.found: list[Tensor] = []  # the same, as the tasks found them
        self.tensors: list[Tensor] = []  # those of the newest part
        self.others = [p for p in run.net.parameters() if p.requires_grad]

    @contextmanager
    def exposed(self) -> Iterator[None]:
        """While open, what leaves the modules begins graphs of its own."""
        self.tensors = []
        handles = [module.register_forward_hook(self._cut) for module in self.modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        self.found += self.tensors

    def _cut(self, module: nn.Module, inputs: object, output: Tensor | list[Tensor]) -> object:
        before = [output] if isinstance(output, Tensor) else output
        # Features of frozen stages have no gradient, and nothing before them is to be reached.
        found = [f.detach().requires_grad_() if f.requires_grad else f for f in before]
        self.before += [feature for feature in before if feature.requires_grad]
        self.tensors += [feature for feature in found if feature.requires_grad]
        return found[0] if isinstance(output, Tensor) else found

    def join(self, rows: Sequence[Tensor]) -> Tensor:
        """The gradient [N] of a batch from those of its parts."""
        return torch.cat([*rows]) if len(rows) > 1 else rows[0]

    def pool(self, rows: Tensor) -> Tensor:
        """Gradients [..., N] of this process's mean loss -> [..., processes * N] of all's."""
        if self.fabric.world_size == 1:
            return rows
        return torch.cat([*self.fabric.all_gather(rows / self.fabric.world_size)], dim=-1)

    def values(self) -> list[Tensor]:
        """What pooled gradients are of."""
        values = [feature.detach() for feature in self.found]
        if self.fabric.world_size == 1:
            return values
        gathered = [self.fabric.all_gather(value) for value in values]  # [processes, B, C, h, w]
        return [value[rank] for rank in range(self.fabric.world_size) for value in gathered]

    def descend(self, step: Tensor) -> None:
        """Carry a step [processes * N] back through the encoder."""
        mine = step.chunk(self.fabric.world_size)[self.fabric.global_rank] * self.fabric.world_size
        torch.autograd.backward(self.before, pieces(mine, self.before))


def gradients(
    loss: Tensor, shared: Sequence[Tensor], others: Sequence[Tensor], *, again: bool
) -> tuple[Tensor, list[Tensor | None]]:
    """The gradient of a loss in what is shared, as a vector [N], and in each of the others.

    Args:
        again: whether the graph is needed once more.
    """
    found = torch.autograd.grad(loss, [*shared, *others], retain_graph=again, allow_unused=True)
    known = [torch.zeros_like(x) if g is None else g for x, g in zip(shared, found, strict=False)]
    return torch.cat([g.float().flatten() for g in known]), list(found[len(shared) :])


def summed(one: Sequence[Tensor | None], two: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Sums, place by place; None is 0."""
    return [a if b is None else b if a is None else a + b for a, b in zip(one, two, strict=True)]


def pieces(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """A vector [N] in the shapes, layouts and number formats of tensors with N entries."""
    parts = vector.split([x.numel() for x in like])
    return [torch.empty_like(x).copy_(part.view_as(x)) for part, x in zip(parts, like, strict=True)]
