"""The tasks of a network, one file each, and the sets of them that are trained together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mtl_training.labels import LabelClass
from mtl_training.models.layers import resize
from mtl_training.tasks.depth import L1Depth, LaplaceDepth
from mtl_training.tasks.edges import EdgesTask
from mtl_training.tasks.human_parts import HumanPartsTask
from mtl_training.tasks.normals import NormalsTask
from mtl_training.tasks.saliency import SaliencyTask
from mtl_training.tasks.semantic import GroupedSemanticTask, SemanticTask, grouped
from mtl_training.tasks.task import Figure, Picture, Task, TaskError

__all__ = [
    'TASK_SETS',
    'EdgesTask',
    'Figure',
    'GroupedSemanticTask',
    'HumanPartsTask',
    'L1Depth',
    'LaplaceDepth',
    'NormalsTask',
    'Picture',
    'SaliencyTask',
    'SemanticTask',
    'Task',
    'TaskError',
    'TaskSet',
    'choose',
    'every',
    'grouped',
    'indoor',
    'multi_task_loss',
    'nyud',
    'pascal',
    'rooms',
    'streets',
    'weighted_sum',
]

TaskSet = dict[str, Task]


def by_name(*tasks: Task) -> TaskSet:
    """Tasks by name, in this order."""
    return {task.name: task for task in tasks}


def nyud(classes: Sequence[LabelClass]) -> TaskSet:
    """The tasks of NYUD-v2 with the losses of ATRC, which TIF takes over.

    Args:
        classes: of the semantic task; the literature's are ``NYUD40``.
    """
    return by_name(
        SemanticTask(classes=tuple(classes)), L1Depth(), NormalsTask(), EdgesTask(edge_weight=0.8)
    )


def pascal(classes: Sequence[LabelClass]) -> TaskSet:
    """The tasks of PASCAL-Context with the losses of ATRC, and the survey's one of saliency.

    Args:
        classes: of the semantic task; the literature's are ``PASCAL21``.
    """
    return by_name(
        SemanticTask(classes=tuple(classes)),
        HumanPartsTask(),
        SaliencyTask(),
        NormalsTask(),
        EdgesTask(edge_weight=0.95),
    )


def rooms(classes: Sequence[LabelClass]) -> TaskSet:
    """The shipped recipe: depth with a confidence, and saliency.

    Args:
        classes: of the semantic task; a robot's are ``ROBOT_GROUPS``.
    """
    return by_name(
        SemanticTask(classes=tuple(classes)),
        LaplaceDepth(),
        NormalsTask(),
        EdgesTask(edge_weight=0.8),
        SaliencyTask(),
    )


def indoor(classes: Sequence[LabelClass]) -> TaskSet:
    """The recipe for photographs of rooms: depth that is sharp where surfaces end.

    Args:
        classes: of the semantic task; ``NYUD40``, which a bundle may gather into groups.
    """
    return {**rooms(classes), **by_name(LaplaceDepth(gradients=0.5))}


def streets(classes: Sequence[LabelClass]) -> TaskSet:
    """What a car sees that learns from Cityscapes and KITTI: depth is sparse there.

    Args:
        classes: of the semantic task; the literature's are ``CITYSCAPES19``.
    """
    return by_name(SemanticTask(classes=tuple(classes)), LaplaceDepth())


TASK_SETS: dict[str, Callable[[Sequence[LabelClass]], TaskSet]] = {
    'nyud': nyud,
    'pascal': pascal,
    'rooms': rooms,
    'indoor': indoor,
    'streets': streets,
}


def every(classes: Sequence[LabelClass]) -> TaskSet:
    """One task of every name, where losses do not matter.

    Args:
        classes: of the semantic task.
    """
    return {**rooms(classes), **pascal(classes)}


def choose(
    tasks: Mapping[str, Task], names: Sequence[str], weights: Mapping[str, float] | None = None
) -> TaskSet:
    """Pick tasks by name, in that order, with other loss weights where given.

    Raises:
        TaskError: a name or a weight that is not among the tasks.
    """
    weights = weights or {}
    for name in (*names, *weights):
        if name not in tasks:
            raise TaskError(f'unknown task {name!r}, expected one of {", ".join(tasks)}')
    return {
        name: replace(tasks[name], weight=weights.get(name, tasks[name].weight)) for name in names
    }


def logits_at(
    size: Sequence[int], final: Mapping[str, Tensor], tasks: Mapping[str, Task]
) -> dict[str, Tensor]:
    """The final predictions of a network for tasks, gathered and up-sampled: [B, C_t, H, W]."""
    return {name: resize(task.gather(final[name]), size) for name, task in tasks.items()}


def multi_task_loss(
    logits: Mapping[str, Tensor], batch: Mapping[str, Tensor], tasks: Mapping[str, Task]
) -> dict[str, Tensor]:
    """The unweighted losses of the tasks that have logits, in the order of ``tasks``."""
    return {
        name: task.loss(logits[name], batch[name]) for name, task in tasks.items() if name in logits
    }


def weighted_sum(losses: Mapping[str, Tensor], tasks: Mapping[str, Task]) -> Tensor:
    """sum_t w_t L_t."""
    return torch.stack([tasks[name].weight * loss for name, loss in losses.items()]).sum()
