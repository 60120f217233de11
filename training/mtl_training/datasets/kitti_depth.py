"""KITTI depth: streets with sparse depth of a laser scanner (Uhrig et al., 3DV 2017)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtl_training.datasets.augment import Sample
from mtl_training.datasets.files import Files
from mtl_training.labels import LabelClass

FILES = Files('the home page of KITTI (depth completion and prediction, and its raw data)')
PER_METRE = 256
DEEPEST = 65.535  # metres that fit into a sample
# Our split -> its folder; the official test split, 1,000 pictures, has no published depth.
SPLITS = {'train': 'train', 'val': 'val', 'test': 'val'}


@dataclass(frozen=True)
class Shot:
    """One frame: its name, its files, and where the calibration of its day and camera is."""

    name: str
    picture: Path
    depth: Path
    calibration: Path
    camera: str  # 02 or 03


class KITTIDepth:
    """One split of the drives: all frames that have depth, of both colour cameras.

    Files: ``SPLIT/DRIVE/proj_depth/groundtruth/image_0C/N.png``, 16 bit, metres = v / 256, 0 none;
    ``raw/DAY/DRIVE/image_0C/data/N.png``, the raw data; ``raw/DAY/calib_cam_to_cam.txt``. DRIVE is
    such as 2011_09_26_drive_0001_sync, DAY 2011_09_26, C 2 or 3.

    Depth of more than 65.5 m does not fit into a sample and counts as none.

    Raises:
        DataError: no frames.
    """

    tasks: tuple[str, ...] = ('depth',)

    def __init__(self, folder: Path, split: str, classes: Sequence[LabelClass]) -> None:
        self.name = f'{folder}, {split}'
        self.classes: Mapping[str, Sequence[LabelClass]] = {}
        root = folder / SPLITS[split]
        depths = sorted(root.glob('*/proj_depth/groundtruth/image_0[23]/*.png'))
        if not depths:
            raise FILES.wrong(root, 'has no depth')
        self.shots = [_shot(folder, root, depth) for depth in depths]
        self.frames: Sequence[str] = [shot.name for shot in self.shots]
        self.focal_lengths = {
            (shot.calibration, shot.camera): focal_length(shot.calibration, shot.camera)
            for shot in {(shot.calibration, shot.camera): shot for shot in self.shots}.values()
        }

    def __len__(self) -> int:
        return len(self.shots)

    def read(self, index: int, tasks: Collection[str]) -> Sample:
        """See ``DataSet.read``."""
        shot = self.shots[index]
        arrays: dict[str, NDArray[np.generic]] = {'image': FILES.color(shot.picture)}
        if 'depth' in tasks:
            metres = FILES.deep(shot.depth) / PER_METRE
            near = np.where(metres <= DEEPEST, metres, 0)
            arrays['depth'] = np.rint(1000 * near).astype(np.uint16)
        return Sample(arrays, self.focal_lengths[shot.calibration, shot.camera])

    def faults(self) -> Iterator[str]:
        """See ``DataSet.faults``."""
        yield from ()


def focal_length(path: Path, camera: str) -> float:
    """Of a rectified camera, in pixels, from ``calib_cam_to_cam.txt``.

    Raises:
        DataError: the file is missing or has no such line.
    """
    for line in FILES.text(path).splitlines():
        name, _, numbers = line.partition(':')
        if name == f'P_rect_{camera}':
            try:
                return float(numbers.split()[0])
            except (ValueError, IndexError) as error:
                raise FILES.wrong(path, f'has {line!r}, expected numbers') from error
    raise FILES.wrong(path, f'has no P_rect_{camera}')


def _shot(folder: Path, root: Path, depth: Path) -> Shot:
    drive, camera = depth.relative_to(root).parts[0], depth.parent.name
    day = folder / 'raw' / drive[:10]
    picture = day / drive / camera / 'data' / depth.name
    name = f'{drive}/{camera}/{depth.stem}'
    return Shot(name, picture, depth, day / 'calib_cam_to_cam.txt', camera.removeprefix('image_'))
