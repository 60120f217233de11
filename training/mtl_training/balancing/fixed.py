"""Fixed weights: the sum of the tasks' weighted losses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mtl_training.balancing.balancer import LossBalancer


class FixedWeights(LossBalancer):
    """L = sum_t w_t L_t   (survey, Eq. 4).

    w_t are the weights of the tasks (``weights`` in a configuration), with which losses come. Those
    that tasks bring along are the grid-searched ones of Maninis et al. (CVPR 2019), which the
    survey calls "Fixed (Grid S.)" (Table V).

    >>> FixedWeights(['depth', 'edges'])({'depth': torch.ones(()), 'edges': torch.tensor(2.0)})
    tensor(3.)
    """

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """w_t L_t by task -> their sum."""
        return torch.stack([losses[task] for task in self.present(losses)]).sum()
