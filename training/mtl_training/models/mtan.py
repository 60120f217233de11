"""MTAN: one shared encoder, from which each task selects features by attention masks.

Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mtl_training.models.heads import survey_head
from mtl_training.models.layers import Bottleneck
from mtl_training.models.network import Network, Plan, Predictions
from mtl_training.models.pyramids import ModelError, ResNetPyramid


class MTAN(Network):
    """A shared dilated ResNet with attention of every task at each residual stage (survey, Fig. 5).

    With u^j and p^j what goes into and comes out of the last block of stage j, and task i:

    a_i^1 = h_i(g_i(u^1)),   a_i^j = h_i(g_i([u^j ; f^{j-1}(^a_i^{j-1})]))   masks, j >= 2
    ^a_i^j = a_i^j * p^j                                                     attended features

    g, h: see ``Attention``. f is one residual bottleneck to the next stage's width, shared by all
    tasks, and the 2x2 max-pooling that takes stage 1 to the grid of stage 2. The head of a task
    gets ^a_i^4.

    Differs from the paper: it attends in SegNet, and in its decoder, too; masks on ResNets with
    DeepLab heads are the authors' later code and the survey's, whose figures these are. Pooling
    rounds odd sizes up, as the backbone does, where theirs need even ones.

    Args:
        backbone: shared by all tasks; its stages have at least two blocks.
        tasks: output channels by task name.

    Raises:
        ModelError: a stage of the backbone is a single block.
    """

    def __init__(self, backbone: ResNetPyramid, tasks: Mapping[str, int]) -> None:
        super().__init__(tasks, mean=backbone.mean, std=backbone.std)
        if min(len(stage) for stage in backbone.stages) < 2:
            raise ModelError('mtan masks the last block of a stage: expected two blocks or more')
        c = backbone.channels
        inputs = (c[0], 2 * c[1], 2 * c[2], 2 * c[3])
        self.backbone = backbone
        self.attention = nn.ModuleList(
            nn.ModuleDict({task: Attention(channels, width) for task in tasks})
            for channels, width in zip(inputs, c, strict=True)
        )
        self.refine = nn.ModuleList(
            [
                nn.Sequential(Bottleneck(c[0], c[1]), nn.MaxPool2d(2, ceil_mode=True)),
                Bottleneck(c[1], c[2]),
                Bottleneck(c[2], c[3]),
                nn.Identity(),
            ]
        )
        self.heads = nn.ModuleDict(
            {task: survey_head(backbone, channels) for task, channels in tasks.items()}
        )

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> MTAN:
        """On one dilated ResNet."""
        return cls(plan.dilated_resnet('mtan'), plan.tasks, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,H/8,W/8] by task."""
        p = self.backbone.stem(image)
        refined: dict[str, list[Tensor]] = {task: [] for task in self.kept}
        for stage, attention, f in zip(
            self.backbone.stages, self.attention, self.refine, strict=True
        ):
            u, p = ends(stage, p)  # [B, C, H/4, W/4], then [B, C, H/8, W/8]
            masks = {t: attention[t](torch.cat([u, *x], dim=1)) for t, x in refined.items()}
            refined = {task: [f(mask * p)] for task, mask in masks.items()}
        return Predictions({task: self.heads[task](x) for task, x in refined.items()})

    def of_one_task(self) -> list[nn.Module]:
        """The masks and the heads."""
        return [self.attention, self.heads]


class Attention(nn.Sequential):
    """A mask in 0..1: g a 1x1 convolution to C/4, BatchNorm, ReLU; h a 1x1 to C, BN, sigmoid."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(
            nn.Conv2d(channels, width // 4, 1),
            nn.BatchNorm2d(width // 4),
            nn.ReLU(inplace=True),
            nn.Conv2d(width // 4, width, 1),
            nn.BatchNorm2d(width),
            nn.Sigmoid(),
        )


def ends(stage: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    """What goes into the last block of a stage, and what comes out of it."""
    *blocks, last = stage
    for block in blocks:
        x = block(x)
    return x, last(x)
