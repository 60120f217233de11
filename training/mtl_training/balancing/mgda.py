"""MGDA: the step along which no task loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtl_training.balancing.balancer import Balance, BalancingError, GradientBalancer

Normalization = Literal['none', 'l2', 'loss', 'loss+']


class MGDA(GradientBalancer):
    """The multiple-gradient descent algorithm (Sener & Koltun, NeurIPS 2018, Algorithm 2).

    alpha = argmin || sum_t alpha_t g_t / c_t ||^2,   sum_t alpha_t = 1, alpha_t >= 0     (Eq. 3)
    shared parameters descend along sum_t alpha_t g_t / c_t, a task's own along their gradient

    c_t is 1 ('none'), |g_t| ('l2'), L_t ('loss') or L_t |g_t| ('loss+'). The shortest vector of the
    hull of the gradients has a product of at least its own square with each of them: either no
    loss grows along it, or it is 0 and the point is Pareto stationary.

    With ``features``, g_t is the gradient of the features that all tasks share instead of that of
    the shared parameters, and the step is carried back through the encoder once: MGDA-UB (Section
    3.3), as expensive as fixed weights.

    Differs from the released code: there alpha of the divided gradients weighs the gradients as
    they are, whose sum may make a task worse, and it weighs the tasks' own parameters, too, as
    losses are multiplied by it. 'loss+' is what its example is configured with; the paper has
    none.

    >>> losses = {'a': torch.ones(()), 'b': torch.ones(())}
    >>> MGDA(['a', 'b'])(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), losses).shared  # 0.2 a + 0.8 b
    tensor([0.4000, 0.8000])

    Args:
        tasks: names.
        normalization: c_t.
        features: whether gradients are of the shared features.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        normalization: Normalization = 'none',
        features: bool = False,
    ) -> None:
        super().__init__(tasks)
        known = get_args(Normalization)
        if normalization not in known:
            raise BalancingError(
                f'normalization of mgda is {normalization!r}, expected one of {", ".join(known)}'
            )
        self.normalization = normalization
        self.of = 'features' if features else 'parameters'
        self.positive = normalization in ('loss', 'loss+')

    def forward(self, gradients: Tensor, losses: Mapping[str, Tensor]) -> Balance:
        """Gradients [T, N], L_t by task -> the step [N], each task's own gradient as it is."""
        norms, sizes = gradients.norm(dim=1), torch.stack(list(losses.values()))
        divisors = {
            'none': torch.ones_like(norms),
            'l2': norms,
            'loss': sizes,
            'loss+': sizes * norms,
        }[self.normalization].clamp(min=1e-12)
        gram = (gradients @ gradients.mT) / divisors.outer(divisors)
        alpha = torch.from_numpy(shortest(gram.double().cpu().numpy())).to(gradients)
        weights = alpha / divisors
        return Balance(weights @ gradients, torch.ones_like(weights), weights)


def shortest(gram: NDArray[np.float64], iterations: int = 250) -> NDArray[np.float64]:
    """alpha of the shortest sum_t alpha_t g_t, sum_t alpha_t = 1, alpha_t >= 0.

    Frank-Wolfe with pairwise steps (Lacoste-Julien & Jaggi, NeurIPS 2015): weight goes from the
    vector in use that points farthest along the sum to the one that points least along it, as
    much as makes the sum shortest (Eq. 4). Between two vectors the first step is exact.

    Differs from the paper: its steps take weight from all vectors alike, and with more than two
    hardly arrive where some are not in use.

    Args:
        gram: [T, T] products of the vectors.
    """
    alpha = np.full(len(gram), 1 / len(gram))
    for _ in range(iterations):
        products = gram @ alpha
        least = int(products.argmin())
        most = int(np.where(alpha > 0, products, -np.inf).argmax())
        gain = products[most] - products[least]
        if gain <= 1e-9 * gram.trace():
            break
        distance = gram[most, most] - 2 * gram[most, least] + gram[least, least]
        step = min(gain / distance, alpha[most])
        alpha[most] -= step
        alpha[least] += step
    return alpha
