"""Label sets of the rooms data: NYUD's 40 classes on disk, and the groups a robot gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORE = 255

# Gupta et al., CVPR 2013: the 40-class set of NYUDv2. Index = id in the files, 0 = void.
NYUD40: tuple[str, ...] = (
    'void', 'wall', 'floor', 'cabinet', 'bed', 'chair', 'sofa', 'table', 'door', 'window',
    'bookshelf', 'picture', 'counter', 'blinds', 'desk', 'shelves', 'curtain', 'dresser',
    'pillow', 'mirror', 'floor mat', 'clothes', 'ceiling', 'books', 'refridgerator', 'television',
    'paper', 'towel', 'shower curtain', 'box', 'whiteboard', 'person', 'night stand', 'toilet',
    'sink', 'lamp', 'bathtub', 'bag', 'otherstructure', 'otherfurniture', 'otherprop',
)  # fmt: skip
NYUD_ID: dict[str, int] = {name: index for index, name in enumerate(NYUD40)}


@dataclass(frozen=True)
class Group:
    """One class of the bundle: a name, its colour in pictures and the NYUD-40 names it gathers."""

    name: str
    color: tuple[int, int, int]
    members: tuple[str, ...]


# Index = class id of the bundle.
GROUPS: tuple[Group, ...] = (
    Group('wall', (174, 199, 232), ('wall',)),
    Group('floor', (152, 223, 138), ('floor', 'floor mat')),
    Group('ceiling', (225, 225, 210), ('ceiling',)),
    Group('door', (214, 39, 40), ('door',)),
    Group('window', (23, 190, 207), ('window',)),
    Group('chair', (188, 189, 34), ('chair',)),
    Group('table', (255, 127, 14), ('table', 'desk', 'counter')),
    Group('bed', (255, 187, 120), ('bed',)),
    Group('sofa', (140, 86, 75), ('sofa',)),
    Group(
        'storage',
        (31, 119, 180),
        ('cabinet', 'bookshelf', 'shelves', 'dresser', 'night stand', 'refridgerator'),
    ),
    Group('screen', (60, 60, 140), ('television',)),
    Group('lamp', (255, 230, 60), ('lamp',)),
    Group('plumbing', (96, 207, 209), ('toilet', 'sink', 'bathtub')),
    Group('person', (227, 60, 200), ('person',)),
    Group(
        'soft',
        (219, 160, 220),
        ('curtain', 'blinds', 'shower curtain', 'pillow', 'towel', 'clothes'),
    ),
    Group('box', (130, 90, 30), ('box', 'bag', 'books', 'paper')),
    Group('picture', (196, 156, 148), ('picture', 'mirror', 'whiteboard')),
    Group('other', (82, 84, 163), ('otherstructure', 'otherfurniture', 'otherprop')),
)


def group_lut() -> NDArray[np.uint8]:
    """Look-up table [256] uint8 from NYUD-40 ids to group ids; void and unknown ids become 255."""
    lut = np.full(256, IGNORE, np.uint8)
    for index, group in enumerate(GROUPS):
        for member in group.members:
            lut[NYUD_ID[member]] = index
    return lut
