"""PAP-Net: affinities, how they are combined and how they spread."""

from __future__ import annotations

import pytest
import torch
from mtl_training.models import ModelError, build
from mtl_training.models.pap_net import Diffusion, affinity
from mtl_training.papers.describe import describe

PAIR = {'semantic': 40, 'depth': 1}


def test_rows_of_an_affinity_sum_to_one() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 8, 3, 5)
    matrix = affinity(features)
    assert matrix.shape == (2, 15, 15)
    torch.testing.assert_close(matrix.sum(-1), torch.ones(2, 15))
    assert matrix.min() >= 0
    torch.testing.assert_close(affinity(5 * features), matrix)  # directions, not lengths


def test_affinity_says_which_pixels_are_alike() -> None:
    red, blue = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])
    pixels = torch.stack([red, blue, 2 * red, -red])  # [4, 2]
    expected = torch.tensor([[0.5, 0, 0.5, 0], [0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(affinity(pixels.T.reshape(1, 2, 2, 2))[0], expected)


def test_featureless_pixels_are_finite() -> None:
    assert torch.isfinite(affinity(torch.zeros(1, 4, 2, 3))).all()


def test_cross_task_affinity_is_a_mean_of_the_tasks() -> None:
    """Eq. 3 with weights of sum one: rows sum to one, and one task alone is possible."""
    torch.manual_seed(0)
    affinities = {task: affinity(torch.randn(1, 8, 3, 5)) for task in PAIR}
    diffusion = Diffusion(PAIR, beta=0.05, iterations=3)
    joint = diffusion.combine(affinities)
    torch.testing.assert_close(joint, (affinities['semantic'] + affinities['depth']) / 2)
    torch.testing.assert_close(joint.sum(-1), torch.ones(1, 15))
    with torch.no_grad():
        diffusion.logits[1] = 100.0
    torch.testing.assert_close(diffusion.combine(affinities), affinities['depth'])


def test_diffusion_is_the_recursion() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 8, 3, 5)
    matrix = affinity(features)
    start = features.flatten(2)  # [B, C, hw]
    expected = start
    for _ in range(3):
        expected = 0.05 * torch.einsum('bpq,bcq->bcp', matrix, expected) + 0.95 * start
    diffusion = Diffusion(['depth'], beta=0.05, iterations=3)
    torch.testing.assert_close(diffusion(features, {'depth': matrix}).flatten(2), expected)
    none = Diffusion(['depth'], beta=0.05, iterations=0)
    torch.testing.assert_close(none(features, {'depth': matrix}), features)


def test_the_grid_of_affinities_is_an_option() -> None:
    """Products of affinities: one for M of each task, one per iteration; H/4 has 16 times H/8's."""
    attention = {}
    for stride in (4, 8):
        with torch.device('meta'):
            net = build('pap_net', 'resnet18_d8', PAIR, affinity_stride=stride, width=32)
        attention[stride] = describe(net, (64, 96))[0].written.attention
        pixels = 64 * 96 // stride**2
        assert attention[stride] == 2 * (1 + 3) * pixels**2 * 16
    assert attention[4] == 16 * attention[8]
    with pytest.raises(ModelError, match='affinity_stride is 6; expected 1, 2, 4'):
        build('pap_net', 'resnet18_d8', PAIR, affinity_stride=6)


@pytest.mark.parametrize(
    ('backbone', 'stride', 'count'),
    [('resnet50_d8', 8, 25_221_398), ('hrnet_w18_small_v2', 4, 4_509_876)],
)
def test_predictions_of_both_rounds(backbone: str, stride: int, count: int) -> None:
    """Table V's 52 M are of the authors' network; ours has the survey's backbone and heads."""
    with torch.device('meta'):
        net = build('pap_net', backbone, PAIR).eval()
        predictions = net.predictions(torch.zeros(1, 3, 64, 96))
        full = net(torch.zeros(1, 3, 64, 96))
    (initial,) = predictions.auxiliary
    for task, channels in PAIR.items():
        assert predictions.final[task].shape == (1, channels, 8, 12)
        assert initial.logits[task].shape == (1, channels, 64 // stride, 96 // stride)
        assert full[task].shape == (1, channels, 64, 96)
    assert sum(p.numel() for p in net.parameters()) == count


def test_two_steps_reach_every_parameter() -> None:
    torch.manual_seed(0)
    net = build('pap_net', 'resnet18_d8', PAIR, width=32).train()
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
