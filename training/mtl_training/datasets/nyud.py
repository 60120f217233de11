"""NYU Depth V2, the labelled set, as a plain folder of pictures (Silberman et al., ECCV 2012)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_training.datasets.augment import Sample
from mtl_training.datasets.classes import IGNORE, LabelClass
from mtl_training.datasets.dataset import DataError, nyud_table, read_color, read_image
from mtl_training.datasets.derive import edges_of

FX = 518.858  # px, at 640x480 and in every crop of it
SIZE = (480, 640)
# A white frame of about 8 px runs round the pictures; this is what the literature keeps: 425x560.
CROP = (slice(45, 470), slice(40, 600))
# The 8-bit depth as millimetres: metres = 0.0392 (v + 0.66), fitted on a frame of 16 bits.
MILLIMETRES: NDArray[np.uint16] = np.rint(39.2 * (np.arange(256) + 0.66)).astype(np.uint16)
# The official set has two splits; the literature validates on the one that it tests on.
LISTS = {'train': 'train.txt', 'val': 'test.txt', 'test': 'test.txt'}


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
        self.folder = folder
        self.classes: Mapping[str, Sequence[LabelClass]] = {'semantic': classes}
        path = folder / LISTS[split]
        try:
            self.frames: Sequence[str] = path.read_text(encoding='utf-8').split()
        except OSError as error:
            raise DataError(f'{path} cannot be read, expected a list of NYUD frames') from error
        if not self.frames:
            raise DataError(f'{path} lists no frames')
        self.table = nyud_table(self.name, classes)

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, index: int, tasks: Collection[str]) -> Sample:
        """See ``DataSet.read``."""
        number = self.frames[index]
        arrays: dict[str, NDArray[np.generic]] = {'image': self._crop('images', f'{number}.jpg')}
        if 'semantic' in tasks or 'edges' in tasks:
            stored = self._crop('labels40', f'{number}.png')
            if 'semantic' in tasks:
                arrays['semantic'] = cv2.LUT(stored, self.table)
            if 'edges' in tasks:
                arrays['edges'] = edges_of(np.where(stored == 0, np.uint8(IGNORE), stored))
        if 'depth' in tasks:
            arrays['depth'] = MILLIMETRES[self._crop('depth8', f'{number}.png')]
        return Sample(arrays, FX)

    def _crop(self, kind: str, file: str) -> NDArray[np.uint8]:
        """What lies inside the white frame: [425, 560], of ``images`` [425, 560, 3] RGB."""
        path = self.folder / kind / file
        whole = read_color(path) if kind == 'images' else read_image(path, cv2.IMREAD_GRAYSCALE)
        if whole.shape[:2] != SIZE:
            height, width = whole.shape[:2]
            raise DataError(f'{path} is {width}x{height}, expected 640x480')
        return np.ascontiguousarray(whole[CROP])
