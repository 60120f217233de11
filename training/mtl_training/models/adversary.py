"""A discriminator that learns whose a gradient is, while the network learns to deceive it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Reverse(torch.autograd.Function):
    """Gradient reversal (Ganin & Lempitsky, ICML 2015): x, whose gradient is -alpha g."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor) -> Tensor:
        """x itself."""
        ctx.save_for_backward(alpha)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient of x, reversed."""
        (alpha,) = ctx.saved_tensors
        return -alpha * gradient, None


def make_discriminator(channels: int, width: int, tasks: int) -> nn.Sequential:
    """D [B,channels,h,w] -> [B,tasks,h,w]: 3x3, ReLU, 3x3, as in the released code of ASTMT."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, tasks, 3, padding=1),
    )


def reversal(step: Tensor, steps: int) -> Tensor:
    """alpha = 2 / (1 + exp(-10 p)) - 1, p = step / steps, at most 1."""
    return 2 / (1 + torch.exp(-10 * (step / steps).clamp(max=1))) - 1


def confusion(gradient: Tensor, discriminator: nn.Module, label: int, alpha: Tensor) -> Tensor:
    """CE(D(g / |g|), label), mean over the pixels that have a gradient g [B,C,h,w]."""
    norm = gradient.norm(dim=1, keepdim=True)
    unit = gradient / (norm + 1e-10)
    logits = discriminator(Reverse.apply(unit, alpha))
    valid = norm[:, 0].detach() > 0
    target = torch.full_like(valid, label, dtype=torch.long)
    entropy = functional.cross_entropy(logits, target, reduction='none')
    return (entropy * valid).sum() / valid.sum().clamp(min=1)
