"""Dynamic weight averaging: tasks count the more, the slower they become better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtl_training.balancing.balancer import BalancingError, LossBalancer


class DynamicWeightAveraging(LossBalancer):
    """Dynamic weight averaging, DWA (Liu et al., CVPR 2019; survey, Eq. 8).

    w_t(e) = N exp(r_t(e-1) / T) / sum_n exp(r_n(e-1) / T),   r_t(e-1) = L_t(e-1) / L_t(e-2)

    L_t(e) is the mean loss of epoch e, and L = sum_t w_t L_t. In the first two epochs all w_t are
    1. T is the temperature: the larger, the more alike the weights.

    The method compares how fast losses fall, not how large they are, so that "the overall loss
    magnitudes" are to be balanced beforehand (survey, Section 3.1.3): by the weights of the tasks,
    with which losses come.
    """

    positive = True
    previous: Tensor  # [2, N] L(e-1), L(e-2); NaN before there are any
    total: Tensor  # [N] sum of the losses of this epoch
    steps: Tensor  # [] of this epoch

    def __init__(self, tasks: Sequence[str], *, temperature: float = 2.0) -> None:
        super().__init__(tasks)
        if temperature <= 0:
            raise BalancingError(f'temperature of dwa is {temperature}, expected more than 0')
        self.temperature = temperature
        self.register_buffer('previous', torch.full((2, len(tasks)), torch.nan))
        self.register_buffer('total', torch.zeros(len(tasks)))
        self.register_buffer('steps', torch.zeros(()))

    def begin_epoch(self) -> None:
        """The epoch before becomes a mean; before the first there was none: 0 / 0 is NaN."""
        mean = self.total / self.steps
        self.previous = torch.stack([mean, self.previous[0]])
        self.total, self.steps = torch.zeros_like(self.total), torch.zeros_like(self.steps)

    def observe(self, losses: Mapping[str, Tensor]) -> None:
        """Counts a step."""
        self.total = self.total + torch.stack([losses[task] for task in self.tasks])
        self.steps = self.steps + 1

    def weights(self) -> Tensor:
        """w [N] of this epoch."""
        ratio = self.previous[0] / self.previous[1]
        weights = len(self.tasks) * (ratio / self.temperature).softmax(0)
        return torch.where(weights.isfinite(), weights, 1.0)

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """L_t by task -> L."""
        return self.weights() @ torch.stack([losses[task] for task in self.tasks])
