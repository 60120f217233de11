"""Saliency: whether a pixel belongs to what people would look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mtl_perception.offline.metrics import MaxF
from mtl_training.tasks.binary import BinaryTask
from mtl_training.tasks.task import Figure, masked_mean


@dataclass(frozen=True, kw_only=True)
class SaliencyTask(BinaryTask):
    """Weight 5, as in ATRC and the survey; w: share of negatives (Xie & Tu, ICCV 2015, Eq. 2).

    Attributes:
        two_class: whether there is a logit for both answers, as in ATRC's code, instead of one, as
            in the survey's. The softmax of two is the sigmoid of their difference.
    """

    name: ClassVar[str] = 'saliency'
    quality: ClassVar[str] = 'maxf'
    figures: ClassVar[tuple[Figure, ...]] = (Figure('maxf', 'saliency maxF'),)
    weight: float = 5.0
    two_class: bool = False

    @property
    def channels(self) -> int:
        """The logit of being salient, or those of not being and of being so."""
        return 2 if self.two_class else 1

    def logit(self, logits: Tensor) -> Tensor:
        """log p / (1 - p), [B, 1, H, W]."""
        return logits[:, 1:] - logits[:, :1] if self.two_class else logits

    def positive_weight(self, truth: Tensor, valid: Tensor) -> Tensor:
        """The share of negatives in the batch."""
        return masked_mean(1 - truth, valid)

    def metric(self) -> MaxF:
        """The largest F of all thresholds."""
        return MaxF()
