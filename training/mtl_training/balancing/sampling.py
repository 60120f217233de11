"""Task sampling: every step is one task's, which the dice choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mtl_training.balancing.balancer import LossBalancer
from mtl_training.bounds import Positive, Whole


class TaskSampling(LossBalancer):
    """Sampling of one task for every step (Sanh et al., AAAI 2019; survey, Section 3.2).

    p_t ~ n_t^(1/T)   (T = 1: Sanh et al.; T > 1: Raffel et al., JMLR 2020, Section 3.5.2)

    n_t is the number of training frames from data sets with labels of task t. Of the tasks that a
    batch has labels of, one is drawn, and the step is along its loss alone; heads of the others
    stay as they are. The larger T, the more alike the tasks. Where all frames have all labels, all
    n_t are equal and the draw is uniform at any T.

    Differs from the papers: the batch comes first, and the task is drawn among what it has labels
    of; there the task is drawn first, and the batch from its data. The limit K on n_t of Raffel et
    al. does not exist here.

    Args:
        tasks: names.
        temperature: T.
        seed: of the draws, which depend on nothing else but the number of the step.
    """

    selective = True
    frames: Tensor  # [N] n_t
    step: Tensor  # []

    def __init__(
        self, tasks: Sequence[str], *, temperature: Positive = 1.0, seed: Whole = 0
    ) -> None:
        super().__init__(tasks)
        self.temperature, self.seed = temperature, seed
        self.register_buffer('frames', torch.ones(len(tasks)))
        self.register_buffer('step', torch.zeros((), dtype=torch.long))

    def begin_epoch(self, frames: Mapping[str, int]) -> None:
        """Counts the frames."""
        self.frames = self.frames.new_tensor([float(frames.get(task, 0)) for task in self.tasks])

    def observe(self, losses: Mapping[str, Tensor]) -> None:
        """Goes on to the next draw."""
        self.step += 1

    def draw(self, tasks: Sequence[str]) -> str:
        """The task of this step, among some."""
        frames = dict(zip(self.tasks, self.frames.tolist(), strict=True))
        shares = np.array([frames[task] ** (1 / self.temperature) for task in tasks])
        rng = np.random.default_rng([self.seed, int(self.step)])
        return tasks[int(rng.choice(len(tasks), p=shares / shares.sum()))]

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """L_t by task -> that of the task that is drawn."""
        return losses[self.draw(self.present(losses))]
