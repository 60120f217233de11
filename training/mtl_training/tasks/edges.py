"""Edges: whether a pixel lies on the boundary of an object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mtl_perception.offline.metrics import EdgeF
from mtl_training.bounds import Share
from mtl_training.tasks.binary import BinaryTask
from mtl_training.tasks.task import Figure


@dataclass(frozen=True, kw_only=True)
class EdgesTask(BinaryTask):
    """Weight 50, as in ATRC and the survey.

    Attributes:
        edge_weight: w of edge pixels in the loss: .8 on NYUD and .95 on PASCAL in ATRC, .95 on both
            in the survey's code.
    """

    name: ClassVar[str] = 'edges'
    quality: ClassVar[str] = 'f'
    figures: ClassVar[tuple[Figure, ...]] = (Figure('f', 'edges F'),)
    weight: float = 50.0
    edge_weight: Share = 0.95

    def positive_weight(self, truth: Tensor, valid: Tensor) -> Tensor:
        """The same for all batches."""
        return truth.new_tensor(self.edge_weight)

    def metric(self) -> EdgeF:
        """F within a tolerance."""
        return EdgeF()
