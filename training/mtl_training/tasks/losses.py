"""The losses of the tasks; every one of them ignores pixels without a label.

As ATRC and TIF have them: cross entropy; L1 on depth; L1 on unit normals, summed over the
components and averaged over **pixels** (the survey's code averages over elements, a third of it);
balanced binary cross entropy on edges. The survey's HED-balanced cross entropy on saliency. A
Laplace likelihood on log depth where the network also predicts how sure it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from mtl_training.models.layers import resize
from mtl_training.tasks.task import Task

IGNORE = 255


def cross_entropy(logits: Tensor, target: Tensor, task: Task) -> Tensor:
    """Cross entropy of logits [B, C, H, W], ids int64 [B, H, W]; mean over labelled pixels."""
    weight = None if task.class_weights is None else logits.new_tensor(task.class_weights)
    total = functional.cross_entropy(
        logits, target, weight=weight, ignore_index=IGNORE, reduction='sum'
    )
    return total / (target != IGNORE).sum().clamp(min=1)


def l1(prediction: Tensor, target: Tensor, task: Task) -> Tensor:
    """|d - d*| of depths [B, 1, H, W], mean over pixels with depth (d* > 0)."""
    return _mean((prediction - target).abs(), target > 0)


def log_laplace(prediction: Tensor, target: Tensor, task: Task) -> Tensor:
    """Negative log likelihood of log depth under a Laplace distribution with a learned scale.

    |log d* - mu| / b + log b + log 2, with (mu, log b) the channels of ``prediction`` [B, 2, H, W],
    ``target`` canonical depth d* [B, 1, H, W]; mean over pixels with depth (d* > 0).
    """
    mean, log_scale = prediction.split(1, dim=1)
    valid = target > 0
    error = (mean - torch.where(valid, target, 1.0).log()).abs()
    return _mean(error * torch.exp(-log_scale) + log_scale + 0.6931471805599453, valid)


def normal_l1(prediction: Tensor, target: Tensor, task: Task) -> Tensor:
    """sum_c |n_c - n_c*| with n made unit length, c = x, y, z; mean over pixels with a normal.

    Args:
        prediction: [B, 3, H, W], of any length.
        target: [B, 3, H, W] unit vectors, all zero where invalid.
    """
    unit = functional.normalize(prediction, dim=1)
    valid = (target != 0).any(dim=1, keepdim=True)
    return _mean((unit - target).abs().sum(dim=1, keepdim=True), valid)


def balanced_bce(logits: Tensor, target: Tensor, task: Task) -> Tensor:
    """-(w y log p + (1 - w) (1 - y) log(1 - p)), w the positive weight; mean over labelled pixels.

    Args:
        logits, target: [B, 1, H, W]; targets 0, 1, or 255 for no label.
    """
    if task.positive_weight is None:
        raise ValueError(f'task {task.name} has no positive_weight, which balanced_bce needs')
    return _weighted_bce(logits, target, torch.tensor(task.positive_weight))


def hed_bce(logits: Tensor, target: Tensor, task: Task) -> Tensor:
    """As ``balanced_bce``, w the share of negatives in the batch (Xie & Tu, ICCV 2015, Eq. 2)."""
    negatives = (target == 0).sum()
    return _weighted_bce(logits, target, negatives / (target != IGNORE).sum().clamp(min=1))


LOSSES: dict[str, Callable[[Tensor, Tensor, Task], Tensor]] = {
    'cross_entropy': cross_entropy,
    'l1': l1,
    'log_laplace': log_laplace,
    'normal_l1': normal_l1,
    'balanced_bce': balanced_bce,
    'hed_bce': hed_bce,
}


# Likelihoods, which fall below 0 where the network is sure and right.
SIGNED = ('log_laplace',)


def multi_task_loss(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], tasks: Mapping[str, Task]
) -> dict[str, Tensor]:
    """The unweighted loss of every task, in the order of ``tasks``.

    Args:
        outputs: logits [B, C, h, w] by task, up-sampled to the labels; tasks left out have no loss.
        batch: labels [B, (C,) H, W] by task.
    """
    return {
        name: LOSSES[task.loss](resize(outputs[name], batch[name].shape[-2:]), batch[name], task)
        for name, task in tasks.items()
        if name in outputs
    }


def weighted_sum(losses: Mapping[str, Tensor], tasks: Mapping[str, Task]) -> Tensor:
    """sum_t w_t L_t."""
    return torch.stack([task.weight * losses[name] for name, task in tasks.items()]).sum()


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid entries; 0 where there are none."""
    return (values * valid).sum() / valid.sum().clamp(min=1)


def _weighted_bce(logits: Tensor, target: Tensor, positive_weight: Tensor) -> Tensor:
    valid = target != IGNORE
    truth = target * valid
    weight = torch.where(truth > 0.5, positive_weight, 1 - positive_weight)
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction='none')
    return _mean(weight * entropy, valid)
