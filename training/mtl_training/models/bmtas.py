"""BMTAS: a super-net of all trees, trained to find the one to branch by (BMVC 2020)."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from mtl_training.bounds import Amount, Count
from mtl_training.models.branched import block_macs, grown
from mtl_training.models.heads import survey_head
from mtl_training.models.network import Plan, Predictions
from mtl_training.models.pyramids import Pyramid
from mtl_training.models.super_net import SuperNet


class BMTAS(SuperNet):
    """Branched multi-task architecture search (Bruggemann et al., BMVC 2020).

    Every block l has a copy j for every task, and every task i a distribution over the copies:

    x_i^(l+1) = sum_j z_ij^l f_j^l(x_i^l),   z_i^l = softmax((alpha_i^l + G) / tau),  G ~ Gumbel
    L         = sum_t L_t + lambda E[cost],  E[cost] = sum_l c_l E[groups on level l]

    Tasks share a block as long as they chose alike on all levels. tau falls linearly from 5 to 0.1
    after a warm-up (a twentieth of the training) in which each task has its own copies. c_l are
    multiply-accumulates from a look-up table. Copies have BatchNorm without scale and shift, which
    could undo what z weighs.

    The result is ``tree()``: train it as ``branched``. The super-net itself is never used.

    Differs from the paper: weights and alpha make their steps together, on the same batches; the
    paper alternates, with a fifth of the images for alpha. The backbone and heads are ours; the
    paper's are MobileNetV2, R-ASPP and DeepLab v3+. The released code takes the scale from the last
    BatchNorm of a block only, and counts sampled partitions that do not refine the ones above as
    "nothing shared"; here E[cost] is exact.

    Our reading: cost is in GFLOP, two per multiply-accumulate, as the released code counts.

    Args:
        backbone: a ResNet or EfficientNet.
        tasks: output channels by task name.
        size: height and width that costs are of.
        cost_weight: lambda.
        steps: of the whole search.
    """

    warm_up: ClassVar[float] = 0.05

    def __init__(
        self,
        backbone: Pyramid,
        tasks: Mapping[str, int],
        *,
        size: tuple[int, int] = (512, 512),
        cost_weight: Amount = 0.05,
        steps: Count = 40_000,
    ) -> None:
        super().__init__(
            tasks, mean=backbone.mean, std=backbone.std, cost_weight=cost_weight, steps=steps
        )
        stages, count = backbone.blocks(), len(tasks)
        self.macs = block_macs(stages, size)
        self.stages: Any = nn.ModuleList(
            nn.ModuleList(Mixed(block, count) for block in stage) for stage in stages
        )
        self.heads = nn.ModuleDict(
            {task: survey_head(backbone, channels) for task, channels in tasks.items()}
        )
        self.alpha = nn.Parameter(torch.zeros(len(self.macs), count, count))

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> BMTAS:
        """On one backbone, whose blocks are copied."""
        return cls(plan.pyramid(), plan.tasks, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,h,w] by task, of a sampled mixture."""
        choices = self.sample()  # [blocks, tasks, copies]
        return Predictions(
            {
                task: self.heads[task](self.encode(image, choices[:, index]))
                for index, task in enumerate(self.tasks)
            }
        )

    def encode(self, x: Tensor, choices: Tensor) -> list[Tensor]:
        """The pass of one task: image and z_i [blocks, copies] -> features of all stages."""
        z, scales = iter(choices), []
        for stage in self.stages:
            for mixed in stage:
                x = mixed(x, next(z))
            scales.append(x)
        return scales

    def sample(self) -> Tensor:
        """z [blocks, tasks, copies]; in the warm-up each task's own copies."""
        tau = (5 - 4.9 * (self.done - self.warm_up) / (1 - self.warm_up)).clamp(0.1, 5)
        own = torch.eye(len(self.tasks), device=self.alpha.device).expand_as(self.alpha)
        drawn = F.gumbel_softmax(self.alpha, tau)  # type: ignore[arg-type]  # not a float
        return torch.where(self.searching, drawn, own)

    def expected_macs(self) -> Tensor:
        """E[cost] in multiply-accumulates of the encoder, over all trees."""
        macs = self.alpha.new_tensor(self.macs)
        return (macs * expected_groups(self.alpha.softmax(-1))).sum()

    def learning_rates(self, *, adaptive: bool) -> dict[str, float]:
        """The paper's, with Adam, are 0.001 for weights and 0.01 for alpha."""
        return {'alpha': 10.0}

    def tree(self) -> list[list[list[str]]]:
        """The most probable choices as a tree for ``branched``, one partition per block."""
        return grown(self.alpha.argmax(-1).tolist(), list(self.tasks))


class Mixed(nn.Module):
    """Copies of a block, weighted."""

    def __init__(self, block: nn.Module, copies: int) -> None:
        super().__init__()
        self.copies = nn.ModuleList(copy.deepcopy(block) for _ in range(copies))
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.affine = False
                module.register_parameter('weight', None)
                module.register_parameter('bias', None)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """[B,C,h,w], [copies] -> [B,C',h',w']."""
        return sum(w * block(x) for w, block in zip(weights, self.copies, strict=True))


def expected_groups(probabilities: Tensor) -> Tensor:
    """How many groups there are on every level when tasks choose independently.

    Args:
        probabilities: [levels, tasks, copies], rows sum to 1.

    Returns:
        [levels]. Groups only part: those of a level refine those of the level above.
    """
    levels, tasks, copies = probabilities.shape
    device = probabilities.device
    draws = list(itertools.product(range(copies), repeat=tasks))
    numbers = {partition: i for i, partition in enumerate(sorted(set(map(canonical, draws))))}
    partitions = list(numbers)
    kind = torch.tensor([numbers[canonical(draw)] for draw in draws], device=device)
    meets = [canonical(list(zip(p, q, strict=True))) for p in partitions for q in partitions]
    meet = torch.tensor([numbers[partition] for partition in meets], device=device)
    groups = probabilities.new_tensor([max(partition) + 1 for partition in partitions])
    index = torch.tensor(draws, device=device).T  # [tasks, draws]
    chances = torch.stack([probabilities[:, t, index[t]] for t in range(tasks)]).prod(0)
    drawn = chances.new_zeros(levels, len(numbers)).index_add(1, kind, chances)
    now, expected = drawn.new_zeros(len(numbers)), []
    now[numbers[(0,) * tasks]] = 1  # above the first level, all tasks are together
    for level in drawn:
        joint = torch.outer(now, level).flatten()
        now = torch.zeros_like(now).index_add(0, meet, joint)
        expected.append((now * groups).sum())
    return torch.stack(expected)


def canonical(labels: Sequence[object]) -> tuple[int, ...]:
    """A partition as numbers in the order of first appearance: (b, a, b) -> (0, 1, 0)."""
    seen: dict[object, int] = {}
    return tuple(seen.setdefault(label, len(seen)) for label in labels)
