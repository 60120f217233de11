"""LTB: learning where to branch, parents chosen by their children (ICML 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_training.bounds import Amount, Count
from mtl_training.models.branched import block_macs, grown
from mtl_training.models.heads import survey_head
from mtl_training.models.network import Plan, Predictions
from mtl_training.models.pyramids import Pyramid
from mtl_training.models.super_net import SuperNet


class LTB(SuperNet):
    """Learning to branch (Guo, Lee & Ulbricht, ICML 2020).

    Every level has as many nodes as there are tasks. A node j of level l+1 samples its parent i
    among the nodes of level l; so does every task among the nodes of the last level:

    x_j^(l+1) = sum_i d_ij y_i^l,   y_j^(l+1) = f_j^(l+1)(x_j^(l+1))
    d_j       = Gumbel-softmax(log theta_j, tau), one-hot forward, soft backward

    What is reached from the tasks is a tree: ``tree()``, to be trained as ``branched``. Where BMTAS
    runs a task's features through the mixture of all blocks (tasks^2 blocks per level), here a node
    runs once for all its children (tasks blocks per level).

    Differs from the paper: the backbone and heads are ours. A node passes on the features of the
    stages above it, for heads that look at several scales.

    Our reading, after LibMTL's: samples are one-hot; tau = 10 / sqrt(e + 1) with e in 200 epochs;
    in a warm-up, a hundredth of the training, all parents count alike. A cost of the expected
    number of nodes in use, which the survey mentions, is an option; nodes are taken as independent,
    which is exact once the choices are.

    Args:
        backbones: one per task; the nodes of a level are the blocks of all.
        tasks: output channels by task name.
        size: height and width that costs are of.
        cost_weight: factor of the expected cost in GFLOP (two per multiply-accumulate).
        steps: of the whole search.
    """

    warm_up: ClassVar[float] = 0.01

    def __init__(
        self,
        backbones: Sequence[Pyramid],
        tasks: Mapping[str, int],
        *,
        size: tuple[int, int] = (512, 512),
        cost_weight: Amount = 0.0,
        steps: Count = 40_000,
    ) -> None:
        first = backbones[0]
        super().__init__(
            tasks, mean=first.mean, std=first.std, cost_weight=cost_weight, steps=steps
        )
        chains = [backbone.blocks() for backbone in backbones]
        self.stages: Any = nn.ModuleList(
            nn.ModuleList(nn.ModuleList(nodes) for nodes in zip(*stages, strict=True))
            for stages in zip(*chains, strict=True)
        )
        self.heads = nn.ModuleDict(
            {task: survey_head(first, channels) for task, channels in tasks.items()}
        )
        self.macs = block_macs(chains[0], size)
        # [choices, children, parents]: of the levels after the first, then of the tasks
        self.theta = nn.Parameter(torch.zeros(len(self.macs), len(tasks), len(tasks)))

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> LTB:
        """On a backbone for every task."""
        return cls(list(plan.pyramids().values()), plan.tasks, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,h,w] by task, of a sampled tree."""
        parents, scales = iter(self.sample()), []
        x = image.expand(len(self.tasks), *image.shape)  # [nodes, B, 3, H, W]
        for stage in self.stages:
            scales.append(x)  # what enters the stage, until its blocks have run
            for nodes in stage:
                scales[-1] = torch.stack([f(x) for f, x in zip(nodes, scales[-1], strict=True)])
                choice = next(parents)
                scales = [inherit(choice, scale) for scale in scales]
            x = scales[-1]
        return Predictions(
            {
                task: head([scale[index] for scale in scales])
                for index, (task, head) in enumerate(self.heads.items())
            }
        )

    def sample(self) -> Tensor:
        """d [choices, children, parents], rows one-hot; in the warm-up all parents alike."""
        tau = 10 / (200 * self.done + 1).sqrt()
        alike = torch.full_like(self.theta, 1 / len(self.tasks))
        choices = F.gumbel_softmax(self.theta, tau, hard=True)  # type: ignore[arg-type]  # not a float
        return torch.where(self.searching, choices, alike)

    def expected_macs(self) -> Tensor:
        """Expected multiply-accumulates of the nodes that lead to a task."""
        used, total = torch.ones_like(self.theta[0, 0]), torch.zeros_like(self.theta[0, 0, 0])
        for probabilities, macs in zip(
            self.theta.softmax(-1).flip(0), reversed(self.macs), strict=True
        ):
            used = 1 - (1 - used[:, None] * probabilities).prod(0)  # by at least one child
            total = total + macs * used.sum()
        return total

    def learning_rates(self, *, adaptive: bool) -> dict[str, float]:
        """Choices learn ten times as fast as weights, as in BMTAS."""
        return {'theta': 10.0}

    def tree(self) -> list[list[list[str]]]:
        """The most probable parents as a tree for ``branched``, one partition per block."""
        nodes, choices = list(range(len(self.tasks))), []
        for parents in self.theta.argmax(-1).flip(0).tolist():
            nodes = [parents[node] for node in nodes]
            choices.append(nodes)
        return grown(choices[::-1], list(self.tasks))


def inherit(choice: Tensor, x: Tensor) -> Tensor:
    """What children get: d [children, parents], features [parents,B,C,h,w] -> [children,...]."""
    return torch.einsum('ji,ibchw->jbchw', choice, x)
