"""The moving average of a network's weights, which is what is judged and shipped."""

from __future__ import annotations

import copy

import torch

from mtl_training.models import Network


class Average:
    """Exponential moving average of a network's weights and statistics; starts fast."""

    def __init__(self, net: Network, decay: float) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, net: Network, step: int) -> None:
        """a <- d a + (1 - d) w, d = min(decay, (1 + step) / (10 + step)); counters are copied."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for mine, other in zip(
            self.net.state_dict().values(), net.state_dict().values(), strict=True
        ):
            if mine.is_floating_point():
                mine.lerp_(other, 1 - keep)
            else:
                mine.copy_(other)
