"""NYU Depth V2 in the folder that the survey and ATRC publish: NYUD_MT."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtl_training.datasets.augment import Sample
from mtl_training.datasets.dataset import nyud_table
from mtl_training.datasets.files import Files
from mtl_training.datasets.nyud import COUNTS, FX
from mtl_training.labels import NYUD40, LabelClass

FILES = Files('NYUD_MT.tgz, which the repositories of the survey and of ATRC link')
LISTS = {'train': 'train.txt', 'val': 'val.txt', 'test': 'val.txt'}
SIZES = ((425, 560), (480, 640))  # at which the focal length is known
DEEPEST = 65.535  # metres that fit into a sample


class NYUDMT:
    """One split: 795 frames of train, 654 of val, on which the literature tests.

    Files: ``gt_sets/{train,val}.txt``; ``images/N.jpg``; ``segmentation/N.png``, ids 1..40, 0 void;
    ``depth/N.npy``, metres, 0 none; ``normals/N.npy``, -1..1, 0 0 0 none; ``edge/N.npy``, 0 or 1.
    Normals have the axes that the files have, which nobody documents.

    Args:
        classes: of the semantic task: NYUD's 40, or groups of them.

    Raises:
        DataError: a list that is missing or empty.
        ClassesError: classes that cannot be told from NYUD's.
    """

    tasks: tuple[str, ...] = ('semantic', 'depth', 'normals', 'edges')

    def __init__(self, folder: Path, split: str, classes: Sequence[LabelClass]) -> None:
        self.name = f'{folder}, {split}'
        self.folder, self.split = folder, split
        self.classes: Mapping[str, Sequence[LabelClass]] = {'semantic': classes}
        self.table = nyud_table(self.name, classes)
        self.frames: Sequence[str] = FILES.listed(folder / 'gt_sets' / LISTS[split])

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, index: int, tasks: Collection[str]) -> Sample:
        """See ``DataSet.read``."""
        name = self.frames[index]
        picture = self.folder / 'images' / f'{name}.jpg'
        image = FILES.color(picture)
        height, width = image.shape[:2]
        if (height, width) not in SIZES:
            raise FILES.wrong(picture, f'is {width}x{height}, expected 560x425 or 640x480')
        arrays: dict[str, NDArray[np.generic]] = {'image': image}
        if 'semantic' in tasks:
            path = self.folder / 'segmentation' / f'{name}.png'
            arrays['semantic'] = FILES.ids(path, self.table, len(NYUD40))
        if 'depth' in tasks:
            metres = FILES.array(self.folder / 'depth' / f'{name}.npy', 2)
            near = np.where((metres > 0) & (metres <= DEEPEST), metres, 0)
            arrays['depth'] = np.rint(1000 * near).astype(np.uint16)
        if 'normals' in tasks:
            vectors = FILES.array(self.folder / 'normals' / f'{name}.npy', 3)
            known = vectors.any(axis=-1, keepdims=True)
            stored = np.rint(127.5 * (np.clip(vectors, -1, 1) + 1)) * known
            arrays['normals'] = stored.astype(np.uint8)
        if 'edges' in tasks:
            edges = FILES.array(self.folder / 'edge' / f'{name}.npy', 2)
            arrays['edges'] = (edges > 0).astype(np.uint8)
        return Sample(arrays, FX)

    def faults(self) -> Iterator[str]:
        """See ``DataSet.faults``."""
        if len(self.frames) != COUNTS[self.split]:
            yield f'{self.name}: {len(self.frames)} frames, expected {COUNTS[self.split]}'
        other = LISTS['val' if self.split == 'train' else 'train']
        for name in sorted({*self.frames} & {*FILES.listed(self.folder / 'gt_sets' / other)}):
            yield f'{self.name}: {name} is in the other split, too'
