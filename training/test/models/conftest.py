"""What tests of equations need: norms and weights that are far from those of a new network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def unsettle() -> Callable[[nn.Module], nn.Module]:
    """A function that gives a module random norms and double precision, in evaluation mode.

    A new BatchNorm is nearly the identity: without it an equation would hold as well.
    """

    def randomise(module: nn.Module) -> nn.Module:
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.running_mean, std=0.5)
                nn.init.uniform_(part.running_var, 0.5, 2)
            if isinstance(part, (nn.BatchNorm2d, nn.LayerNorm)):
                nn.init.normal_(part.weight, mean=1, std=0.5)
                nn.init.normal_(part.bias, std=0.5)
        return module.double().eval()

    torch.manual_seed(0)
    return randomise
