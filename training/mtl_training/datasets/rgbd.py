"""RGB-D: a folder of colour pictures with registered depth and the camera's calibration."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_training.datasets.augment import Sample
from mtl_training.datasets.classes import LabelClass
from mtl_training.datasets.dataset import DataError, read_color, read_image
from mtl_training.datasets.derive import Intrinsics, normals_of


class RGBD:
    """All frames of a folder, whichever split is asked for.

    Files: ``frames.json``, a list of {"name": NAME, "k": [fx, fy, cx, cy]}; ``NAME.jpg``;
    ``NAME.png``, 16 bit, millimetres, 0 none. Normals are derived from depth, see ``normals_of``.
    Few places are seen in many frames: hold out whole places, with ``only`` and ``without`` of a
    ``Mixture``.

    Raises:
        DataError: no ``frames.json``, an entry that is not as above, or no frames.
    """

    tasks: tuple[str, ...] = ('depth', 'normals')

    def __init__(self, folder: Path, split: str, classes: Sequence[LabelClass]) -> None:
        self.name = f'{folder}, {split}'
        self.folder = folder
        self.classes: Mapping[str, Sequence[LabelClass]] = {}
        path = folder / 'frames.json'
        try:
            entries = json.loads(path.read_text(encoding='utf-8'))
            self.cameras = {str(e['name']): Intrinsics(*map(float, e['k'])) for e in entries}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'{path} cannot be read, expected a list of objects with name and k '
                f'(fx, fy, cx, cy): {error}'
            ) from error
        self.frames: Sequence[str] = list(self.cameras)
        if not self.frames:
            raise DataError(f'{path} lists no frames')

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, index: int, tasks: Collection[str]) -> Sample:
        """See ``DataSet.read``."""
        name = self.frames[index]
        camera = self.cameras[name]
        arrays: dict[str, NDArray[np.generic]] = {'image': read_color(self.folder / f'{name}.jpg')}
        if 'depth' in tasks or 'normals' in tasks:
            path = self.folder / f'{name}.png'
            depth = read_image(path, cv2.IMREAD_UNCHANGED)
            if depth.dtype != np.uint16 or depth.shape != arrays['image'].shape[:2]:
                raise DataError(
                    f'{path} is {depth.dtype} {list(depth.shape)}, expected uint16 '
                    f'{list(arrays["image"].shape[:2])} as its picture'
                )
            if 'depth' in tasks:
                arrays['depth'] = depth
            if 'normals' in tasks:
                arrays['normals'] = normals_of(depth, camera)
        return Sample(arrays, camera.fx)
