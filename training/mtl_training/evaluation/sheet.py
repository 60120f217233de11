"""Sheets of labels and predictions, for people who watch a run or read an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from mtl_perception.files import beside
from mtl_training.datasets.batches import Batch
from mtl_training.evaluation.judge import truth
from mtl_training.evaluation.predictors import Predictor
from mtl_training.tasks import Picture, TaskSet


def sheet(
    predict: Predictor, batches: Iterable[Batch], tasks: TaskSet, canonical_focal: float
) -> list[Picture]:
    """Two rows for every frame: the labels, and the predictions beside the same picture."""
    rows = []
    for batch in batches:
        predicted, known = predict(batch), truth(batch, tasks, canonical_focal)
        names = [name for name in tasks if name in predicted and name in known]
        images = batch['image'].permute(0, 2, 3, 1).numpy()
        for index, image in enumerate(images):
            for maps in (known, predicted):
                pictures = [tasks[name].picture(maps[name][index]) for name in names]
                rows.append(np.concatenate([image, *pictures], axis=1))
    return rows


def write_png(path: Path, rows: Sequence[Picture]) -> None:
    """Write RGB pictures of one width below each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as partial:
        cv2.imwrite(str(partial), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
