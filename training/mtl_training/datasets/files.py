"""The files of a data set; what is wrong with one is told with its name and where to get it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_training.datasets.dataset import DataError
from mtl_training.labels import IGNORE


@dataclass(frozen=True)
class Files:
    """Reads files; every method raises a ``DataError`` for one that is missing or damaged.

    Attributes:
        source: where the data set comes from, for those who miss a file of it.
    """

    source: str

    def color(self, path: Path) -> NDArray[np.uint8]:
        """A picture as RGB [H, W, 3]."""
        return np.asarray(
            cv2.cvtColor(self._image(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8
        )

    def gray(self, path: Path) -> NDArray[np.uint8]:
        """A picture of 8 bits as [H, W]."""
        return np.asarray(self._image(path, cv2.IMREAD_GRAYSCALE), np.uint8)

    def deep(self, path: Path) -> NDArray[np.uint16]:
        """A picture of 16 bits and one channel as [H, W]."""
        array = self._image(path, cv2.IMREAD_UNCHANGED)
        if array.dtype != np.uint16 or array.ndim != 2:
            raise self.wrong(path, f'is {array.dtype} {list(array.shape)}, expected uint16 [H, W]')
        return array

    def ids(self, path: Path, table: NDArray[np.uint8], highest: int) -> NDArray[np.uint8]:
        """Class ids [H, W] by a look-up table [256] from those in a picture: 0..highest, or 255."""
        stored = self.gray(path)
        found = int(np.max(stored, where=stored != IGNORE, initial=0))
        if found > highest:
            raise self.wrong(path, f'has the id {found}, expected 0..{highest} or {IGNORE}')
        return np.asarray(cv2.LUT(stored, table), np.uint8)

    def text(self, path: Path) -> str:
        """A text file."""
        try:
            return path.read_text(encoding='utf-8')
        except (OSError, UnicodeDecodeError) as error:
            raise self.wrong(path, 'is missing or is not a text') from error

    def listed(self, path: Path) -> list[str]:
        """The names in a text file, at least one."""
        names = self.text(path).split()
        if not names:
            raise self.wrong(path, 'lists no frames')
        return names

    def array(self, path: Path, axes: int) -> NDArray[np.floating[Any]]:
        """Numbers of an ``.npy`` file with so many axes."""
        try:
            array = np.load(path)
        except (OSError, ValueError, EOFError) as error:
            raise self.wrong(path, 'is missing or is not an array of NumPy') from error
        if array.ndim != axes or array.dtype.kind not in 'biuf':
            raise self.wrong(path, f'is {array.dtype} {list(array.shape)}, expected {axes} axes')
        return np.asarray(array)

    def wrong(self, path: Path, what: str) -> DataError:
        """The error that something is wrong with a file."""
        return DataError(f'{path} {what}; the data set is from {self.source}')

    def _image(self, path: Path, flags: int) -> NDArray[Any]:
        array = cv2.imread(str(path), flags)
        if array is None:
            raise self.wrong(path, 'is missing or is not a picture')
        return array
