"""ASP-MTL: two tasks whose adversary and overlap are known by hand, and what reaches what."""

from __future__ import annotations

import math

import pytest
import torch
from mtl_training.models import build
from mtl_training.models.asp_mtl import ASPMTL, adversary, overlap
from mtl_training.models.backbones import BACKBONES
from mtl_training.models.pyramids import ResNetPyramid
from torch import Tensor, nn

TASKS = {'semantic': 5, 'depth': 1}
SMALL = {'layers': (1, 1, 1, 1), 'channels': (8, 16, 24, 32), 'out_indices': (1, 2, 3, 4)}
EACH_ITS_OWN = torch.tensor([[True, False], [False, True]])  # two images, two tasks


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, 'small', (ResNetPyramid, 'resnet18', SMALL))
    dilated = {**SMALL, 'output_stride': 8}
    monkeypatch.setitem(BACKBONES, 'small_d8', (ResNetPyramid, 'resnet18', dilated))


def network(backbone: str = 'small') -> ASPMTL:
    torch.manual_seed(0)
    net = build('asp_mtl', backbone, TASKS)
    assert isinstance(net, ASPMTL)
    return net.eval()


def discriminator() -> nn.Linear:
    """D of one channel: sigmoid(2 s) that an image is of the first task."""
    layer = nn.Linear(1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        layer.bias.zero_()
    return layer


def test_the_discriminator_learns_whose_images_are_and_features_the_contrary() -> None:
    """Images of s = 1 and -1: D is wrong by q = sigmoid(-2) of each."""
    shared = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2).requires_grad_()
    judge, q = discriminator(), 1 / (1 + math.exp(2))
    told = adversary(shared, judge, EACH_ITS_OWN)
    assert told.item() == pytest.approx(math.log(1 + math.exp(-2)))
    told.backward()
    # Downhill D grows surer, and the features, of four pixels each, come nearer to each other.
    assert judge.weight.grad is not None
    assert shared.grad is not None
    assert judge.weight.grad.flatten().tolist() == pytest.approx([-q, q])
    assert shared.grad.sum(dim=(1, 2, 3)).tolist() == pytest.approx([q, -q])


def test_nothing_is_learnt_where_every_image_is_of_all_tasks() -> None:
    net = network()
    shared = torch.randn(2, net.discriminator.in_features, 2, 2, requires_grad=True)
    told = adversary(shared, net.discriminator, torch.ones(2, 2, dtype=torch.bool))
    assert told.item() == pytest.approx(math.log(2))
    for gradient in torch.autograd.grad(told, [shared, *net.discriminator.parameters()]):
        assert gradient.abs().max() < 1e-7


def test_images_without_labels_are_left_out() -> None:
    shared = torch.tensor([1.0, -1.0, 9.0]).view(3, 1, 1, 1)
    owned = torch.cat([EACH_ITS_OWN, torch.zeros(1, 2, dtype=torch.bool)])
    expected = adversary(shared[:2], discriminator(), EACH_ITS_OWN)
    torch.testing.assert_close(adversary(shared, discriminator(), owned), expected)
    assert adversary(shared, discriminator(), owned & False).item() == 0
    assert overlap(shared[:0], shared[:0]).item() == 0


def test_overlap_is_the_squared_correlation_of_channels() -> None:
    """One of two channels is the other's, of another size and mean: 1 / 2; contrary counts too."""
    a, b, c = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]).view(3, 1, 1, 2, 2)
    shared = torch.cat([a, b], dim=1)
    assert overlap(shared, torch.cat([c, 5 - 3 * a], dim=1)).item() == pytest.approx(1 / 2)
    assert overlap(shared, torch.cat([c, c], dim=1)).item() == pytest.approx(0)
    assert overlap(shared, 2 + shared).item() == pytest.approx(1)


def test_penalties_are_of_the_images_that_have_labels_of_a_task() -> None:
    """The first image has labels of classes, the second one of depth."""
    net = network()
    with torch.no_grad():
        net.discriminator.weight.normal_()
    image = torch.randn(2, 3, 64, 64)
    final = net.predictions(image).final
    losses = {'semantic': final['semantic'][0].square().mean(), 'depth': final['depth'][1].mean()}
    found = net.penalties(losses)
    shared, (one, two) = net.shared(image), (net.private[t](image) for t in TASKS)
    told = adversary(shared, net.discriminator, EACH_ITS_OWN)
    apart = overlap(shared[:1], one[:1]) + overlap(shared[1:], two[1:])
    torch.testing.assert_close(found['adversary'], 0.05 * told)
    torch.testing.assert_close(found['orthogonality'], 0.01 * apart)


def test_a_task_reaches_what_is_shared_and_its_own() -> None:
    net = network()
    final = net.predictions(torch.randn(2, 3, 64, 64)).final
    penalties = net.penalties({task: x.square().mean() for task, x in final.items()})
    moved = {
        'depth': reached(net, final['depth'].square().mean()),
        'adversary': reached(net, penalties['adversary']),
        'orthogonality': reached(net, penalties['orthogonality']),
    }
    assert moved['depth'] == {'shared', 'private.depth', 'heads.depth'}
    assert moved['adversary'] <= {'shared', 'discriminator'}
    assert moved['orthogonality'] == {'shared', 'private.semantic', 'private.depth'}
    assert {id(p) for p in net.shared_parameters()} == {id(p) for p in net.shared.parameters()}


def reached(net: nn.Module, loss: Tensor) -> set[str]:
    """The parts of the network whose parameters a loss depends on."""
    names, parameters = zip(*net.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    moved = [name for name, g in zip(names, found, strict=True) if g is not None and g.any()]
    depth = {'private': 2, 'heads': 2}
    return {'.'.join(name.split('.')[: depth.get(name.split('.')[0], 1)]) for name in moved}


@pytest.mark.parametrize(('backbone', 'stride', 'width'), [('small', 4, 80), ('small_d8', 8, 32)])
def test_heads_work_on_both_features(backbone: str, stride: int, width: int) -> None:
    """All scales on the finest grid, or the last one of a dilated ResNet."""
    net = network(backbone)
    seen: list[Tensor] = []
    net.heads['depth'].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0]))
    image = torch.randn(1, 3, 64, 64)
    net.predictions(image)
    (feature,) = seen
    assert feature.shape == (1, 2 * width, 64 // stride, 64 // stride)
    torch.testing.assert_close(feature[:, :width], net.private['depth'](image))
    torch.testing.assert_close(feature[:, width:], net.shared(image))
