"""Semantic segmentation: of what class every pixel is, in the label set of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mtl_training.labels import LabelClass, lookup
from mtl_training.tasks.classes import ClassTask, classes_last, most_probable
from mtl_training.tasks.task import TaskError, levels, smallest

SMALLEST = 1e-30  # of probabilities of groups, whose logs are taken


@dataclass(frozen=True, kw_only=True)
class SemanticTask(ClassTask):
    """Weight 1, as in ATRC and the survey; p = softmax(z / T) with the temperature T."""

    name: ClassVar[str] = 'semantic'
    weight: float = 1.0

    def probability(self, logits: Tensor) -> Tensor:
        """p [N, HW, classes] of logits [N, C, H, W]."""
        return (classes_last(logits) / self.temperature).softmax(dim=-1)

    def tempered(self, logits: Tensor, target: Tensor) -> SemanticTask:
        """With the T of the largest likelihood of what the confidence is about.

        -sum log P(right) over the pixels whose most probable class is the label's, log (1 - P) over
        the others.

        Differs from Guo et al., ICML 2017, Sec. 4.2: theirs is the likelihood of labels, which goes
        by the probabilities of all classes, also of those that are not chosen.
        """
        labels = target.flatten(1)
        known = labels != self.no_label
        labels = labels[known]

        def entropy(temperature: float) -> Tensor:
            probability = replace(self, temperature=temperature).probability(logits)[known]
            confidence, chosen = probability.clamp(1e-6, 1 - 1e-6).max(dim=-1)
            return functional.binary_cross_entropy(confidence, (chosen == labels).to(logits))

        return replace(self, temperature=smallest(entropy))

    def head(self, logits: Tensor) -> dict[str, Tensor]:
        """The class with the highest probability, and that probability: uint8 [N, H, W]."""
        confidence = self.probability(logits).amax(dim=-1)
        return {
            'semantic': most_probable(logits),
            'semantic_confidence': levels(confidence.unflatten(1, logits.shape[-2:])),
        }


@dataclass(frozen=True, kw_only=True)
class GroupedSemanticTask(SemanticTask):
    """Groups of the classes that a network tells apart.

    The probability of a group is the sum of those of its members, p_g = sum_{c in g} softmax(z)_c:
    what is half a table and half a desk is surely a table to a robot. They are summed on the grid
    of the network, and the logs of the sums are brought to the size of the image.

    Attributes:
        classes: of labels, maps and bundles: the groups.
        members: the classes of the network, which has a logit for each.
        table: [256] the group of each of them, 255 for none.

    Raises:
        TaskError: a group of classes that the network does not tell apart.
    """

    members: tuple[LabelClass, ...]
    table: NDArray[np.uint8] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table = lookup([label.name for label in self.members], self.classes)
        if table is None:
            raise TaskError(
                f'the network tells {len(self.members)} classes apart, which cannot be gathered '
                f'into {", ".join(label.name for label in self.classes)}'
            )
        object.__setattr__(self, 'table', table)

    @property
    def channels(self) -> int:
        """One per class of the network."""
        return len(self.members)

    def gather(self, logits: Tensor) -> Tensor:
        """log p_g [N, groups, h, w] of logits [N, C, h, w], which are logits of the groups."""
        belongs = np.eye(256, len(self.classes), dtype=np.float32)[self.table[: self.channels]]
        members = classes_last(logits).softmax(dim=-1)
        probability = (members @ torch.from_numpy(belongs).to(logits)).clamp(min=SMALLEST)
        return probability.log().unflatten(1, logits.shape[-2:]).permute(0, 3, 1, 2)


def grouped(task: SemanticTask, classes: Sequence[LabelClass]) -> SemanticTask:
    """A semantic task in other classes: as it is, if these are its own, or in groups of them.

    Raises:
        TaskError: classes that its own cannot be gathered into.
    """
    if task.classes == tuple(classes):
        return task
    return GroupedSemanticTask(classes=tuple(classes), members=task.classes, weight=task.weight)
