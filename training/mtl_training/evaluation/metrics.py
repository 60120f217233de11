"""Figures by which predictions are judged; counts are pooled over all pixels of all frames.

Every metric has ``update(prediction, target)``, called for each frame or batch, and ``compute()``,
which gives named figures. Arrays are NumPy; what has no label is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


class Metric(Protocol):
    """What all metrics have in common."""

    def update(self, prediction: NDArray[Any], target: NDArray[Any]) -> None: ...

    def compute(self) -> dict[str, float]: ...


class MeanIoU:
    """Mean over classes of TP / (TP + FP + FN); classes that occur nowhere are left out.

    Differs from ATRC: a class without any pixel in labels and predictions is left out instead of
    counted as 0.
    """

    def __init__(self, classes: int) -> None:
        self.confusion = np.zeros((classes, classes), np.int64)  # [label, prediction]

    def update(self, prediction: NDArray[Any], target: NDArray[Any]) -> None:
        """Count class ids [...]; labels of 255 are left out."""
        classes = len(self.confusion)
        valid = target < classes
        pairs = target[valid].astype(np.int64) * classes + prediction[valid]
        self.confusion += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def per_class(self) -> Floats:
        """IoU [classes]; NaN for classes that occur nowhere."""
        hits = np.diag(self.confusion).astype(np.float64)
        union = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - hits
        return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)

    def compute(self) -> dict[str, float]:
        """``miou`` and the share of pixels that are right (``accuracy``)."""
        iou = self.per_class()
        total = max(int(self.confusion.sum()), 1)
        return {
            'miou': float(np.nanmean(iou)) if np.isfinite(iou).any() else 0.0,
            'accuracy': float(np.trace(self.confusion) / total),
        }


class DepthError:
    """RMSE, mean |d - d*| / d*, share of pixels with max(d / d*, d* / d) < 1.25; metres, pooled."""

    def __init__(self) -> None:
        self.sums = np.zeros(4)  # squares, relative errors, within 1.25, pixels

    def update(self, prediction: NDArray[Any], target: NDArray[Any]) -> None:
        """Add depths [...] in metres; targets of 0 are left out."""
        valid = (target > 0) & np.isfinite(prediction)
        depth = np.maximum(prediction[valid].astype(np.float64), 1e-6)
        truth = target[valid].astype(np.float64)
        error = depth - truth
        ratio = np.maximum(depth / truth, truth / depth)
        self.sums += (
            (error**2).sum(),
            (np.abs(error) / truth).sum(),
            (ratio < 1.25).sum(),
            len(truth),
        )

    def compute(self) -> dict[str, float]:
        """``rmse`` in metres, ``absrel``, ``delta1``."""
        squares, relative, within, pixels = self.sums
        pixels = np.maximum(pixels, 1)
        return {
            'rmse': float(np.sqrt(squares / pixels)),
            'absrel': float(relative / pixels),
            'delta1': float(within / pixels),
        }


class NormalError:
    """Angle between normals in degrees: mean, median (to 0.1), share below 11.25; pooled."""

    def __init__(self) -> None:
        self.histogram = np.zeros(1801, np.int64)
        self.total = 0.0
        self.within = 0

    def update(self, prediction: NDArray[Any], target: NDArray[Any]) -> None:
        """Add unit vectors [..., 3]; targets of 0 0 0 are left out."""
        valid = (target != 0).any(axis=-1)
        cosine = np.einsum('nc,nc->n', prediction[valid], target[valid])
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        self.total += float(angle.sum(dtype=np.float64))
        self.within += int((angle < 11.25).sum())
        self.histogram += np.bincount((angle * 10).astype(np.int64), minlength=1801)

    def compute(self) -> dict[str, float]:
        """``mean``, ``median`` in degrees, and ``within_11`` as a share."""
        pixels = max(int(self.histogram.sum()), 1)
        middle = int(np.searchsorted(self.histogram.cumsum(), pixels / 2))
        return {
            'mean': self.total / pixels,
            'median': (middle + 0.5) / 10,
            'within_11': self.within / pixels,
        }


class EdgeF:
    """F of edges at the best threshold for the whole set, within 0.0075 of the image diagonal.

    An edge pixel is right if any labelled edge pixel lies within the tolerance, and found if any
    predicted one does. Differs from the odsF of BSDS and SEISM: no thinning of the predictions, and
    pixels are matched by distance, not one to one; the figures must not be compared with published
    ones.
    """

    def __init__(self) -> None:
        self.thresholds = np.arange(1, 20) / 20
        # Columns: right, predicted, found, labelled.
        self.counts = np.zeros((len(self.thresholds), 4), np.int64)

    def update(self, prediction: NDArray[Any], target: NDArray[Any]) -> None:
        """Add one frame: probabilities [H, W], and labels [H, W] of 0, 1, or 255 for no label."""
        known = target != 255
        edges = (target == 1).astype(np.uint8)
        disc = _disc(0.0075 * float(np.hypot(*target.shape)))
        near = cv2.dilate(edges, disc)
        labelled = int(edges.sum())
        for row, threshold in enumerate(self.thresholds):
            predicted = ((prediction >= threshold) & known).astype(np.uint8)
            self.counts[row] += (
                cv2.countNonZero(predicted & near),
                cv2.countNonZero(predicted),
                cv2.countNonZero(cv2.dilate(predicted, disc) & edges),
                labelled,
            )

    def compute(self) -> dict[str, float]:
        """``f`` at the best threshold, and that ``threshold``."""
        right, predicted, found, labelled = self.counts.T
        precision = right / np.maximum(predicted, 1)
        recall = found / np.maximum(labelled, 1)
        f = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = int(f.argmax())
        return {'f': float(f[best]), 'threshold': float(self.thresholds[best])}


class MaxF:
    """max over thresholds of (1 + b) P R / (b P + R), b = beta^2 = 0.3, pooled (saliency)."""

    def __init__(self) -> None:
        self.thresholds = np.arange(1, 20) / 20
        self.counts = np.zeros((len(self.thresholds), 3), np.int64)  # hits, predicted, labelled

    def update(self, prediction: NDArray[Any], target: NDArray[Any]) -> None:
        """Add probabilities and labels of 0, 1, or 255 for no label, both [...]."""
        known = target != 255
        probability, truth = prediction[known], target[known] == 1
        for row, threshold in enumerate(self.thresholds):
            predicted = probability >= threshold
            self.counts[row] += ((predicted & truth).sum(), predicted.sum(), truth.sum())

    def compute(self) -> dict[str, float]:
        """``maxf``."""
        hits, predicted, labelled = self.counts.T
        precision = hits / np.maximum(predicted, 1)
        recall = hits / np.maximum(labelled, 1)
        f = 1.3 * precision * recall / np.maximum(0.3 * precision + recall, 1e-12)
        return {'maxf': float(f.max())}


def make_metrics(classes: int) -> dict[str, Callable[[], Metric]]:
    """What makes the metric of each task, by task name."""
    return {
        'semantic': lambda: MeanIoU(classes),
        'depth': DepthError,
        'normals': NormalError,
        'edges': EdgeF,
        'saliency': MaxF,
    }


def _disc(radius: float) -> NDArray[np.uint8]:
    """A filled disc as structuring element; pixels whose centre is within the radius."""
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return (x**2 + y**2 <= radius**2).astype(np.uint8)
