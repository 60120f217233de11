"""Searches for a tree: affinities that are known, trees that are the best."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mtl_training.checkpoints.checkpoint import (
    build_network,
    describe_run,
    load_checkpoint,
    save_checkpoint,
)
from mtl_training.checkpoints.config import load_config
from mtl_training.cli import main
from mtl_training.loop.train import train
from mtl_training.models import Network, build
from mtl_training.models.backbones import BACKBONES, pyramid
from mtl_training.models.pyramids import ResNetPyramid
from mtl_training.papers import PapersError
from mtl_training.papers.branching import representations
from mtl_training.papers.trees import (
    affinity,
    agreement,
    all_partitions,
    branch_affinity,
    clusters,
    difficulty,
    dissimilarity,
    named,
    refines,
    search,
    separation,
    spread,
    widen,
)

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'
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
    with pytest.raises(PapersError, match='the budget is 3; expected at least 4'):
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


@pytest.fixture
def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Network]:
    """Writes a checkpoint of a network with random weights; its backbone has five blocks."""
    small = {'layers': (2, 1, 1, 1), 'channels': (8, 8, 8, 8), 'out_indices': (1, 2, 3, 4)}
    monkeypatch.setitem(BACKBONES, 'small', (ResNetPyramid, 'resnet18', small))

    def write(system: str) -> Network:
        config = load_config(TINY, ['run.validate_every=0', 'run.picture_every=0'])
        model = dataclasses.replace(config.model, system=system, backbone='small', options={})
        config = dataclasses.replace(config, model=model)
        torch.manual_seed(1)
        net = build_network(config, pretrained=False).eval()
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if parameter.ndim == 4 or name in ('alpha', 'theta'):
                    parameter.normal_()
        if system == 'single_task':  # these two see the same
            net.backbones['edges'].load_state_dict(net.backbones['semantic'].state_dict())
        tensors = {f'net.{name}': tensor for name, tensor in net.state_dict().items()}
        save_checkpoint(tmp_path / 'searched', tensors, describe_run(config, net, 0, {}))
        return net

    return write


@pytest.mark.parametrize('system', ['bmtas', 'ltb'])
def test_what_a_super_net_found_is_trained_as_a_branched_network(
    system: str,
    searched: Callable[[str], Network],
    rooms: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree = searched(system).tree()
    out = tmp_path / 'branched.yaml'
    assert main(['branch', str(tmp_path / 'searched'), '--out', str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[4] == 'level 4: ' + ' | '.join(' '.join(group) for group in tree[4])
    config = load_config(out, ['optim.max_steps=1'])
    assert config.model.options == {'tree': tree}
    assert (config.name, config.model.backbone) == ('tiny_branched', 'small')
    trained = load_checkpoint(train(config, rooms, tmp_path / 'run'))[0]
    widths = [len(level.branches) for stage in trained.stages for level in stage]
    assert widths == [len(groups) for groups in tree]
    assert widths[-1] > 1


def test_single_task_networks_part_as_far_as_the_budget_goes(
    searched: Callable[[str], Network],
    rooms: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    searched('single_task')
    words = ['branch', str(tmp_path / 'searched'), '--data', str(rooms), '--out']
    pair_and_two = [['semantic', 'edges'], ['depth'], ['normals']]
    for budget, last in (('1', SHARED), ('4', pair_and_two)):
        out = tmp_path / f'{budget}.yaml'
        assert main([*words, str(out), '--budget', budget]) == 0
        tree = load_config(out).model.options['tree']
        assert (len(tree), tree[-1]) == (4, last)
        found = re.search(r'costs (.*) encoders, 4 apart', capsys.readouterr().out)
        assert found
        assert 1 <= float(found[1]) <= float(budget)
    assert main([*words, str(tmp_path / 'half.yaml'), '--budget', '0.5']) == 1
    assert 'expected at least' in capsys.readouterr().err
    assert not (tmp_path / 'half.yaml').exists()


def test_a_shared_encoder_is_widened_as_far_as_it_is_worth(
    searched: Callable[[str], Network], rooms: Path, tmp_path: Path
) -> None:
    pytest.importorskip('sklearn')
    searched('mtl_baseline')
    words = ['branch', str(tmp_path / 'searched'), '--data', str(rooms), '--out']
    for weight, widths in (('0', [1, 1, 1, 1]), ('1000', [4, 4, 4, 4])):
        out = tmp_path / f'{weight}.yaml'
        assert main([*words, str(out), '--weight', weight]) == 0
        tree = load_config(out).model.options['tree']
        assert [len(groups) for groups in tree] == widths


def test_what_cannot_be_branched_is_one_line(
    searched: Callable[[str], Network], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['branch', str(tmp_path / 'searched'), '--out', str(tmp_path / 'a.yaml')]
    for system, complaint in (
        ('single_task', 'single_task is measured on images; expected --data'),
        ('psd', 'is of psd; expected one of bmtas, ltb, single_task, mtl_baseline'),
    ):
        searched(system)
        assert main(words) == 1
        error = capsys.readouterr().err
        assert complaint in error
        assert error.count('\n') == 1
    assert not (tmp_path / 'a.yaml').exists()
