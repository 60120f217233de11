"""The losses of a batch, and what balancing works on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from lightning.fabric import Fabric
from torch import Tensor

from mtl_training.datasets.batches import Batch
from mtl_training.evaluation.judge import judge
from mtl_training.evaluation.predictors import Maps, normalise
from mtl_training.loop.precision import autocast
from mtl_training.loop.processes import mean
from mtl_training.loop.run import Run
from mtl_training.models import Predictions
from mtl_training.models.layers import resize
from mtl_training.tasks import multi_task_loss


class Losses(NamedTuple):
    """What a network was wrong by.

    Attributes:
        final: unweighted losses of the final predictions, by task.
        auxiliary: of all auxiliary predictions, times the weights of these, by task.
        taught: of the final predictions beside those of teachers, times their weight, by task.
        penalties: further terms of the network, by name.
    """

    final: dict[str, Tensor]
    auxiliary: dict[str, Tensor]
    taught: dict[str, Tensor]
    penalties: dict[str, Tensor]

    def objectives(self, weights: Mapping[str, float]) -> dict[str, Tensor]:
        """w_t (L_t + auxiliary_t + taught_t) by task: what a balancer works on."""
        return {
            task: weight * torch.stack([part[task] for part in self[:3] if task in part]).sum()
            for task, weight in weights.items()
        }

    def averaged(self, fabric: Fabric) -> Losses:
        """The mean over all processes, without graphs."""
        values = torch.stack([loss.detach() for part in self for loss in part.values()])
        means = iter(mean(values, fabric))
        return Losses(*({name: next(means) for name in part} for part in self))


def mean_of(parts: Sequence[Losses]) -> Losses:
    """The mean over parts of a batch."""
    return Losses(
        *(
            {name: torch.stack([part[kind][name] for part in parts]).mean() for name in losses}
            for kind, losses in enumerate(parts[0])
        )
    )


def predictions_of(run: Run, batch: Batch) -> Predictions:
    """What the network says about a batch, with its graph."""
    images = normalise(batch['image'], run.net.mean, run.net.std)
    with autocast(run.fabric):
        return run.predict(images)


def losses_of(run: Run, batch: Batch, predictions: Predictions) -> Losses:
    """The losses of what was predicted, with their graphs."""
    final = multi_task_loss(precise(predictions.final), batch, run.tasks)
    auxiliary: dict[str, Tensor] = {}
    for scale in predictions.auxiliary:
        for task, loss in multi_task_loss(precise(scale.logits), batch, run.trained_tasks).items():
            weighted = scale.weight * loss
            auxiliary[task] = auxiliary[task] + weighted if task in auxiliary else weighted
    taught: dict[str, Tensor] = {}
    for teacher in run.teachers:
        for task, loss in teacher.losses(precise(predictions.final), batch).items():
            taught[task] = run.config.distill.weight * loss
    with run.fabric.autocast():
        penalties = run.net.penalties(final)
    return Losses(final, auxiliary, taught, penalties)


def labelled(run: Run, batch: Batch) -> list[str]:
    """The tasks that some frame of the batch has labels of, in any process; or a teacher."""
    flags = torch.stack([batch[f'{task}.labelled'].any().float() for task in run.trained_tasks])
    shares = mean(flags, run.fabric).tolist()
    found = zip(run.trained_tasks, shares, strict=True)
    return [task for task, share in found if share > 0 or task in run.taught]


def figures_of(
    run: Run, batch: Batch, predictions: Predictions, tasks: Iterable[str]
) -> dict[str, float]:
    """How good the final predictions are, by task: ``Task.quality``, mean over the processes."""
    judged = {name: run.tasks[name] for name in tasks if name in run.tasks}
    focal = run.config.data.canonical_focal

    def predict(batch: Batch) -> Maps:
        zoom, logits = batch['fx'] / focal, precise(predictions.final)
        return {
            name: task.decode(resize(logits[name].detach(), batch[name].shape[-2:]), zoom)
            for name, task in judged.items()
        }

    report = judge(predict, [batch], judged, focal)
    found = [report.get(name, {}).get(task.quality) for name, task in judged.items()]
    values = torch.tensor([[x or 0.0, float(x is not None)] for x in found])
    totals = mean(values.to(run.fabric.device), run.fabric).tolist()
    return {
        name: value / share
        for name, (value, share) in zip(judged, totals, strict=True)
        if share > 0
    }


def precise(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Logits in full precision, whatever the network computed in."""
    return {task: x.float() for task, x in logits.items()}
