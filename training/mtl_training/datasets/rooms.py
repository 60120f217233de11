"""Rooms: the rendered data set of `mtl_training rooms render`, and other data in its layout."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtl_training.datasets.augment import Sample
from mtl_training.datasets.dataset import DataError, nyud_table, table_of, unlisted
from mtl_training.datasets.files import Files
from mtl_training.labels import IGNORE, NYUD40, LabelClass, with_names

TASKS = ('semantic', 'depth', 'normals', 'edges', 'saliency')
UNSURE = 128  # in files of edges and saliency
FILES = Files('`mtl_training rooms render`, or wherever its frames.jsonl was written')


@dataclass(frozen=True)
class Frame:
    """One line of ``frames.jsonl``.

    Attributes:
        prefix: where the names of its files begin.
        fx: focal length in pixels.
        tasks: that it has labels of; all where the line does not say.
    """

    prefix: Path
    fx: float
    tasks: tuple[str, ...] = TASKS


class Rooms:
    """One split: ``SPLIT/frames.jsonl`` and, per frame, a picture and a file for every task.

    Files of a frame: ``_rgb.jpg``; ``_semantic.png``, ids of NYUD's 40 classes, 0 void;
    ``_depth.png``, 16 bit, millimetres, 0 invalid; ``_normals.png``, RGB, n = 2 v / 255 - 1, black
    invalid; ``_edges.png`` and ``_saliency.png``, 0 or 255, 128 void. A line of ``frames.jsonl`` is
    an object with ``name`` and ``fx``, and with ``tasks`` if the frame has labels of some of them
    only. Where there is a ``classes.json`` in the folder, a list of names, ids stand for those from
    1 on instead of NYUD's: `mtl_perception replay --pseudo-labels` writes it.

    Args:
        folder: holds ``train``, ``val`` and ``test``.
        classes: of the semantic task: NYUD's 40, or groups of them. With ``classes.json`` labels
            that may be of several of them are void, as those of a group are for NYUD's 40.

    Raises:
        DataError: no ``frames.jsonl``, a line that is not JSON, no frames, or classes that cannot
            be told from NYUD's.
    """

    def __init__(self, folder: Path, split: str, classes: Sequence[LabelClass]) -> None:
        self.name = str(folder / split)
        self.classes: Mapping[str, Sequence[LabelClass]] = {'semantic': classes}
        self.listed = list_frames(folder / split)
        self.folder = folder / split
        self.tasks = tuple(task for task in TASKS if any(task in f.tasks for f in self.listed))
        self.frames: Sequence[str] = [frame.prefix.name for frame in self.listed]
        own = own_classes(folder)
        self.labels = NYUD40 if own is None else own
        self.table = (
            nyud_table(self.name, classes) if own is None else table_of(self.name, own, classes)
        )

    def __len__(self) -> int:
        return len(self.listed)

    def read(self, index: int, tasks: Collection[str]) -> Sample:
        """See ``DataSet.read``."""
        frame = self.listed[index]

        def file(task: str) -> Path:
            return frame.prefix.with_name(f'{frame.prefix.name}_{task}.png')

        picture = frame.prefix.with_name(f'{frame.prefix.name}_rgb.jpg')
        arrays: dict[str, NDArray[np.generic]] = {'image': FILES.color(picture)}
        tasks = [task for task in frame.tasks if task in tasks]
        if 'semantic' in tasks:
            arrays['semantic'] = FILES.ids(file('semantic'), self.table, len(self.labels))
        if 'depth' in tasks:
            arrays['depth'] = FILES.deep(file('depth'))
        if 'normals' in tasks:
            arrays['normals'] = FILES.color(file('normals'))
        for task in ('edges', 'saliency'):
            if task in tasks:
                gray = FILES.gray(file(task))
                arrays[task] = np.where(gray == UNSURE, np.uint8(IGNORE), gray >> 7)
        return Sample(arrays, frame.fx)

    def faults(self) -> Iterator[str]:
        """See ``DataSet.faults``."""
        here = [frame for frame in self.listed if frame.prefix.parent == self.folder]
        pictures = (file.name.removesuffix('_rgb.jpg') for file in self.folder.glob('*_rgb.jpg'))
        yield from unlisted(self.name, pictures, (frame.prefix.name for frame in here))


def own_classes(folder: Path) -> Sequence[LabelClass] | None:
    """The classes of the ids in the files, from 1 on, where they are not NYUD's.

    Raises:
        DataError: ``classes.json`` is not a list of names.
    """
    path = folder / 'classes.json'
    if not path.exists():
        return None
    try:
        names = json.loads(FILES.text(path))
    except ValueError as error:
        raise DataError(f'{path} is not JSON') from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f'{path}: expected a list of names')
    return with_names(names)


def list_frames(folder: Path) -> list[Frame]:
    """The frames of one split, in the order in which they were rendered.

    A line without its line break is still being written and is left out.

    Raises:
        DataError: no ``frames.jsonl``, a line that is not JSON, or no frames.
    """
    path = folder / 'frames.jsonl'
    lines = FILES.text(path).splitlines(keepends=True)
    frames = []
    for number, line in enumerate(lines, 1):
        if not line.endswith('\n'):
            continue
        try:
            entry = json.loads(line)
            tasks = tuple(task for task in TASKS if task in entry.get('tasks', TASKS))
            frames.append(Frame(folder / entry['name'], float(entry['fx']), tasks))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'{path}, line {number}: expected an object with name and fx'
            ) from error
    if not frames:
        raise DataError(f'{path} lists no frames')
    return frames
