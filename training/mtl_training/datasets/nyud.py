"""NYU Depth V2, the labelled set, as a plain folder of pictures (Silberman et al., ECCV 2012)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_training.datasets.augment import Sample
from mtl_training.datasets.dataset import nyud_table, unlisted
from mtl_training.datasets.derive import edges_of
from mtl_training.datasets.files import Files
from mtl_training.labels import IGNORE, NYUD40, LabelClass

FX = 518.858  # px, at 640x480 and in every crop of it
SIZE = (480, 640)
# A white frame of about 8 px runs round the pictures; this is what the literature keeps: 425x560.
CROP = (slice(45, 470), slice(40, 600))
# The 8-bit depth as millimetres: metres = 0.0392 (v + 0.66), fitted on a frame of 16 bits.
MILLIMETRES: NDArray[np.uint16] = np.rint(39.2 * (np.arange(256) + 0.66)).astype(np.uint16)
# The official set has two splits; the literature validates on the one that it tests on.
LISTS = {'train': 'train.txt', 'val': 'test.txt', 'test': 'test.txt'}
COUNTS = {'train': 795, 'val': 654, 'test': 654}
# Ids as they are stored, but for void.
VOID: NDArray[np.uint8] = np.where(np.arange(256) == 0, IGNORE, np.arange(256)).astype(np.uint8)
FILES = Files('the home page of NYU Depth V2 at New York University (see docs/training.md)')


class NYUD:
    """One split: 795 frames of train, 654 of test.

    Edges are derived from the labels, see ``edges_of``; normals are not derived, since depth of 8
    bits is too coarse for them.

    Files: ``train.txt`` and ``test.txt`` with one number per line; ``images/N.jpg``;
    ``labels40/N.png``, ids 1..40, 0 void; ``depth8/N.png``, see ``MILLIMETRES``; all 640x480.

    Args:
        classes: of the semantic task: NYUD's 40, or groups of them.

    Raises:
        DataError: a list that is missing or empty, or classes that cannot be told from NYUD's.
    """

    tasks: tuple[str, ...] = ('semantic', 'depth', 'edges')

    def __init__(self, folder: Path, split: str, classes: Sequence[LabelClass]) -> None:
        self.name = f'{folder}, {split}'
        self.folder, self.split = folder, split
        self.classes: Mapping[str, Sequence[LabelClass]] = {'semantic': classes}
        self.frames: Sequence[str] = FILES.listed(folder / LISTS[split])
        self.table = nyud_table(self.name, classes)

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, index: int, tasks: Collection[str]) -> Sample:
        """See ``DataSet.read``."""
        number = self.frames[index]
        path = self.folder / 'images' / f'{number}.jpg'
        arrays: dict[str, NDArray[np.generic]] = {'image': self._crop(path, FILES.color(path))}
        if 'semantic' in tasks or 'edges' in tasks:
            path = self.folder / 'labels40' / f'{number}.png'
            ids = self._crop(path, FILES.ids(path, VOID, len(NYUD40)))
            if 'semantic' in tasks:
                arrays['semantic'] = cv2.LUT(ids, self.table)
            if 'edges' in tasks:
                arrays['edges'] = edges_of(ids, ids == IGNORE)
        if 'depth' in tasks:
            path = self.folder / 'depth8' / f'{number}.png'
            arrays['depth'] = MILLIMETRES[self._crop(path, FILES.gray(path))]
        return Sample(arrays, FX)

    def faults(self) -> Iterator[str]:
        """See ``DataSet.faults``."""
        if len(self.frames) != COUNTS[self.split]:
            yield f'{self.name}: {len(self.frames)} frames, expected {COUNTS[self.split]}'
        train, test = (FILES.listed(self.folder / LISTS[split]) for split in ('train', 'test'))
        for number in set(self.frames) & set(test if self.split == 'train' else train):
            yield f'{self.name}: {number} is in the other split, too'
        listed = {*train, *test}
        for kind in ('images', 'labels40', 'depth8'):
            files = (file.stem for file in (self.folder / kind).glob('*.*'))
            yield from unlisted(f'{self.folder / kind}', files, listed)

    def _crop(self, path: Path, whole: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What lies inside the white frame: [425, 560, ...]."""
        if whole.shape[:2] != SIZE:
            height, width = whole.shape[:2]
            raise FILES.wrong(path, f'is {width}x{height}, expected 640x480')
        return np.ascontiguousarray(whole[CROP])
