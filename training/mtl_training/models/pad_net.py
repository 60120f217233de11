"""PAD-Net: predict every task once, let the tasks' features inform each other, predict again.

"PAD-Net: Multi-Tasks Guided Prediction-and-Distillation Network for Simultaneous Depth Estimation
and Scene Parsing" (Xu et al., CVPR 2018), as the survey compares it (Section 2.3.1, Fig. 6).
F_k^i are the initial features of task k, F_k^o the distilled ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from mtl_training.bounds import Count
from mtl_training.models.heads import TaskHead, shared_feature
from mtl_training.models.network import Auxiliary, Network, Plan, Predictions
from mtl_training.models.pyramids import Pyramid


class PADNet(Network):
    """The whole network (survey, Fig. 6): backbone, initial heads, distillation, final heads.

    Initial predictions of all tasks and of auxiliary ones are trained with the weights of the
    final ones; only ``tasks`` are predicted again.

    Differs from the paper: backbone and heads are the survey's. On dilated ResNets the last
    feature is used (single-scale), on other pyramids all features on the grid of the finest
    (multi-scale); the front end of the paper fuses the stages of a ResNet-50 in a way of its own.
    With the same weights the decoder of the released code says the same.

    The 12 M and 82 G (NYUD-v2 with normals and edges as auxiliary tasks) and 29 M and 212 G
    (PASCAL) of the survey's Table V, multiply-accumulates halved, are this network on HRNet-18. Its
    rows with ResNets are of no configuration of the released code.

    Args:
        backbone: pyramid with ``channels``.
        tasks: output channels by task name.
        auxiliary: of tasks that are predicted only once, for the others' sake.
        width: of the tasks' features.
    """

    takes_auxiliary: ClassVar[bool] = True

    def __init__(
        self,
        backbone: Pyramid,
        tasks: Mapping[str, int],
        *,
        auxiliary: Mapping[str, int] | None = None,
        width: Count = 256,
    ) -> None:
        super().__init__(tasks, mean=backbone.mean, std=backbone.std)
        initial = {**tasks, **(auxiliary or {})}
        self.backbone = backbone
        self.front = shared_feature(backbone)
        self.initial = nn.ModuleDict(
            {task: TaskHead(self.front.width, width, c) for task, c in initial.items()}
        )
        self.distillation = Distillation(tasks, initial, width)
        self.final = nn.ModuleDict({task: TaskHead(width, width, c) for task, c in tasks.items()})

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> PADNet:
        """On one backbone."""
        return cls(plan.pyramid(), plan.tasks, auxiliary=plan.auxiliary, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,h,w], h = H/8 (dilated ResNets) or H/4."""
        shared = self.front(self.backbone(image))  # [B, C, h, w]
        initial = {task: head(shared) for task, head in self.initial.items()}  # F^i and logits
        distilled = self.distillation({task: feature for task, (feature, _) in initial.items()})
        final = {task: self.final[task](feature)[1] for task, feature in distilled.items()}
        return Predictions(final, [Auxiliary({task: y for task, (_, y) in initial.items()})])

    def of_one_task(self) -> list[nn.Module]:
        """What makes predictions, and the messages to a task."""
        return [
            self.final,
            self.distillation,
            *(h.get_submodule('predict') for h in self.initial.values()),
        ]

    def shared_features(self) -> list[nn.Module]:
        """The front, which has one feature for all tasks."""
        return [self.front]


class Distillation(nn.Module):
    """Multi-modal distillation with spatial attention (survey, Eq. 2).

    F_k^o = F_k^i + sum_{l != k} sigmoid(W_{k,l} F_l^i) * (V_{k,l} F_l^i)

    W and V are 3x3 convolutions without biases. l runs over all initial tasks, k over the final
    ones.

    Differs from the survey: Eq. 2 prints F_l^i where V_{k,l} F_l^i stands here; its released code
    has the convolution, and the parameters of Table V count it.
    """

    def __init__(self, tasks: Iterable[str], initial: Iterable[str], width: int) -> None:
        super().__init__()
        sources = list(initial)
        self.messages = nn.ModuleDict(
            {
                task: nn.ModuleDict({other: Message(width) for other in sources if other != task})
                for task in tasks
            }
        )

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """F^i [B,width,h,w] of all initial tasks -> F^o [B,width,h,w] of the final ones."""
        return {
            task: sum((tell(features[other]) for other, tell in others.items()), features[task])
            for task, others in self.messages.items()
        }


class Message(nn.Module):
    """What one task tells another: sigmoid(W F) * (V F)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.value = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B,width,h,w] -> [B,width,h,w]."""
        return self.gate(x).sigmoid() * self.value(x)
