"""Modulation units: a shared encoder whose channels every task scales to its needs (ECCV 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_training.models.heads import survey_head
from mtl_training.models.network import Network, Plan, Predictions
from mtl_training.models.pyramids import ModelError, Pyramid


class Modulated(Network):
    """A shared encoder with modulation units, and one head per task (Zhao et al., ECCV 2018).

    x_t^l = s_t^l * f^l(x_t^(l-1)),   s_t^l one number for each channel of stage l and task t
    y_t   = h_t(x_t^1 .. x_t^4)

    f^l is shared, but its gradient comes from each task through that task's own s_t^l: tasks that
    are at odds about a channel need not share it (survey, Section 3.2). One pass per task from the
    first modulated stage on.

    Our reading: units are behind stages, and begin as 1, so that the network begins as the
    multi-task baseline. Heads are the survey's. Differs from the paper: it retrieves images, with
    one embedding for all tasks.

    Args:
        backbone: a ResNet or EfficientNet.
        tasks: output channels by task name.
        stages: which of the four are modulated, counted from 0.

    Raises:
        ModelError: another kind of backbone, or a stage that there is not.
    """

    def __init__(
        self, backbone: Pyramid, tasks: Mapping[str, int], *, stages: Sequence[int] = (0, 1, 2, 3)
    ) -> None:
        super().__init__(tasks, mean=backbone.mean, std=backbone.std)
        if not set(stages) <= {0, 1, 2, 3}:
            raise ModelError(f'stages of modulated are {list(stages)}, expected of 0, 1, 2, 3')
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in backbone.blocks())
        self.units: Any = nn.ModuleList(
            nn.ModuleDict({t: Unit(width) if i in stages else nn.Identity() for t in tasks})
            for i, width in enumerate(backbone.channels)
        )
        self.heads = nn.ModuleDict(
            {task: survey_head(backbone, channels) for task, channels in tasks.items()}
        )

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> Modulated:
        """On one backbone, which is taken apart."""
        return cls(plan.pyramid(), plan.tasks, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,h,w] by task, on the heads' grid."""
        flows = dict.fromkeys(self.kept, image)
        scales = []
        for stage, units in zip(self.stages, self.units, strict=True):
            different = {id(x): x for x in flows.values()}  # one, until the first unit
            passed = {key: stage(x) for key, x in different.items()}
            flows = {task: units[task](passed[id(x)]) for task, x in flows.items()}
            scales.append(flows)
        return Predictions(
            {task: self.heads[task]([scale[task] for scale in scales]) for task in self.kept}
        )

    def of_one_task(self) -> list[nn.Module]:
        """The units and the heads."""
        return [self.units, self.heads]


class Unit(nn.Module):
    """s * x, one number for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,C,h,w]."""
        return x * self.scale.view(-1, 1, 1)
