"""Predictors that look at no picture: what any network has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from mtl_training.datasets.batches import Batch, masked
from mtl_training.datasets.dataset import DataSet
from mtl_training.evaluation.predictors import Maps, Predictor
from mtl_training.tasks import TaskSet


def trivial_predictors(frames: DataSet, tasks: TaskSet) -> dict[str, Predictor]:
    """Constants that suit (training) frames best, by what they are best at; see ``constants``."""
    counts: dict[str, Any] = {}
    for index in tqdm(range(len(frames)), desc='constants', unit='frame', disable=None):
        sample = masked(frames.read(index, list(tasks)), tasks)
        for name, task in tasks.items():
            stored = sample.arrays[name]
            channels = np.atleast_2d(stored[task.labelled(stored)].T)
            counts[name] = counts.get(name, 0) + np.stack(
                [np.bincount(values, minlength=65536) for values in channels]
            )
    values_of: dict[str, dict[str, Any]] = {}
    for name, task in tasks.items():
        for title, value in task.constants(counts[name]).items():
            values_of.setdefault(title, {})[name] = value
    return {title: constant(values) for title, values in values_of.items()}


def constant(values: Mapping[str, Any]) -> Predictor:
    """Predict the same values by task at every pixel of every picture."""

    def predict(batch: Batch) -> Maps:
        shape = (batch['image'].shape[0], *batch['image'].shape[2:])
        return {
            name: np.broadcast_to(value, shape + np.shape(value)) for name, value in values.items()
        }

    return predict
