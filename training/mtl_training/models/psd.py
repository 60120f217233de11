"""PSD, pattern-structure diffusion: small structures recur within a task and across tasks.

"Pattern-Structure Diffusion for Multi-Task Learning" (Zhou et al., CVPR 2020). Only the abstract
was available: local structures are modelled as graphlets; within a task they are spread by
recursive aggregation of high order, which multiplies the scope; across tasks the structure at the
same place is transferred by how well the paired structures match; both are diffused jointly.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_training.bounds import Count
from mtl_training.models.heads import Concatenation, LastScale
from mtl_training.models.layers import ConvBNReLU
from mtl_training.models.network import Auxiliary, Network, Plan, Predictions
from mtl_training.models.pyramids import Pyramid

SIDE = 3  # k: a graphlet is a pixel and its neighbours, k x k


class PSD(Network):
    """The whole network: initial features of every task, diffusion of structures, final heads.

    Initial predictions of all tasks and of auxiliary ones are trained with the weights of the
    final ones; only ``tasks`` are predicted again.

    Our reading, as a whole: the formulas are ours (``StructureDiffusion``), and so are the widths.
    They are ATRC's (the features of all scales, conv3x3 to a quarter of their channels), beside
    which ATRC's and TIF's tables print 4.71 M and 21.1 G (four tasks, 425x560) for a version of PSD
    that was not released; this one has 4.70 M and 20.7 G.

    Args:
        backbone: pyramid with ``channels``.
        tasks: output channels by task name.
        auxiliary: of tasks that are predicted only once, for the others' sake.
        width: of the tasks' features; None: a quarter of the channels of the backbone.
        orders: steps of the diffusion; the scope is 3 ** orders pixels of the network's grid.
    """

    takes_auxiliary: ClassVar[bool] = True

    def __init__(
        self,
        backbone: Pyramid,
        tasks: Mapping[str, int],
        *,
        auxiliary: Mapping[str, int] | None = None,
        width: Count | None = None,
        orders: Count = 3,
    ) -> None:
        super().__init__(tasks, mean=backbone.mean, std=backbone.std)
        initial = {**tasks, **(auxiliary or {})}
        self.backbone = backbone
        self.front = (LastScale if backbone.dilated else Concatenation)(backbone.channels)
        width = self.front.width // 4 if width is None else width
        self.initial = nn.ModuleDict({t: ConvBNReLU(self.front.width, width, 3) for t in initial})
        self.predict = nn.ModuleDict({t: nn.Conv2d(width, c, 1) for t, c in initial.items()})
        self.diffusion = StructureDiffusion(initial, width, orders)
        self.final = nn.ModuleDict(
            {
                task: nn.Sequential(ConvBNReLU(width, width, 3), nn.Conv2d(width, c, 1))
                for task, c in tasks.items()
            }
        )

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> PSD:
        """On one backbone."""
        return cls(plan.pyramid(), plan.tasks, auxiliary=plan.auxiliary, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,h,w], h = H/8 (dilated ResNets) or H/4."""
        shared = self.front(self.backbone(image))  # [B, C, h, w]
        features = {task: refine(shared) for task, refine in self.initial.items()}
        initial = {task: self.predict[task](f) for task, f in features.items()}
        diffused = self.diffusion(features)
        final = {task: head(diffused[task]) for task, head in self.final.items()}
        return Predictions(final, [Auxiliary(initial)])

    def of_one_task(self) -> list[nn.Module]:
        """What makes predictions."""
        return [self.final, self.predict]

    def shared_features(self) -> list[nn.Module]:
        """The front, which has one feature for all tasks."""
        return [self.front]


class StructureDiffusion(nn.Module):
    """Intra-task and inter-task diffusion of structures.

    S_t(p)    = softmax_q <E_t(p), E_t(q)> / sqrt(D),  q the 3x3 neighbours of p     graphlet
    m_ts(p)   = cos(S_t(p), S_s(p))                                         matching degree
    R_t(p)    = (S_t(p) + sum_{s != t} m_ts(p) S_s(p)) / (1 + sum_{s != t} m_ts(p))
    F_t(p)   <- F_t(p) + gamma_t (sum_q R_t(p, q) F_t(q) - F_t(p))

    E_t = conv1x1(F_t). The last line is repeated, ``orders`` times; the neighbours are 1, 3, 9 ..
    pixels apart, so that the scope is 3, 9, 27 .. pixels wide: multiplied with every order.
    gamma_t is learned, one per task and order, and starts at a half.

    Our reading, all of it: see the module's docstring.
    """

    def __init__(self, tasks: Mapping[str, int], width: int, orders: int) -> None:
        super().__init__()
        self.embed = nn.ModuleDict({task: nn.Conv2d(width, width, 1) for task in tasks})
        self.gamma = nn.ParameterDict({t: nn.Parameter(torch.full((orders,), 0.5)) for t in tasks})
        self.distances = [SIDE**order for order in range(orders)]

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """F_t [B,D,h,w] by task -> F_t [B,D,h,w] by task."""
        spread = dict(features)
        for order, distance in enumerate(self.distances):
            graphlets = {t: graphlet(self.embed[t](f), distance) for t, f in spread.items()}
            spread = {
                t: f + self.gamma[t][order] * (aggregate(f, transfer(graphlets, t), distance) - f)
                for t, f in spread.items()
            }
        return spread


def graphlet(embedding: Tensor, distance: int) -> Tensor:
    """E [B,D,h,w] -> S [B,9,h,w]: affinities of every pixel to its neighbours, which sum to one."""
    scale = embedding.shape[1] ** -0.5
    products = [(embedding * x).sum(1) * scale for x in neighbours(embedding, distance)]
    return torch.stack(products, dim=1).softmax(1)


def transfer(graphlets: Mapping[str, Tensor], task: str) -> Tensor:
    """S [B,9,h,w] by task -> R [B,9,h,w] of one task, which sums to one."""
    own = graphlets[task]
    others = [structure for name, structure in graphlets.items() if name != task]
    degrees = [F.cosine_similarity(own, other, dim=1)[:, None] for other in others]
    total = sum((m * other for m, other in zip(degrees, others, strict=True)), own)
    return total / sum(degrees, 1.0)


def aggregate(features: Tensor, structure: Tensor, distance: int) -> Tensor:
    """F [B,D,h,w], R [B,9,h,w] -> sum_q R(p, q) F(q) [B,D,h,w]."""
    weights = structure.split(1, dim=1)
    return sum(w * x for w, x in zip(weights, neighbours(features, distance), strict=True))


def neighbours(x: Tensor, distance: int) -> list[Tensor]:
    """[B,C,h,w] -> 9 of [B,C,h,w], row by row; beyond the border are zeros."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (distance, distance, distance, distance))
    steps = range(0, SIDE * distance, distance)
    return [
        padded[..., top : top + height, left : left + width]
        for top, left in itertools.product(steps, steps)
    ]
