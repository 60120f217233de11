"""`mtl_training branch`: a tree of tasks from a checkpoint, as a configuration of ``branched``.

The super-nets ``bmtas`` and ``ltb`` have learned the tree. Two ways measure first:

- Vandenhende et al., BMVC 2020: ``representations`` of single-task networks, ``dissimilarity`` of
  images in them, ``affinity`` of tasks, then ``search`` for the best tree within a budget.
- FAFS (Lu et al., CVPR 2017): ``difficulty`` of images for tasks, ``agreement`` of tasks, then
  ``widen`` from the heads towards the image.

All end with a tree that ``models.branched.Branched`` takes. To measure needs the extra
``branching``.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from mtl_perception.files import write_beside
from mtl_training import TrainingError
from mtl_training.datasets.rooms import Batch, Rooms, list_frames, loader
from mtl_training.evaluation.evaluate import normalise, thin_out
from mtl_training.loop.checkpoint import config_tasks, load_checkpoint
from mtl_training.loop.config import Config, from_mapping
from mtl_training.models import Network
from mtl_training.models.backbones import pyramid
from mtl_training.models.bmtas import canonical
from mtl_training.models.branched import Tree, block_macs, levels_of, tree_macs
from mtl_training.tasks.losses import multi_task_loss

Array = NDArray[np.float64]
Partition = tuple[int, ...]  # the number of its group for every task, in order of appearance


class BranchingError(TrainingError):
    """A search that cannot be made or has no result, in one sentence."""


@torch.no_grad()
def representations(backbone: nn.Module, batches: Iterable[Tensor]) -> list[Array]:
    """What a single-task backbone makes of images, at every branching point.

    Args:
        backbone: image -> features of all stages.
        batches: normalised images [B,3,H,W], all of one size.

    Returns:
        One [images, features] per stage.
    """
    seen = [[x.flatten(1).cpu() for x in backbone(batch)] for batch in batches]
    return [torch.cat(stage).double().numpy() for stage in zip(*seen, strict=True)]


def dissimilarity(features: Array) -> Array:
    """1 - Pearson's correlation between the features of any two images: [K, D] -> [K, K]."""
    return 1 - np.corrcoef(features)


def affinity(stages: Mapping[str, Sequence[Array]]) -> Array:
    """How alike tasks see images (representation similarity analysis, Dwivedi & Roig 2019).

    A_d(i, j) = Spearman's correlation of the upper triangles of the dissimilarities of i and j
    at branching point d.

    Args:
        stages: ``dissimilarity`` [K, K] per branching point, by task.

    Returns:
        [points, tasks, tasks], symmetric, ones on the diagonal.
    """
    from scipy.stats import spearmanr

    points = []
    for matrices in zip(*stages.values(), strict=True):
        upper = np.triu_indices(len(matrices[0]), k=1)
        triangles = [matrix[upper] for matrix in matrices]
        pairs = [[spearmanr(a, b).statistic for b in triangles] for a in triangles]
        points.append(np.array(pairs, dtype=np.float64))
    return np.stack(points)


