"""One step of the optimiser, from a batch to new weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from mtl_training.balancing import GradientBalancer, LossBalancer
from mtl_training.datasets.batches import Batch
from mtl_training.loop.gradients import (
    Descent,
    SharedParameters,
    angles,
    descend_balanced,
    gradients,
)
from mtl_training.loop.losses import (
    figures_of,
    labelled,
    losses_of,
    mean_of,
    predictions_of,
)
from mtl_training.loop.optimizer import set_learning_rate
from mtl_training.loop.processes import average_gradients, averaged_later
from mtl_training.loop.run import Run, watched


class Step(NamedTuple):
    """What a step was made of, as means over the batch and all processes.

    Attributes:
        losses: unweighted losses by task, those of auxiliary predictions by ``auxiliary_TASK``,
            those beside teachers by ``taught_TASK``, penalties by name, and the ``total``
            of all, times the weights of the tasks.
        weights: by ``weight_TASK``, what the loss of each task was multiplied by, its own weight
            included; 0 for those that were left out. Empty where a method has no such.
        gradients: what ``angles`` tells of the tasks' gradients; empty where not measured.
    """

    losses: dict[str, Tensor]
    weights: dict[str, Tensor]
    gradients: dict[str, Tensor]


def make_step(run: Run, batch: Batch, rate: float) -> Step:
    """Make a step with a learning rate."""
    set_learning_rate(run.optimizer, rate)
    run.net.train()
    for module in run.frozen:
        module.eval()
    for teacher in run.teachers:
        batch = {**batch, **teacher.targets(batch)}
    weights = {task: run.weights[task] for task in labelled(run, batch)}
    parts = split(
        sub_sample(batch, run.config.optim.loss_stride, run.progress.step),
        run.config.optim.accumulate,
    )
    run.optimizer.zero_grad()
    if isinstance(run.balancer, GradientBalancer):
        descent = descend_balanced(run, parts, run.balancer, weights)
    else:
        descent = descend(run, parts, run.balancer, weights)
    if run.config.optim.clip_norm:
        run.fabric.clip_gradients(run.net, run.optimizer, max_norm=run.config.optim.clip_norm)
    run.optimizer.step()

    if run.average:
        run.average.update(run.net, run.progress.step)
    losses = descent.losses
    run.balancer.observe(losses.objectives(weights))
    further = {f'auxiliary_{task}': loss for task, loss in losses.auxiliary.items()}
    further |= {f'taught_{task}': loss for task, loss in losses.taught.items()}
    objectives = losses.objectives(run.weights).values()
    total = torch.stack([*objectives, *losses.penalties.values()]).sum()
    return Step(
        {**losses.final, **further, **losses.penalties, 'total': total},
        {
            f'weight_{task}': weight * descent.factors.get(task, torch.zeros_like(total))
            for task, weight in (run.weights.items() if descent.factors else ())
        },
        descent.gradients,
    )


def descend(
    run: Run, parts: Sequence[Batch], balancer: LossBalancer, weights: Mapping[str, float]
) -> Descent:
    """Give every parameter the gradient of what a method makes of the losses.

    The method gets the means over all processes, so that all weigh tasks alike, and each follows
    the gradient of its own losses, weighed so.

    Args:
        parts: of the batch.
        weights: of the tasks that it has labels of.
    """
    everywhere = isinstance(run.predict, DistributedDataParallel)  # all hear something
    found, factors, compared = [], [], {}
    for number, part in enumerate(parts, 1):
        with averaged_later(run.predict, number < len(parts)):
            with watched(run.net, balancer.wants_features) as features:
                predictions = predictions_of(run, part)
            losses = losses_of(run, part, predictions)
            objectives = losses.objectives(run.weights)
            known = {task: objectives[task] for task in weights}
            if balancer.wants_figures:
                balancer.look(figures_of(run, part, predictions, weights))
            penalties = {**losses.penalties, **balancer.penalties(known, features)}
            losses = losses._replace(penalties=penalties)
            if run.measures_gradients and number == 1:
                compared = angles_of(run, known)
            found.append(losses.averaged(run.fabric))
            slopes, terms = weigh(balancer, found[-1].objectives(weights))
            terms += [slope * known[task] for task, slope in slopes.items()]
            terms += penalties.values()
            if everywhere:
                terms += [0 * loss for task, loss in objectives.items() if task not in slopes]
            if terms:
                run.fabric.backward(torch.stack(terms).sum() / len(parts))
            factors.append(slopes)
    average_gradients(balancer.parameters(), run.fabric)
    if not everywhere:
        average_gradients(run.net.parameters(), run.fabric)
    means = {task: torch.stack([slopes[task] for slopes in factors]).mean() for task in factors[0]}
    return Descent(mean_of(found), means, compared)


def weigh(
    balancer: LossBalancer, losses: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The slope dL/dL_t by task, and L itself where the method learns from it.

    Tasks that L does not depend on have no slope.
    """
    if not losses:
        return {}, []
    leaves = {task: loss.clone().requires_grad_() for task, loss in losses.items()}
    total = balancer(leaves)
    slopes = torch.autograd.grad(total, list(leaves.values()), retain_graph=True, allow_unused=True)
    known = {t: slope for t, slope in zip(leaves, slopes, strict=True) if slope is not None}
    learns = any(parameter.requires_grad for parameter in balancer.parameters())
    return known, [total] if learns else []


def angles_of(run: Run, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """See ``angles``, of the shared parameters, whatever the method looks at."""
    shared = SharedParameters(run)
    if len(losses) < 2 or not shared.tensors:
        return {}
    rows = [gradients(loss, shared.tensors, (), again=True)[0] for loss in losses.values()]
    return angles(list(losses), shared.pool(torch.stack(rows)))


def split(batch: Batch, count: int) -> list[Batch]:
    """Parts of a batch, of equal size."""
    chunks = {name: tensor.chunk(count) for name, tensor in batch.items()}
    return [{name: parts[index] for name, parts in chunks.items()} for index in range(count)]


def sub_sample(batch: Batch, stride: int, step: int) -> Batch:
    """Labels of every ``stride``-th pixel; the place in a cell changes with the step.

    What soft teachers say is on a coarse grid as it is.
    """
    if stride == 1:
        return batch
    cell = step % stride**2
    rows, columns = slice(cell // stride, None, stride), slice(cell % stride, None, stride)
    fine = [n for n, x in batch.items() if x.ndim > 1 and n != 'image' and not n.endswith('.soft')]
    return {**batch, **{name: batch[name][..., rows, columns] for name in fine}}
