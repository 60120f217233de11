"""PAP-Net: which pixels belong together is learned from all tasks and spread within each.

"Pattern-Affinitive Propagation across Depth, Surface Normal and Semantic Segmentation" (Zhang et
al., CVPR 2019), as the survey compares it (Section 2.3.2, Fig. 7). M_i is the affinity matrix of
task i, F_j the features of task j.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_training.bounds import Count, Share, Whole
from mtl_training.models.heads import TaskHead, shared_feature
from mtl_training.models.layers import resize
from mtl_training.models.network import Auxiliary, Network, Plan, Predictions
from mtl_training.models.pyramids import ModelError, Pyramid


class PAPNet(Network):
    """The whole network (survey, Fig. 7): initial heads, affinities, diffusion, final heads.

    M_i  = affinity(F_i)                                       one per task
    \\hat M_j = sum_i alpha_i^j M_i                             (survey, Eq. 3)
    F_j <- diffusion of \\hat M_j into F_j                      (``Diffusion``)

    Initial predictions are trained with the weights of the final ones.

    Our reading. Of the paper, the abstract and introduction, the survey's description and an
    implementation by others were available: heads of two bottlenecks as in PAD-Net, a conv1x1 that
    halves the width before the affinities, one softmax of weights per task. Left out is the paper's
    loss on affinities, and its decoder: final heads work on the grid of the affinities.

    Differs from the survey: affinities are of H/8 x W/8. Their products grow with the fourth power
    of the side of the grid: at H/4 they are sixteen times as many. The 4.8 T and 52 M of Table V
    are of the authors' network and cannot be reproduced.

    Args:
        backbone: pyramid with ``channels``.
        tasks: output channels by task name.
        affinity_stride: stride of the grid of affinities and of the final predictions.
        width: of the tasks' features.
        beta: share of what neighbours say in the diffusion.
        iterations: of the diffusion.

    Raises:
        ModelError: a stride that does not divide 32.
    """

    def __init__(
        self,
        backbone: Pyramid,
        tasks: Mapping[str, int],
        *,
        affinity_stride: Count = 8,
        width: Count = 256,
        beta: Share = 0.05,
        iterations: Whole = 3,
    ) -> None:
        super().__init__(tasks, mean=backbone.mean, std=backbone.std)
        if affinity_stride not in (1, 2, 4, 8, 16, 32):
            raise ModelError(f'affinity_stride is {affinity_stride}; expected 1, 2, 4, 8, 16 or 32')
        half = width // 2
        self.backbone = backbone
        self.stride = affinity_stride
        self.front = shared_feature(backbone)
        self.initial = nn.ModuleDict(
            {task: TaskHead(self.front.width, width, c) for task, c in tasks.items()}
        )
        self.reduce = nn.ModuleDict({task: nn.Conv2d(width, half, 1) for task in tasks})
        self.diffusion = nn.ModuleDict(
            {task: Diffusion(tasks, beta=beta, iterations=iterations) for task in tasks}
        )
        self.final = nn.ModuleDict({task: TaskHead(half, half, c) for task, c in tasks.items()})

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> PAPNet:
        """On one backbone."""
        return cls(plan.pyramid(), plan.tasks, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,H/8,W/8] by task."""
        size = [-(-side // self.stride) for side in image.shape[-2:]]
        shared = self.front(self.backbone(image))  # [B, C, h, w]
        initial = {task: head(shared) for task, head in self.initial.items()}
        features = {t: resize(self.reduce[t](f), size) for t, (f, _) in initial.items()}  # F
        affinities = {task: affinity(f) for task, f in features.items()}  # M [B, hw, hw]
        final = {
            task: self.final[task](diffusion(features[task], affinities))[1]
            for task, diffusion in self.diffusion.items()
        }
        return Predictions(final, [Auxiliary({task: y for task, (_, y) in initial.items()})])

    def of_one_task(self) -> list[nn.Module]:
        """What makes predictions, and the weights of the affinities."""
        return [
            self.final,
            self.diffusion,
            *(h.get_submodule('predict') for h in self.initial.values()),
        ]

    def shared_features(self) -> list[nn.Module]:
        """The front, which has one feature for all tasks."""
        return [self.front]


def affinity(features: Tensor) -> Tensor:
    """M: how much each pixel has in common with every other, rows that sum to one.

    M_pq = max(0, cos(F_p, F_q)) / sum_r max(0, cos(F_p, F_r))

    Our reading: products of unit features, negative ones cut off, which keeps M a mean over pixels
    and its rows away from a division by zero (a pixel's product with itself is one). The
    implementation by others normalises over pixels instead of channels, and columns.

    Args:
        features: [B,C,h,w].

    Returns:
        [B,hw,hw].
    """
    unit = F.normalize(features.flatten(2), dim=1)  # [B, C, hw]
    products = F.relu(unit.mT @ unit)
    return products / products.sum(-1, keepdim=True).clamp(min=1e-6)


class Diffusion(nn.Module):
    """Cross-task and task-specific propagation of one task j.

    \\hat M = sum_i alpha_i M_i,  alpha = softmax(a), a learned      (survey, Eq. 3)
    F^{n+1} = beta \\hat M F^n + (1 - beta) F^0,   n = 0 .. iterations - 1
    """

    def __init__(self, tasks: Iterable[str], *, beta: float, iterations: int) -> None:
        super().__init__()
        self.tasks = list(tasks)
        self.logits = nn.Parameter(torch.zeros(len(self.tasks)))  # a
        self.beta = beta
        self.iterations = iterations

    def combine(self, affinities: Mapping[str, Tensor]) -> Tensor:
        """M_i [B,hw,hw] by task -> \\hat M [B,hw,hw]."""
        # As a row: TensorRT takes no soft max of a single dimension.
        alpha: Sequence[Tensor] = self.logits[None].softmax(-1)[0].unbind()
        terms = [a * affinities[task] for a, task in zip(alpha, self.tasks, strict=True)]
        return sum(terms[1:], start=terms[0])

    def forward(self, features: Tensor, affinities: Mapping[str, Tensor]) -> Tensor:
        """F [B,C,h,w] and M_i [B,hw,hw] by task -> F [B,C,h,w]."""
        joint = self.combine(affinities)
        start = features.flatten(2).mT  # F^0 [B, hw, C]
        spread = start
        for _ in range(self.iterations):
            spread = self.beta * (joint @ spread) + (1 - self.beta) * start
        return spread.mT.unflatten(2, features.shape[-2:])
