"""Cityscapes: streets with the 19 classes that are judged (Cordts et al., CVPR 2016)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtl_training.datasets.augment import Sample
from mtl_training.datasets.dataset import ClassesError
from mtl_training.datasets.files import Files
from mtl_training.labels import CITYSCAPES19, IGNORE, LabelClass, lookup

FILES = Files('the home page of Cityscapes (leftImg8bit, gtFine, camera)')
# The labels of the official test split are not published; the literature tests on val.
SPLITS = {'train': 'train', 'val': 'val', 'test': 'val'}
COUNTS = {'train': 2975, 'val': 500, 'test': 500}
# The 19 among the 34 ids of the files, in the order of CITYSCAPES19.
STORED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
HIGHEST = 33


class Cityscapes:
    """One split: 2,975 frames of train, 500 of val, 2048x1024.

    Files: ``leftImg8bit/SPLIT/CITY/N_leftImg8bit.png``;
    ``gtFine/SPLIT/CITY/N_gtFine_labelIds.png``; ``camera/SPLIT/CITY/N_camera.json``.

    Args:
        classes: of the semantic task: the 19, or groups of them.

    Raises:
        DataError: no frames.
        ClassesError: classes that cannot be told from the 19.
    """

    tasks: tuple[str, ...] = ('semantic',)

    def __init__(self, folder: Path, split: str, classes: Sequence[LabelClass]) -> None:
        self.name = f'{folder}, {split}'
        self.folder, self.split = folder, split
        judged = lookup([label.name for label in CITYSCAPES19], classes)
        if judged is None:
            raise ClassesError(f'{self.name} has 19 classes, expected them or groups of them')
        self.table = np.full(256, IGNORE, np.uint8)
        self.table[list(STORED)] = judged[: len(STORED)]
        self.classes: Mapping[str, Sequence[LabelClass]] = {'semantic': classes}
        self.frames: Sequence[str] = self._names('leftImg8bit', '_leftImg8bit.png')
        if not self.frames:
            raise FILES.wrong(folder / 'leftImg8bit' / SPLITS[split], 'has no pictures')

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, index: int, tasks: Collection[str]) -> Sample:
        """See ``DataSet.read``."""
        name = self.frames[index]
        picture = self._file('leftImg8bit', f'{name}_leftImg8bit.png')
        arrays: dict[str, NDArray[np.generic]] = {'image': FILES.color(picture)}
        if 'semantic' in tasks:
            labels = self._file('gtFine', f'{name}_gtFine_labelIds.png')
            arrays['semantic'] = FILES.ids(labels, self.table, HIGHEST)
        camera = self._file('camera', f'{name}_camera.json')
        text = FILES.text(camera)
        try:
            return Sample(arrays, float(json.loads(text)['intrinsic']['fx']))
        except (ValueError, KeyError, TypeError) as error:
            raise FILES.wrong(camera, 'has no intrinsic with fx') from error

    def faults(self) -> Iterator[str]:
        """See ``DataSet.faults``."""
        if len(self.frames) != COUNTS[self.split]:
            yield f'{self.name}: {len(self.frames)} frames, expected {COUNTS[self.split]}'
        for name in sorted(
            set(self._names('gtFine', '_gtFine_labelIds.png')).difference(self.frames)
        ):
            yield f'{self.name}: {name} has labels and no picture'

    def _names(self, kind: str, suffix: str) -> list[str]:
        """CITY/N of all files of a kind."""
        folder = self.folder / kind / SPLITS[self.split]
        files = sorted(folder.glob(f'*/*{suffix}'))
        return [str(file.relative_to(folder)).removesuffix(suffix) for file in files]

    def _file(self, kind: str, name: str) -> Path:
        return self.folder / kind / SPLITS[self.split] / name
