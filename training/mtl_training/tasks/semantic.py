"""Semantic segmentation: of what class every pixel is, in the label set of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mtl_training.tasks.classes import ClassTask, classes_last, most_probable
from mtl_training.tasks.task import levels


@dataclass(frozen=True, kw_only=True)
class SemanticTask(ClassTask):
    """Weight 1, as in ATRC and the survey."""

    name: ClassVar[str] = 'semantic'
    weight: float = 1.0

    def head(self, logits: Tensor) -> dict[str, Tensor]:
        """The class with the highest probability, and that probability: uint8 [N, H, W]."""
        confidence = classes_last(logits).softmax(dim=-1).amax(dim=-1)
        return {
            'semantic': most_probable(logits),
            'semantic_confidence': levels(confidence.unflatten(1, logits.shape[-2:])),
        }
