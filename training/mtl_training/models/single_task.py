"""Single-task networks: what multi-task networks are measured against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mtl_training.models.heads import survey_head
from mtl_training.models.network import Network, Plan, Predictions
from mtl_training.models.pyramids import Pyramid


class SingleTask(Network):
    """One network per task; they share the image and nothing else (survey, Section 4.1.2).

    y_t = h_t(f_t(x)),   f_t the backbone and h_t the head of task t.

    The heads are the survey's: DeepLab v3 on dilated ResNets, all scales concatenated on HRNet and
    other pyramids. Names of parameters are those of ``CrossStitch`` and ``NDDR``, which begin with
    trained single-task networks.

    Differs from the survey: its tasks are trained one after the other, each with a batch size and
    a learning rate of its own. Here they are trained side by side, on the same batches. No
    parameter sees two losses, but gradient clipping sees the norm of all.

    Args:
        backbones: one by task.
        tasks: output channels by task name.
    """

    def __init__(self, backbones: Mapping[str, Pyramid], tasks: Mapping[str, int]) -> None:
        first = next(iter(backbones.values()))
        super().__init__(tasks, mean=first.mean, std=first.std)
        self.backbones = nn.ModuleDict(backbones)
        self.heads = nn.ModuleDict(
            {task: survey_head(backbones[task], channels) for task, channels in tasks.items()}
        )

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> SingleTask:
        """On a backbone for every task."""
        return cls(plan.pyramids(), plan.tasks, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,H/8,W/8] (DeepLab) or [B,o_t,H/4,W/4]."""
        features = {task: self.backbones[task](image) for task in self.kept}
        return Predictions({task: self.heads[task](x) for task, x in features.items()})

    def of_one_task(self) -> list[nn.Module]:
        """All: no parameter sees two losses."""
        return [self.backbones, self.heads]
