"""Layers that several systems of the literature share, with the initialisation of their papers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, half-pixel centres; x itself where the size is right already."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode='bilinear', align_corners=False)


def flat(x: Tensor) -> Tensor:
    """[B,D,h,w] -> tokens [B,hw,D]; a view where x is channels-last."""
    return x.flatten(2).mT


def grid(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """Tokens [B,hw,D] -> [B,D,h,w], a channels-last view."""
    return tokens.mT.unflatten(2, tuple(size))


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, BatchNorm, ReLU."""

    def __init__(self, channels: int, width: int, kernel: int, *, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(channels, width, kernel, padding=padding, dilation=dilation, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )


class SqueezeExcite(nn.Module):
    """x * sigmoid(W_2 relu(W_1 mean_hw(x))) (Hu et al., CVPR 2018), bottleneck C / r."""

    def __init__(self, channels: int, reduction: int = 16, *, bias: bool = False) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.gate = nn.Sequential(
            nn.Linear(channels, hidden, bias=bias),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels, bias=bias),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,C,h,w]."""
        return x * self.gate(x.mean(dim=(2, 3)))[..., None, None]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016); 1x1 where the width changes."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvBNReLU(channels, width, 3),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = projection(channels, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B,channels,h,w] -> [B,width,h,w]."""
        return F.relu(self.body(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut (He et al., CVPR 2016); ``width`` is that of the output."""

    def __init__(self, channels: int, width: int, *, middle: int | None = None) -> None:
        super().__init__()
        middle = width // 4 if middle is None else middle
        self.body = nn.Sequential(
            ConvBNReLU(channels, middle, 1),
            ConvBNReLU(middle, middle, 3),
            nn.Conv2d(middle, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = projection(channels, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B,channels,h,w] -> [B,width,h,w]."""
        return F.relu(self.body(x) + self.shortcut(x))


def projection(channels: int, width: int) -> nn.Module:
    """The shortcut of a residual block: nothing, or a 1x1 convolution and BatchNorm."""
    if channels == width:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling of DeepLab v3 (Chen et al., 2017), width 256.

    A 1x1 convolution, three 3x3 of rates 12, 24, 36, and the mean of the image; concatenated,
    projected by a 1x1 convolution, dropout one half.
    """

    def __init__(self, channels: int, width: int = 256, rates: Sequence[int] = (12, 24, 36)):
        super().__init__()
        self.branches = nn.ModuleList(
            [
                ConvBNReLU(channels, width, 1),
                *(ConvBNReLU(channels, width, 3, dilation=rate) for rate in rates),
            ]
        )
        self.pool = ConvBNReLU(channels, width, 1)
        self.project = nn.Sequential(
            ConvBNReLU(width * (len(rates) + 2), width, 1), nn.Dropout(0.5)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B,channels,h,w] -> [B,width,h,w]."""
        size = x.shape[-2:]
        pooled = self.pool(x.mean(dim=(2, 3), keepdim=True))
        branches = [*(branch(x) for branch in self.branches), pooled.expand(-1, -1, *size)]
        return self.project(torch.cat(branches, dim=1))


class MultiScaleConv(nn.Conv2d):
    """conv1x1(cat{ resize(x_j) }), computed without the large concatenation.

    A 1x1 convolution of a concatenation is a sum of 1x1 convolutions, and it commutes with
    bilinear interpolation, so each x_j is convolved on the smaller of its own and the target grid.
    Equal to the written form up to rounding; ``as_written`` computes that form, which is what the
    papers' multiply-accumulate counts are of.
    """

    def __init__(self, channels: Sequence[int], width: int, *, bias: bool = True) -> None:
        super().__init__(sum(channels), width, 1, bias=bias)
        self.channels = tuple(channels)
        self.as_written = False

    def forward(  # type: ignore[override]  # a convolution of several features
        self, features: Sequence[Tensor], size: tuple[int, int]
    ) -> Tensor:
        """Features [B,C_j,H_j,W_j] -> [B,width,*size]."""
        if self.as_written:
            return super().forward(torch.cat([resize(x, size) for x in features], dim=1))
        ends = itertools.accumulate(self.channels)
        weights = [
            self.weight[:, end - c : end] for c, end in zip(self.channels, ends, strict=True)
        ]
        biases = [self.bias] + [None] * (len(features) - 1)
        first, *others = (
            _conv_and_resize(x, weight, bias, size)
            for x, weight, bias in zip(features, weights, biases, strict=True)
        )
        return sum(others, start=first)


def _conv_and_resize(
    x: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, int]
) -> Tensor:
    if x.shape[-2] < size[0]:
        return resize(F.conv2d(x, weight, bias), size)
    return F.conv2d(resize(x, size), weight, bias)


class FeatureFuse(nn.Module):
    """FeatureFuse of TIF (Eq. 13): conv1x1 over several scales, BatchNorm, ReLU."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.conv = MultiScaleConv(channels, width, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Features [B,C_j,H_j,W_j] -> [B,width,*size]."""
        return F.relu(self.norm(self.conv(features, size)), inplace=True)


def convex(tasks: int, own: float | None) -> tuple[float, float]:
    """Weights of a task's own and of each other task's activations; they sum to one.

    Args:
        own: None is the survey's choice: .9 and .1 with two tasks, .8 and .05 with five.
    """
    if tasks == 1:
        return 1.0 if own is None else own, 0.0
    own = (0.9 if tasks == 2 else 0.8) if own is None else own
    return own, (1 - own) / (tasks - 1)
