"""Branched networks: trees between one encoder and one per task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mtl_training.checkpoints.config import OptimConfig
from mtl_training.deploy import DeployError
from mtl_training.deploy.export import export
from mtl_training.loop.optimizer import make_optimizer
from mtl_training.models import SYSTEMS, ModelError, Network, build
from mtl_training.models.backbones import BACKBONES, pyramid
from mtl_training.models.bmtas import BMTAS
from mtl_training.models.branched import Branched, block_macs, grown, tree_macs
from mtl_training.models.ltb import LTB
from mtl_training.models.pyramids import ResNetPyramid
from mtl_training.papers.describe import describe
from torch import nn

TASKS = {'semantic': 5, 'depth': 1, 'normals': 3}
NAMES = list(TASKS)
SMALL = {'layers': (2, 1, 1, 2), 'channels': (16, 32, 48, 64), 'out_indices': (1, 2, 3, 4)}
BLOCKS = 6
SHARED, APART = [NAMES], [[task] for task in NAMES]
PAIR = [['semantic', 'normals'], ['depth']]
SUPER_NETS = ['bmtas', 'ltb']


@pytest.fixture(autouse=True)
def _small_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, 'small', (ResNetPyramid, 'resnet18', SMALL))


def small(system: str, **options: object) -> Network:
    torch.manual_seed(0)
    net = build(system, 'small', TASKS, **options)
    with torch.no_grad():  # timm begins with residual branches that are zero
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.fill_(1)
    return net


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# ------------------------------------------------------------------------------------- the tree


@pytest.mark.parametrize('backbone', ['small', 'resnet18_d8', 'resnet50', 'tf_efficientnet_lite0'])
def test_the_chain_of_blocks_is_the_backbone(backbone: str) -> None:
    torch.manual_seed(0)
    net = pyramid(backbone).eval()
    x = image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for stage, expected in zip(net.blocks(), net(image), strict=True):
            for block in stage:
                x = block(x)
            assert torch.equal(x, expected)


@pytest.mark.parametrize('backbone', ['resnet18', 'resnet50_d8', 'tf_efficientnet_lite0'])
def test_all_shared_is_the_baseline_and_nothing_shared_single_task(backbone: str) -> None:
    with torch.device('meta'):
        shared = build('branched', backbone, TASKS, tree=[SHARED] * 4)
        apart = build('branched', backbone, TASKS, tree=[APART] * 4)
        baseline = build('mtl_baseline', backbone, TASKS)
        single = build('single_task', backbone, TASKS)
        assert parameters(shared) == parameters(baseline)
        assert parameters(apart) == parameters(single)
        # closed form: three encoders, one set of heads
        encoder = parameters(shared.stages)
        assert parameters(apart) == parameters(baseline) + 2 * encoder
        for ours, theirs in ((shared, baseline), (apart, single)):
            macs = [describe(net, (64, 96))[0].written.total for net in (ours, theirs)]
            assert macs[0] == macs[1]


def test_a_tree_costs_its_branches() -> None:
    with torch.device('meta'):
        trunk = build('branched', 'resnet18', TASKS, tree=[SHARED] * 4)
        tree = build('branched', 'resnet18', TASKS, tree=[SHARED, SHARED, PAIR, APART])
    first, second, third, fourth = (parameters(stage) for stage in trunk.stages)
    assert parameters(tree.stages) == first + second + 2 * third + 3 * fourth


def test_branches_share_what_is_above_and_nothing_else() -> None:
    net = small('branched', tree=[SHARED, PAIR, PAIR, APART]).train()
    final = net.predictions(torch.rand(2, 3, 64, 96)).final
    assert {task: x.shape[1] for task, x in final.items()} == TASKS
    final['normals'].square().mean().backward()
    reached = [
        [any(p.grad is not None for p in branch.parameters()) for branch in stage[0].branches]
        for stage in net.stages
    ]
    assert reached == [[True], [True, False], [True, False], [False, False, True]]
    assert all(p.grad is None for p in net.heads['semantic'].parameters())


def test_it_computes_a_shared_branch_once() -> None:
    net = small('branched', tree=[SHARED, PAIR, PAIR, APART])
    calls = [0]
    net.stages[0][0].branches[0].register_forward_hook(
        lambda *_: calls.__setitem__(0, calls[0] + 1)
    )
    net(torch.rand(1, 3, 64, 96))
    assert calls == [1]


def test_without_a_tree_the_last_stage_is_each_tasks_own() -> None:
    net = small('branched')
    assert [len(stage[0].branches) for stage in net.stages] == [1, 1, 1, 3]


@pytest.mark.parametrize(
    ('tree', 'complaint'),
    [
        ([SHARED] * 3, 'has 3 levels; expected 4, one per stage, or 6, one per block'),
        ([SHARED, SHARED, SHARED, [['semantic'], ['depth']]], 'level 3 .* each task once'),
        ([SHARED, APART, PAIR, APART], 'level 2 .* joins semantic, normals'),
    ],
)
def test_what_is_no_tree_is_told(tree: object, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        small('branched', tree=tree)


@pytest.mark.parametrize('system', ['branched', *SUPER_NETS])
def test_other_backbones_are_refused(system: str) -> None:
    with torch.device('meta'), pytest.raises(ModelError, match='ResNets and EfficientNets'):
        build(system, 'swin_tiny', TASKS)


def test_groups_only_part() -> None:
    assert grown([[0, 0, 0], [1, 2, 1], [0, 0, 0]], NAMES) == [SHARED, PAIR, PAIR]


# ------------------------------------------------------------------------------- the super-nets


@pytest.mark.parametrize('system', SUPER_NETS)
def test_super_nets_say_why_they_are_not_exported(system: str, tmp_path: Path) -> None:
    assert system in SYSTEMS
    assert 'build the tree that it found as branched' in small(system).not_exportable
    assert small('branched').not_exportable == ''
    with pytest.raises(DeployError, match=r'cannot be exported: a super-net holds every tree'):
        export(small(system), {}, {}, tmp_path / 'bundle', name='net')
    assert not list(tmp_path.iterdir())


def decide(net: Network, choices: list[list[int]]) -> None:
    """Make the choices of a super-net certain."""
    logits = net.alpha if isinstance(net, BMTAS) else net.theta
    with torch.no_grad():
        logits.fill_(-1e3).scatter_(-1, torch.tensor(choices)[..., None], 1e3)


def random_choices(seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, (BLOCKS, 3), generator=generator).tolist()


@pytest.mark.parametrize('system', SUPER_NETS)
@pytest.mark.parametrize('seed', range(5))
def test_the_cost_of_certain_choices_is_the_cost_of_their_tree(system: str, seed: int) -> None:
    net = small(system, size=(64, 96), cost_weight=0.05)
    assert isinstance(net, (BMTAS, LTB))
    decide(net, random_choices(seed))
    expected = net.expected_macs().item()
    assert expected == pytest.approx(tree_macs(net.tree(), net.macs), rel=1e-6)
    branched = small('branched', tree=net.tree())
    parts = {part.name: part.written.total for part in describe(branched, (64, 96))}
    encoder = sum(macs for name, macs in parts.items() if name.startswith('stages'))
    assert expected == pytest.approx(encoder, rel=1e-6)
    net.step.fill_(net.steps)  # after the warm-up, in which choices have no cost
    penalty = net.penalties({})['cost'].item()
    assert penalty == pytest.approx(0.05 * 2 * expected / 1e9, rel=1e-6)  # GFLOP


def test_the_cost_of_uncertain_choices_is_the_mean_over_trees() -> None:
    torch.manual_seed(0)
    net = small('bmtas', size=(64, 96))
    assert isinstance(net, BMTAS)
    with torch.no_grad():
        net.alpha.normal_()
    drawn = torch.distributions.Categorical(logits=net.alpha).sample((4000,))
    costs = [tree_macs(grown(choices, NAMES), net.macs) for choices in drawn.tolist()]
    expected = net.expected_macs()
    assert expected.item() == pytest.approx(sum(costs) / len(costs), rel=0.01)
    expected.backward()
    assert net.alpha.grad.abs().max() > 0


def test_cost_table_is_the_count_of_the_blocks() -> None:
    table = block_macs(pyramid('small').blocks(), (64, 96))
    assert len(table) == BLOCKS
    parts = describe(small('branched', tree=[SHARED] * 4), (64, 96))
    macs = {part.name: part.written.total for part in parts if part.name.startswith('stages')}
    assert sum(table) == sum(macs.values())


@pytest.mark.parametrize('system', SUPER_NETS)
def test_the_tree_of_a_super_net_can_be_built(system: str) -> None:
    net = small(system)
    assert isinstance(net, (BMTAS, LTB))
    with torch.no_grad():
        for logits in (p for name, p in net.named_parameters() if name in ('alpha', 'theta')):
            logits.normal_()
    branched = small('branched', tree=net.tree())
    assert isinstance(branched, Branched)
    assert branched(torch.rand(1, 3, 64, 96))['depth'].shape == (1, 1, 64, 96)


def test_ltb_that_has_decided_computes_its_tree() -> None:
    """With one-hot choices, the nodes on the way to a task are the branches of ``branched``."""
    net = small('ltb', steps=1).eval()
    assert isinstance(net, LTB)
    decide(net, [[0, 0, 1], [1, 0, 2], [0, 1, 2], [2, 1, 0], [0, 0, 1], [2, 0, 1]])
    net.step.fill_(1)
    tree = small('branched', tree=net.tree()).eval()
    nodes = {task: index for index, task in enumerate(NAMES)}
    levels = [level for stage in tree.stages for level in stage]
    blocks = [block for stage in net.stages for block in stage]
    for level, block, choice in reversed(
        list(zip(levels, blocks, net.theta.argmax(-1).tolist(), strict=True))
    ):
        nodes = {task: choice[node] for task, node in nodes.items()}
        for group, branch in zip(level.groups, level.branches, strict=True):
            branch.load_state_dict(block[nodes[group[0]]].state_dict())
    tree.heads.load_state_dict(net.heads.state_dict())
    image = torch.rand(2, 3, 64, 96)
    expected = tree(image)
    for task, logits in net(image).items():
        assert torch.allclose(logits, expected[task], atol=1e-5)


@pytest.mark.parametrize('system', SUPER_NETS)
def test_samples_follow_the_logits(system: str) -> None:
    torch.manual_seed(0)
    net = small(system, steps=100)
    assert isinstance(net, (BMTAS, LTB))
    logits = net.alpha if isinstance(net, BMTAS) else net.theta
    with torch.no_grad():
        logits.copy_(torch.tensor([0.5, 0.3, 0.2]).log())
    net.step.fill_(100)  # the end of the search: choices are nearly one-hot
    samples = torch.stack([net.sample() for _ in range(200)])  # [200, blocks, 3, 3]
    assert torch.allclose(samples.sum(-1), torch.ones(()))
    shares = torch.nn.functional.one_hot(samples.argmax(-1), 3).float().mean((0, 1, 2))
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.03)


def test_warm_up_and_temperature() -> None:
    bmtas, ltb = small('bmtas', steps=100), small('ltb', steps=100)
    assert isinstance(bmtas, BMTAS)
    assert isinstance(ltb, LTB)
    assert torch.equal(bmtas.sample(), torch.eye(3).expand(BLOCKS, 3, 3))
    assert torch.equal(ltb.sample(), torch.full((BLOCKS, 3, 3), 1 / 3))
    for _ in range(5):
        bmtas.penalties({})
        ltb.penalties({})
    early = torch.stack([bmtas.sample() for _ in range(50)]).amax(-1).mean()
    bmtas.step.fill_(100)
    late = torch.stack([bmtas.sample() for _ in range(50)]).amax(-1).mean()
    assert early < 0.5 < 0.9 < late
    assert set(ltb.sample().unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ('system', 'step', 'tau'),
    [
        ('bmtas', 5, 5.0),  # from here on it falls linearly, to 0.1
        ('bmtas', 43, 5 - 4.9 * 0.4),
        ('bmtas', 100, 0.1),
        ('ltb', 1, 10 / 3**0.5),  # 10 / sqrt(e + 1), the 2nd of 200 epochs
        ('ltb', 50, 10 / 101**0.5),
    ],
)
def test_gradients_are_those_of_a_softmax_at_the_temperature(
    system: str, step: int, tau: float
) -> None:
    """Of softmax((log theta + G) / tau), G = -log E, E exponential, where LTB samples one-hot."""
    net = small(system, steps=100)
    net.step.fill_(step)
    logits = net.alpha if isinstance(net, BMTAS) else net.theta
    weights = torch.randn_like(logits)
    torch.manual_seed(0)
    (found,) = torch.autograd.grad((weights * net.sample()).sum(), logits)
    torch.manual_seed(0)
    noise = -torch.empty_like(logits).exponential_().log()
    soft = ((logits + noise) / tau).softmax(-1)
    (expected,) = torch.autograd.grad((weights * soft).sum(), logits)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('system', SUPER_NETS)
def test_nothing_is_decided_before_the_tasks_have_a_say(system: str) -> None:
    """Adam makes steps of rounding errors, too: there must be none in the warm-up."""
    net = small(system, steps=100, cost_weight=0.05).train()
    assert isinstance(net, (BMTAS, LTB))
    choices = net.alpha if isinstance(net, BMTAS) else net.theta
    optimizer = make_optimizer(net, OptimConfig(lr=1e-3, max_steps=1))
    image = torch.rand(2, 3, 64, 96)
    while not net.searching:
        logits = net.predictions(image).final.values()
        total = sum(x.square().mean() for x in logits) + sum(net.penalties({}).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        assert not choices.any(), net.step
    assert net.penalties({})['cost'] > 0


@pytest.mark.parametrize('system', SUPER_NETS)
def test_choices_learn_from_the_tasks(system: str) -> None:
    net = small(system, steps=1).train()
    assert isinstance(net, (BMTAS, LTB))
    net.step.fill_(1)
    image = torch.rand(2, 3, 64, 96)
    sum(x.square().mean() for x in net.predictions(image).final.values()).backward()
    logits = net.alpha if isinstance(net, BMTAS) else net.theta
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize('system', ['branched', *SUPER_NETS])
def test_efficientnets_branch_too(system: str) -> None:
    torch.manual_seed(0)
    net = build(system, 'tf_efficientnet_lite0', {'depth': 1, 'edges': 1}).train()
    final = net.predictions(torch.rand(2, 3, 64, 64)).final
    assert final['edges'].shape == (2, 1, 16, 16)
    sum(x.square().mean() for x in final.values()).backward()


def test_copies_of_bmtas_cannot_undo_their_weights() -> None:
    net = small('bmtas')
    norms = [m for m in net.stages.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(norm.weight is None and norm.bias is None for norm in norms)
