"""Adversarial gradients: what tasks want of the shared features is made hard to tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtl_training.balancing.balancer import BalancingError
from mtl_training.balancing.fixed import FixedWeights
from mtl_training.bounds import Count, Share
from mtl_training.models.adversary import confusion, make_discriminator, reversal


class AdversarialGradients(FixedWeights):
    """Gradients that are statistically indistinguishable (Maninis et al., CVPR 2019, Section 3.3).

    L = (1 - w) sum_t L_t + w sum_t CE(D(g_t / |g_t|), t),   g_t = dL_t / df

    D sees the gradient of a task's loss with respect to the shared features f, of unit length at
    every pixel, and learns whose it is; what made the gradient learns the contrary, through a
    reversal of factor alpha = 2 / (1 + exp(-10 p)) - 1, p the share of the training that is done.
    Pixels without a gradient teach nothing.

    It needs second derivatives: the graph of every task's gradient is kept until the step is made.

    Differs from the paper: for any system with shared features, where ASTMT, which has the method
    built in (``model.system: astmt``), makes one pass per task and has features of each. f are all
    scales that leave the encoder, each with a D of its own, of one width, whose terms are averaged.
    The printed total is divided by 1 - w. Sinha et al. (2018), who had the idea, scale gradients
    instead of normalising them.

    Args:
        tasks: names.
        weight: w.
        width: of D's hidden layer.
        steps: of the training, over which alpha rises.
    """

    wants_features = True
    step: Tensor  # []

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        weight: Share = 0.01,
        width: Count = 64,
        steps: Count = 40_000,
    ) -> None:
        super().__init__(tasks)
        if not 0 < weight < 1:
            raise BalancingError(f'weight of adversarial is {weight}, expected between 0 and 1')
        self.weight, self.width, self.steps = weight, width, steps
        self.discriminators = nn.ModuleList()
        self.register_buffer('step', torch.zeros((), dtype=torch.long))

    def meet(self, channels: Sequence[int]) -> None:
        """Makes a D for every scale."""
        self.discriminators.extend(
            make_discriminator(count, self.width, len(self.tasks)) for count in channels
        )

    def observe(self, losses: Mapping[str, Tensor]) -> None:
        """Counts a step."""
        self.step += 1

    def penalties(
        self, losses: Mapping[str, Tensor], features: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """The term of D, to be minimised by D and, reversed, maximised by the rest."""
        alpha = reversal(self.step, self.steps)
        pairs = zip(features, self.discriminators, strict=True)
        known = [(feature, net) for feature, net in pairs if feature.requires_grad]  # not frozen
        terms = [
            confusion(gradient.float(), discriminator, self.tasks.index(task), alpha)
            for task, loss in losses.items()
            for gradient, (_, discriminator) in zip(
                torch.autograd.grad(
                    loss, [feature for feature, _ in known], create_graph=True, allow_unused=True
                ),
                known,
                strict=True,
            )
            if gradient is not None
        ]
        if not terms:
            return {}
        scale = self.weight / (1 - self.weight) / len(known)
        return {'discriminator': scale * torch.stack(terms).sum()}
