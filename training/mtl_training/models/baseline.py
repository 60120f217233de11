"""The multi-task baseline: hard parameter sharing of the whole encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mtl_training.models.heads import survey_head
from mtl_training.models.network import Network, Plan, Predictions
from mtl_training.models.pyramids import Pyramid


class MTLBaseline(Network):
    """A shared backbone and one head per task (survey, Fig. 2a and Section 2.2).

    y_t = h_t(f(x)),   f the backbone of all tasks, h_t the head of task t.

    The heads are the survey's: DeepLab v3 on dilated ResNets, all scales concatenated on HRNet and
    other pyramids.

    Differs from the survey: nothing known.

    Args:
        backbone: shared by all tasks.
        tasks: output channels by task name.
    """

    def __init__(self, backbone: Pyramid, tasks: Mapping[str, int]) -> None:
        super().__init__(tasks, mean=backbone.mean, std=backbone.std)
        self.backbone = backbone
        self.heads = nn.ModuleDict(
            {task: survey_head(backbone, channels) for task, channels in tasks.items()}
        )

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> MTLBaseline:
        """On one backbone."""
        return cls(plan.pyramid(), plan.tasks, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,H/8,W/8] (DeepLab) or [B,o_t,H/4,W/4]."""
        features = self.backbone(image)
        return Predictions({task: self.heads[task](features) for task in self.kept})

    def of_one_task(self) -> list[nn.Module]:
        """The heads."""
        return [self.heads]

    def shared_features(self) -> list[nn.Module]:
        """The backbone."""
        return [self.backbone]
