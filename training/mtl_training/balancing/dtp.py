"""Dynamic task prioritization: tasks count the more, the worse they still are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtl_training.balancing.balancer import BalancingError, LossBalancer
from mtl_training.bounds import Amount, Share


class DynamicTaskPrioritization(LossBalancer):
    """Dynamic task prioritization, DTP (Guo et al., ECCV 2018; survey, Eq. 9).

    w_t = -(1 - kappa_t)^gamma_t log kappa_t,   kappa_t <- alpha kappa + (1 - alpha) kappa_t

    kappa_t, the key performance indicator of task t, is the moving average of a figure in 0..1 that
    is measured on every batch: mIoU of semantic segmentation and human parts, the share of depths
    within a factor of 1.25 (delta1), the share of normals within 11.25 degrees, the F of edges at a
    threshold of 1/2, the largest F of saliency. L = sum_t w_t L_t, so that losses are to be of
    equal size beforehand, as for DWA.

    Differs from the paper: it has one threshold on errors per data set as indicator; the survey
    left the method out for want of indicators. alpha and gamma are our choice. kappa_t is kept from
    falling below 0.001, whose weight is 6.9.

    Args:
        tasks: names.
        gamma: how much easier tasks count less; of all tasks, or by task.
        alpha: share of the newest batch in kappa_t.
    """

    wants_figures = True
    indicators: Tensor  # [N] kappa_t; NaN before there are any

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        gamma: Amount | Mapping[str, Amount] = 1.0,
        alpha: Share = 0.1,
    ) -> None:
        super().__init__(tasks)
        by_task = gamma if isinstance(gamma, Mapping) else dict.fromkeys(tasks, gamma)
        if set(by_task) != set(tasks):
            raise BalancingError(
                f'gamma of dtp is {gamma}, expected a number for all or each of {", ".join(tasks)}'
            )
        if not alpha:
            raise BalancingError('alpha of dtp is 0, expected more: nothing would be learned')
        self.gamma = [float(by_task[task]) for task in tasks]
        self.alpha = alpha
        self.register_buffer('indicators', torch.full((len(tasks),), torch.nan))

    def look(self, figures: Mapping[str, float]) -> None:
        """Takes the figures of a batch into account; the first ones are kappa_t."""
        found = [figures.get(task, torch.nan) for task in self.tasks]
        new, old = self.indicators.new_tensor(found), self.indicators
        moved = torch.where(old.isnan(), new, self.alpha * new + (1 - self.alpha) * old)
        self.indicators = torch.where(new.isnan(), old, moved)

    def weights(self) -> Tensor:
        """w [N]; 1 where there is no figure yet."""
        kappa = self.indicators.clamp(min=1e-3)
        weights = -((1 - kappa) ** kappa.new_tensor(self.gamma)) * kappa.log()
        return torch.where(weights.isnan(), 1.0, weights)

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """L_t by task -> sum_t w_t L_t."""
        weights = dict(zip(self.tasks, self.weights(), strict=True))
        return torch.stack([weights[task] * losses[task] for task in self.present(losses)]).sum()
