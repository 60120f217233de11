"""The rooms data on disk as batches of tensors."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mtl_training import TrainingError
from mtl_training.datasets.augment import Sample, augment, fit
from mtl_training.loop.config import AugmentConfig
from mtl_training.rooms.labels import group_lut

Batch = dict[str, Tensor]
# Epoch and index: all that the augmentation of a frame depends on, beside the seed.
Key = tuple[int, int]


class DataError(TrainingError):
    """Training data that cannot be read; the message names the file."""


@dataclass(frozen=True)
class Frame:
    """One line of ``frames.jsonl``: where a frame's files begin, and its focal length in pixels."""

    prefix: Path
    fx: float


def list_frames(folder: Path) -> list[Frame]:
    """The frames of one split, in the order in which they were rendered.

    A line without its line break is still being written and is left out.

    Raises:
        DataError: no ``frames.jsonl``, a line that is not JSON, or no frames.
    """
    path = folder / 'frames.jsonl'
    try:
        lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
    except OSError as error:
        raise DataError(f'{path} cannot be read, expected a split of the rooms data') from error
    frames = []
    for number, line in enumerate(lines, 1):
        if not line.endswith('\n'):
            continue
        try:
            entry = json.loads(line)
            frames.append(Frame(folder / entry['name'], float(entry['fx'])))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'{path}, line {number}: expected an object with name and fx'
            ) from error
    if not frames:
        raise DataError(f'{path} lists no frames')
    return frames


def read_sample(frame: Frame, tasks: Collection[str]) -> Sample:
    """Decode a frame's picture and the labels of the given tasks.

    Raises:
        DataError: a file is missing or is not a picture.
    """
    arrays: dict[str, NDArray[np.generic]] = {
        'image': cv2.cvtColor(_imread(frame, 'rgb.jpg', cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    }
    if 'semantic' in tasks:
        arrays['semantic'] = cv2.LUT(
            _imread(frame, 'semantic.png', cv2.IMREAD_GRAYSCALE), _GROUP_LUT
        )
    if 'depth' in tasks:
        arrays['depth'] = _imread(frame, 'depth.png', cv2.IMREAD_ANYDEPTH)
    if 'normals' in tasks:
        arrays['normals'] = cv2.cvtColor(
            _imread(frame, 'normals.png', cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
        )
    for task in ('edges', 'saliency'):
        if task in tasks:
            arrays[task] = _imread(frame, f'{task}.png', cv2.IMREAD_GRAYSCALE) >> 7
    return Sample(arrays, frame.fx)


def class_weights(frames: Sequence[Frame], classes: int, balance: float) -> tuple[float, ...]:
    """Weights f ** -balance of classes with pixel frequencies f in ``frames``; their mean is 1.

    The mean is over pixels, so that the size of the loss does not change. A class that does not
    occur counts as if a ten-thousandth of the pixels had it.
    """
    counts = np.zeros(256)
    for frame in frames:
        ids = read_sample(frame, ['semantic']).arrays['semantic']
        counts += np.bincount(ids.reshape(-1), minlength=256)
    share = counts[:classes] / max(counts[:classes].sum(), 1)
    weights = np.maximum(share, 1e-4) ** -balance
    return tuple(float(w) for w in weights / (weights * share).sum())


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


class Rooms(Dataset[Batch]):
    """One split of the rooms data; ``[epoch, index]`` is augmented, ``[index]`` is not."""

    def __init__(
        self,
        frames: list[Frame],
        tasks: Collection[str],
        *,
        height: int,
        width: int,
        canonical_focal: float,
        augmentation: AugmentConfig | None = None,
        seed: int = 0,
    ) -> None:
        self.frames = frames
        self.tasks = tuple(tasks)
        self.height, self.width = height, width
        self.canonical_focal = canonical_focal
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: Key | int) -> Batch:
        epoch, index = key if isinstance(key, tuple) else (None, key)
        sample = read_sample(self.frames[index], self.tasks)
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


def loader(dataset: Rooms, workers: int, **options: Any) -> DataLoader[Batch]:
    """A DataLoader that leaves the random numbers and the cores of the training process alone."""
    return DataLoader(
        dataset,
        num_workers=workers,
        worker_init_fn=_one_thread,
        prefetch_factor=3 if workers else None,
        generator=torch.Generator().manual_seed(0),
        **options,
    )


_GROUP_LUT = group_lut()
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


def _imread(frame: Frame, name: str, flags: int) -> NDArray[Any]:
    """Read one file of a frame."""
    path = f'{frame.prefix}_{name}'
    array = cv2.imread(path, flags)
    if array is None:
        raise DataError(f'{path} is missing or is not a picture')
    return array
