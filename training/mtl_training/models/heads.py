"""From a pyramid's features to a task: the survey's heads, and one feature for all tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_training.models.layers import ASPP, Bottleneck, ConvBNReLU, resize
from mtl_training.models.pyramids import Pyramid


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
    if backbone.dilated:
        return DeepLabPyramidHead(backbone.channels[-1], outputs)
    return HRNetHead(backbone.channels, outputs)


class TaskHead(nn.Module):
    """The features of a task and their prediction: two bottlenecks, then conv1x1."""

    def __init__(self, channels: int, width: int, outputs: int) -> None:
        super().__init__()
        self.refine = nn.Sequential(Bottleneck(channels, width), Bottleneck(width, width))
        self.predict = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B,channels,h,w] -> features [B,width,h,w], logits [B,outputs,h,w]."""
        feature = self.refine(x)
        return feature, self.predict(feature)


class LastScale(nn.Module):
    """The last feature of a pyramid: what a single-scale system works on."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.width = channels[-1]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features, finest first -> the last."""
        return features[-1]


class Concatenation(nn.Module):
    """All features on the finest grid, concatenated."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.width = sum(channels)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features [B,C_i,H_i,W_i], finest first -> [B, sum C_i, H_0, W_0]."""
        size = features[0].shape[-2:]
        return torch.cat([resize(x, size) for x in features], dim=1)


class AllScales(Concatenation):
    """All features on the finest grid: concatenated, conv1x1 of the same width, BatchNorm, ReLU."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(channels)
        self.mix = nn.Sequential(
            nn.Conv2d(self.width, self.width, 1), nn.BatchNorm2d(self.width), nn.ReLU(inplace=True)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features [B,C_i,H_i,W_i], finest first -> [B, sum C_i, H_0, W_0]."""
        return self.mix(super().forward(features))


def shared_feature(backbone: Pyramid) -> LastScale | AllScales:
    """One feature for all tasks: the last of a dilated ResNet, all of other pyramids."""
    if backbone.dilated:
        return LastScale(backbone.channels)
    return AllScales(backbone.channels)
