"""Figures of a predictor over batches of labelled frames."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from mtl_perception.offline.evaluation import Calibration
from mtl_perception.offline.metrics import depth_pixels
from mtl_training.datasets.batches import Batch
from mtl_training.evaluation.predictors import Maps, Predictor
from mtl_training.tasks import TaskSet

Report = dict[str, dict[str, float]]  # task -> figure -> value


def judge(
    predict: Predictor,
    batches: Iterable[Batch],
    tasks: TaskSet,
    canonical_focal: float,
    confidences: Calibration | None = None,
) -> Report:
    """Run a predictor over batches and count, over all their pixels.

    Args:
        tasks: to judge, of which a predictor may have some only.
        canonical_focal: of the batches, px.
        confidences: to which those of the predictor are added.

    Returns:
        The figures of every task, without those that nothing was counted for.
    """
    metrics = {name: task.metric() for name, task in tasks.items()}
    confidences = confidences or Calibration()
    for batch in batches:
        predicted, known = predict(batch), truth(batch, tasks, canonical_focal)
        for name in predicted.keys() & known.keys():
            for frame in zip(predicted[name], known[name], strict=True):
                metrics[name].update(*frame)
        for index in range(len(batch['image'])):
            found = {name: maps[index] for name, maps in predicted.items()}
            true = {name: maps[index] for name, maps in known.items()}
            both = 'depth' in found and 'depth' in true
            depth = depth_pixels(found['depth'], true['depth']) if both else None
            confidences.update(found, true, depth)
    computed = {name: metric.compute() for name, metric in metrics.items()}
    for name, honesty in (('semantic', confidences.semantic), ('depth', confidences.depth)):
        if name in computed:
            computed[name]['ece'] = honesty.compute()['ece']
    report = {
        name: {key: value for key, value in figures.items() if not math.isnan(value)}
        for name, figures in computed.items()
    }
    return {name: figures for name, figures in report.items() if figures}


def truth(batch: Batch, tasks: TaskSet, canonical_focal: float) -> Maps:
    """The labels of a batch in the form of predictions."""
    zoom: Tensor = batch['fx'] / canonical_focal
    return {name: task.truth(batch[name], zoom) for name, task in tasks.items() if name in batch}


def quality(report: Report, tasks: TaskSet) -> float:
    """The mean over tasks of the figure that each is chosen by, in 0..1."""
    return sum(report.get(name, {}).get(t.quality, 0) for name, t in tasks.items()) / len(tasks)


def in_short(report: Report) -> Report:
    """The figures of all pixels together, without those of classes, distances and ends."""
    return {
        name: {k: v for k, v in figures.items() if not k.startswith('iou_') and '@' not in k}
        for name, figures in report.items()
    }
