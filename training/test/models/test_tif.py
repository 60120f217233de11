"""TIF: the figures of the paper, and what its modules promise."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from mtl_training.models import ModelError, build
from mtl_training.models import tif as tif_module
from mtl_training.models.layers import MultiScaleConv, flat, resize
from mtl_training.models.pyramids import Pyramid
from mtl_training.models.tif import (
    LTHD,
    SAFF,
    SFD,
    TIF,
    Affinity,
    CrossFD,
    FinalFusion,
    SlimFusion,
    WithKey,
    diffuse,
)
from torch import Tensor, nn
from torch.nn import functional as F

TASKS = {'semantic': 40, 'depth': 1, 'normals': 3, 'edges': 1}


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


def tiny(**arguments: int) -> TIF:
    torch.manual_seed(0)
    return TIF(TinyBackbone(), TASKS, width=16, fuse_width=8, slim=False, **arguments).eval()


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ('backbone', 'channels', 'd', 'e', 'millions'),
    [
        ('hrnet_w18_small_v2', (18, 36, 72, 144), 72, 45, 5.26),
        ('swin_tiny', (96, 192, 384, 768), 96, 240, 32.91),
        ('swin_large', (192, 384, 768, 1536), 96, 480, 204.27),
    ],
)
def test_parameters_are_the_papers(
    backbone: str, channels: tuple[int, ...], d: int, e: int, millions: float
) -> None:
    """Tables 3 and 4 print 5.27, 32.91 and 204.19 M with four tasks; modules to the unit."""
    with torch.device('meta'):
        net = build('tif', backbone, TASKS)
    n, s = len(TASKS), sum(channels)
    saff = sum(
        (c * d + 2 * d)  # XL
        + ((s - c) * d + d)  # W_i, Eq. 2
        + (2 * d * d + d + d * d + d)  # SFF, Eq. 3
        + (10 * d + d * d + d)  # Eq. 4, 5
        for c in channels
    )
    sfd = (n + 1) * (d * d + 3 * d) + 8 * d * d + 7 * d
    lthd = 3 * (d * d + d) + 2 * d + 2 * d * d + 2 * d
    assert parameters(net.saff) == saff
    for task, decoder in net.decoders.items():
        assert parameters(decoder.sfd2) == parameters(decoder.sfd3) == sfd
        assert parameters(decoder.lthd0) == parameters(decoder.lthd1) == lthd
        o = TASKS[task]
        assert parameters(decoder.fusion) == 36 * d * e + 2 * e + e * o + o
    assert parameters(net) / 1e6 == pytest.approx(millions, abs=0.011)


def test_outputs_are_logits_at_the_images_size() -> None:
    net = tiny()
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        full, quarter = net(image), net.predictions(image).final
    assert {t: tuple(x.shape) for t, x in full.items()} == {
        t: (2, c, 64, 96) for t, c in TASKS.items()
    }
    assert all(x.shape[-2:] == (16, 24) for x in quarter.values())


def test_attention_of_the_low_scales_is_diffused_to_the_high_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Zeroing A (a uniform attention) changes RX^0 and RX^1; zeroing only A^2 does, too."""
    net = tiny()
    decoder = net.decoders['depth']
    refined: dict[str, Tensor] = {}
    for name in ('lthd0', 'lthd1'):
        decoder.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: refined.__setitem__(name, out)
        )
    for sfd in (decoder.sfd2, decoder.sfd3):
        nn.init.normal_(sfd.gain, std=3)  # an attention that is far from uniform
    image = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        net(image)
        normal = dict(refined)

        def without_a2(a3: Affinity, a2: Affinity) -> Tensor:
            return diffuse(a3, Affinity(torch.zeros_like(a2.query), a2.key))

        def without_a(a3: Affinity, a2: Affinity) -> Tensor:
            zero = Affinity(torch.zeros_like(a3.query), a3.key)
            return without_a2(zero, a2)

        for changed in (without_a2, without_a):
            monkeypatch.setattr(tif_module, 'diffuse', changed)
            net(image)
            for name, before in normal.items():
                assert (refined[name] - before).abs().max() > 1e-4, name


