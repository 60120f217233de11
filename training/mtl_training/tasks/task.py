"""Tasks as data: how many channels a task has, what it is trained on and how it is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mtl_training.datasets.classes import CLASS_SETS


@dataclass(frozen=True)
class Task:
    """One task of a network.

    Attributes:
        name: key in batches, outputs and losses.
        channels: channels of the logits.
        loss: name of a function in ``losses.LOSSES``.
        weight: factor of the loss in the total.
        metric: the figure that the task is judged by, a key of what its metric in ``metrics``
            returns.
        higher_is_better: whether a larger figure is better.
        positive_weight: weight w of the edge pixels in the balanced cross entropy (edges only).
        class_weights: weight of each class in the cross entropy; None: all the same.
    """

    name: str
    channels: int
    loss: str
    weight: float
    metric: str
    higher_is_better: bool
    positive_weight: float | None = None
    class_weights: tuple[float, ...] | None = None


# Losses and weights of ATRC and hence TIF: semseg 1, parts 2, depth 1, saliency 5, normals 10,
# edges 50; edge weight w .8 on NYUD, .95 on PASCAL.
NYUD: dict[str, Task] = {
    'semantic': Task('semantic', len(CLASS_SETS['nyud']), 'cross_entropy', 1.0, 'miou', True),
    'depth': Task('depth', 1, 'l1', 1.0, 'rmse', False),
    'normals': Task('normals', 3, 'normal_l1', 10.0, 'mean', False),
    'edges': Task('edges', 1, 'balanced_bce', 50.0, 'f', True, positive_weight=0.8),
}
PASCAL: dict[str, Task] = {
    'semantic': Task('semantic', len(CLASS_SETS['pascal']), 'cross_entropy', 1.0, 'miou', True),
    'human_parts': Task('human_parts', 7, 'cross_entropy', 2.0, 'miou', True),
    'saliency': Task('saliency', 1, 'hed_bce', 5.0, 'maxf', True),
    'normals': Task('normals', 3, 'normal_l1', 10.0, 'mean', False),
    'edges': Task('edges', 1, 'balanced_bce', 50.0, 'f', True, positive_weight=0.95),
}
# The shipped recipe: the classes a robot gets, and depth with a confidence (mean and log scale of
# the logarithm of canonical depth).
ROOMS: dict[str, Task] = {
    'semantic': replace(NYUD['semantic'], channels=len(CLASS_SETS['rooms'])),
    'depth': Task('depth', 2, 'log_laplace', 1.0, 'absrel', False),
    'normals': NYUD['normals'],
    'edges': NYUD['edges'],
    'saliency': PASCAL['saliency'],
}
TASK_SETS: dict[str, dict[str, Task]] = {'nyud': NYUD, 'pascal': PASCAL, 'rooms': ROOMS}


def choose(
    tasks: Mapping[str, Task], names: Sequence[str], weights: Mapping[str, float] | None = None
) -> dict[str, Task]:
    """Pick tasks by name, in that order, with other loss weights where given.

    Raises:
        ValueError: a name or a weight that is not among the tasks.
    """
    weights = weights or {}
    for name in (*names, *weights):
        if name not in tasks:
            raise ValueError(f'unknown task {name!r}, expected one of {", ".join(tasks)}')
    return {
        name: replace(tasks[name], weight=weights.get(name, tasks[name].weight)) for name in names
    }
