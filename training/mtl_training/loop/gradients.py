"""Steps of balancing methods that look at the gradients of every task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mtl_training.balancing import GradientBalancer
from mtl_training.datasets.batches import Batch
from mtl_training.loop.losses import Losses, losses_of
from mtl_training.loop.processes import mean
from mtl_training.loop.run import Run


def descend_balanced(run: Run, batch: Batch, balancer: GradientBalancer) -> Losses:
    """Give every parameter the gradient that a method decides upon.

    What the tasks share gets the method's step; other parameters get the sum of the tasks'
    gradients, times the method's factors. Penalties of the network are not balanced.
    """
    shared = SharedFeatures(run) if balancer.of == 'features' else SharedParameters(run)
    with shared.exposed():
        losses = losses_of(run, batch)
    objectives, means = (x.objectives(run.weights) for x in (losses, losses.averaged(run.fabric)))

    rows, parts = [], []  # of every task: the gradient of what is shared, and of the rest
    for objective in objectives.values():
        row, part = gradients(objective, shared.tensors, shared.others)
        rows.append(row)
        parts.append(part)
    balance = balancer(shared.pool(torch.stack(rows)), torch.stack(list(means.values())))
    step, factors = balance.shared, balance.own
    if losses.penalties:
        penalty = torch.stack(list(losses.penalties.values())).sum()
        row, part = gradients(penalty, shared.tensors, shared.others)
        parts.append(part)
        step, factors = step + shared.pool(row), torch.cat([factors, factors.new_ones(1)])

    for parameter, *terms in zip(shared.others, *parts, strict=True):
        weighted = [f * g for f, g in zip(factors, terms, strict=True) if g is not None]
        parameter.grad = torch.stack(weighted).sum(0) if weighted else None
    shared.descend(step)
    for parameter in shared.others:
        if parameter.grad is not None:
            parameter.grad = mean(parameter.grad, run.fabric)
    return losses


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

    def pool(self, rows: Tensor) -> Tensor:
        """Gradients [..., N] of this process's batch -> of all processes' [..., N]."""
        return mean(rows, self.fabric)

    def descend(self, step: Tensor) -> None:
        """Take a step [N] as gradient."""
        for parameter, piece in zip(self.tensors, pieces(step, self.tensors), strict=True):
            parameter.grad = piece


class SharedFeatures:
    """What the tasks share, as features: the outputs of ``Network.shared_features``.

    Every process has those of its own images: together they are the features of one large batch.
    """

    def __init__(self, run: Run) -> None:
        self.fabric = run.fabric
        self.modules = run.net.shared_features()
        self.before: list[Tensor] = []  # features as the encoder left them
        self.tensors: list[Tensor] = []  # the same, as the tasks found them
        self.others = [p for p in run.net.parameters() if p.requires_grad]

    @contextmanager
    def exposed(self) -> Iterator[None]:
        """While open, what leaves the modules begins graphs of its own."""
        handles = [module.register_forward_hook(self._cut) for module in self.modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _cut(self, module: nn.Module, inputs: object, output: Tensor | list[Tensor]) -> object:
        before = [output] if isinstance(output, Tensor) else output
        found = [feature.detach().requires_grad_() for feature in before]
        self.before += before
        self.tensors += found
        return found[0] if isinstance(output, Tensor) else found

    def pool(self, rows: Tensor) -> Tensor:
        """Gradients [..., N] of this process's mean loss -> [..., processes * N] of all's."""
        if self.fabric.world_size == 1:
            return rows
        return torch.cat([*self.fabric.all_gather(rows / self.fabric.world_size)], dim=-1)

    def descend(self, step: Tensor) -> None:
        """Carry a step [processes * N] back through the encoder."""
        mine = step.chunk(self.fabric.world_size)[self.fabric.global_rank] * self.fabric.world_size
        torch.autograd.backward(self.before, pieces(mine, self.before))


def gradients(
    loss: Tensor, shared: Sequence[Tensor], others: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor | None]]:
    """The gradient of a loss in what is shared, as a vector [N], and in each of the others."""
    found = torch.autograd.grad(loss, [*shared, *others], retain_graph=True, allow_unused=True)
    known = [torch.zeros_like(x) if g is None else g for x, g in zip(shared, found, strict=False)]
    return torch.cat([g.float().flatten() for g in known]), list(found[len(shared) :])


def pieces(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """A vector [N] in the shapes, layouts and number formats of tensors with N entries."""
    parts = vector.split([x.numel() for x in like])
    return [torch.empty_like(x).copy_(part.view_as(x)) for part, x in zip(parts, like, strict=True)]
