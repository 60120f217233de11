"""How well predictions agree with a recording's ground truth, in NumPy.

Each score takes arrays frame by frame (``update``) and gives its numbers over all pixels of all
frames (``compute``), so long recordings need no memory. Ground truth is brought to the grid of the
prediction by nearest neighbour: the two need not have the same size, only the same field of view.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ..images import LAYOUTS
from .recordings import RecordingError, RecordingReader, Types, header_stamp_ns
from .sample import GROUND_TRUTH


def nearest(array: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resample [H, W, ...] to [height, width, ...] by the nearest pixel centre."""
    rows = ((np.arange(height) + 0.5) * array.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * array.shape[1] / width).astype(np.intp)
    sampled: NDArray[Any] = array[rows[:, None], columns[None, :]]
    return sampled


def ratio(part: float, whole: float) -> float:
    """Divide, NaN where there is nothing to divide by."""
    return float(part) / float(whole) if whole else float('nan')


class Score(Protocol):
    """One task's figures of merit."""

    def update(self, prediction: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add one frame; ``truth`` may have another size."""

    def compute(self) -> dict[str, float]:
        """Figures over everything added; NaN where no pixel counted."""


class SemanticScore:
    """Mean intersection over union and pixel accuracy.

    The mean goes over the classes that occur in the ground truth. Void ground truth (255) does not
    count; a pixel that the network left unlabelled (255) is a miss.
    """

    def __init__(self, classes: int = 255) -> None:
        self.classes = classes
        self.confusion = np.zeros((classes, classes + 1), np.int64)  # rows truth, last: unlabelled

    def update(self, prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
        """Add one frame of class ids, both [H, W]."""
        truth = nearest(truth, *prediction.shape)
        valid = truth < self.classes
        predicted = np.minimum(prediction[valid], self.classes).astype(np.int64)
        cell = truth[valid].astype(np.int64) * (self.classes + 1) + predicted
        counts = np.bincount(cell, minlength=self.confusion.size)
        self.confusion += counts.reshape(self.confusion.shape)

    def compute(self) -> dict[str, float]:
        """Return mIoU and pixel_accuracy in 0..1."""
        hits = np.diagonal(self.confusion).astype(np.float64)
        truth = self.confusion.sum(axis=1)
        union = truth + self.confusion[:, : self.classes].sum(axis=0) - hits
        present = truth > 0
        miou = float(np.mean(hits[present] / union[present])) if present.any() else float('nan')
        return {'mIoU': miou, 'pixel_accuracy': ratio(hits.sum(), truth.sum())}


class DepthScore:
    """Absolute relative error, RMSE in metres and the share within a factor of 1.25.

    No scale or shift is fitted: depth is metric or it is wrong. Pixels that the node marked as
    invalid (NaN) or beyond range (Inf) do not count; ``coverage`` says how many were left.
    """

    def __init__(self) -> None:
        self.pixels = self.truths = 0
        self.relative = self.squares = self.close = 0.0

    def update(self, prediction: NDArray[np.float32], truth: NDArray[np.float32]) -> None:
        """Add one frame in metres, both [H, W]; truth 0 or NaN = unknown."""
        truth = nearest(truth, *prediction.shape).astype(np.float64)
        known = np.isfinite(truth) & (truth > 0)
        valid = known & np.isfinite(prediction) & (prediction > 0)
        d, t = prediction[valid].astype(np.float64), truth[valid]
        self.truths += int(known.sum())
        self.pixels += d.size
        self.relative += float((np.abs(d - t) / t).sum())
        self.squares += float(((d - t) ** 2).sum())
        self.close += float((np.maximum(d / t, t / d) < 1.25).sum())

    def compute(self) -> dict[str, float]:
        """Return AbsRel, RMSE, delta1 and coverage."""
        return {
            'AbsRel': ratio(self.relative, self.pixels),
            'RMSE': ratio(self.squares, self.pixels) ** 0.5,
            'delta1': ratio(self.close, self.pixels),
            'coverage': ratio(self.pixels, self.truths),
        }


class NormalsScore:
    """Angle between predicted and true normals: mean, median, share within 11.25 degrees."""

    BINS_PER_DEGREE = 10  # the median comes from a histogram and is exact to half a bin

    def __init__(self) -> None:
        self.histogram = np.zeros(180 * self.BINS_PER_DEGREE + 1, np.int64)
        self.total = self.within = 0.0

    def update(self, prediction: NDArray[np.float32], truth: NDArray[np.float32]) -> None:
        """Add one frame of unit vectors, both [H, W, 3]; truth (0, 0, 0) = unknown."""
        truth = nearest(truth, *prediction.shape[:2]).astype(np.float64)
        length = np.linalg.norm(truth, axis=-1)
        valid = (length > 0.5) & np.isfinite(prediction).all(axis=-1)
        n, t = prediction[valid].astype(np.float64), truth[valid] / length[valid, None]
        n /= np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-9)
        degrees = np.degrees(np.arccos(np.clip((n * t).sum(axis=-1), -1, 1)))
        bins = (degrees * self.BINS_PER_DEGREE).astype(np.intp)
        self.histogram += np.bincount(bins, minlength=self.histogram.size)
        self.total += float(degrees.sum())
        self.within += float((degrees < 11.25).sum())

    def compute(self) -> dict[str, float]:
        """Return mean_deg, median_deg and within_11."""
        pixels = int(self.histogram.sum())
        middle = int(np.searchsorted(np.cumsum(self.histogram), (pixels + 1) / 2))
        median = (middle + 0.5) / self.BINS_PER_DEGREE if pixels else float('nan')
        return {
            'mean_deg': ratio(self.total, pixels),
            'median_deg': median,
            'within_11': ratio(self.within, pixels),
        }


class EdgeScore:
    """F-measure of edges at the best single threshold for the whole recording (odsF).

    A predicted edge pixel counts as right when a true one lies within ``TOLERANCE`` of the image
    diagonal, and the other way round for recall (the tolerance of the BSDS benchmark).
    Differs from that benchmark: edges are neither thinned nor matched one to one.
    """

    TOLERANCE = 0.0075
    THRESHOLDS = np.arange(13, 255, 13)

    def __init__(self) -> None:
        self.counts = np.zeros((len(self.THRESHOLDS), 4))  # right, predicted, found, true

    def update(self, prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
        """Add one frame: prediction [H, W] probability x 255, truth [H, W] non-zero at edges."""
        true = nearest(truth, *prediction.shape) > 127
        reach = max(1, round(self.TOLERANCE * float(np.hypot(*prediction.shape))))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        near_true = cv2.dilate(true.astype(np.uint8), disc) > 0
        # The highest score within reach: above the threshold means that some prediction is near.
        near_prediction = cv2.dilate(prediction, disc)
        for row, threshold in zip(self.counts, self.THRESHOLDS, strict=True):
            edges = prediction >= threshold
            found = near_prediction[true] >= threshold
            row += (edges & near_true).sum(), edges.sum(), found.sum(), true.sum()

    def compute(self) -> dict[str, float]:
        """Return odsF in 0..1 and the threshold (probability) that gives it."""
        right, predicted, found, true = self.counts.T
        precision = right / np.maximum(predicted, 1)
        recall = found / np.maximum(true, 1)
        f = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
        best = int(np.argmax(f))
        if not true[best]:
            return {'odsF': float('nan'), 'threshold': float('nan')}
        return {'odsF': float(f[best]), 'threshold': float(self.THRESHOLDS[best]) / 255}


def image_array(message: Any) -> NDArray[Any]:
    """View an Image message of the node's outputs as an array.

    Args:
        message: sensor_msgs/Image, mono8, rgb8, 32FC1 or 32FC3, in the byte order of this machine.

    Returns:
        [H, W] or [H, W, 3].

    Raises:
        RecordingError: Another encoding.
    """
    if message.encoding not in LAYOUTS:
        raise RecordingError(f'image encoding {message.encoding!r} is not one of the node')
    kind, channels = LAYOUTS[message.encoding]
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    used = rows[:, : message.width * channels * np.dtype(kind).itemsize]
    shape = (message.height, message.width, channels)[: 3 if channels > 1 else 2]
    array: NDArray[Any] = np.ascontiguousarray(used).view(kind).reshape(shape)
    return array


def truth_array(task: str, picture: NDArray[np.uint8]) -> NDArray[Any]:
    """Decode a ground-truth PNG of a sample recording.

    Args:
        task: ``semantic``, ``depth``, ``normals`` or ``edges``.
        picture: the file's bytes.

    Returns:
        Class ids uint8 [H, W]; metres float32 [H, W], 0 = unknown; unit vectors float32 [H, W, 3],
        (0, 0, 0) = unknown; or uint8 [H, W].

    Raises:
        RecordingError: The picture cannot be decoded.
    """
    array: NDArray[Any] | None = cv2.imdecode(
        np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED
    )
    if array is None:
        raise RecordingError(f'a ground-truth picture of {task} cannot be decoded')
    if task == 'depth':
        metres: NDArray[np.float32] = array.astype(np.float32) * np.float32(1e-3)
        return metres
    if task == 'normals':
        normals: NDArray[np.float32] = array[..., ::-1] * np.float32(2 / 255) - np.float32(1)
        normals[(array == 0).all(axis=-1)] = 0
        return normals
    return array


def score_outputs(
    outputs: str | Path, truth: str | Path, *, node: str = '/perception', types: Types | None = None
) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """Compare recorded outputs of the node with the ground truth of the recording it saw.

    Args:
        outputs: recording with ``/perception/semantic`` and so on.
        truth: recording with the ``/ground_truth`` topics; frames are matched by header stamp.
        node: full name of the node.
        types: message types to share.

    Returns:
        Figures per task, and how many frames of each were compared; tasks without a pair are left
        out.
    """
    scores: Mapping[str, Score] = {
        'semantic': SemanticScore(),
        'depth': DepthScore(),
        'normals': NormalsScore(),
        'edges': EdgeScore(),
    }
    frames = dict.fromkeys(scores, 0)
    types = types or Types()
    with (
        RecordingReader(truth, types=types) as known,
        RecordingReader(outputs, types=types) as seen,
    ):
        tasks = {
            f'{node}/{task}': task
            for task in scores
            if f'{node}/{task}' in seen.topics and GROUND_TRUTH[task][0] in known.topics
        }
        pictures = {
            (m.topic, header_stamp_ns(m.data)): m
            for m in known.messages([GROUND_TRUTH[task][0] for task in tasks.values()])
        }
        for message in seen.messages(tasks):
            task = tasks[message.topic]
            picture = pictures.get((GROUND_TRUTH[task][0], header_stamp_ns(message.data)))
            if picture is not None:
                true = truth_array(task, known.unpack(picture).data)
                scores[task].update(image_array(seen.unpack(message)), true)
                frames[task] += 1
    compared = {task: count for task, count in frames.items() if count}
    return {task: scores[task].compute() for task in compared}, compared
