"""Layers that several systems of the literature share, with the initialisation of their papers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_training.models.backbones import Pyramid, ResNetPyramid
from mtl_training.models.network import resize


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


class DeepLabHead(nn.Sequential):
    """ASPP, conv3x3, BatchNorm, ReLU, conv1x1: the survey's head on a dilated ResNet."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(ASPP(channels), ConvBNReLU(256, 256, 3), nn.Conv2d(256, outputs, 1))


class HRNetHead(nn.Module):
    """All scales on the finest grid, concatenated: conv1x1, BatchNorm, ReLU, conv1x1 (survey)."""

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        width = sum(channels)
        self.mix = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.predict = nn.Conv2d(width, outputs, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features [B,C_i,H_i,W_i], finest first -> logits [B,outputs,H_0,W_0]."""
        size = features[0].shape[-2:]
        return self.predict(self.mix(torch.cat([resize(x, size) for x in features], dim=1)))


class DeepLabPyramidHead(DeepLabHead):
    """``DeepLabHead`` on the last scale of a pyramid."""

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features, finest first -> logits on the grid of the last."""
        return super().forward(features[-1])


def survey_head(backbone: Pyramid, outputs: int) -> nn.Module:
    """What the survey decodes with: DeepLab on dilated ResNets, ``HRNetHead`` on other pyramids.

    Returns:
        A module from the features of a pyramid, finest first, to logits.
    """
    if isinstance(backbone, ResNetPyramid) and backbone.dilated:
        return DeepLabPyramidHead(backbone.channels[-1], outputs)
    return HRNetHead(backbone.channels, outputs)