def test_affinity_is_up_sampled_exactly() -> None:
    """f_up of Eq. 11 on the factors = interpolating A's key grid, then its query grid."""
    torch.manual_seed(0)
    a3 = Affinity(torch.randn(2, 16, 3, 4), torch.randn(2, 16, 3, 4))
    a2 = Affinity(torch.randn(2, 16, 6, 8), torch.randn(2, 16, 6, 8))
    matrix = a3.matrix()  # [B, 12 queries, 12 keys]
    torch.testing.assert_close(matrix, flat(a3.query) @ flat(a3.key).mT / 16**0.5)
    keys = resize(matrix.view(2, 12, 3, 4), (6, 8)).flatten(2)  # [B, 12, 48]
    up = resize(keys.mT.reshape(2, 48, 3, 4), (6, 8)).flatten(2).mT  # [B, 48, 48]
    torch.testing.assert_close(diffuse(a3, a2), (up + a2.matrix()).softmax(-1))


def test_tasks_do_not_see_each_other() -> None:
    net = tiny().train()
    net(torch.randn(2, 3, 64, 64))['depth'].abs().mean().backward()
    for task, decoder in net.decoders.items():
        touched = any(p.grad is not None and p.grad.any() for p in decoder.parameters())
        assert touched == (task == 'depth'), task
    assert all(saff.mix.weight.grad.any() for saff in net.saff)  # the encoder is shared


@pytest.mark.parametrize('slim', [True, False])
def test_logits_do_not_begin_near_zero(slim: bool) -> None:
    """Weights of .01, right for SGD, leave decoders small gradients for hundreds of steps."""
    torch.manual_seed(0)
    net = TIF(TinyBackbone(), TASKS, width=16, fuse_width=64, slim=slim)
    for decoder in net.decoders.values():
        assert 0.05 < decoder.fusion.predict.weight.std() < 0.2


def test_multi_scale_conv_equals_the_written_form() -> None:
    """conv1x1(cat(resize(x_j))) and the split, commuted form give the same numbers."""
    torch.manual_seed(0)
    conv = MultiScaleConv([4, 6, 8], 5).double()
    features = [
        torch.randn(2, c, h, w, dtype=torch.double)
        for c, h, w in ((4, 16, 24), (6, 8, 12), (8, 3, 5))
    ]
    for size in ((16, 24), (8, 12), (3, 5)):
        conv.as_written = False
        quick = conv(features, size)
        conv.as_written = True
        torch.testing.assert_close(quick, conv(features, size))


def test_slim_fusion_equals_a_1x1_on_the_concatenation() -> None:
    torch.manual_seed(0)
    fusion = SlimFusion(8, 6, 3).double().eval()
    refined = [torch.randn(1, 8, 16 >> i, 24 >> i, dtype=torch.double) for i in range(4)]
    stacked = torch.cat([resize(x, (16, 24)) for x in refined], dim=1)
    reduced = F.conv2d(stacked, fusion.reduce.conv.weight)
    expected = fusion.predict(fusion.fuse(F.relu(fusion.reduce.norm(reduced))))
    torch.testing.assert_close(fusion(refined), expected)
    assert parameters(fusion) < parameters(FinalFusion(8, 6, 3)) / 2


def test_sfd_branches_are_linear_layers_each_with_its_own_norm() -> None:
    """Eq. 6-7 written out: K = sum_n LN_n(W_n x), Q = LN_0(W_0 x)."""
    torch.manual_seed(0)
    sfd = SFD(8, 3)
    nn.init.normal_(sfd.gain)
    nn.init.normal_(sfd.shift)
    x = torch.randn(2, 8, 3, 4)
    _, affinity = sfd(x)
    branches = [
        F.layer_norm(F.linear(flat(x), w, b), (8,), g, s)
        for w, b, g, s in zip(
            sfd.branches.weight.split(8),
            sfd.branches.bias.split(8),
            sfd.gain,
            sfd.shift,
            strict=True,
        )
    ]
    torch.testing.assert_close(flat(affinity.query), branches[0])
    torch.testing.assert_close(flat(affinity.key), sum(branches[1:]))


