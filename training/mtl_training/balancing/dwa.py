"""Dynamic weight averaging: tasks count the more, the slower they become better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtl_training.balancing.balancer import EpochBalancer
from mtl_training.bounds import Positive


class DynamicWeightAveraging(EpochBalancer):
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

    def __init__(self, tasks: Sequence[str], *, temperature: Positive = 2.0) -> None:
        super().__init__(tasks)
        self.temperature = temperature
        self.register_buffer('previous', torch.full((2, len(tasks)), torch.nan))

    def begin_epoch(self, frames: Mapping[str, int]) -> None:
        """The epoch before becomes a mean."""
        self.previous = torch.stack([self.finish_epoch(), self.previous[0]])

    def weights(self) -> Tensor:
        """w [N] of this epoch."""
        ratio = self.previous[0] / self.previous[1]
        weights = len(self.tasks) * (ratio / self.temperature).softmax(0)
        return torch.where(weights.isfinite(), weights, 1.0)
