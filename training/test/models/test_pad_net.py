"""PAD-Net: the figures of the released code, and what the paper says of its modules."""

from __future__ import annotations

import pytest
import torch
from mtl_training.labels import PASCAL21
from mtl_training.models import build
from mtl_training.models.heads import AllScales, LastScale
from mtl_training.models.pad_net import Distillation, Message, PADNet
from mtl_training.models.pyramids import Pyramid
from mtl_training.papers.describe import describe
from mtl_training.tasks import pascal
from torch import Tensor, nn
from torch.nn import functional as F

PAIR = {'semantic': 40, 'depth': 1}
OTHERS = {'normals': 3, 'edges': 1}
FIVE = {name: task.channels for name, task in pascal(PASCAL21).items()}


class TinyBackbone(Pyramid):
    """Two strided convolutions in the place of a pyramid."""

    channels = (8, 12)
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.down = nn.Conv2d(8, 12, 3, stride=2, padding=1)

    def forward(self, image: Tensor) -> list[Tensor]:
        fine = self.stem(image).relu()
        return [fine, self.down(fine).relu()]


def tiny() -> PADNet:
    torch.manual_seed(0)
    return PADNet(TinyBackbone(), PAIR, auxiliary=OTHERS, width=16).eval()


@pytest.mark.parametrize(
    ('backbone', 'tasks', 'auxiliary', 'size', 'count', 'giga'),
    [
        ('hrnet_w18_small_v2', PAIR, OTHERS, (480, 640), 12_161_332, 168.9),  # Table V: 12 M, 82 G
        ('hrnet_w18_small_v2', FIVE, {}, (512, 512), 29_304_992, 424.9),  # 29 M, 212 G
        ('resnet50_d8', PAIR, {}, (480, 640), 27_730_578, 137),
        ('resnet50_d8', PAIR, OTHERS, (480, 640), 34_010_774, 167),
        ('resnet18_d8', FIVE, {}, (512, 512), 36_934_274, 153.6),
    ],
)
def test_parameters_and_macs_are_those_of_the_released_code(
    backbone: str,
    tasks: dict[str, int],
    auxiliary: dict[str, int],
    size: tuple[int, int],
    count: int,
    giga: float,
) -> None:
    """The survey prints half the MACs; its rows of ResNets (256 G / 52 M, 36 G / 32 M) differ."""
    with torch.device('meta'):
        net = build('pad_net', backbone, tasks, auxiliary=auxiliary)
    whole = describe(net, size)[0]
    assert whole.parameters == count
    assert whole.written.total / 1e9 == pytest.approx(giga, rel=0.002)


def test_dilated_resnets_are_single_scale_and_other_pyramids_multi_scale() -> None:
    with torch.device('meta'):
        assert isinstance(build('pad_net', 'resnet18_d8', PAIR).front, LastScale)
        assert isinstance(build('pad_net', 'resnet18', PAIR).front, AllScales)


def test_closed_gates_predict_from_the_initial_features() -> None:
    net = tiny()
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        shared = net.front(net.backbone(image))
        alone = {t: net.final[t](net.initial[t](shared)[0])[1] for t in PAIR}
        informed = net.predictions(image).final
        for module in net.modules():
            if isinstance(module, Message):  # features are not negative: no gate lets pass
                nn.init.constant_(module.gate.weight, -1e6)
        closed = net.predictions(image).final
    for task in PAIR:
        assert (informed[task] - alone[task]).abs().max() > 1e-4
        torch.testing.assert_close(closed[task], alone[task])


def test_distillation_is_its_equation() -> None:
    """F_k + sum_{l != k} sigmoid(W F_l) (V F_l), as printed but for V: messages have both signs."""
    torch.manual_seed(0)
    module = Distillation(['a', 'b'], ['a', 'b', 'c'], 6).double()
    features = {task: torch.randn(2, 6, 5, 7, dtype=torch.double) for task in 'abc'}
    with torch.no_grad():
        found = module(features)
        for task, others in (('a', 'bc'), ('b', 'ac')):
            expected = features[task].clone()
            for other in others:
                message = module.messages[task][other]
                w = F.conv2d(features[other], message.gate.weight, padding=1)
                v = F.conv2d(features[other], message.value.weight, padding=1)
                expected += v / (1 + torch.exp(-w))
            torch.testing.assert_close(found[task], expected)
    assert list(found) == ['a', 'b']


def test_every_task_informs_the_others_but_not_itself() -> None:
    messages = tiny().distillation.messages
    assert {task: list(others) for task, others in messages.items()} == {
        'semantic': ['depth', 'normals', 'edges'],
        'depth': ['semantic', 'normals', 'edges'],
    }


def test_auxiliary_tasks_are_predicted_once() -> None:
    net = tiny()
    with torch.no_grad():
        predictions = net.predictions(torch.randn(2, 3, 64, 96))
    (initial,) = predictions.auxiliary
    assert initial.weight == 1.0
    assert {t: tuple(x.shape) for t, x in predictions.final.items()} == {
        t: (2, c, 16, 24) for t, c in PAIR.items()
    }
    assert {t: tuple(x.shape) for t, x in initial.logits.items()} == {
        t: (2, c, 16, 24) for t, c in {**PAIR, **OTHERS}.items()
    }


def test_two_steps_reach_every_parameter() -> None:
    net = tiny().train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    for _ in range(2):
        predictions = net.predictions(torch.randn(2, 3, 64, 96))
        logits = [*predictions.final.values(), *predictions.auxiliary[0].logits.values()]
        loss = sum(x.square().mean() for x in logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
