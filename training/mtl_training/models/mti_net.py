"""MTI-Net: the tasks inform each other at four scales, and each scale informs the finer one.

"MTI-Net: Multi-Scale Task Interaction Networks for Multi-Task Learning" (Vandenhende et al., ECCV
2020; survey, Section 2.3.4, Fig. 9). Scales are numbered by how fine they are: 0 is H/4, 3 is H/32.
N is the number of initial tasks, C_i the channels of the backbone at scale i, F_k the features of
task k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mtl_training.models.heads import HRNetHead
from mtl_training.models.layers import BasicBlock, SqueezeExcite, resize
from mtl_training.models.network import Auxiliary, Network, Plan, Predictions
from mtl_training.models.pad_net import Distillation
from mtl_training.models.pyramids import ModelError, Pyramid


class MTINet(Network):
    """The whole network (survey, Fig. 9).

    Every task, and every auxiliary one, is predicted at each scale, coarse to fine; the feature
    propagation module (``FPM``) takes its features to the next finer scale. At each scale the
    tasks' features are distilled as in PAD-Net (survey, Eq. 2). ``HRNetHead`` aggregates the four
    distilled features of a task and predicts it at H/4. The initial predictions of the four scales
    are trained with the weights of the final ones.

    Differs from the paper: nothing known. Differs from the released code: the softmax of the FPM,
    see there; features are up-sampled to the grid of the finer scale, whatever its size, where the
    released code doubles them and fails on images that are not multiples of 32. With
    softmax='released' and the same weights the decoders of both say the same.

    The 24 M and 15 G of the survey's Table V (PASCAL; multiply-accumulates halved) are this network
    on HRNet-18. Its 27 M and 16 G on NYUD-v2 are of no configuration of the released code.

    Args:
        backbone: pyramid with ``channels`` at strides 4, 8, 16, 32.
        tasks: output channels by task name.
        auxiliary: of tasks that have initial predictions only, for the others' sake.
        softmax: of the FPM, a key of ``SOFTMAX``.

    Raises:
        ModelError: unknown softmax.
    """

    takes_auxiliary: ClassVar[bool] = True

    def __init__(
        self,
        backbone: Pyramid,
        tasks: Mapping[str, int],
        *,
        auxiliary: Mapping[str, int] | None = None,
        softmax: str = 'tasks',
    ) -> None:
        super().__init__(tasks, mean=backbone.mean, std=backbone.std)
        initial = {**tasks, **(auxiliary or {})}
        c0, c1, c2, c3 = backbone.channels
        self.backbone = backbone
        self.initial3 = InitialPredictions(c3, c3, initial)
        self.initial2 = InitialPredictions(c2 + c3, c2, initial)
        self.initial1 = InitialPredictions(c1 + c2, c1, initial)
        self.initial0 = InitialPredictions(c0 + c1, c0, initial)
        self.fpm3, self.fpm2, self.fpm1 = (FPM(c, initial, softmax) for c in (c3, c2, c1))
        self.distillation = nn.ModuleList(
            Distillation(tasks, initial, c) for c in backbone.channels
        )
        self.heads = nn.ModuleDict({t: HRNetHead(backbone.channels, c) for t, c in tasks.items()})

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> MTINet:
        """On one backbone."""
        return cls(plan.pyramid(), plan.tasks, auxiliary=plan.auxiliary, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,H/4,W/4] by task; four auxiliary scales."""
        x0, x1, x2, x3 = self.backbone(image)
        f3, y3 = self.initial3(dict.fromkeys(self.fpm3.tasks, x3))
        f2, y2 = self.initial2(beside(x2, self.fpm3(f3)))
        f1, y1 = self.initial1(beside(x1, self.fpm2(f2)))
        f0, y0 = self.initial0(beside(x0, self.fpm1(f1)))
        distilled = [
            module(features)
            for module, features in zip(self.distillation, (f0, f1, f2, f3), strict=True)
        ]
        final = {t: head([scale[t] for scale in distilled]) for t, head in self.heads.items()}
        return Predictions(final, [Auxiliary(y) for y in (y0, y1, y2, y3)])

    def of_one_task(self) -> list[nn.Module]:
        """What makes predictions, and the last messages to a task."""
        initial = (self.initial0, self.initial1, self.initial2, self.initial3)
        return [self.heads, self.distillation, *(scale.predict for scale in initial)]

    def shared_features(self) -> list[nn.Module]:
        """The backbone."""
        return [self.backbone]


