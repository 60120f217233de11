"""RGB-D: colour pictures with registered depth and the camera's calibration, in three layouts."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_training.datasets.augment import Sample
from mtl_training.datasets.dataset import DataError, unlisted
from mtl_training.datasets.derive import Intrinsics, normals_of
from mtl_training.datasets.files import Files
from mtl_training.labels import LabelClass

# Sturm et al., IROS 2012: colour cameras of the three Kinects, by the number in a folder's name.
TUM_CAMERAS = {
    'freiburg1': Intrinsics(517.3, 516.5, 318.6, 255.3),
    'freiburg2': Intrinsics(520.9, 521.0, 325.1, 249.7),
    'freiburg3': Intrinsics(535.4, 539.2, 320.1, 247.6),
}
TUM_PER_METRE = 5000
TUM_APART = 0.02  # seconds between a colour and a depth picture that are one frame, as in its tools
TUM = Files('the home page of the RGB-D SLAM data set at TU Munich')
SCANNET = Files('the home page of ScanNet; export a scan with its SensReader')
PLAIN = Files('whoever wrote its frames.json')


@dataclass(frozen=True)
class Shot:
    """One frame: its name, its files, and the camera at the size of the depth picture."""

    name: str
    color: Path
    depth: Path
    camera: Intrinsics


class RGBD:
    """All frames of a folder, whichever split is asked for.

    Few places are seen in many frames: hold out whole places, with ``only`` and ``without`` of a
    ``Mixture``. Normals are derived from depth, see ``normals_of``.

    Args:
        files: reads them.
        per_metre: what one metre is in depth pictures, of 16 bits; 0 is none; at least 1000.
        shrink: scale colour pictures to the size of depth, instead of expecting that they have it.
    """

    tasks: tuple[str, ...] = ('depth', 'normals')

    def __init__(
        self,
        folder: Path,
        split: str,
        shots: Sequence[Shot],
        files: Files,
        *,
        per_metre: int = 1000,
        shrink: bool = False,
    ) -> None:
        self.name = f'{folder}, {split}'
        self.classes: Mapping[str, Sequence[LabelClass]] = {}
        self.shots, self.files = shots, files
        self.per_metre, self.shrink = per_metre, shrink
        self.frames: Sequence[str] = [shot.name for shot in shots]

    def __len__(self) -> int:
        return len(self.shots)

    def read(self, index: int, tasks: Collection[str]) -> Sample:
        """See ``DataSet.read``."""
        shot = self.shots[index]
        color, depth = self.files.color(shot.color), self.files.deep(shot.depth)
        if self.shrink:
            height, width = depth.shape
            color = np.asarray(cv2.resize(color, (width, height), interpolation=cv2.INTER_AREA))
        if depth.shape != color.shape[:2]:
            raise self.files.wrong(
                shot.depth,
                f'is uint16 {list(depth.shape)}, expected uint16 {list(color.shape[:2])} as its '
                'picture',
            )
        arrays: dict[str, NDArray[np.generic]] = {'image': color}
        if self.per_metre != 1000:
            depth = np.rint(depth * (1000 / self.per_metre)).astype(np.uint16)
        if 'depth' in tasks:
            arrays['depth'] = depth
        if 'normals' in tasks:
            arrays['normals'] = normals_of(depth, shot.camera)
        return Sample(arrays, shot.camera.fx)

    def faults(self) -> Iterator[str]:
        """See ``DataSet.faults``."""
        for folder in dict.fromkeys(shot.color.parent for shot in self.shots):
            found = (file.name for file in folder.glob('*' + self.shots[0].color.suffix))
            yield from unlisted(str(folder), found, (shot.color.name for shot in self.shots))


def plain(folder: Path, split: str, classes: Sequence[LabelClass]) -> RGBD:
    """A folder with ``frames.json``, a list of {"name": NAME, "k": [fx, fy, cx, cy]}.

    Files: ``NAME.jpg``; ``NAME.png``, 16 bit, millimetres, 0 none.

    Raises:
        DataError: no ``frames.json``, an entry that is not as above, or no frames.
    """
    path = folder / 'frames.json'
    text = PLAIN.text(path)
    try:
        cameras = {str(e['name']): Intrinsics(*map(float, e['k'])) for e in json.loads(text)}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{path} cannot be read, expected a list of objects with name and k '
            f'(fx, fy, cx, cy): {error}'
        ) from error
    if not cameras:
        raise DataError(f'{path} lists no frames')
    shots = [
        Shot(name, folder / f'{name}.jpg', folder / f'{name}.png', camera)
        for name, camera in cameras.items()
    ]
    return RGBD(folder, split, shots, PLAIN)


def tum(folder: Path, split: str, classes: Sequence[LabelClass]) -> RGBD:
    """A sequence of TUM's RGB-D SLAM data set (Sturm et al., IROS 2012).

    Files: ``rgb.txt`` and ``depth.txt``, lines of a time stamp and a file; depth is 16 bit, 1/5000
    metre, 0 none. A colour picture goes with the depth picture that is nearest in time, if it is
    within 20 ms. The camera is told by ``freiburg1`` to ``freiburg3`` in the folder's name, or by a
    file ``intrinsics.txt`` with fx fy cx cy, which other data in this layout needs.

    Raises:
        DataError: a list that is missing, is not such a list or has no pairs; an unknown camera.
    """
    camera = _tum_camera(folder)
    depths = _tum_list(folder / 'depth.txt')
    stamps = [stamp for stamp, _ in depths]
    shots = []
    for stamp, color in _tum_list(folder / 'rgb.txt'):
        after = bisect_left(stamps, stamp)
        near = min(depths[max(after - 1, 0) : after + 1], key=lambda line: abs(line[0] - stamp))
        if abs(near[0] - stamp) <= TUM_APART:
            shots.append(Shot(Path(color).stem, folder / color, folder / near[1], camera))
    if not shots:
        raise TUM.wrong(folder / 'rgb.txt', f'has no picture within {TUM_APART} s of one of depth')
    return RGBD(folder, split, shots, TUM, per_metre=TUM_PER_METRE)


def scannet(folder: Path, split: str, classes: Sequence[LabelClass]) -> RGBD:
    """A scan of ScanNet as its SensReader exports it (Dai et al., CVPR 2017), or data like it.

    Files: ``color/N.jpg``; ``depth/N.png``, 16 bit, millimetres, 0 none, registered to colour but
    smaller; ``intrinsic/intrinsic_depth.txt``, four rows of four numbers.

    Raises:
        DataError: no frames, or no such matrix.
    """
    path = folder / 'intrinsic' / 'intrinsic_depth.txt'
    try:
        k = np.array(SCANNET.text(path).split(), float).reshape(4, 4)
    except ValueError as error:
        raise SCANNET.wrong(path, 'is not a matrix of 4x4 numbers') from error
    camera = Intrinsics(k[0, 0], k[1, 1], k[0, 2], k[1, 2])
    # Names are numbers without leading zeros: shorter ones come first.
    depths = sorted((folder / 'depth').glob('*.png'), key=lambda file: (len(file.stem), file.stem))
    if not depths:
        raise SCANNET.wrong(folder / 'depth', 'has no pictures')
    shots = [Shot(d.stem, folder / 'color' / f'{d.stem}.jpg', d, camera) for d in depths]
    return RGBD(folder, split, shots, SCANNET, shrink=True)


def _tum_camera(folder: Path) -> Intrinsics:
    path = folder / 'intrinsics.txt'
    if path.exists():
        try:
            return Intrinsics(*map(float, TUM.text(path).split()))
        except (ValueError, TypeError) as error:
            raise DataError(f'{path}: expected the four numbers fx fy cx cy') from error
    for name, camera in TUM_CAMERAS.items():
        if name in folder.resolve().name:
            return camera
    raise DataError(
        f'{folder}: expected {", ".join(TUM_CAMERAS)} in its name, or {path.name} with fx fy cx cy'
    )


def _tum_list(path: Path) -> list[tuple[float, str]]:
    lines = [line for line in TUM.text(path).splitlines() if not line.startswith('#')]
    try:
        entries = [(float(stamp), file) for stamp, file in (line.split() for line in lines if line)]
    except ValueError as error:
        raise TUM.wrong(path, 'is not a list of time stamps and files') from error
    if not entries:
        raise TUM.wrong(path, 'lists no frames')
    return sorted(entries)
