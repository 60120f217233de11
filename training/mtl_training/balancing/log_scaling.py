"""Log scaling: losses of any size fall at the same pace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtl_training.balancing.balancer import LossBalancer
from mtl_training.bounds import Amount


class LogScaling(LossBalancer):
    """L = sum_t log(c + L_t): the loss scaling of MT-CP (Fontana et al., WACV 2025), with c = 1.

    The gradient of a task is divided by c + L_t. With c = 0 the size of a loss, and hence the
    weight of its task, does not matter at all: L is the logarithm of their product.

    Differs from the release: there it is commented out where losses are summed. Its 1e-6 beside c
    is kept, which gives losses of 0 a logarithm.

    >>> round(LogScaling(['depth'])({'depth': torch.tensor(1.0)}).item(), 4)
    0.6931
    """

    positive = True

    def __init__(self, tasks: Sequence[str], *, c: Amount = 1.0) -> None:
        super().__init__(tasks)
        self.c = c

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """L_t by task -> L."""
        return (
            torch.stack([losses[task] for task in self.present(losses)])
            .add(self.c + 1e-6)
            .log()
            .sum()
        )