def conv1x1(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Written out: every place by itself."""
    y = torch.einsum('oi,bihw->bohw', conv.weight[..., 0, 0], x)
    return y if conv.bias is None else y + conv.bias[:, None, None]


def batch_norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return x * scale[:, None, None] + (norm.bias - norm.running_mean * scale)[:, None, None]


@pytest.mark.parametrize('scale', range(4))
def test_saff_is_equations_2_to_5(scale: int, unsettle: Callable[[nn.Module], nn.Module]) -> None:
    channels = (4, 6, 8, 10)
    saff = unsettle(SAFF(channels, scale, 8))
    features = [torch.randn(2, c, 16 >> i, 24 >> i).double() for i, c in enumerate(channels)]
    size = features[scale].shape[-2:]
    with torch.no_grad():
        xl = batch_norm(conv1x1(features[scale], saff.reduce[0]), saff.reduce[1])
        others = [x for i, x in enumerate(features) if i != scale]
        others = [F.interpolate(x, size=size, mode='bilinear') for x in others]
        y = conv1x1(torch.cat(others, dim=1), saff.align)  # (2)
        hidden = conv1x1(torch.cat([xl, y], dim=1), saff.fuse[0]).clamp(min=0)
        sfx = conv1x1(hidden, saff.fuse[2]) + xl  # (3)
        padded, sp = F.pad(sfx, (1, 1, 1, 1)), torch.zeros_like(sfx)
        for i, j in itertools.product(range(3), range(3)):
            tap = saff.spatial.weight[:, 0, i, j, None, None]
            sp += tap * padded[:, :, i : i + size[0], j : j + size[1]]
        sp = (sp + saff.spatial.bias[:, None, None]).clamp(min=0)  # (4)
        torch.testing.assert_close(saff(features), conv1x1(sp, saff.mix))  # (5)


def ffn(x: Tensor, layers: nn.Sequential) -> Tensor:
    """Pre-norm, GELU; tokens [B,hw,D]."""
    norm, first, _, second = layers
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    x = (x - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias
    x = x @ first.weight.T + first.bias
    x = x * (1 + torch.erf(x / 2**0.5)) / 2
    return x @ second.weight.T + second.bias


def test_sfd_is_equations_8_to_10(unsettle: Callable[[nn.Module], nn.Module]) -> None:
    sfd = unsettle(SFD(8, 3))
    nn.init.normal_(sfd.gain)
    x = torch.randn(2, 8, 3, 4).double()
    with torch.no_grad():
        found, affinity = sfd(x)
        query, key, tokens = (t.flatten(2).mT for t in (affinity.query, affinity.key, x))
        attended = torch.zeros_like(tokens)
        for p in range(12):
            likeness = torch.exp((query[:, p, None] * key).sum(-1) / 8**0.5)  # (8)
            weights = likeness / likeness.sum(-1, keepdim=True)
            attended[:, p] = (weights[..., None] * key).sum(1)  # V = K
        refined = attended + tokens  # (9)
        refined = ffn(refined, sfd.ffn) + refined  # (10)
        torch.testing.assert_close(found, refined.mT.reshape(2, 8, 3, 4))


def test_lthd_is_equations_12_and_13(unsettle: Callable[[nn.Module], nn.Module]) -> None:
    """Place p of scale 2 gets sum_q A_pq (mean of X over q's cell) W; A is not symmetric."""
    lthd = unsettle(LTHD(6))
    x, attention = torch.randn(2, 6, 8, 12).double(), torch.randn(2, 12, 12).double().softmax(-1)
    with torch.no_grad():
        values = torch.empty(2, 12, 6).double()
        for q in range(12):
            i, j = divmod(q, 4)
            rows = slice(8 * i // 3, -(-8 * (i + 1) // 3))  # as adaptive pooling cuts 8 into 3
            cell = x[:, :, rows, 3 * j : 3 * j + 3].mean((2, 3))
            values[:, q] = cell @ lthd.value.weight.T + lthd.value.bias
        diffused = torch.zeros_like(values)
        for p, q in itertools.product(range(12), range(12)):
            diffused[:, p] += attention[:, p, q, None] * values[:, q]  # (12)
        low = ffn(diffused, lthd.ffn).mT.reshape(2, 6, 3, 4)
        up = F.interpolate(low, size=(8, 12), mode='bilinear')
        fused = batch_norm(conv1x1(torch.cat([up, x], dim=1), lthd.fuse.conv), lthd.fuse.norm)
        torch.testing.assert_close(lthd(x, attention, (3, 4)), fused.clamp(min=0))  # (13)


def test_final_fusion_is_equation_14(unsettle: Callable[[nn.Module], nn.Module]) -> None:
    fusion = unsettle(FinalFusion(4, 6, 3))
    nn.init.normal_(fusion.predict.weight)
    refined = [torch.randn(1, 4, 16 >> i, 24 >> i).double() for i in range(4)]
    with torch.no_grad():
        up = [F.interpolate(x, size=(16, 24), mode='bilinear') for x in refined]
        conv, norm, _ = fusion.fuse
        fused = batch_norm(F.conv2d(torch.cat(up, dim=1), conv.weight, padding=1), norm)
        torch.testing.assert_close(fusion(refined), conv1x1(fused.clamp(min=0), fusion.predict))


def test_a_decoder_gives_each_scale_what_is_its_own() -> None:
    """SFD refines scales 2 and 3, LTHD 0 and 1, with one attention that both low scales make."""
    net = tiny()
    decoder = net.decoders['depth']
    enhanced = [torch.randn(1, 16, 16 >> i, 24 >> i) for i in range(4)]
    with torch.no_grad():
        rx2, a2 = decoder.sfd2(enhanced[2])
        rx3, a3 = decoder.sfd3(enhanced[3])
        attention = (a3.up((4, 6)).matrix() + a2.matrix()).softmax(-1)
        rx0 = decoder.lthd0(enhanced[0], attention, (4, 6))
        rx1 = decoder.lthd1(enhanced[1], attention, (4, 6))
        torch.testing.assert_close(decoder(enhanced), decoder.fusion([rx0, rx1, rx2, rx3]))


def test_saff_sees_every_scale() -> None:
    torch.manual_seed(0)
    saff = SAFF((8, 12, 16, 24), 1, 8)
    features = [
        torch.randn(1, c, 16 >> i, 16 >> i, requires_grad=True)
        for i, c in enumerate((8, 12, 16, 24))
    ]
    out = saff(features)
    assert out.shape == (1, 8, 8, 8)
    out.square().sum().backward()
    assert all(x.grad.any() for x in features)


def millions(net: nn.Module) -> float:
    return round(parameters(net) / 1e6, 3)


@pytest.mark.parametrize(
    ('backbone', 'expected'),
    [('swin_small', 54.222), ('swin_base', 93.422), ('vit_base', 95.652)],
)
def test_other_backbones(backbone: str, expected: float) -> None:
    """Swin-S: 48.836 M + the 5.386 M of Swin-T's decoders. ViT-B's 124 M are out of reach."""
    with torch.device('meta'):
        assert millions(build('tif', backbone, TASKS)) == expected


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({}, 32.904),  # Table 3: 32.91
        ({'lthd': False}, 32.530),  # Table 8, self-distillation: 31.78
        ({'lthd': False, 'cross': True}, 32.302),  # Table 8: 31.56, 0.22 less as here
        ({'lthd': False, 'sfd': 0}, 31.555),
        ({'lthd': False, 'sfd': 0, 'saff': 0}, 30.987),
        ({'sfd': 1}, 32.417),
        ({'saff': 2}, 32.579),
        ({'saff': 0}, 32.337),
    ],
)
def test_ablations_have_fewer_parameters(options: dict[str, int], expected: float) -> None:
    """Tables 6 to 9 on Swin-T; what each switch takes away, in closed form, and nothing else."""
    with torch.device('meta'):
        net = build('tif', 'swin_tiny', TASKS, **options)
    assert millions(net) == expected
    channels, d, n = (96, 192, 384, 768), 96, 4
    s = sum(channels)
    gone = sum(  # of SAFF only XL remains
        ((s - c) * d + d) + (2 * d * d + d + d * d + d) + (10 * d + d * d + d)
        for c in channels[: 4 - options.get('saff', 4)]
    )
    sfd = (n + 1) * (d * d + 3 * d) + 8 * d * d + 7 * d
    gone += n * sfd * (2 - options.get('sfd', 2))
    if not options.get('lthd', True):
        gone += n * 2 * (3 * (d * d + d) + 2 * d + 2 * d * d + 2 * d)
    if options.get('cross'):
        gone += 2 * n * (n - 1) * (d * d + 3 * d)
    with torch.device('meta'):
        assert parameters(build('tif', 'swin_tiny', TASKS)) - parameters(net) == gone


@pytest.mark.parametrize(
    'options',
    [{'lthd': 0}, {'lthd': 0, 'sfd': 0, 'saff': 0}, {'sfd': 1}, {'saff': 2}, {'cross': 1}],
)
def test_ablations_train(options: dict[str, int]) -> None:
    net = tiny(**options).train()
    for _ in range(2):
        sum(x.square().mean() for x in net(torch.randn(2, 3, 64, 96)).values()).backward()
        missing = [name for name, p in net.named_parameters() if p.grad is None]
        assert missing == []


def test_default_names_are_those_of_trained_checkpoints() -> None:
    names = {name.partition('.')[0] for name, _ in tiny().named_parameters()}
    assert names == {'backbone', 'saff', 'decoders'}
    of = {n.removeprefix('saff.0.') for n, _ in tiny().named_parameters() if n.startswith('saff.0')}
    assert {n.partition('.')[0] for n in of} == {'reduce', 'align', 'fuse', 'spatial', 'mix'}
    decoder = dict(tiny().decoders['depth'].named_parameters())
    assert {n.partition('.')[0] for n in decoder} == {'sfd2', 'sfd3', 'lthd0', 'lthd1', 'fusion'}
    assert {n for n in decoder if n.startswith('sfd2')} == {
        'sfd2.gain',
        'sfd2.shift',
        'sfd2.branches.weight',
        'sfd2.branches.bias',
        *(f'sfd2.ffn.{layer}.{kind}' for layer in (0, 1, 3) for kind in ('weight', 'bias')),
    }


def test_cross_distillation_lets_tasks_see_each_other() -> None:
    """Table 8: with it the loss of one task changes the key maps of all; without, none."""
    net = tiny(cross=True).train()
    net(torch.randn(2, 3, 64, 64))['depth'].square().mean().backward()
    sources = [source for scale in (2, 3) for source in net.saff[scale].sources]
    assert len(sources) == 2 * len(TASKS)
    assert all(source[0].weight.grad.any() for source in sources)


def test_cross_distillation_with_one_task_is_self_distillation() -> None:
    torch.manual_seed(0)
    own, x = SFD(8, 1), torch.randn(2, 8, 3, 4)
    cross, source = CrossFD(8), WithKey(nn.Identity(), 8, 1)
    for branch, layer in ((0, cross.query), (1, source.sources[0])):
        layer[0].load_state_dict(
            {
                'weight': own.branches.weight.chunk(2)[branch],
                'bias': own.branches.bias.chunk(2)[branch],
            }
        )
    cross.ffn.load_state_dict(own.ffn.state_dict())
    torch.testing.assert_close(cross(source(x))[0], own(x)[0])


def test_without_sfd_on_scale_2_the_attention_is_that_of_scale_3() -> None:
    net = tiny(sfd=1)
    x3 = torch.randn(1, 16, 3, 4)
    _, a3 = net.decoders['depth'].sfd3(x3)
    _, a2 = net.decoders['depth'].sfd2(torch.randn(1, 16, 6, 8))
    torch.testing.assert_close(diffuse(a3, a2), a3.up((6, 8)).matrix().softmax(-1))


@pytest.mark.parametrize(
    ('options', 'complaint'),
    [
        ({'sfd': 0}, 'sfd is 0, expected 1 or 2'),
        ({'saff': 5}, 'saff is 5'),
        ({'sfd': 3}, 'expected 0 to 4 and 0 to 2 scales'),
    ],
)
def test_what_cannot_be_switched_off_is_told(options: dict[str, int], complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        tiny(**options)
