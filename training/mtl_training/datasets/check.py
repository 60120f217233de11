"""Whether a data set is whole: every file of every frame is read and looked at."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mtl_training.datasets import kind_of, open_labelled
from mtl_training.datasets.augment import Sample
from mtl_training.datasets.dataset import DataError, DataSet
from mtl_training.datasets.mixture import SPLITS, is_mixture, read_parts
from mtl_training.tasks import Task, TaskError, every

# Metres between which the middle depth of a frame lies, whatever the camera looks at: anything else
# is another unit.
DEPTHS = (0.1, 60.0)
# Focal lengths per width: 150 degrees to 7 degrees of view.
FOCALS = (0.13, 8.0)


@dataclass(frozen=True)
class Checked:
    """What was found in some part of a data set."""

    frames: int
    faults: tuple[str, ...]


def check(path: Path) -> Iterator[Checked]:
    """Look at all splits of a data set, or of all that a mixture lists, with progress bars."""
    if is_mixture(path):
        parts = read_parts(path)
        for folder in dict.fromkeys(part.path for part in parts):
            yield from check(folder)
        for split in SPLITS:
            if any(split in part.splits for part in parts):
                yield Checked(0, tuple(_unopened(path, split)))
        return
    try:
        kind = kind_of(path)
    except DataError as error:
        yield Checked(0, (str(error),))
        return
    for split in kind.splits:
        try:
            data = kind.opener(path, split, kind.classes)
        except DataError as error:
            yield Checked(0, (str(error),))
            continue
        yield Checked(0, (*_repeated(data), *data.faults()))
        yield from _frames(data, kind.own_axes)


def _unopened(mixture: Path, split: str) -> Iterator[str]:
    """Why a mixture cannot be opened, in whatever classes."""
    try:
        open_labelled(mixture, split)
    except DataError as error:
        yield str(error)


def _repeated(data: DataSet) -> Iterator[str]:
    for name, times in Counter(data.frames).items():
        if times > 1:
            yield f'{data.name}: {name} is listed {times} times'


def _frames(data: DataSet, own_axes: bool) -> Iterator[Checked]:
    known = every(data.classes.get('semantic', ()))
    tasks = {name: task for name, task in known.items() if name in data.tasks}

    def look(index: int) -> Checked:
        try:
            sample = data.read(index, tasks)
        except DataError as error:
            return Checked(1, (str(error),))
        where = f'{data.name}, {data.frames[index]}'
        faults = faults_of(sample, tasks, own_axes=own_axes)
        return Checked(1, tuple(f'{where}: {fault}' for fault in faults))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looked = pool.map(look, range(len(data)))
        yield from tqdm(looked, desc=data.name, total=len(data), unit='frame', disable=None)


def faults_of(sample: Sample, tasks: dict[str, Task], *, own_axes: bool = False) -> Iterator[str]:
    """What is wrong with one frame.

    Args:
        own_axes: see ``Kind``.
    """
    height, width = sample.arrays['image'].shape[:2]
    low, high = (width * share for share in FOCALS)
    if not low <= sample.fx <= high:
        yield f'the focal length is {sample.fx:g} px, expected {low:.0f} to {high:.0f}'
    for name, task in tasks.items():
        if name not in sample.arrays:
            continue
        labels = sample.arrays[name]
        if labels.shape[:2] != (height, width):
            found = 'x'.join(map(str, labels.shape[1::-1]))
            yield f'{name} is {found}, expected {width}x{height} as the picture'
            continue
        try:
            task.target(labels, 1.0)
        except TaskError as error:
            yield str(error)
        labelled = task.labelled(labels)
        if name in ('semantic', 'depth') and not labelled.any():
            yield f'no pixel has a label of {name}'
        elif name == 'depth':
            middle = float(np.median(labels[labelled].astype(float))) / 1000
            if not DEPTHS[0] <= middle <= DEPTHS[1]:
                yield f'half of the depths are below {middle:g} m: is the unit right?'
        elif name == 'normals' and labelled.any():
            n = np.asarray(labels[labelled], np.float32) / 127.5 - 1
            away = (n * _rays(height, width, sample.fx)[labelled]).sum(-1) > 0
            if not 0.95 < float(np.median(np.linalg.norm(n, axis=-1))) < 1.05:
                yield 'normals are not of length 1, expected n = 2 v / 255 - 1'
            elif not own_axes and away.mean() > 0.5:
                yield 'normals look away from the camera, expected n . ray < 0'


def _rays(height: int, width: int, focal: float) -> NDArray[np.float32]:
    """[H, W, 3] rays with z == 1 of a camera whose axis goes through the middle of its pictures."""
    v, u = np.mgrid[:height, :width].astype(np.float32)
    rays = [(u - (width - 1) / 2) / focal, (v - (height - 1) / 2) / focal, np.ones_like(u)]
    return np.stack(rays, -1)
