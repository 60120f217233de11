"""Mixed precision on CPUs leaves depth-wise convolutions in 32 bits, which is faster there."""

from __future__ import annotations

import pytest
import torch
from lightning.fabric import Fabric
from mtl_training.loop.precision import autocast
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

IMAGE = torch.linspace(-1, 1, 2 * 8 * 12 * 12).reshape(2, 8, 12, 12)


@pytest.mark.parametrize('kind', [nn.Conv2d, Conv2dSame])
def test_depthwise_convolutions_are_those_of_full_precision(kind: type[nn.Conv2d]) -> None:
    depthwise = kind(8, 8, 5, 2, groups=8)
    with autocast(Fabric(accelerator='cpu', precision='bf16-mixed')):
        mixed = depthwise(IMAGE.bfloat16())
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, depthwise(IMAGE.bfloat16().float()))


@pytest.mark.parametrize('layer', [nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=2)])
def test_others_are_in_16_bits(layer: nn.Conv2d) -> None:
    with autocast(Fabric(accelerator='cpu', precision='bf16-mixed')):
        assert layer(IMAGE).dtype == torch.bfloat16


def test_full_precision_is_full() -> None:
    with autocast(Fabric(accelerator='cpu', precision='32-true')):
        assert nn.Conv2d(8, 8, 3)(IMAGE).dtype == torch.float32
