"""Data sets, one file each, and how their frames become batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mtl_training.datasets.bags import Bags
from mtl_training.datasets.cityscapes import Cityscapes
from mtl_training.datasets.dataset import ClassesError, DataError, DataSet
from mtl_training.datasets.kitti_depth import KITTIDepth
from mtl_training.datasets.mixture import Mixture, is_mixture, read_parts
from mtl_training.datasets.nyud import NYUD
from mtl_training.datasets.nyud_mt import NYUDMT
from mtl_training.datasets.pascal_context import PascalContext
from mtl_training.datasets.rgbd import plain, scannet, tum
from mtl_training.datasets.rooms import Rooms, own_classes
from mtl_training.labels import CITYSCAPES19, NYUD40, PASCAL21, LabelClass

Opener = Callable[[Path, str, Sequence[LabelClass]], DataSet]


@dataclass(frozen=True)
class Kind:
    """A kind of data set.

    Attributes:
        opener: opens a split.
        splits: that differ from one another.
        classes: of the semantic task, the finest that its labels tell apart; empty without labels.
        own_axes: normals are not known to be in the camera's optical frame.
    """

    opener: Opener
    splits: tuple[str, ...]
    classes: tuple[LabelClass, ...] = ()
    own_axes: bool = False


# What a folder of the kind holds -> the kind; the first match counts.
KINDS: dict[str, Kind] = {
    'labels40': Kind(NYUD, ('train', 'test'), NYUD40),
    'gt_sets': Kind(NYUDMT, ('train', 'val'), NYUD40, own_axes=True),
    'ImageSets/Context': Kind(PascalContext, ('train', 'val'), PASCAL21, own_axes=True),
    'leftImg8bit': Kind(Cityscapes, ('train', 'val'), CITYSCAPES19),
    'frames.json': Kind(plain, ('train',)),
    'rgb.txt': Kind(tum, ('train',)),
    'intrinsic/intrinsic_depth.txt': Kind(scannet, ('train',)),
    '*/frames.jsonl': Kind(Rooms, ('train', 'val', 'test'), NYUD40),
    '*/*/proj_depth': Kind(KITTIDepth, ('train', 'val')),
    'metadata.yaml': Kind(Bags, ('train',)),
    '*/metadata.yaml': Kind(Bags, ('train',)),
    '*.mcap': Kind(Bags, ('train',)),
    '*.db3': Kind(Bags, ('train',)),
    '*.bag': Kind(Bags, ('train',)),
}


def open_data(folder: Path, split: str, classes: Sequence[LabelClass]) -> DataSet:
    """One split (train, val or test) of the data set in a folder, told by what lies in it.

    Args:
        folder: of the data set, or the YAML file of a mixture.
        classes: that the semantic labels are given in.

    Raises:
        ClassesError: classes that the data does not tell apart.
        DataError: a folder of another kind, or what the reader finds wrong.
    """
    if is_mixture(folder):
        return Mixture(folder, split, classes, open_data)
    return kind_of(folder).opener(folder, split, classes)


def open_labelled(folder: Path, split: str) -> DataSet:
    """As ``open_data``, in the classes that its labels tell apart, whatever they are.

    Raises:
        DataError: see ``open_data``; of a mixture, parts that have no classes in common, too.
    """
    folders = [part.path for part in read_parts(folder)] if is_mixture(folder) else [folder]
    errors = []
    for classes in dict.fromkeys(kind_of(each).classes for each in folders):
        try:
            return open_data(folder, split, classes)
        except ClassesError as error:
            errors.append(error)
    raise errors[0]


def kind_of(folder: Path) -> Kind:
    """The kind of the data set in a folder.

    Raises:
        DataError: it is none of them, or its ``classes.json`` is not a list of names.
    """
    for pattern, kind in KINDS.items():
        if any(folder.glob(pattern)):
            own = own_classes(folder) if kind.opener is Rooms else None
            return replace(kind, classes=tuple(own)) if own else kind
    known = ' or '.join(KINDS)
    raise DataError(f'{folder} is not a data set that can be read, expected one with {known}')
