"""Gradient sign dropout: where tasks disagree about a sign, the dice choose one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtl_training.balancing.balancer import Balance, BalancingError, GradientBalancer
from mtl_training.bounds import Share, Whole


class GradDrop(GradientBalancer):
    """Gradient sign dropout (Chen et al., NeurIPS 2020, Algorithm 1).

    G_t = sum_batch sgn(A) * dL_t/dA                        A the features that all tasks share
    P   = 1/2 (1 + sum_t G_t / sum_t |G_t|),   U ~ uniform(0, 1), of the shape of one image's A
    M_t = [P > U] [G_t > 0] + [P < U] [G_t < 0]
    dA  = sum_t (l_t + (1 - l_t) M_t) * dL_t/dA

    A place of A hears of those tasks only that pull it the same way, by the sign that was drawn;
    the more they weigh together, the more often it is theirs. l_t, the leak, is the share of its
    gradient that a task has in any case: 1 for all tasks are fixed weights. sgn(A) makes gradients
    of several images comparable: to push a value up or down means more or less of what it says.

    Differs from the paper: f(P) = P, as in its experiments. Each process draws for its own images.

    Args:
        tasks: names.
        leak: l_t, of all tasks or by task.
        seed: of the draws, which depend on nothing else but the number of the step.
    """

    of = 'features'
    wants_values = True
    step: Tensor  # []

    def __init__(
        self, tasks: Sequence[str], *, leak: Share | Mapping[str, Share] = 0.0, seed: Whole = 0
    ) -> None:
        super().__init__(tasks)
        by_task = leak if isinstance(leak, Mapping) else dict.fromkeys(tasks, leak)
        if set(by_task) != set(tasks):
            raise BalancingError(
                f'leak of graddrop is {leak}, expected a share for all or each of '
                f'{", ".join(tasks)}'
            )
        self.leak = [float(by_task[task]) for task in tasks]
        self.seed = seed
        self.values: Sequence[Tensor] = ()
        self.register_buffer('step', torch.zeros((), dtype=torch.long))

    def see(self, values: Sequence[Tensor]) -> None:
        """Keeps A for ``forward``."""
        self.values = values

    def forward(self, gradients: Tensor, losses: Mapping[str, Tensor]) -> Balance:
        """Gradients [T, N] -> dA [N]; each task's own gradient as it is."""
        generator = torch.Generator().manual_seed(self.seed * 2**32 + int(self.step))
        self.step += 1
        leak = gradients.new_tensor(self.leak)[self.places(losses)]
        values, self.values = self.values, ()
        parts = gradients.split([value.numel() for value in values], dim=1)
        dropped = [
            drop(part.unflatten(1, value.shape), value, leak, generator).flatten()
            for part, value in zip(parts, values, strict=True)
        ]
        return Balance(torch.cat(dropped), torch.ones_like(leak))


def drop(gradients: Tensor, values: Tensor, leak: Tensor, generator: torch.Generator) -> Tensor:
    """dA [B, ...] of dL_t/dA [T, B, ...], A [B, ...] and l_t [T]."""
    signed = (values.sign() * gradients).sum(1)  # [T, ...]
    purity = 0.5 * (1 + signed.sum(0) / signed.abs().sum(0).clamp(min=1e-30))
    draw = torch.rand(purity.shape, generator=generator).to(purity)
    kept = torch.where(purity > draw, signed > 0, signed < 0)
    share = leak.view(-1, *[1] * purity.ndim)
    return ((share + (1 - share) * kept).unsqueeze(1) * gradients).sum(0)
