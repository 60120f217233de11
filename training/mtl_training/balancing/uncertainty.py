"""Uncertainty weighting: tasks count the less, the noisier they turn out to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl_training.balancing.balancer import LossBalancer


class UncertaintyWeighting(LossBalancer):
    """Homoscedastic-uncertainty weighting (Kendall et al., CVPR 2018; survey, Eq. 6).

    L = sum_t 1/2 exp(-s_t) L_t + 1/2 s_t,   s_t = log sigma_t^2, learned from 0 on.

    Where L_t stays the same, s_t comes to rest at log L_t, and every task then counts 1/2. A loss
    below 0 has no such place, its weight would grow without end.

    Differs from the paper: s_t is learned instead of sigma_t, which keeps the weight positive (so
    do its authors). Differs for classes: the paper has exp(-s_t) there, without the 1/2; the survey
    has one formula for all.

    >>> UncertaintyWeighting(['depth'])({'depth': torch.tensor(3.0)}).item()
    1.5
    """

    positive = True

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.log_variance = nn.ParameterDict(
            {task: nn.Parameter(torch.zeros(())) for task in tasks}
        )

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """L_t by task -> L."""
        s = self.log_variance
        terms = [0.5 * torch.exp(-s[t]) * losses[t] + 0.5 * s[t] for t in self.present(losses)]
        return torch.stack(terms).sum()
