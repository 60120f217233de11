"""Judging at the size of the stored pictures, as those do who judge saved files."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_perception.camera import Letterbox
from mtl_training.datasets.augment import Sample, fit
from mtl_training.datasets.batches import Batch, Examples, Key, masked, to_tensors
from mtl_training.datasets.dataset import DataError
from mtl_training.evaluation.predictors import Maps, Predictor
from mtl_training.tasks import TaskError


class NativeExamples(Examples):
    """Frames whose picture has the network's size, and whose labels have their own."""

    def __getitem__(self, key: Key | int) -> Batch:
        _, index = key if isinstance(key, tuple) else (0, key)
        stored = masked(self.data.read(index, self.tasks), self.tasks)
        small = fit(Sample({'image': stored.arrays['image']}, stored.fx), {}, *self.size)
        sample = Sample({**stored.arrays, 'image': small.arrays['image']}, small.fx)
        try:
            return to_tensors(sample, self.tasks, self.canonical_focal)
        except TaskError as error:
            raise DataError(f'frame {index} of {self.data.name}: {error}') from error

    @property
    def size(self) -> tuple[int, int]:
        """Of the network."""
        return self.height, self.width


def at_native(predict: Predictor) -> Predictor:
    """Predictions for ``NativeExamples``, brought to the size of the labels.

    Ids are those of the nearest pixel, all else is interpolated. Probabilities and normals are then
    as exact as 8 bits are: the literature judges what it has saved as pictures.
    """

    def predict_native(batch: Batch) -> Maps:
        size = next(t.shape[-2:] for n, t in batch.items() if n not in ('image', 'fx'))
        return {
            name: np.stack([saved(name, enlarged(frame, *size)) for frame in frames])
            for name, frames in predict(batch).items()
        }

    return predict_native


def enlarged(values: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """A map [h, w, ...] on the network's grid at the size of the frame, see ``fit``."""
    box = Letterbox.fit(width, height, values.shape[1], values.shape[0])
    # Pixel centres: (u + 1/2) * scale - 1/2 + left on the grid.
    middle = box.scale / 2 - 0.5
    matrix = np.array([[box.scale, 0, box.left + middle], [0, box.scale, box.top + middle]])
    nearest = np.issubdtype(values.dtype, np.integer)
    flags = (cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(
            np.ascontiguousarray(values),
            matrix,
            (width, height),
            flags=flags,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )


def saved(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """A map as it comes back from the file that the literature saves it in."""
    if name in ('edges', 'saliency'):
        return np.rint(values * 255) / np.float32(255)
    if name == 'normals':
        return np.rint((values + 1) * 127.5) / np.float32(127.5) - np.float32(1)
    return values
