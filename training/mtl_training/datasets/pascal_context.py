"""PASCAL-Context for five tasks, in the folder that ASTMT, the survey and ATRC share: PASCAL_MT."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from scipy.io import loadmat

from mtl_training.datasets.augment import Sample
from mtl_training.datasets.dataset import ClassesError
from mtl_training.datasets.files import Files
from mtl_training.labels import IGNORE, PASCAL21, PASCAL_PARTS, LabelClass, lookup
from mtl_training.tasks.thinning import thin

FILES = Files('PASCAL_MT.tgz, which the repositories of ASTMT, of the survey and of ATRC link')
# The Context split; the survey's Table II prints the numbers of VOC instead.
COUNTS = {'train': 4998, 'val': 5105, 'test': 5105}
LISTS = {'train': 'train.txt', 'val': 'val.txt', 'test': 'val.txt'}
# Parts of PASCAL-Part, whose names begin with l or r for left and right, as six: id -> names.
PARTS = {
    1: ('head', 'hair', 'nose', 'mouth', 'lear', 'rear', 'leye', 'reye', 'lebrow', 'rebrow'),
    2: ('torso', 'neck'),
    3: ('luarm', 'ruarm'),
    4: ('llarm', 'rlarm', 'lhand', 'rhand'),
    5: ('luleg', 'ruleg'),
    6: ('llleg', 'rlleg', 'lfoot', 'rfoot'),
}
PART_ID = {name: part for part, names in PARTS.items() for name in names}
PERSON = 15  # among the classes of PASCAL-Part
# The 459 classes of PASCAL-Context that NYU has, too, and tvmonitor: where normals are believed,
# which were distilled from a network that was trained on NYU.
# fmt: off
INDOOR = (
    3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50,
    51, 53, 55, 56, 59, 61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104,
    105, 107, 111, 113, 115, 122, 124, 135, 141, 142, 143, 146, 150, 154, 157, 158, 159, 165, 172,
    174, 181, 183, 184, 191, 193, 195, 197, 199, 202, 213, 215, 216, 219, 220, 223, 225, 228, 230,
    232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260, 261, 263, 269, 272, 273, 275, 281,
    283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309, 310, 314, 315, 319, 323,
    329, 330, 331, 336, 342, 345, 349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380, 383,
    384, 397, 401, 403, 405, 407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430, 432,
    440, 441, 442, 443, 444, 446, 454, 457,
)
# fmt: on


class PascalContext:
    """One split: 4,998 frames of train, 5,105 of val, on which the literature tests.

    Files: ``ImageSets/Context/{train,val}.txt``; ``JPEGImages/N.jpg``; classes of VOC in
    ``semseg/VOC12/N.png`` or else ``semseg/pascal-context/N.png``; ``human_parts/N.mat``, of
    PASCAL-Part; ``pascal-context/trainval/N.mat``, whose ``LabelMap`` has the 459 classes of
    PASCAL-Context; ``normals_distill/N.png`` and ``sal_distill/N.png``, distilled from networks.

    Edges are the thinned borders of the 459 classes. Pictures without people have no labels of
    human parts at all. Normals have the axes that the files have, which nobody documents. The focal
    length is unknown: the longer side stands in for it, and there is no depth.

    Args:
        classes: of the semantic task: VOC's 21, or groups of them.

    Raises:
        DataError: a list that is missing or empty.
        ClassesError: classes that cannot be told from VOC's.
    """

    tasks: tuple[str, ...] = ('semantic', 'human_parts', 'saliency', 'normals', 'edges')

    def __init__(self, folder: Path, split: str, classes: Sequence[LabelClass]) -> None:
        self.name = f'{folder}, {split}'
        self.folder, self.split = folder, split
        table = lookup([label.name for label in PASCAL21], classes)
        if table is None:
            raise ClassesError(f"{self.name} has VOC's 21 classes, expected them or groups of them")
        self.table = table
        self.classes: Mapping[str, Sequence[LabelClass]] = {
            'semantic': classes,
            'human_parts': PASCAL_PARTS,
        }
        self.frames: Sequence[str] = self._list(split)

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, index: int, tasks: Collection[str]) -> Sample:
        """See ``DataSet.read``."""
        name = self.frames[index]
        image = FILES.color(self.folder / 'JPEGImages' / f'{name}.jpg')
        arrays: dict[str, NDArray[np.generic]] = {'image': image}
        if 'semantic' in tasks:
            arrays['semantic'] = self._semantic(name)
        if 'human_parts' in tasks:
            arrays['human_parts'] = self._parts(name, image.shape[:2])
        if 'saliency' in tasks:
            arrays['saliency'] = FILES.gray(self.folder / 'sal_distill' / f'{name}.png') >> 7
        if 'normals' in tasks or 'edges' in tasks:
            labels = self._context(name)
            if 'normals' in tasks:
                normals = FILES.color(self.folder / 'normals_distill' / f'{name}.png')
                believed = np.isin(labels, INDOOR)
                if believed.shape == normals.shape[:2]:
                    normals = np.where(believed[..., None], normals, 0).astype(np.uint8)
                arrays['normals'] = normals
            if 'edges' in tasks:
                borders = cv2.Laplacian(labels.astype(np.float64), cv2.CV_64F) != 0
                arrays['edges'] = thin(borders).astype(np.uint8)
        return Sample(arrays, float(max(image.shape[:2])))

    def faults(self) -> Iterator[str]:
        """See ``DataSet.faults``."""
        if len(self.frames) != COUNTS[self.split]:
            yield f'{self.name}: {len(self.frames)} frames, expected {COUNTS[self.split]}'
        other = self._list('val' if self.split == 'train' else 'train')
        for name in sorted(set(self.frames) & set(other)):
            yield f'{self.name}: {name} is in the other split, too'

    def _list(self, split: str) -> list[str]:
        return FILES.listed(self.folder / 'ImageSets' / 'Context' / LISTS[split])

    def _semantic(self, name: str) -> NDArray[np.uint8]:
        """Ids [H, W]; the files have palettes, of which cv2 gives colours instead of places."""
        path = self.folder / 'semseg' / 'VOC12' / f'{name}.png'
        if not path.exists():
            path = self.folder / 'semseg' / 'pascal-context' / f'{name}.png'
        try:
            with Image.open(path) as image:
                stored = np.asarray(image, np.uint8)
        except (OSError, UnidentifiedImageError, SyntaxError) as error:
            raise FILES.wrong(path, 'is missing or is not a picture') from error
        highest = int(np.max(stored, where=stored != IGNORE, initial=0))
        if highest >= len(PASCAL21):
            raise FILES.wrong(path, f'has the id {highest}, expected 0..20 or 255')
        return np.asarray(cv2.LUT(stored, self.table), np.uint8)

    def _context(self, name: str) -> NDArray[np.int64]:
        """The 459 classes of PASCAL-Context [H, W]."""
        path = self.folder / 'pascal-context' / 'trainval' / f'{name}.mat'
        return np.asarray(_matlab(path, 'LabelMap'), np.int64)

    def _parts(self, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Parts [H, W] of all people; without any, nothing is labelled."""
        path = self.folder / 'human_parts' / f'{name}.mat'
        parts = np.zeros(shape, np.uint8)
        try:
            for body in _matlab(path, 'anno')[0, 0]['objects'].reshape(-1):
                if int(body['class_ind'].item()) != PERSON:
                    continue
                for part in body['parts'].reshape(-1):
                    parts[part['mask'] > 0] = PART_ID[part['part_name'].item()]
        except (KeyError, IndexError, ValueError) as error:
            raise FILES.wrong(path, f'is not an annotation of PASCAL-Part: {error!r}') from error
        return parts if parts.any() else np.full_like(parts, IGNORE)


def _matlab(path: Path, key: str) -> Any:
    try:
        return loadmat(path)[key]
    except (OSError, KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise FILES.wrong(path, f'is missing, damaged or has no {key}') from error
