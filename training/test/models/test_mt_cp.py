"""MT-CP: parameters in closed form, and what coherence and trace-back promise."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from mtl_training.models import ModelError, build, pyramid
from mtl_training.models.mt_cp import CBAM, CFM, FPN, MTCP, SRM, SwinDecoder
from mtl_training.models.pyramids import Mask2FormerPyramid, ResNetPyramid
from torch import Tensor, nn

TASKS = {'semantic': 5, 'depth': 1, 'normals': 3}
SMALL = {'layers': (1, 1, 1, 1), 'channels': (16, 32, 48, 64), 'out_indices': (1, 2, 3, 4)}


def tiny(tasks: dict[str, int] = TASKS, **options: int) -> MTCP:
    torch.manual_seed(0)
    backbone = ResNetPyramid('resnet18', SMALL, pretrained=False)
    return MTCP(backbone, tasks, **{'width': 16, **options})


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def cbam(c: int) -> int:
    return 2 * c * (c // 16) + c // 16 + c + 98 + 2  # the last are a BatchNorm


def test_parameters_of_a_decoder_are_those_of_its_layers() -> None:
    """Per task: Swin 22.32 M, FPN 1.05 M, CFM 0.48 M (three tasks), trace-back 3.60 M."""
    d, n, heads, outputs = 256, 3, 2, 40

    def block(c: int) -> int:  # attention 4 C^2, MLP 8 C^2, biases of positions 13^2 a head
        return 12 * c * c + 13 * c + 169 * heads

    def merging(c: int) -> int:  # 2x2 places side by side, LayerNorm, 4 C -> 2 C
        return 8 * c + 8 * c * c

    swin = block(d) + 2 * block(2 * d) + block(4 * d) + merging(d) + merging(2 * d) + 2 * 7 * d
    fpn = 7 * d * d + 3 * d + 9 * d * d + d
    w = (n - 1) * d
    cfm = 2 * (cbam(d) + 2 * d) + (n - 1) * (d * d + d) + w * w + w + 2 * (cbam(w) + 2 * w)

    def srm(p: int, b: int, carry: int) -> int:
        return cbam(p) + cbam(b) + (p + b) * (d + carry) + 2 * (d + carry)

    trace = srm(d, 4 * d, 4 * d) + srm(4 * d, 2 * d, 2 * d) + srm(2 * d, d, 0)
    trace += 3 * (d * d + 2 * d + d * outputs + outputs)
    with torch.device('meta'):
        net = build('mt_cp', 'resnet18', {**TASKS, 'semantic': outputs})
    assert parameters(net.decoders['semantic']) == swin == 22_323_272
    assert parameters(net.fpn['semantic']) == fpn
    assert parameters(net.cfm['semantic']) == cfm
    assert parameters(net.trace_back['semantic']) == trace


def test_predictions_get_finer_and_all_but_the_last_count_half() -> None:
    net = tiny().eval()
    with torch.no_grad():
        predictions = net.predictions(torch.randn(1, 3, 64, 96))
    assert [a.weight for a in predictions.auxiliary] == [0.5, 0.5]
    logits = [*(a.logits for a in predictions.auxiliary), predictions.final]
    for found, size in zip(logits, ((4, 6), (8, 12), (16, 24)), strict=True):
        assert {t: tuple(x.shape) for t, x in found.items()} == {
            t: (1, c, *size) for t, c in TASKS.items()
        }


def test_trace_back_reaches_the_decoders_of_the_other_tasks() -> None:
    """Already the deepest prediction of one task depends on every scale of the others' decoders."""
    net = tiny().eval()
    predictions = net.predictions(torch.randn(1, 3, 64, 96))
    predictions.auxiliary[0].logits['depth'].square().sum().backward()
    for task, decoder in net.decoders.items():
        for scale, norm in enumerate(decoder.norms):
            reached = norm.weight.grad is not None and bool(norm.weight.grad.any())
            assert reached, (task, scale)
    for task, trace in net.trace_back.items():  # what is traced back is the task's own
        touched = any(p.grad is not None for p in trace.parameters())
        assert touched == (task == 'depth')


