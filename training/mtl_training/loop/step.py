"""One step of the optimiser, from a batch to new weights."""

from __future__ import annotations

import torch
from torch import Tensor

from mtl_training.balancing import GradientBalancer, LossBalancer
from mtl_training.datasets.batches import Batch
from mtl_training.loop.gradients import descend_balanced
from mtl_training.loop.losses import Losses, losses_of
from mtl_training.loop.optimizer import set_learning_rate
from mtl_training.loop.processes import mean
from mtl_training.loop.run import Run


def make_step(run: Run, batch: Batch, rate: float) -> dict[str, Tensor]:
    """Make a step with a learning rate.

    Returns:
        What the batch gave, as means over all processes: unweighted losses by task, those of
        auxiliary predictions by ``auxiliary_TASK``, penalties of the network by name, and the
        ``total`` of all, times the weights of the tasks.
    """
    set_learning_rate(run.optimizer, rate)
    run.net.train()
    for module in run.frozen:
        module.eval()
    batch = sub_sample(batch, run.config.optim.loss_stride, run.progress.step)

    run.optimizer.zero_grad()
    if isinstance(run.balancer, GradientBalancer):
        losses = descend_balanced(run, batch, run.balancer)
    else:
        losses = descend(run, batch, run.balancer)
    if run.config.optim.clip_norm:
        run.fabric.clip_gradients(run.net, run.optimizer, max_norm=run.config.optim.clip_norm)
    run.optimizer.step()

    if run.average:
        run.average.update(run.net, run.progress.step)
    losses = losses.averaged(run.fabric)
    objectives = losses.objectives(run.weights)
    run.balancer.observe(objectives)
    auxiliary = {f'auxiliary_{task}': loss for task, loss in losses.auxiliary.items()}
    total = torch.stack([*objectives.values(), *losses.penalties.values()]).sum()
    return {**losses.final, **auxiliary, **losses.penalties, 'total': total}


def descend(run: Run, batch: Batch, balancer: LossBalancer) -> Losses:
    """Give every parameter the gradient of what a method makes of the losses."""
    losses = losses_of(run, batch)
    balanced = balancer(losses.objectives(run.weights))
    run.fabric.backward(torch.stack([balanced, *losses.penalties.values()]).sum())
    for parameter in balancer.parameters():  # whose gradients nothing averages by itself
        if parameter.grad is not None:
            parameter.grad = mean(parameter.grad, run.fabric)
    return losses


def sub_sample(batch: Batch, stride: int, step: int) -> Batch:
    """Labels of every ``stride``-th pixel; the place in a cell changes with the step."""
    if stride == 1:
        return batch
    cell = step % stride**2
    rows, columns = slice(cell // stride, None, stride), slice(cell % stride, None, stride)
    return {
        name: tensor[..., rows, columns] if tensor.ndim > 1 and name != 'image' else tensor
        for name, tensor in batch.items()
    }