def search(
    affinities: Array,
    tasks: Sequence[str],
    costs: Sequence[float],
    budget: float,
    *,
    beam: int | None = None,
) -> list[list[list[str]]]:
    """The tree whose groups are most alike among those that cost no more than the budget.

    Cost of a partition (clusters of Vandenhende et al.): the mean over its groups of the greatest
    dissimilarity 1 - A_d(i, j) within the group; summed over the branching points d. The search
    goes from the image to the heads and keeps the ``beam`` best beginnings of each level.

    Differs from the paper: partitions are enumerated, not sampled by spectral clustering, so that
    without a beam the result is the best there is. The paper searches from the heads backwards.

    Args:
        affinities: [levels, tasks, tasks].
        costs: of one branch per level, such as parameters or multiply-accumulates of a stage.
        budget: of the encoder, in the same unit.
        beam: beginnings kept; None keeps all.

    Raises:
        BranchingError: not even one shared encoder is within the budget.
    """
    if len(affinities) != len(costs):
        raise BranchingError(
            f'{len(costs)} costs for {len(affinities)} branching points; expected as many'
        )
    partitions = all_partitions(len(tasks))
    shared = (0,) * len(tasks)
    rest = np.cumsum([0.0, *reversed(costs)])[::-1]  # of the levels from here on, all shared
    beginnings: list[tuple[float, float, tuple[Partition, ...]]] = [(0.0, 0.0, ())]
    for level, matrix in enumerate(affinities):
        spreads = {partition: spread(matrix, partition) for partition in partitions}
        grown = [
            (loss + spreads[p], cost + count(p) * costs[level], (*path, p))
            for loss, cost, path in beginnings
            for p in partitions
            if refines(p, path[-1] if path else shared)
        ]
        # What follows has at least as many groups as this level.
        affordable = [
            (loss, cost, path)
            for loss, cost, path in grown
            if cost + count(path[-1]) * rest[level + 1] <= budget * (1 + 1e-9)
        ]
        beginnings = sorted(affordable)[:beam]
    if not beginnings:
        raise BranchingError(
            f'the budget is {budget:g}; expected at least {rest[0]:g}, the cost of one encoder'
        )
    return [named(partition, tasks) for partition in beginnings[0][2]]


def spread(matrix: Array, partition: Partition) -> float:
    """Mean over groups of the greatest dissimilarity 1 - A(i, j) of two of a group."""
    groups = [np.flatnonzero(np.equal(partition, g)) for g in range(count(partition))]
    return float(np.mean([1 - matrix[np.ix_(group, group)].min() for group in groups]))


def difficulty(losses: Array) -> NDArray[np.bool_]:
    """Whether an image is difficult for a task: its loss is above the task's mean.

    Args:
        losses: [images, tasks].

    Our reading: FAFS is about attributes, and its margin is |label - score|; in dense prediction
    that is the loss of the image.
    """
    return losses >= losses.mean(axis=0)


def agreement(difficult: NDArray[np.bool_]) -> Array:
    """A(i, j): the share of images that are difficult, or easy, for both (FAFS).

    Args:
        difficult: [images, tasks].
    """
    e = difficult.astype(np.float64)
    return (e.T @ e + (1 - e).T @ (1 - e)) / len(e)


def widen(
    tasks_affinity: Array,
    tasks: Sequence[str],
    costs: Sequence[float],
    *,
    weight: float = 1.0,
    seed: int = 0,
) -> list[list[list[str]]]:
    """Fully-adaptive feature sharing: widen the thin network from the heads to the image.

    On the active level, the d branches above become the g that minimise

    (g - 1) c_l + weight * mean_b (1 - mean_{k in b} min_{l in b} A(k, l)),   A(k, l) of branches:
    the symmetrised mean over tasks of k of the least affinity with a task of l.

    The level below is the next; where all share one branch, the rest is shared.

    Differs from the paper: nothing is trained between two levels, so that affinities are those of
    the tasks throughout; the paper's c_l are L_0 2^p, p the poolings above l.

    Args:
        tasks_affinity: ``agreement`` [tasks, tasks].
        costs: c_l of creating a branch on each level, from the image on.
        weight: alpha, what separation is worth.
        seed: of the spectral clustering.
    """
    branches = [[index] for index in range(len(tasks))]  # the heads
    tree: list[list[list[str]]] = []
    for cost in reversed(costs):
        matrix = branch_affinity(tasks_affinity, branches)
        labels = min(
            (clusters(matrix, groups, seed) for groups in range(1, len(branches) + 1)),
            key=lambda p: (count(p) - 1) * cost + weight * separation(matrix, p),
        )
        branches = [
            sorted(
                task for b, label in zip(branches, labels, strict=True) if label == g for task in b
            )
            for g in range(count(labels))
        ]
        tree.insert(0, [[tasks[task] for task in branch] for branch in branches])
    return tree