def test_each_refinement_sees_its_scale_of_the_decoder() -> None:
    net = tiny().eval()
    stages = [torch.randn(1, 16 << i, 16 >> i, 24 >> i, requires_grad=True) for i in range(3)]
    logits = net.trace_back['depth'](torch.randn(1, 16, 16, 24), stages)
    for step, seen in enumerate(((2,), (1, 2), (0, 1, 2))):
        gradients = torch.autograd.grad(
            logits[step].square().sum(), stages, retain_graph=True, allow_unused=True
        )
        assert tuple(i for i, g in enumerate(gradients) if g is not None) == seen


@pytest.mark.parametrize('pool', [1, 4])
def test_coherence_averages_what_the_other_tasks_find_alike(pool: int) -> None:
    torch.manual_seed(0)
    cfm = CFM(16, 2, pool).eval()
    affinity = cfm.affinity(torch.randn(2, 32, 8, 12))
    assert affinity.shape == (2, 96, 96 // pool**2)
    torch.testing.assert_close(affinity.sum(-1), torch.ones(2, 96))
    cfm.value = cfm.out = nn.Identity()
    others = [torch.randn(1, 16, 8, 12) for _ in range(2)]
    flat = torch.randn(1, 16, 1, 1).expand(1, 16, 8, 12)
    torch.testing.assert_close(cfm(flat, others), flat)  # an average of equal values
    x = torch.randn(1, 16, 8, 12)
    assert not torch.allclose(cfm(x, others), cfm(x, [o * 2 for o in others]))


def test_cbam_is_its_equation(unsettle: Callable[[nn.Module], nn.Module]) -> None:
    """Channels by MLP(mean) + MLP(max), then places by BN(conv7x7([mean, max]))."""
    attend, x = unsettle(CBAM(32)), torch.randn(2, 32, 5, 6, dtype=torch.double)
    weights = {name: p.detach().numpy() for name, p in attend.state_dict().items()}

    def mlp(v: np.ndarray) -> np.ndarray:
        hidden = np.maximum(v @ weights['mlp.0.weight'].T + weights['mlp.0.bias'], 0)
        return hidden @ weights['mlp.2.weight'].T + weights['mlp.2.bias']

    y = x.numpy()
    y = y * sigmoid(mlp(y.mean((2, 3))) + mlp(y.max((2, 3))))[:, :, None, None]
    both = np.pad(np.stack([y.mean(1), y.max(1)], axis=1), ((0, 0), (0, 0), (3, 3), (3, 3)))
    logits = np.empty((2, 1, 5, 6))
    for i, j in np.ndindex(5, 6):
        patch = both[:, :, i : i + 7, j : j + 7]
        logits[:, 0, i, j] = (patch * weights['spatial.0.weight'][0]).sum((1, 2, 3))
    mean, variance = weights['spatial.1.running_mean'], weights['spatial.1.running_var']
    logits = (logits - mean) / np.sqrt(variance + 1e-5)
    logits = logits * weights['spatial.1.weight'] + weights['spatial.1.bias']
    with torch.no_grad():
        np.testing.assert_allclose(attend(x).numpy(), y * sigmoid(logits), rtol=1e-10)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_coherence_is_its_equation(unsettle: Callable[[nn.Module], nn.Module]) -> None:
    """Gates multiply; every place p gets sum_q A_pq V_q, A_pq = softmax_q <theta_p, phi_q>."""
    cfm = unsettle(CFM(16, 2, 1))
    x, *others = torch.randn(3, 1, 16, 3, 4, dtype=torch.double)
    with torch.no_grad():
        gated = []
        for gate, other in zip(cfm.gates, others, strict=True):
            logits = torch.einsum('oi,bihw->bohw', gate.weight[..., 0, 0], other)
            gated.append(other / (1 + torch.exp(-logits - gate.bias[:, None, None])))
        joined = torch.cat(gated, dim=1)
        mixed = torch.einsum('oi,bihw->bohw', cfm.mix[0].weight[..., 0, 0], joined)
        mixed = (mixed + cfm.mix[0].bias[:, None, None]).clamp(min=0)
        theta, phi, value = cfm.theta(mixed)[0], cfm.phi(mixed)[0], cfm.value(x)[0]
        coherent = torch.empty(1, 16, 3, 4, dtype=torch.double)
        for i, j in np.ndindex(3, 4):
            likeness = torch.exp((theta[:, i, j, None, None] * phi).sum(0))
            coherent[0, :, i, j] = (value * likeness).sum((1, 2)) / likeness.sum()
        torch.testing.assert_close(cfm(x, others), cfm.out(coherent))


def test_cbam_gates_channels_and_then_places() -> None:
    torch.manual_seed(0)
    attend, x = CBAM(16), torch.randn(2, 16, 4, 6)
    gate = attend(x) / x
    assert ((gate > 0) & (gate < 1)).all()
    with torch.no_grad():
        attend.spatial[0].weight.zero_()
    gate = attend(x) / x  # of channels only, and one half everywhere
    torch.testing.assert_close(gate, gate[..., :1, :1].expand_as(gate))


@pytest.mark.parametrize('size', [(64, 96), (72, 104)])
@pytest.mark.parametrize('count', [2, 4])
def test_any_number_of_tasks_from_two_on_trains(count: int, size: tuple[int, int]) -> None:
    tasks = dict(list({**TASKS, 'edges': 1}.items())[:count])
    net = tiny(tasks).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    for _ in range(2):
        predictions = net.predictions(torch.randn(2, 3, *size))
        maps = [predictions.final, *(a.logits for a in predictions.auxiliary)]
        loss = sum(x.square().mean() for logits in maps for x in logits.values())
        assert torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        assert [n for n, p in net.named_parameters() if p.grad is None] == []
        optimizer.step()


def test_one_task_is_refused() -> None:
    with pytest.raises(ModelError, match='expected two or more'):
        tiny({'depth': 1})


def test_modules_keep_odd_sizes() -> None:
    stages = SwinDecoder(16).eval()(torch.randn(1, 16, 15, 9))
    assert [tuple(x.shape[2:]) for x in stages] == [(15, 9), (8, 5), (4, 3)]
    assert FPN(16)(stages).shape == (1, 16, 15, 9)
    feature, carried = SRM(16, 64, 16, carry=64).eval()(torch.randn(1, 16, 15, 9), stages[2])
    assert feature.shape == (1, 16, 4, 3)
    assert carried.shape == (1, 64, 4, 3)


def test_missing_transformers_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'transformers', None)
    for pretrained in (False, True):
        with pytest.raises(ModelError, match='Mask2Former comes from a package: pip install'):
            pyramid('mask2former_swin_small', pretrained=pretrained)


def test_mask2former_gives_the_shared_representation() -> None:
    """R = (sum of the masks' logits) x (feature of the masks); nothing is projected."""
    pytest.importorskip('transformers', reason='the backbone of the authors is optional')
    torch.manual_seed(0)
    swin = {'embed_dim': 24, 'depths': [1, 1, 1, 1], 'num_heads': [1, 1, 1, 1]}
    swin |= {'window_size': 7, 'out_features': ['stage1', 'stage2', 'stage3', 'stage4']}
    backbone = Mask2FormerPyramid('', swin, pretrained=False).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features, out = backbone(image), backbone.net(image)
    sizes = [(1, 256, 64 // s, 96 // s) for s in (4, 8, 16, 32)]
    assert [tuple(x.shape) for x in features] == sizes
    feature: Tensor = out.pixel_decoder_last_hidden_state
    masks = out.masks_queries_logits
    expected = torch.einsum('bnhw,bdhw->bdhw', masks, feature)
    torch.testing.assert_close(features[0], expected, rtol=1e-3, atol=1e-3)
    net = MTCP(backbone, {'depth': 1, 'normals': 3})
    assert parameters(net.shared) == 0
