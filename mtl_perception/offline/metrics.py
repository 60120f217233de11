"""How near predictions are to the truth: one metric per task, over all pixels of all frames.

Every metric takes arrays of one size frame by frame (``update``) and gives its figures at the end
(``compute``), so that no amount of frames needs memory. Pixels whose truth is unknown do not count.
A figure is NaN where nothing was counted: never a good figure, nor a bad one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from .. import PerceptionError

UNKNOWN = 255  # of class ids and of edges and saliency
NEAR = 1.25  # the factor of delta1, within which depth counts as near


class Metric(Protocol):
    """What all metrics have in common."""

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add pixels: a frame, or several."""

    def compute(self) -> dict[str, float]:
        """Figures over everything added."""


class Mergeable(Metric, Protocol):
    """A metric that takes in what another of its kind has counted."""

    def merge(self, other: Any) -> None:
        """Add everything that the other one was given."""


def known_depth(truth: NDArray[Any]) -> NDArray[np.bool_]:
    """Where true depth is known."""
    return np.asarray(np.isfinite(truth) & (truth > 0))


def ratio(part: float, whole: float) -> float:
    """Divide, NaN where there is nothing to divide by."""
    return float(part) / float(whole) if whole else float('nan')


class MeanIoU:
    """Mean over classes of TP / (TP + FP + FN), of class ids.

    The mean goes over the classes that occur in the truth. A pixel that a prediction leaves
    unlabelled (255) is a miss.

    Differs from ATRC's and the survey's code, where a class that does not occur counts as 0.

    Args:
        classes: their names; ids are places in there.

    Attributes:
        confusion: pixels, [class of the truth, predicted class]; the last column is of those that
            were left unlabelled.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        count = len(self.classes)
        self.confusion = np.zeros((count, count + 1), np.int64)

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add class ids, both [...].

        Raises:
            PerceptionError: an id that is neither a class nor 255: other classes are meant.
        """
        count = len(self.classes)
        for what, ids in (('prediction', prediction), ('truth', truth)):
            outside = ids[(ids >= count) & (ids != UNKNOWN)]
            if outside.size:
                raise PerceptionError(
                    f'the {what} has the class id {outside[0]}, but there are {count} classes '
                    f'(0..{count - 1}, and {UNKNOWN} for none): it is of another label set'
                )
        known = truth != UNKNOWN
        predicted = np.minimum(prediction[known], count).astype(np.int64)
        cells = truth[known].astype(np.int64) * (count + 1) + predicted
        counts = np.bincount(cells, minlength=self.confusion.size)
        self.confusion += counts.reshape(self.confusion.shape)

    def merge(self, other: MeanIoU) -> None:
        """Add everything that the other one, of the same classes, was given."""
        self.confusion += other.confusion

    def compute(self) -> dict[str, float]:
        """``miou``, ``accuracy`` (share of pixels), and ``iou_CLASS`` of all that occur."""
        hits = np.diagonal(self.confusion)
        true, predicted = self.confusion.sum(axis=1), self.confusion.sum(axis=0)[:-1]
        iou = {
            f'iou_{self.classes[index]}': ratio(hits[index], union)
            for index, union in enumerate(true + predicted - hits)
            if true[index]
        }
        return {
            'miou': ratio(sum(iou.values()), len(iou)),
            'accuracy': ratio(hits.sum(), true.sum()),
            **iou,
        }


