"""GradNorm: gradients of one size, and larger where a task has learnt less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl_training.balancing.balancer import Balance, GradientBalancer
from mtl_training.bounds import Amount, Count

LEAST = 1e-3  # of a weight


class GradNorm(GradientBalancer):
    """Gradient normalisation (Chen et al., ICML 2018, Algorithm 1; survey, Eq. 7).

    L_grad = sum_t | G_t - G_mean r_t^alpha |     G_t = |w_t g_t|,  g_t = dL_t/dW
    r_t = L~_t / mean_t L~_t,  L~_t = L_t / L_t(0)

    w_t descend along dL_grad/dw_t = sign(G_t - G_mean r_t^alpha) |g_t|, where G_mean r_t^alpha
    counts as a constant, and are then scaled to a sum of N. The network descends along sum_t w_t
    g_t, in what tasks share as in what is their own. alpha = 1 is the survey's equation; the
    larger, the more a task counts that has learnt less than the others.

    Differs from the paper: W is all that the tasks share, instead of the last shared layer, which
    is a matter of time only (Section 3.1): for speed give ``features``, and W is what the last
    shared layer puts out. L_t(0) is the mean of the first ``initial`` losses, as that of one batch
    is noisy; until then all w_t are 1. w_t is kept above 0.001.

    Args:
        tasks: names.
        alpha: 1.5 on NYUv2.
        initial: steps; 1 is the paper's.
        features: whether W are the shared features.
    """

    positive = True
    first: Tensor  # [N] sum of the losses of the first steps
    steps: Tensor  # [N] how many were summed

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        alpha: Amount = 1.5,
        initial: Count = 1,
        features: bool = False,
    ) -> None:
        super().__init__(tasks)
        self.alpha, self.initial = alpha, initial
        self.of = 'features' if features else 'parameters'
        self.weight = nn.Parameter(torch.ones(len(tasks)))
        self.register_buffer('first', torch.zeros(len(tasks)))
        self.register_buffer('steps', torch.zeros(len(tasks)))

    def observe(self, losses: Mapping[str, Tensor]) -> None:
        """Counts the first losses."""
        for place, task in enumerate(self.tasks):
            if task in losses and self.steps[place] < self.initial:
                self.first[place] += losses[task]
                self.steps[place] += 1

    @torch.no_grad()
    def forward(self, gradients: Tensor, losses: Mapping[str, Tensor]) -> Balance:
        """Gradients [T, N], L_t by task -> their weighted sum; the weights get their gradient."""
        kept = self.weight.clamp(min=LEAST)
        self.weight.copy_(len(self.tasks) * kept / kept.sum())
        rows = self.places(losses)
        weights, norms = self.weight[rows], gradients.norm(dim=1)
        if (self.steps[rows] >= self.initial).all():
            rates = torch.stack(list(losses.values())) / (self.first / self.steps)[rows]
            size = weights * norms
            wanted = size.mean() * (rates / rates.mean()) ** self.alpha
            self.weight.grad = torch.zeros_like(self.weight)
            self.weight.grad[rows] = torch.sign(size - wanted) * norms
        return Balance(weights @ gradients, weights, weights)
