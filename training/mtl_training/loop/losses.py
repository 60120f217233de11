"""The losses of a batch, and what balancing works on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from lightning.fabric import Fabric
from torch import Tensor

from mtl_training.datasets.batches import Batch
from mtl_training.evaluation.predictors import normalise
from mtl_training.loop.processes import mean
from mtl_training.loop.run import Run
from mtl_training.tasks import multi_task_loss


class Losses(NamedTuple):
    """What a network was wrong by.

    Attributes:
        final: unweighted losses of the final predictions, by task.
        auxiliary: of all auxiliary predictions, times the weights of these, by task.
        penalties: further terms of the network, by name.
    """

    final: dict[str, Tensor]
    auxiliary: dict[str, Tensor]
    penalties: dict[str, Tensor]

    def objectives(self, weights: Mapping[str, float]) -> dict[str, Tensor]:
        """w_t (L_t + auxiliary_t) by task: what a balancer works on."""
        return {
            task: weight * torch.stack([part[task] for part in self[:2] if task in part]).sum()
            for task, weight in weights.items()
        }

    def averaged(self, fabric: Fabric) -> Losses:
        """The mean over all processes, without graphs."""
        values = torch.stack([loss.detach() for part in self for loss in part.values()])
        means = iter(mean(values, fabric))
        return Losses(*({name: next(means) for name in part} for part in self))


def losses_of(run: Run, batch: Batch) -> Losses:
    """The losses of a batch, with their graphs."""
    images = normalise(batch['image'], run.net.mean, run.net.std)
    with run.fabric.autocast():
        predictions = run.predict(images)
    final = multi_task_loss(precise(predictions.final), batch, run.tasks)
    auxiliary: dict[str, Tensor] = {}
    for scale in predictions.auxiliary:
        for task, loss in multi_task_loss(precise(scale.logits), batch, run.trained_tasks).items():
            weighted = scale.weight * loss
            auxiliary[task] = auxiliary[task] + weighted if task in auxiliary else weighted
    with run.fabric.autocast():
        penalties = run.net.penalties(final)
    return Losses(final, auxiliary, penalties)


def precise(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Logits in full precision, whatever the network computed in."""
    return {task: x.float() for task, x in logits.items()}