class DepthError:
    """RMSE, |d - d*| / d*, and the share of pixels within a factor of 1.25.

    No scale or shift is fitted: depth is metric or it is wrong. What is finite counts, and counts
    as a tiny depth where it is not positive. Where a prediction is NaN or infinite (a node's way to
    say "invalid" and "beyond range") there is no error to measure: ``coverage`` is the share of
    the known pixels that the other figures are of.
    """

    def __init__(self) -> None:
        self.known = self.covered = 0
        self.squares = self.relative = self.near = 0.0

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add depths in metres, both [...]; a truth of 0, NaN or infinity is unknown."""
        known = known_depth(truth)
        covered = known & np.isfinite(prediction)
        d = np.maximum(prediction[covered].astype(np.float64), 1e-6)
        t = truth[covered].astype(np.float64)
        self.known += int(np.count_nonzero(known))
        self.covered += d.size
        self.squares += float(((d - t) ** 2).sum())
        self.relative += float((np.abs(d - t) / t).sum())
        self.near += float((np.maximum(d / t, t / d) < NEAR).sum())

    def merge(self, other: DepthError) -> None:
        """Add everything that the other one was given."""
        self.known += other.known
        self.covered += other.covered
        self.squares += other.squares
        self.relative += other.relative
        self.near += other.near

    def compute(self) -> dict[str, float]:
        """``rmse`` in metres, ``absrel``, ``delta1`` and ``coverage``."""
        return {
            'rmse': ratio(self.squares, self.covered) ** 0.5,
            'absrel': ratio(self.relative, self.covered),
            'delta1': ratio(self.near, self.covered),
            'coverage': ratio(self.covered, self.known),
        }


class DepthByDistance:
    """Depth errors by true distance: how far away a network still sees.

    Args:
        edges: of the bins, metres, rising; a bin holds its lower edge and not its upper one, and
            what is nearer or farther than all of them is in a bin of its own.

    Attributes:
        bins: (lower edge, upper edge, errors), from near to far; the last edge is infinite.
    """

    EDGES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0, 80.0)

    def __init__(self, edges: Sequence[float] = EDGES) -> None:
        self.edges = np.asarray(edges, np.float64)
        limits = [0.0, *map(float, edges), float('inf')]
        self.bins = [(low, high, DepthError()) for low, high in pairwise(limits)]

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add depths in metres as ``DepthError`` takes them."""
        known = known_depth(truth)
        d, t = prediction[known], truth[known]
        place = np.searchsorted(self.edges, t, side='right')
        for index in np.flatnonzero(np.bincount(place, minlength=len(self.bins))):
            inside = place == index
            self.bins[index][2].update(d[inside], t[inside])

    def merge(self, other: DepthByDistance) -> None:
        """Add everything that the other one, of the same edges, was given."""
        for (_, _, mine), (_, _, theirs) in zip(self.bins, other.bins, strict=True):
            mine.merge(theirs)

    def compute(self) -> dict[str, float]:
        """The figures of ``DepthError`` over all distances."""
        whole = DepthError()
        for _, _, errors in self.bins:
            whole.merge(errors)
        return whole.compute()

    def occupied(self) -> list[tuple[float, float, DepthError]]:
        """The bins from the first to the last that have known pixels."""
        places = [index for index, (_, _, errors) in enumerate(self.bins) if errors.known]
        return self.bins[places[0] : places[-1] + 1] if places else []


