"""Alternating tasks: every step is one task's, by turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtl_training.balancing.balancer import LossBalancer


class AlternatingTasks(LossBalancer):
    """L = L_t, t the task that has waited longest, among those that the batch has labels of.

    The usual way to learn from data sets each of which has labels of some tasks only (such as
    Kokkinos, CVPR 2017); where all frames have all labels, tasks take turns in their order. Heads
    of the other tasks stay as they are.

    >>> method = AlternatingTasks(['depth', 'edges'])
    >>> losses = {'depth': torch.tensor(1.0), 'edges': torch.tensor(2.0)}
    >>> for _ in range(3):
    ...     print(method(losses))
    ...     method.observe(losses)
    tensor(1.)
    tensor(2.)
    tensor(1.)
    """

    selective = True
    waited: Tensor  # [N] steps since each task's turn

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.register_buffer('waited', torch.zeros(len(tasks), dtype=torch.long))

    def next(self, losses: Mapping[str, Tensor]) -> str:
        """Whose turn it is; the first of those that have waited equally long."""
        waited = dict(zip(self.tasks, self.waited.tolist(), strict=True))
        return max(self.present(losses), key=waited.__getitem__)

    def observe(self, losses: Mapping[str, Tensor]) -> None:
        """The turn is over."""
        turn = self.tasks.index(self.next(losses))
        self.waited += 1
        self.waited[turn] = 0

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """L_t by task -> that of the task whose turn it is."""
        return losses[self.next(losses)]
