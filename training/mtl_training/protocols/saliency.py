"""The survey's figure of saliency, which is not ATRC's maxF."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_perception.offline.metrics import UNKNOWN


class SaliencyIoU:
    """The mean over pictures of their IoU, at the threshold that makes it largest.

    A picture in which nothing is salient counts as 1 where nothing is predicted.
    """

    THRESHOLDS = np.linspace(0.2, 0.9, 15)

    def __init__(self) -> None:
        self.total = np.zeros(len(self.THRESHOLDS))
        self.pictures = 0

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add one picture: probabilities [H, W], and 1, 0, or 255 (unknown) [H, W]."""
        known = truth != UNKNOWN
        probability, true = prediction[known], truth[known] == 1
        for row, threshold in enumerate(self.THRESHOLDS):
            predicted = probability > threshold
            union = (predicted | true).sum()
            self.total[row] += (predicted & true).sum() / union if union else 1
        self.pictures += 1

    def compute(self) -> dict[str, float]:
        """``miou``; NaN before any picture."""
        return {'miou': float(self.total.max() / self.pictures) if self.pictures else float('nan')}
