"""Sheets of labels and predictions, for people who watch a run or read an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_perception.files import beside
from mtl_training.datasets.batches import Batch
from mtl_training.evaluation.judge import truth
from mtl_training.evaluation.predictors import Predictor
from mtl_training.tasks import Picture, TaskSet


def sheet(
    predict: Predictor, batches: Iterable[Batch], tasks: TaskSet, canonical_focal: float
) -> list[Picture]:
    """Three rows for every frame: the labels, the predictions, and how wrong they are.

    The first column is the picture, the others are tasks. Errors are black where a prediction is
    right or nothing is known, and white where it is wrong: another class, half of the depth, 45
    degrees, certainty of the contrary.
    """
    frames = []
    for batch in batches:
        predicted, known = predict(batch), truth(batch, tasks, canonical_focal)
        names = [name for name in tasks if name in predicted and name in known]
        images = batch['image'].permute(0, 2, 3, 1).numpy()
        for index, image in enumerate(images):
            rows = [
                np.concatenate(
                    [image, *(tasks[name].picture(maps[name][index]) for name in names)], axis=1
                )
                for maps in (known, predicted)
            ]
            wrong = [
                error_picture(tasks[name].error(predicted[name][index], known[name][index]))
                for name in names
            ]
            rows.append(np.concatenate([np.zeros_like(image), *wrong], axis=1))
            frames.append(np.concatenate(rows))
    return frames


def error_picture(error: NDArray[np.float32]) -> Picture:
    """Errors of 0..1 [H, W] from black over red to white."""
    gray = np.rint(255 * np.nan_to_num(error)).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(gray, cv2.COLORMAP_HOT), cv2.COLOR_BGR2RGB))


def write_sheet(path: Path, frames: Sequence[Picture], columns: int = 1) -> None:
    """Write RGB pictures of one size below each other, or in columns; the suffix is the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blank = [np.zeros_like(frames[0])] * (-len(frames) % columns)
    grid = [*frames, *blank]
    rows = [np.concatenate(grid[i : i + columns], axis=1) for i in range(0, len(grid), columns)]
    with beside(path) as partial:
        image = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(partial), image, [cv2.IMWRITE_JPEG_QUALITY, 80])
