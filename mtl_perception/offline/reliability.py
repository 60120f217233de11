"""Whether confidences mean what they say, and what leaving out unsure depth buys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .metrics import DepthPixels, ratio

LEVELS = 256  # of a confidence: probability x 255


@dataclass(frozen=True)
class ConfidenceBin:
    """Pixels of about one confidence.

    Attributes:
        confidence, accuracy: their mean confidence, and the share of them that is right.
        share: of all pixels.
    """

    confidence: float
    accuracy: float
    share: float


class Reliability:
    """Expected calibration error of confidences (Guo et al., ICML 2017, Eq. 3).

    ECE = sum_m |B_m| / n |acc(B_m) - conf(B_m)|,   B_m: confidences in ((m - 1) / M, m / M]

    over M = 15 bins. A confidence of 0, which has no place there, is in the first bin.
    """

    BINS = 15

    def __init__(self) -> None:
        self.pixels = np.zeros(LEVELS, np.int64)  # by level of confidence
        self.right = np.zeros(LEVELS, np.int64)

    def update(
        self, confidence: NDArray[np.uint8], right: NDArray[np.bool_], known: NDArray[np.bool_]
    ) -> None:
        """Add pixels: confidences, what is right of what they are about, what is known, [...]."""
        self.count(
            np.bincount(confidence[known], minlength=LEVELS),
            np.bincount(confidence[known & right], minlength=LEVELS),
        )

    def count(self, pixels: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        """Add pixels that are counted by level of confidence, and those of them that are right."""
        self.pixels += pixels
        self.right += right

    def compute(self) -> dict[str, float]:
        """``ece``; ``confidence`` and ``accuracy``, the means of what is said and what is true."""
        bins, pixels = self.bins(), self.pixels.sum()
        gap = sum(b.share * abs(b.accuracy - b.confidence) for b in bins)
        return {
            'ece': gap if bins else float('nan'),
            'confidence': ratio((self.pixels * np.arange(LEVELS)).sum() / 255, pixels),
            'accuracy': ratio(self.right.sum(), pixels),
        }

    def bins(self) -> list[ConfidenceBin]:
        """The bins that have pixels, from unsure to sure."""
        levels = np.arange(LEVELS)
        place = np.maximum(levels - 1, 0) * self.BINS // (LEVELS - 1)
        found = []
        for index in range(self.BINS):
            inside = place == index
            pixels = int(self.pixels[inside].sum())
            if pixels:
                said = float((self.pixels * levels)[inside].sum()) / 255
                right = float(self.right[inside].sum())
                share = pixels / float(self.pixels.sum())
                found.append(ConfidenceBin(said / pixels, right / pixels, share))
        return found


@dataclass(frozen=True)
class CoveragePoint:
    """What is left of depth when less confidence than ``threshold`` (0..255) is left out.

    Attributes:
        coverage: share of the pixels of known depth that is left.
        absrel, rmse, delta1: of those, as in ``DepthError``.
    """

    threshold: int
    coverage: float
    absrel: float
    rmse: float
    delta1: float


class CoverageCurve:
    """Error of depth against coverage, over the thresholds of confidence.

    ``threshold`` is what the node calls ``min_depth_confidence``. A confidence that knows nothing
    of the error gives a level line, a good one a line that falls with coverage.
    """

    def __init__(self) -> None:
        self.known = 0
        self.sums = np.zeros((LEVELS, 4), np.float64)  # pixels, relative, squares, near

    def update(self, confidence: NDArray[np.uint8], pixels: DepthPixels) -> NDArray[np.float64]:
        """Add the confidences, [...], of depth that is compared.

        Returns:
            [LEVELS, 4], pixels and sums of the relative errors, squares and near ones by level.
        """
        level = confidence[pixels.covered]
        sums = [
            np.bincount(level, weight, minlength=LEVELS)
            for weight in (None, pixels.relative, pixels.squares, pixels.near)
        ]
        added = np.stack(sums, axis=1).astype(np.float64)
        self.known += int(np.count_nonzero(pixels.known))
        self.sums += added
        return added

    def compute(self) -> dict[str, float]:
        """``aurc``: AbsRel, meant over all coverages (area under the risk-coverage curve)."""
        points = self.points()
        shares = np.diff([0.0, *(p.coverage for p in reversed(points))])
        risks = [p.absrel for p in reversed(points)]
        return {'aurc': ratio(float(np.dot(shares, risks)), float(shares.sum()))}

    def points(self) -> list[CoveragePoint]:
        """The curve, from everything to the surest; thresholds that change nothing are left out."""
        left = self.sums[::-1].cumsum(axis=0)[::-1]  # at least so sure
        found = []
        for threshold in np.flatnonzero(self.sums[:, 0]):
            pixels, relative, squares, near = map(float, left[threshold])
            found.append(
                CoveragePoint(
                    threshold=int(threshold),
                    coverage=pixels / self.known,
                    absrel=relative / pixels,
                    rmse=(squares / pixels) ** 0.5,
                    delta1=near / pixels,
                )
            )
        return found