class InitialPredictions(nn.Module):
    """The features of every task at one scale, two residual blocks each, and a conv1x1 on them."""

    def __init__(self, channels: int, width: int, tasks: Mapping[str, int]) -> None:
        super().__init__()
        self.refine = nn.ModuleDict(
            {
                task: nn.Sequential(BasicBlock(channels, width), BasicBlock(width, width))
                for task in tasks
            }
        )
        self.predict = nn.ModuleDict({t: nn.Conv2d(width, c, 1) for t, c in tasks.items()})

    def forward(self, x: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """[B,channels,h,w] by task -> features F_k [B,width,h,w], logits [B,o_k,h,w]."""
        features = {task: refine(x[task]) for task, refine in self.refine.items()}
        return features, {task: self.predict[task](f) for task, f in features.items()}


class FPM(nn.Module):
    """Feature propagation module: what the tasks know at one scale, for the next finer one.

    F = cat(F_1 .. F_N)                         [B, N C, h, w]
    M = softmax over the tasks of f(F)          [B, N C, h, w]
    S = g(M * F)                                [B, C, h, w]
    P_k = SE_k(S) + F_k                         [B, C, h, w]

    f is two residual blocks of width N C / 4 and a conv1x1 back to N C, g a residual block, SE
    squeeze-and-excitation with reduction 16 (and biases).

    Differs from the released code with softmax='tasks': there the softmax runs over groups of N
    consecutive channels of the concatenation, that is over channels of one task (of two, where N
    does not divide C), which is what softmax='released' does. Weights trained with one of them do
    not fit the other.
    """

    def __init__(self, channels: int, tasks: Iterable[str], softmax: str) -> None:
        super().__init__()
        if softmax not in SOFTMAX:
            raise ModelError(f'softmax is {softmax!r}; expected one of {", ".join(SOFTMAX)}')
        self.tasks = list(tasks)
        self.softmax = SOFTMAX[softmax]
        stacked = len(self.tasks) * channels
        self.f = nn.Sequential(
            BasicBlock(stacked, stacked // 4),
            BasicBlock(stacked // 4, stacked // 4),
            nn.Conv2d(stacked // 4, stacked, 1),
        )
        self.g = BasicBlock(stacked, channels)
        self.excite = nn.ModuleDict({t: SqueezeExcite(channels, bias=True) for t in self.tasks})

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """F_k [B,C,h,w] by task -> P_k [B,C,h,w] by task."""
        stacked = torch.cat([features[task] for task in self.tasks], dim=1)  # F
        shared = self.g(self.mask(stacked) * stacked)  # S
        return {task: excite(shared) + features[task] for task, excite in self.excite.items()}

    def mask(self, stacked: Tensor) -> Tensor:
        """F [B,N*C,h,w], task by task -> M [B,N*C,h,w]."""
        return self.softmax(self.f(stacked), len(self.tasks))


def softmax_of_tasks(x: Tensor, tasks: int) -> Tensor:
    """[B,N*C,h,w], task by task: a softmax over the N values of each channel index."""
    return x.unflatten(1, (tasks, -1)).softmax(1).flatten(1, 2)


def softmax_as_released(x: Tensor, tasks: int) -> Tensor:
    """[B,N*C,h,w], task by task: a softmax over each N channels that follow each other."""
    return x.unflatten(1, (-1, tasks)).softmax(2).flatten(1, 2)


SOFTMAX: dict[str, Callable[[Tensor, int], Tensor]] = {
    'tasks': softmax_of_tasks,
    'released': softmax_as_released,
}


def beside(x: Tensor, propagated: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's feature and, up-sampled, what the coarser scale propagates, by task."""
    size = x.shape[-2:]
    return {task: torch.cat([x, resize(p, size)], dim=1) for task, p in propagated.items()}
