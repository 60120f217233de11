"""How near predictions are to the truth: one metric per task, over all pixels of all frames.

Every metric takes arrays of one size frame by frame (``update``) and gives its figures at the end
(``compute``), so that no amount of frames needs memory. Pixels whose truth is unknown do not count.
A figure is NaN where nothing was counted: never a good figure, nor a bad one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from .. import PerceptionError

UNKNOWN = 255  # of class ids and of edges and saliency
THRESHOLDS = np.arange(1, 20) / 20  # of probabilities of edges and saliency
_LANES = np.uint8(8)
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


@dataclass(frozen=True)
class DepthPixels:
    """Errors of the depth of a frame, pixel by pixel, of which several figures are counted.

    Attributes:
        truth: [...] metres.
        known: [...] where the truth is known.
        covered: [...] where a prediction is finite, too; the others are of these pixels, [N].
        relative: |d - d*| / d*.
        squares: (d - d*)^2, square metres.
        near: 1 within a factor of 1.25, else 0.
    """

    truth: NDArray[Any]
    known: NDArray[np.bool_]
    covered: NDArray[np.bool_]
    relative: NDArray[np.float64]
    squares: NDArray[np.float64]
    near: NDArray[np.float64]


def depth_pixels(prediction: NDArray[Any], truth: NDArray[Any]) -> DepthPixels:
    """Compare depths in metres, both [...]; see ``DepthError`` for what counts."""
    known = known_depth(truth)
    covered = known & np.isfinite(prediction)
    d = np.maximum(prediction[covered].astype(np.float64), 1e-6)
    t = truth[covered].astype(np.float64)
    error = np.abs(d - t)
    near = (np.maximum(d / t, t / d) < NEAR).astype(np.float64)
    return DepthPixels(truth, known, covered, error / t, error * error, near)


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
        pixels = depth_pixels(prediction, truth)
        self.known += int(np.count_nonzero(pixels.known))
        self.covered += pixels.near.size
        self.squares += float(pixels.squares.sum())
        self.relative += float(pixels.relative.sum())
        self.near += float(pixels.near.sum())

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
        self.edges = tuple(map(float, edges))
        limits = [0.0, *self.edges, float('inf')]
        self.bins = [(low, high, DepthError()) for low, high in pairwise(limits)]

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add depths in metres as ``DepthError`` takes them."""
        self.add(depth_pixels(prediction, truth))

    def add(self, pixels: DepthPixels) -> None:
        """Add a frame that is compared already."""
        place = np.zeros(pixels.truth.shape, np.uint8)
        for edge in self.edges:
            place += pixels.truth >= edge
        # Sums of few bins wait for each other: each bin is summed up in several lanes.
        place = place * _LANES + np.arange(pixels.truth.shape[-1]).astype(np.uint8) % _LANES
        known, covered = place[pixels.known], place[pixels.covered]
        columns = [self._by_bin(known), self._by_bin(covered)]
        for weight in (pixels.squares, pixels.relative, pixels.near):
            columns.append(self._by_bin(covered, weight))
        for (_, _, errors), row in zip(self.bins, zip(*columns, strict=True), strict=True):
            errors.known += int(row[0])
            errors.covered += int(row[1])
            errors.squares += float(row[2])
            errors.relative += float(row[3])
            errors.near += float(row[4])

    def _by_bin(
        self, place: NDArray[np.uint8], weight: NDArray[np.float64] | None = None
    ) -> NDArray[Any]:
        sums = np.bincount(place, weight, minlength=len(self.bins) * int(_LANES))
        return np.asarray(sums.reshape(-1, _LANES).sum(axis=1))

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


def angles_between(
    first: NDArray[Any], second: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Angles between vectors of any length, both [..., 3].

    Returns:
        Degrees, [N] in the order of the vectors, NaN where one has no direction; and whether the
        second one is not 0 0 0.
    """
    # By planes of x, y and z: NumPy takes several times as long over rows of three.
    n, t = (
        np.ascontiguousarray(np.reshape(vectors, (-1, 3)).T, np.float64)
        for vectors in (first, second)
    )
    dot = partial(np.einsum, 'in,in->n')
    square = dot(t, t)
    known = square != 0
    square *= dot(n, n)
    with np.errstate(invalid='ignore', divide='ignore', over='ignore'):
        degrees = dot(n, t)
        degrees /= np.sqrt(square, out=square)
        np.clip(degrees, -1, 1, out=degrees)
    np.degrees(np.arccos(degrees, out=degrees), out=degrees)
    return degrees, known


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
        found, known = angles_between(prediction, truth)
        degrees = found[known & np.isfinite(found)]
        bins = (degrees * self.BINS_PER_DEGREE).astype(np.intp)
        self.known += int(np.count_nonzero(known))
        self.histogram += np.bincount(bins, minlength=self.histogram.size)
        self.total += float(degrees.sum())
        self.within += np.count_nonzero(degrees < 11.25)

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

    def __init__(self) -> None:
        self.counts = np.zeros((len(THRESHOLDS), 4), np.int64)  # right, predicted, found, true

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add one frame: probabilities [H, W], and 1, 0, or 255 (unknown) [H, W]."""
        level = _levels(prediction)
        level[truth == UNKNOWN] = 0
        true = truth == 1
        disc = _disc(self.TOLERANCE * float(np.hypot(*truth.shape)))
        near_true = cv2.dilate(true.astype(np.uint8), disc) > 0
        # The highest probability within reach: above a threshold means that some edge is near.
        reached = cv2.dilate(level, disc)[true]
        columns = (_passing(level[near_true]), _passing(level), _passing(reached))
        self.counts[:, :3] += np.stack(columns, axis=1)
        self.counts[:, 3] += len(reached)

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
        return {'f': float(f[best]), 'threshold': float(THRESHOLDS[best])}


class MaxF:
    """F of saliency at the best threshold for the whole set, with beta^2 = 0.3, as ATRC has it."""

    BETA_SQUARED = 0.3

    def __init__(self) -> None:
        self.counts = np.zeros((len(THRESHOLDS), 3), np.int64)  # hits, predicted, true

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add probabilities, and 1, 0, or 255 (unknown), both [...]."""
        level, true = _levels(prediction), truth == 1
        self.counts[:, 0] += _passing(level[true])
        self.counts[:, 1] += _passing(level[truth != UNKNOWN])
        self.counts[:, 2] += np.count_nonzero(true)

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


def _levels(probability: NDArray[Any]) -> NDArray[np.uint8]:
    """How many of ``THRESHOLDS`` each probability reaches."""
    steps = len(THRESHOLDS) + 1
    return np.asarray(np.clip(probability * np.float32(steps), 0, steps - 1).astype(np.uint8))


def _passing(level: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many pixels reach each of ``THRESHOLDS``."""
    counts = np.bincount(level.reshape(-1), minlength=len(THRESHOLDS) + 1)
    return np.asarray(counts[::-1].cumsum()[::-1][1:])


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
