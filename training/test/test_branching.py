"""Searches for a tree: affinities that are known, trees that are the best."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from mtl_training.branching import (
    BranchingError,
    affinity,
    agreement,
    all_partitions,
    branch_affinity,
    clusters,
    difficulty,
    dissimilarity,
    named,
    refines,
    representations,
    search,
    separation,
    spread,
    widen,
)
from mtl_training.models import build
from mtl_training.models.backbones import BACKBONES, ResNetPyramid, pyramid

TASKS = ['semantic', 'depth', 'normals', 'edges']
# semantic and edges are alike, depth and normals are; the pairs differ more with every level.
PAIRS = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]], dtype=float)
AFFINITY = np.stack([PAIRS * far + (1 - far) for far in (0.1, 0.2, 0.6, 0.9)])
AFFINITY = np.where(np.eye(4, dtype=bool), 1, AFFINITY - 0.02)
SHARED, APART = [TASKS], [[task] for task in TASKS]
TWO = [['semantic', 'edges'], ['depth', 'normals']]


def test_identical_representations_have_affinity_one() -> None:
    rng = np.random.default_rng(0)
    seen, other = rng.normal(size=(8, 40)), rng.normal(size=(8, 40))
    first, second = dissimilarity(seen), dissimilarity(other)
    # scale and shift of an image's features change nothing
    again = dissimilarity(3 * seen + rng.normal(size=(8, 1)))
    matrix = affinity({'a': [first], 'b': [again], 'c': [second]})[0]
    assert matrix[0, 1] == pytest.approx(1)
    assert np.diag(matrix) == pytest.approx(1)
    assert abs(matrix[0, 2]) < 0.5
    assert np.allclose(matrix, matrix.T)
    assert np.diag(first) == pytest.approx(0)


def test_affinity_of_backbones_falls_where_they_part(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {'layers': (1, 1, 1, 1), 'channels': (8, 16, 16, 16), 'out_indices': (1, 2, 3, 4)}
    monkeypatch.setitem(BACKBONES, 'small', (ResNetPyramid, 'resnet18', small))
    torch.manual_seed(0)
    one, two = pyramid('small').eval(), pyramid('small').eval()
    two.load_state_dict(one.state_dict())
    for parameter in two.net.layer3.parameters():
        torch.nn.init.normal_(parameter)
    batches = [torch.rand(3, 3, 32, 64) for _ in range(3)]
    stages = {
        name: [dissimilarity(x) for x in representations(net, batches)]
        for name, net in {'a': one, 'b': two}.items()
    }
    assert stages['a'][0].shape == (9, 9)
    affinities = affinity(stages)[:, 0, 1]
    assert affinities[:2] == pytest.approx(1)
    assert affinities[2:].max() < 0.999


@pytest.mark.parametrize(
    ('budget', 'tree'),
    [
        (4, [SHARED] * 4),
        (5, [SHARED, SHARED, SHARED, TWO]),
        (6, [SHARED, SHARED, TWO, TWO]),
        (16, [APART] * 4),
    ],
)
@pytest.mark.parametrize('beam', [None, 20])
def test_search_finds_the_known_best_tree(budget: float, tree: object, beam: int | None) -> None:
    found = search(AFFINITY, TASKS, [1, 1, 1, 1], budget, beam=beam)
    assert found == tree
    assert build_on_meta(found)


def test_search_is_as_good_as_trying_everything() -> None:
    rng = np.random.default_rng(3)
    raw = rng.uniform(size=(3, 4, 4))
    affinities = np.where(np.eye(4, dtype=bool), 1, (raw + raw.transpose(0, 2, 1)) / 2)
    costs, budget = [1.0, 2.0, 4.0], 15.0
    best = min(
        (sum(spread(a, p) for a, p in zip(affinities, path, strict=True)), path)
        for path in itertools.product(all_partitions(4), repeat=3)
        if refines(path[1], path[0])
        and refines(path[2], path[1])
        and sum(c * (max(p) + 1) for c, p in zip(costs, path, strict=True)) <= budget
    )
    assert search(affinities, TASKS, costs, budget) == [named(p, TASKS) for p in best[1]]


def test_budgets_that_are_too_small_are_told() -> None:
    with pytest.raises(BranchingError, match='the budget is 3; expected at least 4'):
        search(AFFINITY, TASKS, [1, 1, 1, 1], 3)


def test_partitions_are_counted_by_bell() -> None:
    assert [len(all_partitions(n)) for n in range(1, 6)] == [1, 2, 5, 15, 52]


def test_agreement_is_the_share_of_images_that_are_alike() -> None:
    losses = np.array([[1.0, 2, 9], [1, 2, 1], [5, 7, 9], [5, 7, 1]])
    difficult = difficulty(losses)
    assert difficult.tolist() == [[0, 0, 1], [0, 0, 0], [1, 1, 1], [1, 1, 0]]
    assert agreement(difficult).tolist() == [[1, 1, 0.5], [1, 1, 0.5], [0.5, 0.5, 1]]


def test_separation_and_branches_follow_their_definitions() -> None:
    matrix = np.array([[1, 0.8, 0.2], [0.8, 1, 0.4], [0.2, 0.4, 1]])
    assert separation(matrix, (0, 1, 2)) == 0
    assert separation(matrix, (0, 0, 1)) == pytest.approx((0.2 + 0) / 2)
    assert separation(matrix, (0, 0, 0)) == pytest.approx(1 - (0.2 + 0.4 + 0.2) / 3)
    branches = branch_affinity(matrix, [[0, 1], [2]])
    assert branches[0, 1] == pytest.approx(((0.2 + 0.4) / 2 + 0.2) / 2)


def test_widening_parts_the_pairs_from_the_heads_on() -> None:
    pytest.importorskip('sklearn')
    matrix = AFFINITY[3]
    assert named(clusters(matrix, 2), TASKS) == TWO
    # branches near the image cost more (twice per pooling, as in the paper)
    tree = widen(matrix, TASKS, [0.95, 0.4, 0.2, 0.1])
    assert tree == [SHARED, TWO, TWO, TWO]
    assert build_on_meta(tree)


def test_widening_shares_all_where_branches_are_dear_and_nothing_where_they_are_free() -> None:
    pytest.importorskip('sklearn')
    assert widen(AFFINITY[3], TASKS, [9, 9, 9, 9]) == [SHARED] * 4
    assert widen(AFFINITY[3], TASKS, [0, 0, 0, 0]) == [APART] * 4


def build_on_meta(tree: object) -> bool:
    with torch.device('meta'):
        return bool(build('branched', 'resnet18', dict.fromkeys(TASKS, 1), tree=tree))
