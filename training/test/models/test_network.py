"""What the base class promises for every system: shared parameters, kept tasks, first stages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mtl_training.models import SYSTEMS, ModelError, Network, build
from mtl_training.models.backbones import BACKBONES
from mtl_training.models.layers import FeatureFuse, resize
from mtl_training.models.pyramids import ResNetPyramid
from torch import Tensor, nn
from torch.nn import functional as F

SMALL = {'layers': (1, 1, 1, 1), 'channels': (8, 16, 24, 32), 'out_indices': (1, 2, 3, 4)}
DILATED = ('cross_stitch', 'sluice', 'nddr', 'mtan')
OPTIONS: dict[str, dict[str, Any]] = {
    'tif': {'width': 8, 'fuse_width': 8},
    'mt_cp': {'width': 16},
    'pad_net': {'width': 16},
    'pap_net': {'width': 16},
    'jtrl': {'width': 16},
    'branched': {
        'tree': [[['semantic', 'depth']], [['semantic', 'depth']], *[[['semantic'], ['depth']]] * 2]
    },
}
PAIR = {'semantic': 5, 'depth': 1}


@pytest.fixture(autouse=True)
def _small_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, 'small', (ResNetPyramid, 'resnet18', SMALL))
    dilated = {**SMALL, 'layers': (2, 2, 2, 2), 'output_stride': 8}  # MTAN needs two blocks
    monkeypatch.setitem(BACKBONES, 'small_d8', (ResNetPyramid, 'resnet18', dilated))


def small(system: str) -> Network:
    torch.manual_seed(0)
    auxiliary = {'edges': 1} if SYSTEMS[system].takes_auxiliary else {}
    backbone = 'small_d8' if system in DILATED else 'small'
    net = build(system, backbone, PAIR, auxiliary=auxiliary, **OPTIONS.get(system, {}))
    with torch.no_grad():  # timm begins with residual branches that are zero, ASTMT with adapters
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.fill_(1)
        for name, parameter in net.named_parameters():
            if '.adapters.' in name:
                parameter.normal_(std=0.1)
    return net


def reached(net: Network) -> dict[str, set[str]]:
    """Names of the parameters that the losses of a task reach, by task."""
    predictions = net.predictions(torch.randn(2, 3, 64, 96))
    losses: dict[str, list[Tensor]] = {}
    for logits in (predictions.final, *(a.logits for a in predictions.auxiliary)):
        for task, x in logits.items():
            losses.setdefault(task, []).append(x.square().mean())
    names, parameters = zip(*net.named_parameters(), strict=True)
    found = {}
    for task, terms in losses.items():
        gradients = torch.autograd.grad(
            sum(terms), parameters, retain_graph=True, allow_unused=True
        )
        found[task] = {n for n, g in zip(names, gradients, strict=True) if g is not None}
    return found


@pytest.mark.parametrize('system', SYSTEMS)
def test_shared_parameters_are_those_that_several_tasks_reach(system: str) -> None:
    """All that several reach, and none that one reaches, if the system says what that is."""
    net = small(system).train()
    by_task = reached(net)
    shared = {id(p) for p in net.shared_parameters()}
    for name, parameter in net.named_parameters():
        tasks = [task for task, names in by_task.items() if name in names]
        if len(tasks) > 1:
            assert id(parameter) in shared, (name, tasks)
        elif tasks and net.of_one_task():
            assert id(parameter) not in shared, (name, tasks)


@pytest.mark.parametrize(
    'system', [name for name, kind in SYSTEMS.items() if not kind.not_exportable]
)
def test_kept_tasks_are_predicted_as_before_and_no_others(system: str) -> None:
    net = small(system).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = net(image)
        for kept in (['depth'], ['semantic'], ['depth', 'semantic']):
            net.keep(kept)
            after = net(image)
            assert list(after) == kept
            for task in kept:
                torch.testing.assert_close(after[task], before[task])
    with pytest.raises(ModelError, match="no task 'edges'; the network has semantic, depth"):
        net.keep(['edges'])


def test_kept_tasks_alone_are_computed() -> None:
    net = small('tif').eval()
    net.keep(['depth'])
    ran: list[str] = []
    for task, decoder in net.decoders.items():
        decoder.register_forward_hook(lambda *_, task=task: ran.append(task))
    net(torch.randn(1, 3, 64, 96))
    assert ran == ['depth']


def test_options_are_the_systems_own_with_the_papers_defaults() -> None:
    assert {n: p.default for n, p in SYSTEMS['pap_net'].options().items()} == {
        'affinity_stride': 8, 'width': 256, 'beta': 0.05, 'iterations': 3,
    }  # fmt: skip
    assert list(SYSTEMS['mti_net'].options()) == ['softmax']  # auxiliary tasks are not an option
    assert list(SYSTEMS['mtl_baseline'].options()) == []
    with pytest.raises(ModelError, match="mtl_baseline has no option 'width'; it has: none"):
        build('mtl_baseline', 'small', PAIR, width=3)


def test_first_stages_are_those_of_all_backbones() -> None:
    net = small('single_task')
    early = net.early(1)
    kept = {id(p) for module in early for p in module.parameters()}
    names = {n.split('.', 3)[3] for n, p in net.named_parameters() if id(p) in kept}
    assert {name.partition('.')[0] for name in names} == {'conv1', 'bn1', 'layer1'}
    assert len(early) == 2 * 3
    with pytest.raises(ModelError, match='ASTMT takes its backbone apart'):
        small('astmt').early(1)
    with torch.device('meta'), pytest.raises(ModelError, match='a SwinPyramid has no first stages'):
        build('mtl_baseline', 'swin_tiny', PAIR).early(1)


def test_a_fused_feature_is_the_convolution_of_all_scales_under_a_norm() -> None:
    torch.manual_seed(0)
    fuse = FeatureFuse([4, 6], 8).double().eval()
    nn.init.normal_(fuse.norm.running_mean)
    nn.init.uniform_(fuse.norm.running_var, 0.5, 2)
    nn.init.normal_(fuse.norm.weight)
    nn.init.normal_(fuse.norm.bias)
    x = [torch.randn(1, c, s, s, dtype=torch.double) for c, s in ((4, 8), (6, 4))]
    stacked = torch.cat([resize(f, (8, 8)) for f in x], dim=1)
    expected = F.relu(fuse.norm(F.conv2d(stacked, fuse.conv.weight)))
    torch.testing.assert_close(fuse(x, (8, 8)), expected)
