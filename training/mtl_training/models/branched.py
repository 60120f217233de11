"""Branched networks: an encoder that is a tree, whose branches share what is above them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mtl_training.models.heads import survey_head
from mtl_training.models.network import Network, Plan, Predictions
from mtl_training.models.pyramids import ModelError, Pyramid

# Groups of task names, one partition per stage or per block of the backbone, from the image on.
Tree = Sequence[Sequence[Sequence[str]]]


class Branched(Network):
    """A tree-shaped encoder and one head per task (survey, Section 2.2.4).

    x_g^l = f_g^l(x_h^(l-1)),   g a group of tasks of level l, h the group above it, g within h;
    y_t   = h_t(x of the groups of t)

    ``mtl_training branch`` finds the tree: in what single-task networks see (Vandenhende et al.,
    BMVC 2020), in which images are difficult for the multi-task baseline (FAFS, Lu et al., CVPR
    2017), or in a super-net that has learned it (``bmtas``, ``ltb``). With one group it is the
    multi-task baseline, with a group per task the single-task networks.

    Differs from the papers: trees are enumerated, where Vandenhende et al. cluster and search from
    the heads on; FAFS trains between two levels of its widening, here affinities are measured once.

    Our reading: the first level includes the stem. Heads are the survey's and belong to one task.
    A branch begins as a copy of the backbone's block, as in FAFS' widening. FAFS is about
    attributes: an image is difficult for a task if its loss is above the task's mean.

    Args:
        backbone: a ResNet or EfficientNet.
        tasks: output channels by task name.
        tree: partitions of the tasks, one per stage or one per block, each within the one before.
            None: shared but for the last stage.

    Raises:
        ModelError: another kind of backbone, or partitions that do not make a tree.
    """

    def __init__(
        self, backbone: Pyramid, tasks: Mapping[str, int], *, tree: Tree | None = None
    ) -> None:
        super().__init__(tasks, mean=backbone.mean, std=backbone.std)
        stages, names = backbone.blocks(), list(tasks)
        if tree is None:
            tree = [[names]] * (len(stages) - 1) + [[[task] for task in names]]
        levels = iter(levels_of(tree, names, [len(stage) for stage in stages]))
        self.stages: Any = nn.ModuleList(
            nn.ModuleList(Level(block, next(levels)) for block in stage) for stage in stages
        )
        self.heads = nn.ModuleDict(
            {task: survey_head(backbone, channels) for task, channels in tasks.items()}
        )

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> Branched:
        """On one backbone, which is taken apart."""
        return cls(plan.pyramid(), plan.tasks, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,h,w] by task, on the heads' grid."""
        flows = dict.fromkeys(self.tasks, image)
        scales = []
        for stage in self.stages:
            for level in stage:
                flows = level(flows)
            scales.append(flows)
        return Predictions(
            {task: self.heads[task]([scale[task] for scale in scales]) for task in self.kept}
        )

    def of_one_task(self) -> list[nn.Module]:
        """The heads, and branches that have one task."""
        levels = [level for stage in self.stages for level in stage]
        return [self.heads, *(branch for level in levels for branch in level.of_one_task())]


class Level(nn.Module):
    """A block, with a copy for every group of tasks."""

    def __init__(self, block: nn.Module, groups: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self.groups = [tuple(group) for group in groups]
        self.branches = nn.ModuleList(copy.deepcopy(block) for _ in groups)

    def of_one_task(self) -> list[nn.Module]:
        """The copies for a group of one."""
        pairs = zip(self.groups, self.branches, strict=True)
        return [branch for group, branch in pairs if len(group) == 1]

    def forward(self, flows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features by task -> features by task, computed once per group."""
        outputs: dict[str, Tensor] = {}
        for group, branch in zip(self.groups, self.branches, strict=True):
            outputs |= dict.fromkeys(group, branch(flows[group[0]]))
        return outputs


def levels_of(tree: Tree, tasks: Sequence[str], blocks: Sequence[int]) -> list[list[list[str]]]:
    """One partition per block of a tree that has one per stage or one per block.

    Args:
        blocks: how many each stage has.

    Raises:
        ModelError: another number of partitions, groups that are not a partition of the tasks, or
            groups that come together again.
    """
    if len(tree) not in (len(blocks), sum(blocks)):
        raise ModelError(
            f'the tree has {len(tree)} levels; expected {len(blocks)}, one per stage, '
            f'or {sum(blocks)}, one per block'
        )
    above = [list(tasks)]
    for number, groups in enumerate(tree):
        named = [task for group in groups for task in group]
        if sorted(named) != sorted(tasks) or not all(groups):
            raise ModelError(
                f'level {number} of the tree is {groups}; expected groups of '
                f'{", ".join(tasks)}, each task once'
            )
        for group in groups:
            if not any(set(group) <= set(parent) for parent in above):
                raise ModelError(
                    f'level {number} of the tree joins {", ".join(group)}, '
                    'which the level before has parted'
                )
        above = [list(group) for group in groups]
    repeats = blocks if len(tree) == len(blocks) else [1] * len(tree)
    return [
        [list(group) for group in groups]
        for groups, count in zip(tree, repeats, strict=True)
        for _ in range(count)
    ]


def grown(choices: Sequence[Sequence[int]], tasks: Sequence[str]) -> list[list[list[str]]]:
    """The tree of what tasks choose on every level: together as long as they chose alike.

    Args:
        choices: per level, a number per task.
    """
    tree = []
    paths: list[tuple[int, ...]] = [()] * len(tasks)
    for level in choices:
        paths = [(*path, int(choice)) for path, choice in zip(paths, level, strict=True)]
        groups: dict[tuple[int, ...], list[str]] = {}
        for task, path in zip(tasks, paths, strict=True):
            groups.setdefault(path, []).append(task)
        tree.append(list(groups.values()))
    return tree


def block_macs(stages: Sequence[Sequence[nn.Module]], size: tuple[int, int]) -> list[int]:
    """Look-up table: multiply-accumulates of every block on an image of a size."""
    x, macs = torch.zeros(1, 3, *size, device='meta'), []
    for block in (block for stage in stages for block in stage):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            x = copy.deepcopy(block).to('meta').eval()(x)
        macs.append(counter.get_total_flops() // 2)
    return macs


def tree_macs(tree: Tree, macs: Sequence[int]) -> int:
    """Multiply-accumulates of the encoder of a tree with one partition per block."""
    return sum(len(groups) * cost for groups, cost in zip(tree, macs, strict=True))
