"""The systems of the literature, one file each, and the one place that builds them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from mtl_training.models.backbones import BACKBONES, ModelError, pyramid
from mtl_training.models.tif import TIF

__all__ = ['BACKBONES', 'MODELS', 'TIF_WIDTHS', 'ModelError', 'TIFWidths', 'build', 'pyramid']


@dataclass(frozen=True)
class TIFWidths:
    """Width D of the decoders, width E of the final fusion, and whether the fusion is slim."""

    width: int
    fuse_width: int
    slim: bool = False


# D and E reproduce the parameter counts of the paper (Tables 3 and 4); E = sum(C) // 6.
# EfficientNet-Lite0 is the configuration that is deployed; the paper has none.
TIF_WIDTHS: dict[str, TIFWidths] = {
    'hrnet_w18_small_v2': TIFWidths(width=72, fuse_width=45),
    'swin_tiny': TIFWidths(width=96, fuse_width=240),
    'swin_base': TIFWidths(width=96, fuse_width=320),
    'swin_large': TIFWidths(width=96, fuse_width=480),
    'tf_efficientnet_lite0': TIFWidths(width=64, fuse_width=64, slim=True),
}


def _tif(
    backbone: str,
    tasks: Mapping[str, int],
    *,
    pretrained: bool | str,
    width: int | None,
    fuse_width: int | None,
    slim: bool | None,
) -> TIF:
    usual = TIF_WIDTHS[backbone]
    return TIF(
        pyramid(backbone, pretrained=pretrained),
        tasks,
        width=usual.width if width is None else width,
        fuse_width=usual.fuse_width if fuse_width is None else fuse_width,
        slim=usual.slim if slim is None else slim,
    )


MODELS: dict[str, Callable[..., nn.Module]] = {'tif': _tif}


def build(
    name: str,
    backbone: str,
    tasks: Mapping[str, int],
    *,
    pretrained: bool | str = False,
    width: int | None = None,
    fuse_width: int | None = None,
    slim: bool | None = None,
) -> nn.Module:
    """Build a network: normalised float [B,3,H,W] -> {task: logits [B,channels,H,W]}.

    Args:
        name: system, a key of ``MODELS``.
        backbone: a key of ``BACKBONES``.
        tasks: output channels by task name.
        pretrained: True or 'imagenet' loads ImageNet weights into the backbone.
        width, fuse_width, slim: as in ``TIF``; left out, those of ``TIF_WIDTHS``.

    Raises:
        ModelError: unknown name or backbone, no tasks, or weights that cannot be had.
    """
    if name not in MODELS:
        raise ModelError(f'unknown model {name!r}; known: {", ".join(MODELS)}')
    if backbone not in BACKBONES:
        raise ModelError(f'unknown backbone {backbone!r}; known: {", ".join(BACKBONES)}')
    if not tasks:
        raise ModelError(f'{name} needs at least one task')
    return MODELS[name](
        backbone, tasks, pretrained=pretrained, width=width, fuse_width=fuse_width, slim=slim
    )
