"""What every data set offers: labelled frames one by one, and the classes of their labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mtl_training import TrainingError
from mtl_training.datasets.augment import Sample
from mtl_training.labels import IGNORE, NYUD40, LabelClass, lookup


class DataError(TrainingError):
    """Training data that cannot be read; the message names the file."""


class ClassesError(DataError):
    """Classes that the labels of a data set do not tell apart."""


class DataSet(Protocol):
    """One split of a data set.

    Attributes:
        name: of the data set and the split, for messages.
        tasks: that it has labels of.
        classes: of each task whose labels are classes; the ids of a sample are places in there.
        frames: their names, for messages and for choosing among them.
    """

    name: str
    tasks: tuple[str, ...]
    classes: Mapping[str, Sequence[LabelClass]]
    frames: Sequence[str]

    def __len__(self) -> int: ...

    def read(self, index: int, tasks: Collection[str]) -> Sample:
        """One frame with its picture, its focal length and the labels of the given tasks.

        A frame may have labels of some of the set's tasks only.

        Raises:
            DataError: a file is missing or damaged, or has what it cannot have.
        """
        ...

    def faults(self) -> Iterator[str]:
        """What is wrong with the split as a whole, a line each; frames are not read."""
        ...


class Subset:
    """Some frames of a data set."""

    def __init__(self, data: DataSet, indices: Sequence[int]) -> None:
        self.data, self.indices = data, indices
        self.name, self.tasks, self.classes = data.name, data.tasks, data.classes
        self.frames: Sequence[str] = [data.frames[index] for index in indices]

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int, tasks: Collection[str]) -> Sample:
        """See ``DataSet.read``."""
        return self.data.read(self.indices[index], tasks)

    def faults(self) -> Iterator[str]:
        """See ``DataSet.faults``."""
        return self.data.faults()


def thin_out(data: DataSet, limit: int) -> DataSet:
    """At most ``limit`` frames, evenly spaced; all of them for 0."""
    if limit <= 0 or len(data) <= limit:
        return data
    return Subset(data, [index * len(data) // limit for index in range(limit)])


def class_weights(data: DataSet, balance: float) -> tuple[float, ...]:
    """Weights f ** -balance of semantic classes with pixel frequencies f; their mean is 1.

    The mean is over pixels, so that the size of the loss does not change. A class that does not
    occur counts as if a ten-thousandth of the pixels had it.
    """
    counts = np.zeros(256)
    for index in range(len(data)):
        ids = data.read(index, ['semantic']).arrays.get('semantic')
        if ids is not None:
            counts += np.bincount(ids.reshape(-1), minlength=256)
    counts = counts[: len(data.classes['semantic'])]
    share = counts / max(counts.sum(), 1)
    weights = np.maximum(share, 1e-4) ** -balance
    return tuple(float(w) for w in weights / (weights * share).sum())


def nyud_table(name: str, classes: Sequence[LabelClass]) -> NDArray[np.uint8]:
    """Table [256] from the ids in files with NYUD's 40 classes, 0 void, to other classes.

    Args:
        name: of the data set, for the message.

    Raises:
        ClassesError: classes that cannot be told from NYUD's.
    """
    table = lookup([label.name for label in NYUD40], classes, first=1)
    if table is None:
        raise ClassesError(f"{name} has NYUD's 40 classes, expected them or groups of them")
    return table


def table_of(
    name: str, source: Sequence[LabelClass], classes: Sequence[LabelClass]
) -> NDArray[np.uint8]:
    """Table [256] from ids of one label set in files, from 1 on, 0 void, to other classes.

    What may be of several of the classes is void: a table may be a desk.

    Args:
        name: of the data set, for the message.

    Raises:
        ClassesError: none of the classes is told.
    """
    table = np.full(256, IGNORE, np.uint8)
    for number, label in enumerate(source, 1):
        for index, target in enumerate(classes):
            if set(label.members or [label.name]) <= set(target.members or [target.name]):
                table[number] = index
    if source and (table == IGNORE).all():
        names = ', '.join(label.name for label in source[:3])
        raise ClassesError(f'{name} has the classes {names}, ..., none of which is trained')
    return table


def unlisted(what: str, found: Iterable[str], listed: Iterable[str]) -> Iterator[str]:
    """The fault that there are frames which no list names, if there are."""
    extra = sorted(set(found) - set(listed))
    if extra:
        yield f'{what}: {len(extra)} frames are not listed, such as {extra[0]}'