def branch_affinity(matrix: Array, branches: Sequence[Sequence[int]]) -> Array:
    """Affinity of groups of tasks: mean over one of the least with the other, symmetrised."""
    one_sided = [[matrix[np.ix_(k, m)].min(axis=1).mean() for m in branches] for k in branches]
    values = np.array(one_sided, dtype=np.float64)
    return (values + values.T) / 2


def separation(matrix: Array, partition: Partition) -> float:
    """mean_b (1 - mean_{k in b} min_{l in b} A(k, l)): how unlike those are that share."""
    groups = [np.flatnonzero(np.equal(partition, g)) for g in range(count(partition))]
    return float(np.mean([1 - matrix[np.ix_(g, g)].min(axis=1).mean() for g in groups]))


def clusters(matrix: Array, groups: int, seed: int = 0) -> Partition:
    """Spectral clustering of an affinity; all together or all apart needs none.

    Raises:
        BranchingError: scikit-learn is not installed.
    """
    if groups == 1:
        return (0,) * len(matrix)
    if groups == len(matrix):
        return tuple(range(groups))
    try:
        from sklearn.cluster import SpectralClustering
    except ImportError as error:
        raise BranchingError(
            "spectral clustering needs scikit-learn: pip install 'mtl-training[branching]'"
        ) from error
    model: Any = SpectralClustering(groups, affinity='precomputed', random_state=seed)
    return canonical(model.fit_predict(matrix).tolist())


def all_partitions(tasks: int) -> list[Partition]:
    """All ways to group tasks: 1, 2, 5, 15, 52, 203 for 1 to 6 of them."""
    return sorted(set(map(canonical, itertools.product(range(tasks), repeat=tasks))))


def refines(fine: Partition, coarse: Partition) -> bool:
    """Whether every group of ``fine`` is within one of ``coarse``."""
    return canonical(list(zip(fine, coarse, strict=True))) == fine


def count(partition: Partition) -> int:
    """The number of groups."""
    return max(partition) + 1


def named(partition: Partition, tasks: Sequence[str]) -> list[list[str]]:
    """Groups of names."""
    return [
        [task for task, label in zip(tasks, partition, strict=True) if label == group]
        for group in range(count(partition))
    ]


@dataclass(frozen=True)
class Measuring:
    """What a tree is measured with.

    Attributes:
        data: folder whose validation frames are looked at.
        frames: how many of them.
        budget: multiply-accumulates of the tree, those of one encoder being 1.
        weight: alpha of ``widen``.
    """

    data: Path | None = None
    frames: int = 100
    budget: float = 1.5
    weight: float = 1.0

    def batches(self, config: Config) -> Iterator[Batch]:
        """Validation frames, one by one, at the size of a configuration.

        Raises:
            BranchingError: there is no folder.
        """
        if self.data is None:
            raise BranchingError(f'{config.model.system} is measured on images; expected --data')
        data, tasks = config.data, config.tasks
        frames = thin_out(list_frames(self.data / 'val'), self.frames)
        rooms = Rooms(
            frames,
            tasks,
            height=data.height,
            width=data.width,
            canonical_focal=data.canonical_focal,
        )
        yield from loader(rooms, 0, batch_size=1)


def learned(net: Network, config: Config, measuring: Measuring) -> Tree:
    """What a super-net has found."""
    return net.tree()


def by_representations(net: Network, config: Config, measuring: Measuring) -> Tree:
    """The best tree within the budget, by what single-task networks make of images."""
    images = [normalise(b['image'], net.mean, net.std) for b in measuring.batches(config)]
    stages = {
        task: [dissimilarity(stage) for stage in representations(backbone, images)]
        for task, backbone in net.backbones.items()
    }
    stages_of = net.backbones[config.tasks[0]].blocks()
    macs = iter(block_macs(stages_of, (config.data.height, config.data.width)))
    costs = [float(sum(itertools.islice(macs, len(stage)))) for stage in stages_of]
    return search(affinity(stages), config.tasks, costs, measuring.budget * sum(costs))


