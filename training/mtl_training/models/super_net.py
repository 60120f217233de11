"""What searches for a tree have in common: a network that holds all of them, and finds one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mtl_training.models.network import Network


class SuperNet(Network):
    """A network that samples a tree at each pass, and learns which to sample.

    L = sum_t L_t + lambda E[cost],   E[cost] in GFLOP, two per multiply-accumulate

    In a warm-up nothing is decided: the cost does not count either. While all choices are alike, it
    has a gradient of rounding errors only, which Adam would make steps of: the tree would grow
    together before any task had a say.

    Attributes:
        warm_up: share of the training.
        step: of the search; in checkpoints.
    """

    not_exportable: ClassVar[str] = (
        'a super-net holds every tree and samples one at each pass; '
        'build the tree that it found as branched, train and export that'
    )
    warm_up: ClassVar[float]
    heads: nn.ModuleDict
    step: Tensor

    def __init__(
        self,
        tasks: Mapping[str, int],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        cost_weight: float,
        steps: int,
    ) -> None:
        super().__init__(tasks, mean=mean, std=std)
        self.cost_weight, self.steps = cost_weight, steps
        self.register_buffer('step', torch.zeros((), dtype=torch.long))

    @property
    def done(self) -> Tensor:
        """How much of the search, 0 to 1."""
        return self.step.float() / self.steps

    @property
    def searching(self) -> Tensor:
        """Whether the warm-up is over."""
        return torch.ge(self.done, self.warm_up)

    def expected_macs(self) -> Tensor:
        """E[cost] in multiply-accumulates of the encoder."""
        raise NotImplementedError

    def tree(self) -> list[list[list[str]]]:
        """The most probable choices as a tree for ``branched``, one partition per block."""
        raise NotImplementedError

    def penalties(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """lambda E[cost] after the warm-up; counts the steps of the search."""
        searching = self.searching
        self.step += 1
        return {'cost': searching * self.cost_weight * 2e-9 * self.expected_macs()}

    def of_one_task(self) -> list[nn.Module]:
        """The heads."""
        return [self.heads]
