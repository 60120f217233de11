"""Human parts: which part of a body a pixel shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mtl_training.labels import PASCAL_PARTS, LabelClass
from mtl_training.tasks.classes import ClassTask
from mtl_training.tasks.task import Figure


@dataclass(frozen=True, kw_only=True)
class HumanPartsTask(ClassTask):
    """Weight 2, as in ATRC and the survey; pictures without people have no labels at all."""

    name: ClassVar[str] = 'human_parts'
    figures: ClassVar[tuple[Figure, ...]] = (Figure('miou', 'human parts mIoU, %', 100, 1),)
    weight: float = 2.0
    classes: tuple[LabelClass, ...] = PASCAL_PARTS
