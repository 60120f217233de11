"""Label sets: their classes and colours, and the look-up from one set to another."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORE = 255  # the id of pixels without a label


@dataclass(frozen=True)
class LabelClass:
    """One class of a label set; its id is its place in the set.

    Attributes:
        color: RGB, for pictures.
        members: classes of a finer set that this one gathers.
    """

    name: str
    color: tuple[int, int, int]
    members: tuple[str, ...] = ()


def spread_color(index: int) -> tuple[int, int, int]:
    """RGB whose hue turns by the golden angle from class to class, so that neighbours differ."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.65, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def _colored(names: Sequence[str]) -> tuple[LabelClass, ...]:
    return tuple(LabelClass(name, spread_color(index)) for index, name in enumerate(names))


# Gupta et al., CVPR 2013: the 40-class set of NYUDv2, without its void.
NYUD40: tuple[LabelClass, ...] = _colored((
    'wall', 'floor', 'cabinet', 'bed', 'chair', 'sofa', 'table', 'door', 'window', 'bookshelf',
    'picture', 'counter', 'blinds', 'desk', 'shelves', 'curtain', 'dresser', 'pillow', 'mirror',
    'floor mat', 'clothes', 'ceiling', 'books', 'refridgerator', 'television', 'paper', 'towel',
    'shower curtain', 'box', 'whiteboard', 'person', 'night stand', 'toilet', 'sink', 'lamp',
    'bathtub', 'bag', 'otherstructure', 'otherfurniture', 'otherprop',
))  # fmt: skip
# As files store them: 0 is void, and the first class has the id 1.
NYUD_ID: dict[str, int] = {
    'void': 0,
    **{label.name: index for index, label in enumerate(NYUD40, 1)},
}

# Classes of PASCAL VOC, which the literature's semantic task has on PASCAL-Context.
PASCAL21: tuple[LabelClass, ...] = _colored((
    'background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair',
    'cow', 'dining table', 'dog', 'horse', 'motorbike', 'person', 'potted plant', 'sheep', 'sofa',
    'train', 'tv monitor',
))  # fmt: skip

# Parts of people of PASCAL-Context, as the literature gathers them.
PASCAL_PARTS: tuple[LabelClass, ...] = (
    LabelClass('background', (0, 0, 0)),
    LabelClass('head', (227, 60, 200)),
    LabelClass('torso', (255, 127, 14)),
    LabelClass('upper arm', (188, 189, 34)),
    LabelClass('lower arm', (23, 190, 207)),
    LabelClass('upper leg', (31, 119, 180)),
    LabelClass('lower leg', (96, 60, 160)),
)

# The 19 classes of Cityscapes that are judged, in its colours (Cordts et al., CVPR 2016).
CITYSCAPES19: tuple[LabelClass, ...] = (
    LabelClass('road', (128, 64, 128)),
    LabelClass('sidewalk', (244, 35, 232)),
    LabelClass('building', (70, 70, 70)),
    LabelClass('wall', (102, 102, 156)),
    LabelClass('fence', (190, 153, 153)),
    LabelClass('pole', (153, 153, 153)),
    LabelClass('traffic light', (250, 170, 30)),
    LabelClass('traffic sign', (220, 220, 0)),
    LabelClass('vegetation', (107, 142, 35)),
    LabelClass('terrain', (152, 251, 152)),
    LabelClass('sky', (70, 130, 180)),
    LabelClass('person', (220, 20, 60)),
    LabelClass('rider', (255, 0, 0)),
    LabelClass('car', (0, 0, 142)),
    LabelClass('truck', (0, 0, 70)),
    LabelClass('bus', (0, 60, 100)),
    LabelClass('train', (0, 80, 100)),
    LabelClass('motorcycle', (0, 0, 230)),
    LabelClass('bicycle', (119, 11, 32)),
)

# What a robot asks for, gathered from NYUD40.
ROBOT_GROUPS: tuple[LabelClass, ...] = (
    LabelClass('wall', (174, 199, 232), ('wall',)),
    LabelClass('floor', (152, 223, 138), ('floor', 'floor mat')),
    LabelClass('ceiling', (225, 225, 210), ('ceiling',)),
    LabelClass('door', (214, 39, 40), ('door',)),
    LabelClass('window', (23, 190, 207), ('window',)),
    LabelClass('chair', (188, 189, 34), ('chair',)),
    LabelClass('table', (255, 127, 14), ('table', 'desk', 'counter')),
    LabelClass('bed', (255, 187, 120), ('bed',)),
    LabelClass('sofa', (140, 86, 75), ('sofa',)),
    LabelClass(
        'storage',
        (31, 119, 180),
        ('cabinet', 'bookshelf', 'shelves', 'dresser', 'night stand', 'refridgerator'),
    ),
    LabelClass('screen', (60, 60, 140), ('television',)),
    LabelClass('lamp', (255, 230, 60), ('lamp',)),
    LabelClass('sanitary', (96, 207, 209), ('toilet', 'sink', 'bathtub')),
    LabelClass('person', (227, 60, 200), ('person',)),
    LabelClass(
        'textile',
        (219, 160, 220),
        ('curtain', 'blinds', 'shower curtain', 'pillow', 'towel', 'clothes'),
    ),
    LabelClass('box', (130, 90, 30), ('box', 'bag', 'books', 'paper')),
    LabelClass('picture', (196, 156, 148), ('picture', 'mirror', 'whiteboard')),
    LabelClass('other', (82, 84, 163), ('otherstructure', 'otherfurniture', 'otherprop')),
)

# The classes of the semantic task, by the name of the task set that is trained.
CLASS_SETS: dict[str, tuple[LabelClass, ...]] = {
    'nyud': NYUD40,
    'pascal': PASCAL21,
    'rooms': ROBOT_GROUPS,
    'indoor': NYUD40,
    'streets': CITYSCAPES19,
}


def lookup(
    source: Sequence[str], target: Sequence[LabelClass], *, first: int = 0
) -> NDArray[np.uint8] | None:
    """Table [256] from ids of one label set to ids of another; ``IGNORE`` for all other ids.

    Args:
        source: names of the classes that the ids stand for.
        first: the id of the first of them; 1 where 0 is void.

    Returns:
        None if ``target`` asks for a class that ``source`` does not tell apart.
    """
    ids = {name: index for index, name in enumerate(source, first)}
    same = list(source) == [label.name for label in target]
    table = np.full(256, IGNORE, np.uint8)
    for index, label in enumerate(target):
        for member in (label.name,) if same else label.members or (label.name,):
            if member not in ids:
                return None
            table[ids[member]] = index
    return table


def as_table(classes: Sequence[LabelClass]) -> list[dict[str, Any]]:
    """A label set as checkpoints and bundles write it: id, name and color of every class."""
    return [
        {'id': index, 'name': label.name, 'color': list(label.color)}
        for index, label in enumerate(classes)
    ]


def from_table(table: Sequence[Mapping[str, Any]]) -> tuple[LabelClass, ...]:
    """Inverse of ``as_table``; the set of ``CLASS_SETS`` that has these names, if there is one."""
    known = with_names([entry['name'] for entry in table])
    if known in CLASS_SETS.values():
        return known
    return tuple(LabelClass(entry['name'], tuple(entry['color'])) for entry in table)


def with_names(names: Sequence[str]) -> tuple[LabelClass, ...]:
    """The set of ``CLASS_SETS`` that has these names, or classes of them in other colours."""
    for known in CLASS_SETS.values():
        if list(names) == [label.name for label in known]:
            return known
    return _colored(names)
