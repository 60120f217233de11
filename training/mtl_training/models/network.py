"""What all systems have in common: an image in, predictions of every task out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F


class Auxiliary(NamedTuple):
    """Predictions that are trained but not used: of another scale, stage or task.

    Attributes:
        logits: [B, C_t, h, w] by task, on a grid of their own.
        weight: factor of their losses.
    """

    logits: dict[str, Tensor]
    weight: float = 1.0


class Predictions(NamedTuple):
    """What a network says about a batch.

    Attributes:
        final: logits [B, C_t, h, w] by task, on the network's own grid, usually H/4 x W/4.
        auxiliary: for deep supervision; empty in systems without.
    """

    final: dict[str, Tensor]
    auxiliary: Sequence[Auxiliary] = ()


class Network(nn.Module):
    """A system of the literature. Subclasses implement ``predictions``.

    Attributes:
        tasks: output channels by task name.
        mean, std: normalisation of RGB in 0..1 that the backbone expects.
        not_exportable: why it cannot become a bundle, in one sentence; empty if it can.
    """

    not_exportable: str = ''

    def __init__(
        self, tasks: Mapping[str, int], *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.tasks = dict(tasks)
        self.mean, self.std = tuple(mean), tuple(std)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> predictions; the same in training and in use."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Normalised image [B,3,H,W] -> final logits [B,C_t,H,W] by task."""
        size = image.shape[-2:]
        return {task: resize(x, size) for task, x in self.predictions(image).final.items()}

    def penalties(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Further terms of the total loss of the last forward pass, weighted, by name.

        Args:
            losses: unweighted losses of the final predictions by task.
        """
        return {}

    def learning_rates(self, *, adaptive: bool) -> dict[str, float]:
        """Factors of the learning rate by the beginning of a parameter's name; 1 for the others.

        Args:
            adaptive: whether the optimiser divides steps by the size of gradients, as Adam does.
                A factor that makes up for small gradients under SGD would then make huge steps.
        """
        return {}


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, half-pixel centres; x itself where the size is right already."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode='bilinear', align_corners=False)
