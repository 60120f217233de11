"""Human parts: which part of a body a pixel shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mtl_training.datasets.classes import LabelClass
from mtl_training.tasks.classes import ClassTask
from mtl_training.tasks.task import Figure

# Of PASCAL-Context, as the literature gathers them.
PASCAL_PARTS: tuple[LabelClass, ...] = (
    LabelClass('background', (0, 0, 0)),
    LabelClass('head', (227, 60, 200)),
    LabelClass('torso', (255, 127, 14)),
    LabelClass('upper arm', (188, 189, 34)),
    LabelClass('lower arm', (23, 190, 207)),
    LabelClass('upper leg', (31, 119, 180)),
    LabelClass('lower leg', (96, 60, 160)),
)


@dataclass(frozen=True, kw_only=True)
class HumanPartsTask(ClassTask):
    """Weight 2, as in ATRC and the survey; pictures without people have no labels at all."""

    name: ClassVar[str] = 'human_parts'
    figures: ClassVar[tuple[Figure, ...]] = (Figure('miou', 'human parts mIoU, %', 100, 1),)
    weight: float = 2.0
    classes: tuple[LabelClass, ...] = PASCAL_PARTS
