"""Cross-stitch networks: soft parameter sharing by linear combinations of activations.

Misra et al., "Cross-stitch Networks for Multi-task Learning", CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mtl_training.bounds import Share
from mtl_training.models.heads import survey_head
from mtl_training.models.layers import convex
from mtl_training.models.network import Network, Plan, Predictions
from mtl_training.models.pyramids import ResNetPyramid


class CrossStitch(Network):
    """One dilated ResNet per task; after each residual stage a cross-stitch unit (survey, Fig. 4).

    Training begins, as in the paper, with trained single-task networks (``train --init``): the
    names of parameters are those of ``SingleTask``. Under SGD, the learning rate of the units is
    100 times that of the rest.

    Differs from the paper: ResNets and DeepLab heads instead of AlexNets; units after the stages
    of a ResNet instead of after pooling. Both are the survey's, and so are the figures.

    Args:
        backbones: one by task.
        tasks: output channels by task name.
        own: alpha_AA at the start, see ``CrossStitchUnit``; None is the survey's, .9 with two
            tasks, .8 with more.
    """

    def __init__(
        self,
        backbones: Mapping[str, ResNetPyramid],
        tasks: Mapping[str, int],
        *,
        own: Share | None = None,
    ) -> None:
        first = next(iter(backbones.values()))
        super().__init__(tasks, mean=first.mean, std=first.std)
        self.backbones = nn.ModuleDict(backbones)
        self.stitch = nn.ModuleList(
            CrossStitchUnit(len(tasks), channels, own) for channels in first.channels
        )
        self.heads = nn.ModuleDict(
            {task: survey_head(backbones[task], channels) for task, channels in tasks.items()}
        )

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> CrossStitch:
        """On a dilated ResNet for every task."""
        return cls(plan.dilated_resnets('cross_stitch'), plan.tasks, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,H/8,W/8] by task."""
        x = {task: backbone.stem(image) for task, backbone in self.backbones.items()}
        for stage, stitch in enumerate(self.stitch):
            x = {task: net.stages[stage](x[task]) for task, net in self.backbones.items()}
            x = stitch(x)  # [B, C, H/4, W/4], then [B, C, H/8, W/8]
        return Predictions({task: self.heads[task]([x[task]]) for task in self.kept})

    def of_one_task(self) -> list[nn.Module]:
        """The heads."""
        return [self.heads]

    def learning_rates(self, *, adaptive: bool) -> dict[str, float]:
        """The units learn 100 times as fast as the rest (survey's code, whose optimiser is SGD)."""
        return {} if adaptive else {'stitch': 100.0}


class CrossStitchUnit(nn.Module):
    """A linear combination of the tasks' activations, channel by channel (survey, Eq. 1).

    [ ~x_A ]   [ alpha_AA  alpha_AB ] [ x_A ]
    [ ~x_B ] = [ alpha_BA  alpha_BB ] [ x_B ],   each alpha a vector with one entry per channel.

    At the start the combination is convex: alpha_AA = ``own``, and the other tasks share the rest.

    Differs from the paper: alpha is a scalar there, for any number of channels; its experiments
    and the survey's code have one for each channel.
    """

    def __init__(self, tasks: int, channels: int, own: float | None = None) -> None:
        super().__init__()
        own, other = convex(tasks, own)
        alpha = torch.full((tasks, tasks), other).fill_diagonal_(own)
        self.alpha = nn.Parameter(alpha[..., None].repeat(1, 1, channels))  # [T, T, C]

    def forward(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Activations [B,C,h,w] by task -> combinations [B,C,h,w] by task."""
        return {
            task: sum(a[:, None, None] * other for a, other in zip(row, x.values(), strict=True))
            for task, row in zip(x, self.alpha, strict=True)
        }
