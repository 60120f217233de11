"""Judge predictions against ground truth: over all frames and frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ground_truth import nearest
from .metrics import (
    UNKNOWN,
    DepthByDistance,
    DepthPixels,
    EdgeF,
    MaxF,
    MeanIoU,
    Mergeable,
    NormalError,
    depth_pixels,
)
from .reliability import CoverageCurve, Reliability

Arrays = Mapping[str, NDArray[Any]]

# What a task is summed up by, and its worst frames are found by; whether more is better, and what
# people call it.
HEADLINES: Mapping[str, tuple[str, bool, str]] = {
    'semantic': ('miou', True, 'mIoU'),
    'depth': ('absrel', False, 'AbsRel'),
    'normals': ('mean', False, 'mean angle (degrees)'),
    'edges': ('f', True, 'F'),
    'saliency': ('maxf', True, 'max F'),
}


@dataclass
class Calibration:
    """How honest confidences are.

    Attributes:
        semantic: of ``semantic_confidence``: the class is the true one.
        depth: of ``depth_confidence``: depth is within a factor of 1.25 of the true one.
        coverage: error of depth, of the surest pixels.
    """

    semantic: Reliability = field(default_factory=Reliability)
    depth: Reliability = field(default_factory=Reliability)
    coverage: CoverageCurve = field(default_factory=CoverageCurve)

    def update(self, found: Arrays, truth: Arrays, depth: DepthPixels | None) -> None:
        """Add a frame, and its depth, compared; without confidence or truth it is left out."""
        if {'semantic', 'semantic_confidence'} <= found.keys() and 'semantic' in truth:
            true = truth['semantic']
            right = found['semantic'] == true
            self.semantic.update(found['semantic_confidence'], right, true != UNKNOWN)
        if depth is not None and 'depth_confidence' in found:
            counts = self.coverage.update(found['depth_confidence'], depth).astype(np.int64)
            self.depth.count(counts[:, 0], counts[:, 3])


class Evaluation:
    """Figures of predictions against ground truth, the same as those of ``mtl_training evaluate``.

    Args:
        classes: names of the classes by id, of predictions and truth.

    Attributes:
        metrics: by task, over all frames.
        frames: how many frames each task had truth for.
        calibration: of the confidences.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._new: Mapping[str, Callable[[], Mergeable]] = {
            'semantic': lambda: MeanIoU(classes),
            'depth': DepthByDistance,
            'normals': NormalError,
            'edges': EdgeF,
            'saliency': MaxF,
        }
        self.metrics: dict[str, Mergeable] = {}
        self.frames: dict[str, int] = {}
        self.calibration = Calibration()

    def add(self, found: Arrays, truth: Arrays) -> dict[str, dict[str, float]]:
        """Add a frame.

        Args:
            found: outputs by name, as the node gives them, on one grid.
            truth: by task, in the forms of ``truth_array``; other sizes are brought to the grid of
                the outputs by nearest neighbour.

        Returns:
            By task, the figures of this frame alone.

        Raises:
            PerceptionError: class ids that are not of these classes.
        """
        tasks = [task for task in self._new if task in found and task in truth]
        registered = {task: nearest(truth[task], *found[task].shape[:2]) for task in tasks}
        depth = depth_pixels(found['depth'], registered['depth']) if 'depth' in tasks else None
        figures = {}
        for task in tasks:
            metric = self._new[task]()
            if isinstance(metric, DepthByDistance) and depth is not None:
                metric.add(depth)
            else:
                metric.update(as_metrics_take_it(task, found[task]), registered[task])
            self.metrics.setdefault(task, self._new[task]()).merge(metric)
            self.frames[task] = self.frames.get(task, 0) + 1
            figures[task] = metric.compute()
        self.calibration.update(found, registered, depth)
        return figures

    def compute(self) -> dict[str, dict[str, float]]:
        """By task, the figures over all frames."""
        return {task: metric.compute() for task, metric in self.metrics.items()}

    @property
    def semantic(self) -> MeanIoU | None:
        """The counts of the classes, if any frame had true ones."""
        metric = self.metrics.get('semantic')
        return metric if isinstance(metric, MeanIoU) else None

    @property
    def depth(self) -> DepthByDistance | None:
        """The errors of depth by distance, if any frame had true depth."""
        metric = self.metrics.get('depth')
        return metric if isinstance(metric, DepthByDistance) else None


def headline(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The one figure of each task by which frames are compared."""
    return {task: figures[task][key] for task, (key, _, _) in HEADLINES.items() if task in figures}


def badness(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """``headline`` turned so that more is worse."""
    return {
        task: -value if HEADLINES[task][1] else value for task, value in headline(figures).items()
    }


def as_metrics_take_it(task: str, array: NDArray[Any]) -> NDArray[Any]:
    """An output as metrics take predictions: probabilities are 0..1."""
    return array.astype(np.float32) / 255 if task in ('edges', 'saliency') else array
