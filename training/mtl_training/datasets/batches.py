"""Frames of a data set as batches of tensors, in an order that only seed and epoch decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from mtl_training.datasets.augment import AugmentConfig, Sample, augment, fit
from mtl_training.datasets.dataset import DataError, DataSet
from mtl_training.tasks.task import Task, TaskError

Batch = dict[str, Tensor]
# Epoch and index: all that the augmentation of a frame depends on, beside the seed.
Key = tuple[int, int]


class Examples(Dataset[Batch]):
    """Frames of a data set at one size; ``[epoch, index]`` is augmented, ``[index]`` is not.

    Where a frame lacks the labels of a task they are masked, so that batches stack and no loss or
    figure counts them.

    Raises:
        DataError: the data set has no labels of a task, or, of a frame, some that cannot be.
    """

    def __init__(
        self,
        data: DataSet,
        tasks: Mapping[str, Task],
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
        self.tasks = dict(tasks)
        self.height, self.width = height, width
        self.canonical_focal = canonical_focal
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: Key | int) -> Batch:
        epoch, index = key if isinstance(key, tuple) else (None, key)
        sample = masked(self.data.read(index, self.tasks), self.tasks)
        if epoch is None or self.augmentation is None:
            sample = fit(sample, self.tasks, self.height, self.width)
        else:
            rng = np.random.default_rng([self.seed, epoch, index])
            size = self.height, self.width
            sample = augment(sample, self.tasks, self.augmentation, *size, rng)
        try:
            return to_tensors(sample, self.tasks, self.canonical_focal)
        except TaskError as error:
            raise DataError(f'frame {index} of {self.data.name}: {error}') from error


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


class Loader(DataLoader[Any]):
    """A DataLoader whose errors of data are those of its workers.

    torch re-raises what happens in a worker with that process's traceback for a message; here an
    error travels as a batch does, and is raised when its turn comes.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batch: Batch | DataError
        for batch in super().__iter__():
            if isinstance(batch, DataError):
                raise batch
            yield batch


class _Tried(Dataset[Batch | DataError]):
    """Frames, or why they cannot be read."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: Key | int) -> Batch | DataError:
        try:
            return self.examples[key]
        except DataError as error:
            return error


def _collate(frames: list[Batch | DataError]) -> Batch | DataError:
    """Frames as a batch, or the first error among them."""
    errors = (frame for frame in frames if isinstance(frame, DataError))
    return next(errors, None) or default_collate(frames)


def loader(dataset: Examples, workers: int, **options: Any) -> Loader:
    """A DataLoader that leaves the random numbers and the cores of the training process alone."""
    return Loader(
        _Tried(dataset),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_one_thread,
        prefetch_factor=3 if workers else None,
        generator=torch.Generator().manual_seed(0),
        **options,
    )


def masked(sample: Sample, tasks: Mapping[str, Task]) -> Sample:
    """A frame with labels of all tasks: maps without any where it has none."""
    height, width = sample.arrays['image'].shape[:2]
    masks = {name: task.unlabelled(height, width) for name, task in tasks.items()}
    return Sample({**masks, **sample.arrays}, sample.fx)


def to_tensors(sample: Sample, tasks: Mapping[str, Task], canonical_focal: float) -> Batch:
    """A frame as tensors.

    Returns:
        ``image`` uint8 [3, H, W] RGB; ``fx`` float32 []; and of each task, by name, what its loss
        wants, and as ``NAME.labelled`` bool [] whether any pixel has a label.

    Raises:
        TaskError: labels that cannot be.
    """
    zoom = sample.fx / canonical_focal
    image = np.ascontiguousarray(sample.arrays['image'].transpose(2, 0, 1))
    batch = {'image': torch.from_numpy(image), 'fx': torch.tensor(sample.fx, dtype=torch.float32)}
    for name, task in tasks.items():
        batch[name] = task.target(sample.arrays[name], zoom)
        batch[f'{name}.labelled'] = torch.tensor(bool(task.labelled(sample.arrays[name]).any()))
    return batch


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
