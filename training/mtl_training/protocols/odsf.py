"""odsF: the F measure of edges as the literature has it, at the best threshold for a whole set."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from mtl_perception.offline.metrics import UNKNOWN, f_measure
from mtl_training.tasks.thinning import thin

Mask = NDArray[np.bool_]


class OdsF:
    """F of edges at the optimal data-set scale (Martin et al., PAMI 2004; Arbelaez et al., 2011).

    For every threshold the probabilities are made binary and thinned to lines of one pixel, which
    are matched one to one with the true ones, as many as can be, none farther than a share of the
    image diagonal. Matched, predicted and true pixels are summed over all images; F = 2 P R / (P +
    R) with P = matched / predicted, R = matched / true, at the threshold that makes it largest.

    A doubled line costs precision, as does one line for two recall. A wide band does not: thinning
    makes it the line in its middle. True edges are thinned, too: data sets that mark the pixels on
    either side of a border would else cost even the truth itself a third of its F.

    Differs from the BSDS code: there outliers cost 100 times the tolerance, and the cheapest
    assignment is sought; as no pair within the tolerance costs as much, that is a matching with the
    most pairs, which is what is counted here. Thinning is Guo and Hall's, as in ``bwmorph`` of
    MATLAB.

    Args:
        max_distance: of a pair, as a share of the diagonal. The survey has .0075; ATRC .0075 on
            PASCAL and .011 on NYUD.
        thresholds: how many, evenly spaced inside of 0..1; 99 in the survey.
        suppress: keep only what is highest across its edge before anything else, as ATRC and its
            successors do and the survey does not.
        thin: leave it out to match whole bands, which no protocol does.

    Example:
        >>> truth = np.zeros((40, 40), np.uint8)
        >>> truth[20] = 1
        >>> metric = OdsF()
        >>> metric.update(truth.astype(np.float32), truth)
        >>> metric.compute()['odsf']
        1.0
    """

    def __init__(
        self,
        *,
        max_distance: float = 0.0075,
        thresholds: int = 99,
        suppress: bool = False,
        thin: bool = True,
    ) -> None:
        self.max_distance, self.suppress, self.thin = max_distance, suppress, thin
        self.thresholds = np.arange(1, thresholds + 1) / (thresholds + 1)
        self.counts = np.zeros((thresholds, 3), np.int64)  # matched, predicted, true

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add one image: probabilities [H, W], and 1, 0, or 255 (unknown) [H, W]."""
        probability = np.asarray(prediction, np.float32)
        if self.suppress:
            probability = suppress_non_maxima(probability)
        probability = np.where(truth == UNKNOWN, 0, probability)
        true = thin(truth == 1) if self.thin else truth == 1
        reach = self.max_distance * float(np.hypot(*truth.shape))
        last, counts = np.zeros_like(true), np.array([0, 0, true.sum()])
        for row, threshold in zip(self.counts, self.thresholds, strict=True):
            edges = probability >= threshold
            if not np.array_equal(edges, last):  # thresholds with nothing between them
                last = edges
                lines = thin(edges) if self.thin else edges
                counts = np.array([matched(lines, true, reach), lines.sum(), true.sum()])
            row += counts

    def compute(self) -> dict[str, float]:
        """``odsf`` and the ``threshold`` that gives it; NaN where there is no true edge."""
        hits, predicted, true = self.counts.T
        if not true.any():
            return {'odsf': float('nan'), 'threshold': float('nan')}
        f = f_measure(hits / np.maximum(predicted, 1), hits / np.maximum(true, 1), 1.0)
        best = int(f.argmax())
        return {'odsf': float(f[best]), 'threshold': float(self.thresholds[best])}


def matched(predicted: Mask, true: Mask, reach: float) -> int:
    """The largest number of pairs, one predicted and one true pixel each, at most ``reach`` apart.

    Args:
        predicted, true: [H, W].
        reach: pixels.
    """
    side = int(reach)
    numbers = np.full(true.shape, -1, np.int32)
    numbers[true] = np.arange(np.count_nonzero(true))
    padded = np.pad(numbers, side, constant_values=-1)
    y, x = np.nonzero(predicted)
    pairs = []  # [2, ...]: number of a predicted, number of a true pixel
    for dy in range(-side, side + 1):
        for dx in range(-side, side + 1):
            if dy * dy + dx * dx <= reach * reach:
                near = padded[y + side + dy, x + side + dx]
                (found,) = np.nonzero(near >= 0)
                pairs.append(np.stack([found, near[found]]))
    return _most_pairs(len(y), int(np.count_nonzero(true)), np.concatenate(pairs, axis=1))


def _most_pairs(left: int, right: int, pairs: NDArray[np.intp]) -> int:
    """The size of a maximum matching: the flow from a source over the pairs to a sink.

    Dinic's algorithm finds it in O(E sqrt(V)). ``maximum_bipartite_matching`` of scipy, which
    promises the same, took minutes for one image with as many predicted pixels as true ones.
    """
    source, sink = left + right, left + right + 1
    every_left, every_right = np.arange(left), left + np.arange(right)
    begin = np.concatenate([np.full(left, source), pairs[0], every_right])
    end = np.concatenate([every_left, left + pairs[1], np.full(right, sink)])
    ones = np.ones(len(begin), np.int32)
    graph = csr_array((ones, (begin, end)), shape=(sink + 1, sink + 1))
    return int(maximum_flow(graph, source, sink, method='dinic').flow_value)


def suppress_non_maxima(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """0 where a pixel's neighbour across its edge has a higher probability (Dollar & Zitnick 2015).

    The direction across comes from second derivatives of the smoothed map; a pixel may be 1 % lower
    than its interpolated neighbours. Within five pixels of the image's border everything is less
    sure, by its distance to the border.

    Differs from their code: where the mixed derivative is exactly 0, they take all edges for
    vertical.

    Args:
        probability: [H, W].
    """
    steps = np.arange(1, 6, dtype=np.float32)
    triangle = np.concatenate([steps, steps[-2::-1]]) / steps.size**2  # radius 4
    smooth = cv2.sepFilter2D(probability, -1, triangle, triangle, borderType=cv2.BORDER_REFLECT)
    dy, dx = np.gradient(smooth)
    dxy, dxx = np.gradient(dx)
    dyy = np.gradient(dy, axis=0)
    angle = np.arctan(dyy * np.where(dxy > 0, -1, 1) / (dxx + 1e-5))
    height, width = probability.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    kept = probability.copy()
    for step in (-1, 1):
        across_x = (x + step * np.cos(angle)).astype(np.float32)
        across_y = (y + step * np.sin(angle)).astype(np.float32)
        neighbour = cv2.remap(
            probability, across_x, across_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        kept[probability * 1.01 < neighbour] = 0
    from_border = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y))
    return np.asarray(kept * np.minimum(from_border / 5, 1), np.float32)
