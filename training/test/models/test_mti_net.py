"""MTI-Net: the figures of the released code, and what the paper says of its modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from mtl_training.labels import NYUD40, PASCAL21
from mtl_training.models import ModelError, build
from mtl_training.models.mti_net import FPM, MTINet, beside
from mtl_training.models.pad_net import Distillation, Message
from mtl_training.models.pyramids import Pyramid
from mtl_training.papers.describe import describe
from mtl_training.tasks import nyud, pascal
from torch import Tensor, nn
from torch.nn import functional as F

PAIR = {'semantic': 40, 'depth': 1}
OTHERS = {'normals': 3, 'edges': 1}
FOUR = {name: task.channels for name, task in nyud(NYUD40).items()}
FIVE = {name: task.channels for name, task in pascal(PASCAL21).items()}


class TinyBackbone(Pyramid):
    """Four strided convolutions with the shape of a pyramid."""

    channels = (8, 12, 16, 24)
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(c, d, 3, stride=2, padding=1) for c, d in ((8, 12), (12, 16), (16, 24))
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        features = [self.stem(image)]
        for conv in self.down:
            features.append(conv(F.relu(features[-1])))
        return features


def tiny(
    tasks: Mapping[str, int] = PAIR, auxiliary: Mapping[str, int] = OTHERS, **options: str
) -> MTINet:
    torch.manual_seed(0)
    return MTINet(TinyBackbone(), tasks, auxiliary=auxiliary, **options).eval()


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def close_gates(module: nn.Module) -> None:
    """All gates of distillation: features are not negative after a ReLU, so none lets pass."""
    for part in module.modules():
        if isinstance(part, Message):
            nn.init.constant_(part.gate.weight, -1e6)


@pytest.mark.parametrize(
    ('tasks', 'auxiliary', 'size', 'count', 'giga'),
    [
        (FIVE, {}, (512, 512), 24_494_171, 30.31),  # survey, Table V: 24 M, 15 G (halved)
        (PAIR, {}, (480, 640), 8_578_179, 17.14),
        (PAIR, OTHERS, (480, 640), 14_838_121, 22.88),
        (FOUR, {}, (480, 640), 17_960_945, 28.39),
    ],
)
def test_parameters_and_macs_are_those_of_the_released_code(
    tasks: dict[str, int],
    auxiliary: dict[str, int],
    size: tuple[int, int],
    count: int,
    giga: float,
) -> None:
    with torch.device('meta'):
        net = build('mti_net', 'hrnet_w18_small_v2', tasks, auxiliary=auxiliary)
    whole = describe(net, size)[0]
    assert whole.parameters == count
    assert whole.written.total / 1e9 == pytest.approx(giga, abs=0.005)


@pytest.mark.parametrize(
    ('tasks', 'fpm', 'initial', 'distillation', 'heads'),
    [
        (PAIR, (0.977, 0.245, 0.061), None, None, None),
        (
            FOUR,
            (2.502, 0.626, 0.157),
            (0.075, 0.299, 1.188, 2.997),
            (0.07, 0.28, 1.12, 4.479),
            0.307,
        ),
    ],
)
def test_parameters_of_the_parts_are_those_of_the_released_code(
    tasks: dict[str, int],
    fpm: tuple[float, ...],
    initial: tuple[float, ...] | None,
    distillation: tuple[float, ...] | None,
    heads: float | None,
) -> None:
    with torch.device('meta'):
        net = build('mti_net', 'hrnet_w18_small_v2', tasks)
    found = [parameters(m) / 1e6 for m in (net.fpm3, net.fpm2, net.fpm1)]
    assert found == pytest.approx(fpm, abs=0.0005)
    if initial and distillation and heads:
        modules = (net.initial0, net.initial1, net.initial2, net.initial3)
        assert [parameters(m) / 1e6 for m in modules] == pytest.approx(initial, abs=0.0005)
        found = [parameters(m) / 1e6 for m in net.distillation]
        assert found == pytest.approx(distillation, abs=0.0005)
        assert parameters(net.heads) / 1e6 == pytest.approx(heads, abs=0.0005)


def test_masks_sum_to_one_across_the_tasks() -> None:
    torch.manual_seed(0)
    fpm = FPM(8, FOUR, 'tasks').eval()
    mask = fpm.mask(torch.randn(2, 4 * 8, 3, 5))
    torch.testing.assert_close(mask.unflatten(1, (4, 8)).sum(1), torch.ones(2, 8, 3, 5))
    assert mask.std() > 1e-3


def test_released_masks_sum_to_one_in_groups_of_one_tasks_channels() -> None:
    torch.manual_seed(0)
    fpm = FPM(8, FOUR, 'released').eval()
    stacked = torch.randn(2, 4 * 8, 3, 5)
    mask = fpm.mask(stacked)
    for first in range(0, 32, 4):  # groups of N = 4; 8 channels of a task are two groups
        torch.testing.assert_close(mask[:, first : first + 4].sum(1), torch.ones(2, 3, 5))
    assert (mask.unflatten(1, (4, 8)).sum(1) - 1).abs().max() > 0.01
    by_view = fpm.f(stacked).view(2, 8, 4, 3, 5).softmax(2).view(2, 32, 3, 5)
    torch.testing.assert_close(mask, by_view)


def test_unknown_softmax_is_named() -> None:
    with pytest.raises(ModelError, match="softmax is 'both'; expected one of tasks, released"):
        tiny(softmax='both')


def test_propagation_is_its_equation(unsettle: Callable[[nn.Module], nn.Module]) -> None:
    """P_k = SE_k(g(M F)) + F_k, M the softmax over tasks of f(F), channel by channel."""
    fpm = unsettle(FPM(16, ['a', 'b', 'c'], 'tasks'))
    features = {task: torch.randn(1, 16, 3, 5, dtype=torch.double) for task in 'abc'}
    with torch.no_grad():
        stacked = torch.cat(list(features.values()), dim=1)  # channel t C + c is c of task t
        exponents, masked = torch.exp(fpm.f(stacked)), torch.empty_like(stacked)
        for c in range(16):
            total = exponents[:, c] + exponents[:, 16 + c] + exponents[:, 32 + c]
            for t in range(3):
                channel = 16 * t + c
                masked[:, channel] = exponents[:, channel] / total * stacked[:, channel]
        shared = fpm.g(masked)
        for task, propagated in fpm(features).items():
            first, _, second, _ = fpm.excite[task].gate
            hidden = (shared.mean((2, 3)) @ first.weight.T + first.bias).clamp(min=0)
            gate = 1 / (1 + torch.exp(-(hidden @ second.weight.T + second.bias)))
            expected = shared * gate[:, :, None, None] + features[task]
            torch.testing.assert_close(propagated, expected)


def test_propagation_keeps_a_tasks_features_and_adds_what_is_shared() -> None:
    torch.manual_seed(0)
    fpm = FPM(8, FOUR, 'tasks').eval()
    features = {task: torch.randn(2, 8, 3, 5) for task in FOUR}
    for excite in fpm.excite.values():
        nn.init.constant_(excite.gate[2].bias, -100.0)
    for task, propagated in fpm(features).items():
        torch.testing.assert_close(propagated, features[task])
    assert {
        t: tuple(x.shape) for t, x in beside(torch.zeros(2, 4, 6, 10), features).items()
    } == dict.fromkeys(FOUR, (2, 12, 6, 10))


def test_distillation_with_closed_gates_equals_the_initial_features() -> None:
    torch.manual_seed(0)
    module = Distillation(PAIR, FOUR, 8)
    features = {task: torch.randn(2, 8, 6, 10).relu() for task in FOUR}
    assert (module(features)['depth'] - features['depth']).abs().max() > 0.01
    close_gates(module)
    distilled = module(features)
    assert list(distilled) == list(PAIR)
    for task, feature in distilled.items():
        torch.testing.assert_close(feature, features[task])


def test_tasks_are_independent_at_the_coarsest_scale_only() -> None:
    """Closed gates leave one way between tasks: the FPM, so scale 3 sees none."""
    net = tiny().train()
    close_gates(net)
    scales = net.predictions(torch.randn(2, 3, 64, 96)).auxiliary
    for number, scale in enumerate(scales):
        net.zero_grad()
        scale.logits['depth'].square().mean().backward(retain_graph=True)
        other = net.initial3.refine['semantic'][0].body[0][0].weight.grad
        assert (other is not None and bool(other.any())) == (number < 3), number


def test_every_scale_predicts_every_task_and_the_auxiliary_ones() -> None:
    net = tiny()
    with torch.no_grad():
        predictions = net.predictions(torch.randn(2, 3, 64, 96))
        full = net(torch.randn(2, 3, 64, 96))
    assert {t: tuple(x.shape) for t, x in full.items()} == {
        t: (2, c, 64, 96) for t, c in PAIR.items()
    }
    assert all(x.shape[-2:] == (16, 24) for x in predictions.final.values())
    for number, auxiliary in enumerate(predictions.auxiliary):
        assert auxiliary.weight == 1.0
        assert {t: tuple(x.shape) for t, x in auxiliary.logits.items()} == {
            t: (2, c, 16 >> number, 24 >> number) for t, c in FOUR.items()
        }


def test_one_task_alone_is_possible() -> None:
    with torch.no_grad():
        assert tiny({'depth': 1}, {})(torch.randn(1, 3, 64, 64))['depth'].shape == (1, 1, 64, 64)


def test_sizes_need_not_be_multiples_of_32() -> None:
    with torch.no_grad():
        assert tiny()(torch.randn(1, 3, 72, 104))['depth'].shape == (1, 1, 72, 104)


@pytest.mark.parametrize('backbone', ['swin_tiny', 'tf_efficientnet_lite0', 'resnet18'])
def test_any_pyramid_will_do(backbone: str) -> None:
    with torch.device('meta'):
        net = build('mti_net', backbone, PAIR).eval()
        outputs = net(torch.zeros(1, 3, 64, 96))
    assert {t: tuple(x.shape) for t, x in outputs.items()} == {
        t: (1, c, 64, 96) for t, c in PAIR.items()
    }


def test_two_steps_reach_every_parameter() -> None:
    net = tiny().train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    for _ in range(2):
        predictions = net.predictions(torch.randn(2, 3, 64, 96))
        everything = [predictions.final, *(a.logits for a in predictions.auxiliary)]
        loss = sum(x.square().mean() for logits in everything for x in logits.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    unreached = [name for name, p in net.named_parameters() if p.grad is None]
    assert unreached == []
