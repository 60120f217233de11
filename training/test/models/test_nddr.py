"""NDDR-CNN: the survey's figures, and when its layers are cross-stitch units."""

from __future__ import annotations

import pytest
import torch
from mtl_training.checkpoints.config import OptimConfig
from mtl_training.loop.optimizer import make_optimizer
from mtl_training.models import ModelError, Network, build
from mtl_training.models.nddr import NDDRLayer
from mtl_training.papers.describe import describe
from torch import Tensor, nn
from torch.nn import functional as F

NYUD = {'semantic': 40, 'depth': 1}
PASCAL = {'semantic': 21, 'human_parts': 7, 'saliency': 1, 'normals': 3, 'edges': 1}


@pytest.fixture(scope='module')
def image() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ('backbone', 'tasks', 'size', 'parameters', 'macs'),
    [
        ('resnet50_d8', NYUD, (480, 640), 101_591_721, 494_432_075_776),
        ('resnet18_d8', PASCAL, (512, 512), 88_318_561, 373_223_456_768),
    ],
)
def test_figures_are_those_of_the_authors_code(
    backbone: str, tasks: dict[str, int], size: tuple[int, int], parameters: int, macs: int
) -> None:
    """Survey Table V prints 102 M, 207 G and 88 M, 187 G; G are MACs / 2, but 207 should be 247."""
    with torch.device('meta'):
        whole = describe(build('nddr', backbone, tasks), size)[0]
    assert whole.parameters == parameters
    assert whole.written.total == macs


def neutral(layer: nn.Module) -> None:
    """Make the BatchNorms of a layer the identity in use."""
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.running_var, 1 - module.eps)


def with_weights_of(net: Network, other: Network) -> Network:
    _, unexpected = net.load_state_dict(other.state_dict(), strict=False)
    assert [name for name in unexpected if not name.startswith('stitch')] == []
    return net


def test_without_off_diagonals_and_with_neutral_norms_it_is_cross_stitch(image: Tensor) -> None:
    """The layer after the stem, where cross-stitch has none, is the identity."""
    torch.manual_seed(0)
    stitched = build('cross_stitch', 'resnet18_d8', NYUD).eval()
    nddr = with_weights_of(build('nddr', 'resnet18_d8', NYUD), stitched).eval()
    neutral(nddr.nddr)
    nddr.nddr[0] = NDDRLayer(list(NYUD), 64, own=1.0).eval()
    neutral(nddr.nddr[0])
    with torch.no_grad():
        for unit, layer in zip(stitched.stitch, nddr.nddr[1:], strict=True):
            unit.alpha.uniform_(0, 1)
            for alpha, conv in zip(unit.alpha, layer.layers.values(), strict=True):
                blocks = torch.cat([a.diag() for a in alpha], dim=1)  # [C, T C]
                conv[0].weight.copy_(blocks[..., None, None])
        expected, found = stitched(image), nddr(image)
    for task in NYUD:
        torch.testing.assert_close(found[task], expected[task], rtol=1e-4, atol=1e-5)


def test_with_identities_it_is_the_single_task_networks_with_norms_between(image: Tensor) -> None:
    torch.manual_seed(0)
    single = build('single_task', 'resnet18_d8', NYUD).eval()
    nddr = with_weights_of(build('nddr', 'resnet18_d8', NYUD, own=1.0), single).eval()
    for module in nddr.nddr.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias, std=0.1)
    with torch.no_grad():
        found = nddr.predictions(image).final
        for task, backbone in single.backbones.items():
            x = backbone.stem(image)
            for stage, layer in zip([nn.Identity(), *backbone.stages], nddr.nddr, strict=True):
                x = F.relu(layer.layers[task][1](stage(x)))
            torch.testing.assert_close(found[task], single.heads[task]([x]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('tasks', 'own', 'other'), [('ab', 0.9, 0.1), ('abcde', 0.8, 0.05)])
def test_layers_begin_diagonal(tasks: str, own: float, other: float) -> None:
    for i, (conv, norm, _) in enumerate(NDDRLayer(list(tasks), 3).layers.values()):
        assert norm.momentum == 0.05
        for j, block in enumerate(conv.weight.detach()[:, :, 0, 0].split(3, dim=1)):
            torch.testing.assert_close(block, torch.eye(3) * (own if i == j else other))


def test_a_shortcut_brings_every_layer_to_the_head(image: Tensor) -> None:
    torch.manual_seed(0)
    net = build('nddr', 'resnet18_d8', NYUD, shortcut=True).eval()
    seen: list[Tensor] = []
    for layer in net.nddr:
        layer.register_forward_hook(lambda _m, _i, out: seen.append(out['depth']))
    with torch.no_grad():
        logits = net.predictions(image).final['depth']
        assert logits.shape == (2, 1, 8, 12)
        full = torch.cat([F.interpolate(x, (8, 12), mode='bilinear') for x in seen], dim=1)
        conv, norm, _ = net.nddr_shortcut['depth'].reduce
        assert conv.weight.shape == (512, 64 + 64 + 128 + 256 + 512, 1, 1)
        expected = net.heads['depth']([F.relu(norm(conv(full)))])
    torch.testing.assert_close(logits, expected)


def test_a_loss_reaches_every_encoder_and_no_other_head(image: Tensor) -> None:
    torch.manual_seed(0)
    net = build('nddr', 'resnet18_d8', NYUD).train()
    net.predictions(image).final['depth'].square().mean().backward()
    others = ('heads.semantic', 'nddr.4.layers.semantic')
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == name.startswith(others), name


def test_layers_learn_a_hundred_times_as_fast() -> None:
    net = build('nddr', 'resnet18_d8', NYUD, shortcut=True)
    optimizer = make_optimizer(net, OptimConfig(lr=1e-3, max_steps=1, optimizer='sgd'))
    factors = {id(p): g['factor'] for g in optimizer.param_groups for p in g['params']}
    for name, parameter in net.named_parameters():
        assert factors[id(parameter)] == (100 if name.startswith('nddr') else 1), name


def test_other_backbones_are_refused_in_one_sentence() -> None:
    with pytest.raises(ModelError, match='nddr works on the stages of a dilated ResNet'):
        build('nddr', 'hrnet_w18_small_v2', NYUD)
