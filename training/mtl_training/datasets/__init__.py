"""Data sets, one file each, and how their frames become batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mtl_training.datasets.classes import LabelClass
from mtl_training.datasets.dataset import DataError, DataSet
from mtl_training.datasets.mixture import Mixture
from mtl_training.datasets.nyud import NYUD
from mtl_training.datasets.rgbd import RGBD
from mtl_training.datasets.rooms import Rooms

Opener = Callable[[Path, str, Sequence[LabelClass]], DataSet]
# What a folder of the data set holds -> its reader; the first match counts.
DATA_SETS: dict[str, Opener] = {
    'labels40': NYUD,
    'frames.json': RGBD,
    '*/frames.jsonl': Rooms,
}


def open_data(folder: Path, split: str, classes: Sequence[LabelClass]) -> DataSet:
    """One split (train, val or test) of the data set in a folder, told by what lies in it.

    Args:
        folder: of the data set, or the YAML file of a mixture.
        classes: that the semantic labels are given in.

    Raises:
        ClassesError: classes that the data does not tell apart.
        DataError: a folder of another kind, or what the reader finds wrong.
    """
    if folder.suffix in ('.yaml', '.yml'):
        return Mixture(folder, split, classes, open_data)
    for pattern, opener in DATA_SETS.items():
        if any(folder.glob(pattern)):
            return opener(folder, split, classes)
    known = ' or '.join(DATA_SETS)
    raise DataError(f'{folder} is not a data set that can be read, expected one with {known}')