@torch.no_grad()
def by_difficulty(net: Network, config: Config, measuring: Measuring) -> Tree:
    """FAFS from a network that shares its encoder: its thin network, trained.

    c_l = 2^p / 10, p the halvings of the grid after stage l. Our reading: the tenth, beside which
    ``weight`` is counted.
    """
    tasks, losses = config_tasks(config), []
    for batch in measuring.batches(config):
        predictions = net.predictions(normalise(batch['image'], net.mean, net.std))
        of_image = multi_task_loss(predictions.final, batch, tasks)
        losses.append([of_image[task].item() for task in tasks])
    strides = net.backbone.net.feature_info.reduction()
    costs = [strides[-1] / stride / 10 for stride in strides]
    agreed = agreement(difficulty(np.array(losses)))
    return widen(agreed, config.tasks, costs, weight=measuring.weight)


# The system of a checkpoint -> how a tree is found in it.
WAYS: dict[str, Callable[[Network, Config, Measuring], Tree]] = {
    'bmtas': learned,
    'ltb': learned,
    'single_task': by_representations,
    'mtl_baseline': by_difficulty,
}


def branched(config: Mapping[str, Any], tree: Tree) -> dict[str, Any]:
    """The configuration of a run, as plain data, with a branched network in place of its own."""
    model = {**config['model'], 'system': 'branched', 'options': {'tree': tree}}
    return {**config, 'name': f'{config["name"]}_branched', 'model': model}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mtl_training branch`."""
    usual = Measuring()
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', type=Path, help=f'of one of: {", ".join(WAYS)}'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='YAML')
    parser.add_argument('--data', type=Path, help='for single_task and mtl_baseline: the rooms')
    parser.add_argument(
        '--frames', type=int, default=usual.frames, help='of data to look at (default: %(default)s)'
    )
    parser.add_argument(
        '--budget',
        type=float,
        default=usual.budget,
        help='for single_task: cost of the tree in encoders (default: %(default)s)',
    )
    parser.add_argument(
        '--weight',
        type=float,
        default=usual.weight,
        help='for mtl_baseline: alpha, what parting unlike tasks is worth (default: %(default)s)',
    )


def run(args: argparse.Namespace) -> int:
    """Find the tree, write the configuration and say what the tree is and costs.

    Raises:
        BranchingError: a system in which no tree can be found, or an output that cannot be written.
    """
    net, meta = load_checkpoint(args.checkpoint)
    config = from_mapping(Config, meta['config'])
    if config.model.system not in WAYS:
        raise BranchingError(
            f'{args.checkpoint} is of {config.model.system}; expected one of {", ".join(WAYS)}'
        )
    stages = pyramid(config.model.backbone).blocks()
    measuring = Measuring(args.data, args.frames, args.budget, args.weight)
    tree = WAYS[config.model.system](net, config, measuring)
    macs = block_macs(stages, (config.data.height, config.data.width))
    levels = levels_of(tree, config.tasks, [len(stage) for stage in stages])
    text = yaml.safe_dump(branched(meta['config'], tree), sort_keys=False, default_flow_style=None)
    try:
        write_beside(args.out, text.encode())
    except OSError as error:
        raise BranchingError(f'{args.out} cannot be written: {error.strerror}') from error
    for number, groups in enumerate(tree):
        print(f'level {number}: ' + ' | '.join(' '.join(group) for group in groups))
    print(
        f'{args.out}: the tree costs {tree_macs(levels, macs) / sum(macs):.2f} encoders, '
        f'{len(config.tasks)} apart'
    )
    return 0
