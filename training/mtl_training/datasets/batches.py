"""Frames of a data set as batches of tensors, in an order that only seed and epoch decide."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mtl_training.datasets.augment import Sample, augment, fit
from mtl_training.datasets.dataset import DataError, DataSet
from mtl_training.loop.config import AugmentConfig

Batch = dict[str, Tensor]
# Epoch and index: all that the augmentation of a frame depends on, beside the seed.
Key = tuple[int, int]


class Examples(Dataset[Batch]):
    """Frames of a data set at one size; ``[epoch, index]`` is augmented, ``[index]`` is not.

    Raises:
        DataError: the data set has no labels of a task.
    """

    def __init__(
        self,
        data: DataSet,
        tasks: Collection[str],
        *,
        height: int,
        width: int,
        canonical_focal: float,
        augmentation: AugmentConfig | None = None,
        seed: int = 0,
    ) -> None:
        missing = [task for task in tasks if task not in data.tasks]
        if missing:
            raise DataError(
                f'{data.name} has no labels of {", ".join(missing)}, only of '
                f'{", ".join(data.tasks)}'
            )
        self.data = data
        self.tasks = tuple(tasks)
        self.height, self.width = height, width
        self.canonical_focal = canonical_focal
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: Key | int) -> Batch:
        epoch, index = key if isinstance(key, tuple) else (None, key)
        sample = self.data.read(index, self.tasks)
        if epoch is None or self.augmentation is None:
            sample = fit(sample, self.height, self.width)
        else:
            rng = np.random.default_rng([self.seed, epoch, index])
            sample = augment(sample, self.augmentation, self.height, self.width, rng)
        return to_tensors(sample, self.canonical_focal)


class EpochBatches(Sampler[list[Key]]):
    """The batches of one epoch: a permutation of (seed, epoch), shared out to ranks.

    Args:
        frames: how many frames there are.
        skip: batches that were already seen, when a run resumes within an epoch.
    """

    def __init__(
        self,
        frames: int,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        skip: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.count = frames // (batch_size * ranks)
        self.skip = skip
        self.epoch = epoch
        order = np.random.default_rng([seed, epoch]).permutation(frames)
        order = order[: self.count * batch_size * ranks]
        self.batches = order.reshape(self.count, ranks, batch_size)[:, rank]

    def __len__(self) -> int:
        return self.count - self.skip

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in self.batches[self.skip :]:
            yield [(self.epoch, int(index)) for index in batch]


def loader(dataset: Examples, workers: int, **options: Any) -> DataLoader[Batch]:
    """A DataLoader that leaves the random numbers and the cores of the training process alone."""
    return DataLoader(
        dataset,
        num_workers=workers,
        worker_init_fn=_one_thread,
        prefetch_factor=3 if workers else None,
        generator=torch.Generator().manual_seed(0),
        **options,
    )


def to_tensors(sample: Sample, canonical_focal: float) -> Batch:
    """A frame as tensors.

    Returns:
        ``image`` uint8 [3, H, W] RGB; ``fx`` float32 []; ``semantic`` int64 [H, W], 255 no label;
        ``depth`` float32 [1, H, W] canonical (metres * canonical_focal / fx), 0 invalid;
        ``normals`` float32 [3, H, W] unit vectors, 0 0 0 invalid; ``edges``, ``saliency`` float32
        [1, H, W], 255 no label.
    """
    arrays = sample.arrays
    tensors = {
        'image': torch.from_numpy(np.ascontiguousarray(arrays['image'].transpose(2, 0, 1))),
        'fx': torch.tensor(sample.fx, dtype=torch.float32),
    }
    if 'semantic' in arrays:
        tensors['semantic'] = torch.from_numpy(arrays['semantic'].astype(np.int64))
    if 'depth' in arrays:
        factor = np.float32(1e-3 * canonical_focal / sample.fx)
        tensors['depth'] = torch.from_numpy(arrays['depth'].astype(np.float32)[None] * factor)
    if 'normals' in arrays:
        tensors['normals'] = torch.from_numpy(_unit_normals(arrays['normals']))
    for task in ('edges', 'saliency'):
        if task in arrays:
            tensors[task] = torch.from_numpy(arrays[task].astype(np.float32)[None])
    return tensors


_NORMAL_LUT = np.arange(256, dtype=np.float32) / 127.5 - 1


def _unit_normals(stored: NDArray[Any]) -> NDArray[np.float32]:
    """Stored normals uint8 [H, W, 3] as unit vectors float32 [3, H, W]; 0 0 0 stays 0 0 0."""
    planes = np.stack(cv2.split(stored))
    vectors = _NORMAL_LUT[planes]
    x, y, z = vectors
    valid = (planes[0] | planes[1] | planes[2]) != 0
    return np.asarray(vectors * (valid / np.sqrt(x * x + y * y + z * z)), np.float32)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
