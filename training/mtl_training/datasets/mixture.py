"""Mixture: several data sets as one, by a YAML file that lists them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mtl_training.datasets.augment import Sample
from mtl_training.datasets.dataset import DataError, DataSet, Subset
from mtl_training.labels import LabelClass

SPLITS = ('train', 'val', 'test')
# Of a turn: its multiples are spread evenly, however many there are.
GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Part:
    """One entry of the list.

    Attributes:
        path: folder of a data set; relative ones are beside the file.
        weight: how often a frame is seen in an epoch; below 1, so many frames, evenly spaced and
            other ones in every epoch.
        splits: in which splits of the mixture the set takes part.
        only, without: beginnings of the names of frames that are taken, or left out.
    """

    path: Path
    weight: float = 1.0
    splits: tuple[str, ...] = SPLITS
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def choose(self, data: DataSet, epoch: int) -> DataSet:
        """The frames that the part takes in an epoch, as often as it takes them."""
        named = [
            index
            for index, name in enumerate(data.frames)
            if name.startswith(self.only or '') and not name.startswith(self.without)
        ]
        count = round(len(named) * self.weight)
        if count == 0:
            raise DataError(
                f'{data.name}: no frames are left of {len(data)} by only {list(self.only)}, '
                f'without {list(self.without)} and weight {self.weight}'
            )
        phase = epoch * GOLDEN % 1
        places = (int((index + phase) * len(named) / count) for index in range(count))
        return Subset(data, [named[place] for place in places])


class Mixture:
    """One split of several data sets, one after the other.

    Samples lack the labels that their set has not. The frames are those of epoch 0, see
    ``of_epoch``.

    Args:
        path: the YAML file.
        opener: opens the split of a data set in a folder.

    Raises:
        DataError: a file that is not such a list, a set that cannot be read, or a split without
            any.
    """

    def __init__(
        self,
        path: Path,
        split: str,
        classes: Sequence[LabelClass],
        opener: Callable[[Path, str, Sequence[LabelClass]], DataSet],
    ) -> None:
        self.name = f'{path}, {split}'
        parts = [part for part in read_parts(path) if split in part.splits]
        if not parts:
            raise DataError(f'{path} lists no data set for the split {split}')
        self.opened = [(part, opener(part.path, split, classes)) for part in parts]
        self._take(0)
        self.classes: Mapping[str, Sequence[LabelClass]] = {
            task: labels for part in self.parts for task, labels in part.classes.items()
        }
        self.tasks = tuple(dict.fromkeys(task for part in self.parts for task in part.tasks))

    def _take(self, epoch: int) -> None:
        self.parts = [part.choose(of_epoch(data, epoch), epoch) for part, data in self.opened]
        self.ends = np.cumsum([len(part) for part in self.parts])
        self.frames: Sequence[str] = [name for part in self.parts for name in part.frames]

    def of_epoch(self, epoch: int) -> Mixture:
        """The mixture as it is in an epoch, with as many frames."""
        other = copy(self)
        other._take(epoch)
        return other

    def __len__(self) -> int:
        return int(self.ends[-1])

    def read(self, index: int, tasks: Collection[str]) -> Sample:
        """See ``DataSet.read``."""
        number = int(np.searchsorted(self.ends, index, side='right'))
        part = self.parts[number]
        first = int(self.ends[number]) - len(part)
        return part.read(index - first, [task for task in tasks if task in part.tasks])

    def faults(self) -> Iterator[str]:
        """See ``DataSet.faults``."""
        for part in self.parts:
            yield from part.faults()


def of_epoch(data: DataSet, epoch: int) -> DataSet:
    """What is trained on in an epoch: only mixtures differ from one to the next."""
    return data.of_epoch(epoch) if isinstance(data, Mixture) else data


def frames_by_task(data: DataSet) -> dict[str, int]:
    """How many frames are from sets that have labels of a task."""
    parts = data.parts if isinstance(data, Mixture) else [data]
    frames: dict[str, int] = {}
    for part in parts:
        for task in part.tasks:
            frames[task] = frames.get(task, 0) + len(part)
    return frames


def is_mixture(path: Path) -> bool:
    """Whether a path is that of a mixture's file rather than a data set's folder."""
    return path.suffix in ('.yaml', '.yml')


def read_parts(path: Path) -> list[Part]:
    """The entries of a mixture's file.

    Raises:
        DataError: not a list of mappings with ``path``, an unknown key, or a wrong value.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f'{path} cannot be read: {error}') from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f'{path} is {entries!r}, expected a list of data sets')
    return [
        _part(entry, path.parent, f'{path}, entry {number}')
        for number, entry in enumerate(entries, 1)
    ]


def _part(entry: Any, folder: Path, where: str) -> Part:
    known = Part.__dataclass_fields__
    if not isinstance(entry, dict) or not isinstance(entry.get('path'), str):
        raise DataError(f'{where} is {entry!r}, expected a mapping with path')
    for key in entry:
        if key not in known:
            raise DataError(f'{where} has the key {key!r}, expected of {", ".join(known)}')
    weight = entry.get('weight', 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or weight <= 0:
        raise DataError(f'{where}: weight is {weight!r}, expected a number above 0')
    names = {}
    for key in ('splits', 'only', 'without'):
        value = entry.get(key, list(getattr(Part, key)))
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise DataError(f'{where}: {key} is {value!r}, expected a list of names')
        names[key] = tuple(value)
    if not set(names['splits']) <= set(SPLITS):
        raise DataError(
            f'{where}: splits is {list(names["splits"])}, expected of {", ".join(SPLITS)}'
        )
    return Part(folder / entry['path'], float(weight), **names)
