"""Pareto MTL: the trade-off between tasks that one prefers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtl_training.balancing.balancer import Balance, BalancingError, GradientBalancer
from mtl_training.balancing.mgda import shortest
from mtl_training.bounds import Whole


class ParetoMTL(GradientBalancer):
    """Pareto multi-task learning (Lin et al., NeurIPS 2019, Algorithm 1).

    Preference vectors u_1 .. u_K part the space of losses, and the chosen one, u_p, has the losses
    that are closest to it in direction:

    G_k = (u_k - u_p)^T L / |L| <= 0   for all k                                         (Eq. 5)

    As long as a constraint is violated, for at most ``search`` steps, descend along the shortest
    sum_k beta_k grad G_k of the violated ones (Eq. 8). Then go as MGDA does, along the shortest
    sum_t lambda_t g_t + sum_k beta_k grad G_k, lambda_t, beta_k >= 0 of sum 1 (Eq. 14), which is
    sum_t a_t g_t with a_t = lambda_t + sum_k beta_k (u_kt - u_pt) (Eq. 17); here k are those that
    are violated, and a_t is scaled to sum_t |a_t| = N, as in the released code.

    grad G_k is (u_k - u_p)^T of the gradients, as there: |L| counts as a constant, and makes no
    difference to which constraints are violated. The preferences are about the *weighted* losses.

    Differs from the paper: directions are found by what tasks share alone; a_t weighs the tasks'
    own gradients, too. For more than two tasks the paper leaves the vectors to the reader.

    Args:
        tasks: names.
        vectors: u_k, one number for each task, of any length; for two tasks, five on the quarter of
            a circle, as in the released code: the first wants the *second* task's loss to be 0.
        preference: p, counted from 0.
        search: the longest first phase; two epochs in the released code.
    """

    positive = True
    differences: Tensor  # [K, N] u_k - u_p
    steps: Tensor  # [] made in the first phase
    feasible: Tensor  # [] whether it is over

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        vectors: Sequence[Sequence[float]] = (),
        preference: Whole = 2,
        search: Whole = 1000,
    ) -> None:
        super().__init__(tasks)
        if not vectors and len(tasks) == 2:
            angles = [k * math.pi / 8 for k in range(5)]
            vectors = [(math.cos(angle), math.sin(angle)) for angle in angles]
        try:
            u = torch.tensor([[float(x) for x in vector] for vector in vectors])
        except (TypeError, ValueError):
            u = torch.zeros(0)
        if len(u) < 2 or u.shape != (len(vectors), len(tasks)):
            raise BalancingError(
                f'vectors of pareto_mtl are {vectors}, expected two or more with a number for '
                f'each of {", ".join(tasks)}'
            )
        if preference >= len(vectors):
            raise BalancingError(
                f'preference of pareto_mtl is {preference}, expected 0 to {len(vectors) - 1}'
            )
        if not u.isfinite().all() or (u < 0).any() or not u.any(dim=1).all():
            raise BalancingError(
                'vectors of pareto_mtl have numbers below 0 or without end, or only zeros'
            )
        self.search = search
        u = u / u.norm(dim=1, keepdim=True)
        self.register_buffer('differences', u - u[preference], persistent=False)
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))
        self.register_buffer('feasible', torch.zeros((), dtype=torch.bool))

    def forward(self, gradients: Tensor, losses: Mapping[str, Tensor]) -> Balance:
        """Gradients [T, N], L_t by task -> the step [N]; own gradients are weighed as shared."""
        sizes = torch.stack(list(losses.values()))
        differences = self.differences[:, self.places(losses)]
        violated = differences[differences @ sizes > 0]
        searching = bool(violated.numel()) and not self.feasible and self.steps < self.search
        if searching:
            self.steps += 1
            vectors = violated
        else:
            self.feasible.fill_(True)
            vectors = torch.cat([torch.eye(len(sizes)).to(sizes), violated])
        rows = vectors @ gradients
        combined = torch.from_numpy(shortest((rows @ rows.mT).double().cpu().numpy())).to(rows)
        weights = combined @ vectors
        if not searching:
            weights = weights * (len(weights) / weights.abs().sum().clamp(min=1e-12))
        return Balance(weights @ gradients, weights, weights)
