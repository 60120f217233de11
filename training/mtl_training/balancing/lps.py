"""Loss prioritisation: tasks count the more, the slower they become better than all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtl_training.balancing.balancer import EpochBalancer
from mtl_training.bounds import Amount


class LossPrioritization(EpochBalancer):
    """The loss prioritisation scheme of MT-CP, LPS (Fontana et al., WACV 2025).

    w_t   = L_tot / L_t                                              after the first epoch
    rho_t = (L_t / L_t') / (L_tot / L_tot')                          after every later one
    w_t   = max(0, rho_mean + kappa (rho_t - rho_mean)),   rho_mean = 1/N sum_t rho_t

    L_t is the mean loss of the epoch that is over, L_t' that of the one before, and L_tot = sum_t
    L_t. kappa spreads the weights: 7.5 on NYUD, 1.6 on PASCAL. In the first epoch all w_t are 1.

    Differs from the release: there the weighted total is overwritten by the plain sum in the next
    line, so that neither weights nor kappa do anything; here they weigh. It does not keep weights
    from falling below 0, which would make a task worse on purpose.

    Args:
        tasks: names.
        kappa: how far weights are spread.
    """

    positive = True
    previous: Tensor  # [N] L_t'; NaN before there are any
    current: Tensor  # [N] w_t

    def __init__(self, tasks: Sequence[str], *, kappa: Amount = 7.5) -> None:
        super().__init__(tasks)
        self.kappa = kappa
        self.register_buffer('previous', torch.full((len(tasks),), torch.nan))
        self.register_buffer('current', torch.ones(len(tasks)))

    def begin_epoch(self, frames: Mapping[str, int]) -> None:
        """Weighs the tasks by the epoch that is over; those without labels in it count 1."""
        losses, before = self.finish_epoch(), self.previous
        if losses.isnan().all():
            return
        if before.isnan().all():
            weights = losses.nansum() / losses
        else:
            falls = losses / before
            known = ~falls.isnan()
            rho = falls / (losses[known].sum() / before[known].sum())
            mean = rho.nanmean()
            weights = (mean + self.kappa * (rho - mean)).clamp(min=0)
        self.current = torch.where(weights.isnan(), 1.0, weights)
        self.previous = torch.where(losses.isnan(), before, losses)

    def weights(self) -> Tensor:
        """w [N] of this epoch."""
        return self.current
