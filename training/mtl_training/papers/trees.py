"""How alike tasks are, and the tree of tasks that follows: the mathematics of branching.

- Vandenhende et al., BMVC 2020: ``dissimilarity`` of images in single-task networks, ``affinity``
  of tasks, then ``search`` for the best tree within a budget.
- FAFS (Lu et al., CVPR 2017): ``difficulty`` of images for tasks, ``agreement`` of tasks, then
  ``widen`` from the heads towards the image.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from mtl_training.models.bmtas import canonical
from mtl_training.papers import PapersError

Array = NDArray[np.float64]
Partition = tuple[int, ...]  # the number of its group for every task, in order of appearance


def dissimilarity(features: Array) -> Array:
    """1 - Pearson's correlation between the features of any two images: [K, D] -> [K, K]."""
    return np.asarray(1 - np.corrcoef(features))


def affinity(stages: Mapping[str, Sequence[Array]]) -> Array:
    """How alike tasks see images (representation similarity analysis, Dwivedi & Roig 2019).

    A_d(i, j) = Spearman's correlation of the upper triangles of the dissimilarities of i and j
    at branching point d.

    Args:
        stages: ``dissimilarity`` [K, K] per branching point, by task.

    Returns:
        [points, tasks, tasks], symmetric, ones on the diagonal.
    """
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
        PapersError: not even one shared encoder is within the budget.
    """
    if len(affinities) != len(costs):
        raise PapersError(
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
        raise PapersError(
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
        PapersError: scikit-learn is not installed.
    """
    if groups == 1:
        return (0,) * len(matrix)
    if groups == len(matrix):
        return tuple(range(groups))
    try:
        from sklearn.cluster import SpectralClustering
    except ImportError as error:
        raise PapersError(
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
