"""NDDR-CNN: task-specific encoders whose features are fused by 1x1 convolutions, layer by layer.

Gao et al., "NDDR-CNN: Layerwise Feature Fusing in Multi-Task CNNs by Neural Discriminative
Dimensionality Reduction", CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_training.bounds import Share
from mtl_training.models.heads import survey_head
from mtl_training.models.layers import convex, resize
from mtl_training.models.network import Network, Plan, Predictions
from mtl_training.models.pyramids import ResNetPyramid

MOMENTUM = 0.05  # of BatchNorm, as in the authors' code and the survey's


class NDDR(Network):
    """One dilated ResNet per task; an NDDR layer after the stem and each stage (survey, Fig. 4).

    Training begins, as in the paper, with trained single-task networks (``train --init``): the
    names of parameters are those of ``SingleTask``. Under SGD, the learning rate of the layers is
    100 times that of the rest.

    Differs from the paper: ResNets and DeepLab heads instead of VGG-16, as in the survey, whose
    figures these are. The survey has no shortcut.

    Args:
        backbones: one by task.
        tasks: output channels by task name.
        own: weight of a task's own features at the start, see ``NDDRLayer``; None is the survey's,
            .9 with two tasks, .8 with more.
        shortcut: the paper's second network: all NDDR layers' outputs reach the head.
    """

    def __init__(
        self,
        backbones: Mapping[str, ResNetPyramid],
        tasks: Mapping[str, int],
        *,
        own: Share | None = None,
        shortcut: bool = False,
    ) -> None:
        first = next(iter(backbones.values()))
        super().__init__(tasks, mean=first.mean, std=first.std)
        widths = (first.stem_width, *first.channels)
        self.backbones = nn.ModuleDict(backbones)
        self.nddr = nn.ModuleList(NDDRLayer(list(tasks), width, own) for width in widths)
        self.nddr_shortcut = nn.ModuleDict(
            {task: Shortcut(widths) if shortcut else nn.Identity() for task in tasks}
        )
        self.heads = nn.ModuleDict(
            {task: survey_head(backbones[task], channels) for task, channels in tasks.items()}
        )

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> NDDR:
        """On a dilated ResNet for every task."""
        return cls(plan.dilated_resnets('nddr'), plan.tasks, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,H/8,W/8] by task."""
        x = {task: backbone.stem(image) for task, backbone in self.backbones.items()}
        fused = [self.nddr[0](x)]  # [B, C, H/4, W/4]
        for stage in range(4):
            x = {task: net.stages[stage](fused[-1][task]) for task, net in self.backbones.items()}
            fused.append(self.nddr[stage + 1](x))  # [B, C, H/4, W/4], then [B, C, H/8, W/8]
        features = {t: self.nddr_shortcut[t]([x[t] for x in fused]) for t in self.kept}
        return Predictions({task: self.heads[task](x) for task, x in features.items()})

    def of_one_task(self) -> list[nn.Module]:
        """The last layers, the shortcuts and the heads."""
        return [self.nddr[-1], self.nddr_shortcut, self.heads]

    def learning_rates(self, *, adaptive: bool) -> dict[str, float]:
        """The layers learn 100 times as fast (the authors' code and the survey's, under SGD)."""
        return {} if adaptive else {'nddr': 100.0}


class NDDRLayer(nn.Module):
    """Discriminative dimensionality reduction of all tasks' features, once for each task.

    y_t = ReLU(BN(W_t [x_1, ..., x_T])),   W_t: 1x1 convolution T C -> C without bias.

    At the start W_t = [.. other I, own I, other I ..], own I at task t: a cross-stitch unit. With W
    diagonal in every block it stays one, up to BatchNorm: where BN is the identity, and alpha and
    x are not negative, y = alpha x.
    """

    def __init__(self, tasks: Sequence[str], channels: int, own: float | None = None) -> None:
        super().__init__()
        own, other = convex(len(tasks), own)
        self.layers = nn.ModuleDict()
        for task in tasks:
            conv = nn.Conv2d(len(tasks) * channels, channels, 1, bias=False)
            blocks = [own if source == task else other for source in tasks]
            identity = torch.eye(channels, device=conv.weight.device)
            start = torch.cat([block * identity for block in blocks], dim=1)  # [C, T C]
            conv.weight = nn.Parameter(start[..., None, None])
            norm = nn.BatchNorm2d(channels, momentum=MOMENTUM)
            self.layers[task] = nn.Sequential(conv, norm, nn.ReLU(inplace=True))

    def forward(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features [B,C,h,w] by task -> fused features [B,C,h,w] by task."""
        stacked = torch.cat([x[task] for task in self.layers], dim=1)  # [B, T C, h, w]
        return {task: layer(stacked) for task, layer in self.layers.items()}


class Shortcut(nn.Module):
    """All fused features of a task on the last one's grid, reduced to its width for the head.

    conv1x1(cat{ resize(y^l) }), BatchNorm, ReLU, as in the authors' code.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.reduce = nn.Sequential(
            nn.Conv2d(sum(widths), widths[-1], 1, bias=False),
            nn.BatchNorm2d(widths[-1], momentum=MOMENTUM),
            nn.ReLU(inplace=True),
        )

    def forward(self, fused: Sequence[Tensor]) -> list[Tensor]:
        """Five y^l [B,C_l,H_l,W_l] -> one feature [B,C_5,H_5,W_5], as the last scale."""
        size = fused[-1].shape[-2:]
        return [self.reduce(torch.cat([resize(x, size) for x in fused], dim=1))]