class NormalError:
    """Angles between normals of any length: mean, median, and the share below 11.25 degrees.

    As with depth, ``coverage`` is the share of the known pixels that have a direction: those whose
    prediction is finite and not 0 0 0.
    """

    BINS_PER_DEGREE = 10  # the median comes from a histogram and is exact to half a bin

    def __init__(self) -> None:
        self.known = 0
        self.histogram = np.zeros(180 * self.BINS_PER_DEGREE + 1, np.int64)
        self.total = self.within = 0.0

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add vectors, both [..., 3]; a truth of 0 0 0 is unknown."""
        # By planes of x, y and z: NumPy takes several times as long over rows of three.
        known = (truth[..., 0] != 0) | (truth[..., 1] != 0) | (truth[..., 2] != 0)
        n, t = (
            np.stack([vectors[..., axis][known] for axis in range(3)]).astype(np.float64)
            for vectors in (prediction, truth)
        )
        lengths = np.sqrt((n * n).sum(axis=0)) * np.sqrt((t * t).sum(axis=0))
        covered = np.isfinite(lengths) & (lengths > 0)
        cosine = (n * t).sum(axis=0)[covered] / lengths[covered]
        degrees = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        bins = (degrees * self.BINS_PER_DEGREE).astype(np.intp)
        self.known += lengths.size
        self.histogram += np.bincount(bins, minlength=self.histogram.size)
        self.total += float(degrees.sum())
        self.within += float((degrees < 11.25).sum())

    def merge(self, other: NormalError) -> None:
        """Add everything that the other one was given."""
        self.known += other.known
        self.histogram += other.histogram
        self.total += other.total
        self.within += other.within

    def compute(self) -> dict[str, float]:
        """``mean`` and ``median`` in degrees, ``within_11`` and ``coverage``."""
        pixels = int(self.histogram.sum())
        middle = int(np.searchsorted(self.histogram.cumsum(), (pixels + 1) / 2))
        return {
            'mean': ratio(self.total, pixels),
            'median': (middle + 0.5) / self.BINS_PER_DEGREE if pixels else float('nan'),
            'within_11': ratio(self.within, pixels),
            'coverage': ratio(pixels, self.known),
        }


class EdgeF:
    """F of edges at the best threshold for the whole set, within 0.75 % of the image diagonal.

    A predicted edge pixel is right if any true one lies within the tolerance, and a true one is
    found if any predicted one does.

    Differs from the odsF of the literature (BSDS, SEISM): predictions are not thinned, and pixels
    are not matched one to one. A blurred or doubled edge therefore costs nothing as long as it
    stays within the tolerance; the figures must not be compared with published ones.
    """

    TOLERANCE = 0.0075  # of the image diagonal
    THRESHOLDS = np.arange(1, 20) / 20

    def __init__(self) -> None:
        self.counts = np.zeros((len(self.THRESHOLDS), 4), np.int64)  # right, predicted, found, true

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add one frame: probabilities [H, W], and 1, 0, or 255 (unknown) [H, W]."""
        probability = np.where(truth == UNKNOWN, 0, prediction).astype(np.float32)
        true = truth == 1
        disc = _disc(self.TOLERANCE * float(np.hypot(*truth.shape)))
        near_true = cv2.dilate(true.astype(np.uint8), disc) > 0
        # The highest probability within reach: above a threshold means that some edge is near.
        reached = cv2.dilate(probability, disc)[true]
        for row, threshold in zip(self.counts, self.THRESHOLDS, strict=True):
            predicted = probability >= threshold
            right, found = predicted & near_true, reached >= threshold
            row += np.array([right.sum(), predicted.sum(), found.sum(), len(reached)])

    def merge(self, other: EdgeF) -> None:
        """Add everything that the other one was given."""
        self.counts += other.counts

    def compute(self) -> dict[str, float]:
        """``f`` and the ``threshold`` that gives it."""
        right, predicted, found, true = self.counts.T
        if not true.any():
            return {'f': float('nan'), 'threshold': float('nan')}
        f = f_measure(right / np.maximum(predicted, 1), found / np.maximum(true, 1), 1.0)
        best = int(f.argmax())
        return {'f': float(f[best]), 'threshold': float(self.THRESHOLDS[best])}


class MaxF:
    """F of saliency at the best threshold for the whole set, with beta^2 = 0.3, as ATRC has it."""

    BETA_SQUARED = 0.3
    THRESHOLDS = np.arange(1, 20) / 20

    def __init__(self) -> None:
        self.counts = np.zeros((len(self.THRESHOLDS), 3), np.int64)  # hits, predicted, true

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add probabilities, and 1, 0, or 255 (unknown), both [...]."""
        known = truth != UNKNOWN
        probability, true = prediction[known], truth[known] == 1
        for row, threshold in zip(self.counts, self.THRESHOLDS, strict=True):
            predicted = probability >= threshold
            row += np.array([(predicted & true).sum(), predicted.sum(), true.sum()])

    def merge(self, other: MaxF) -> None:
        """Add everything that the other one was given."""
        self.counts += other.counts

    def compute(self) -> dict[str, float]:
        """``maxf``."""
        hits, predicted, true = self.counts.T
        if not true.any():
            return {'maxf': float('nan')}
        precision, recall = hits / np.maximum(predicted, 1), hits / np.maximum(true, 1)
        return {'maxf': float(f_measure(precision, recall, self.BETA_SQUARED).max())}


def f_measure(
    precision: NDArray[np.float64], recall: NDArray[np.float64], beta_squared: float
) -> NDArray[np.float64]:
    """(1 + b) P R / (b P + R), b = beta^2; 0 where both are 0."""
    weighted = beta_squared * precision + recall
    return np.asarray((1 + beta_squared) * precision * recall / np.maximum(weighted, 1e-12))


def _disc(radius: float) -> NDArray[np.uint8]:
    """A filled disc as structuring element: the pixels whose centre is within the radius."""
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(x**2 + y**2 <= radius**2, np.uint8)
