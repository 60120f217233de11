"""What tasks have in common whose labels are classes: semantic segmentation and human parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mtl_perception.offline.metrics import MeanIoU
from mtl_training.labels import IGNORE, LabelClass, as_table
from mtl_training.tasks.task import Figure, Picture, Task, TaskError


@dataclass(frozen=True, kw_only=True)
class ClassTask(Task):
    """Every pixel is of one class; labels are class ids, 255 where there is none.

    Loss: cross entropy, as in all papers here.

    Attributes:
        classes: their ids are their places.
        class_weights: factor of each class in the loss; empty: all weigh the same.
    """

    no_label: ClassVar[int] = IGNORE
    quality: ClassVar[str] = 'miou'
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure('miou', 'mIoU, %', 100, 1),
        Figure('accuracy', 'pixel accuracy, %', 100, 1),
    )
    classes: tuple[LabelClass, ...]
    class_weights: tuple[float, ...] = ()

    @property
    def channels(self) -> int:
        """One per class."""
        return len(self.classes)

    def target(self, stored: NDArray[Any], zoom: float) -> Tensor:
        """Ids uint8 [H, W] as int64 [H, W].

        Raises:
            TaskError: an id that is neither a class nor 255.
        """
        highest = np.max(stored, where=stored != self.no_label, initial=0)
        if highest >= len(self.classes):
            raise TaskError(
                f'{self.name} labels have the id {highest}, expected 0..{len(self.classes) - 1}, '
                f'or {self.no_label} for no label'
            )
        return torch.from_numpy(stored.astype(np.int64))

    def truth(self, target: Tensor, zoom: Tensor) -> NDArray[np.uint8]:
        """Ids uint8 [B, H, W], 255 where there is no label."""
        return np.asarray(target.byte().cpu().numpy())

    def of_maps(self, values: NDArray[Any], zoom: Tensor) -> Tensor:
        """Ids [B, H, W] as int64."""
        return torch.from_numpy(values.astype(np.int64))

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        """-w_c log softmax(logits)_c at the label c; divided by pixels, not by weights."""
        weight = logits.new_tensor(self.class_weights) if self.class_weights else None
        total = functional.cross_entropy(
            logits, target, weight=weight, ignore_index=self.no_label, reduction='sum'
        )
        return total / (target != self.no_label).sum().clamp(min=1)

    def soften(self, logits: Tensor, zoom: Tensor, temperature: float) -> Tensor:
        """p = softmax(z / T) [B, classes, h, w]."""
        return (logits / temperature).softmax(dim=1)

    def soft_criterion(self, logits: Tensor, soft: Tensor, temperature: float) -> Tensor:
        """-T^2 (sum_c w_c p_c) sum_c p_c log softmax(z / T)_c, mean over pixels.

        A pixel weighs what its classes weigh on average: weights within the second sum would draw
        the network away from the teacher's probabilities.
        """
        entropy = functional.cross_entropy(logits / temperature, soft, reduction='none')
        if self.class_weights:
            weights = soft.new_tensor(self.class_weights).view(-1, 1, 1)
            entropy = entropy * (weights * soft).sum(dim=1)
        return temperature**2 * entropy.mean()

    def metric(self) -> MeanIoU:
        """Mean intersection over union."""
        return MeanIoU([label.name for label in self.classes])

    def decode(self, logits: Tensor, zoom: Tensor) -> NDArray[np.uint8]:
        """Ids uint8 [B, H, W]."""
        return np.asarray(logits.argmax(dim=1).byte().cpu().numpy())

    def of_bundle(
        self, outputs: Mapping[str, NDArray[Any]], zoom: NDArray[Any]
    ) -> NDArray[np.uint8]:
        """Ids uint8 [B, H, W]."""
        return np.asarray(outputs[self.name], np.uint8)

    def picture(self, values: NDArray[Any]) -> Picture:
        """Ids [H, W] in the colours of their classes."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self.classes)] = [label.color for label in self.classes]
        return np.asarray(palette[values], np.uint8)

    def error(self, values: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float32]:
        """1 where ids [H, W] are wrong."""
        wrong = (values != truth).astype(np.float32)
        return np.where(truth != self.no_label, wrong, np.nan).astype(np.float32)

    def constants(self, counts: NDArray[np.int64]) -> dict[str, Any]:
        """The most frequent class."""
        return {'best constant': np.uint8(counts[0].argmax())}

    def head(self, logits: Tensor) -> dict[str, Tensor]:
        """The class with the highest probability: uint8 [N, H, W]."""
        return {self.name: most_probable(logits)}

    @property
    def facts(self) -> dict[str, Any]:
        """The classes."""
        return {'classes': as_table(self.classes)}


def most_probable(logits: Tensor) -> Tensor:
    """Ids uint8 [N, H, W] of the largest logits."""
    ids = classes_last(logits).argmax(dim=-1)
    return ids.unflatten(1, logits.shape[-2:]).to(torch.uint8)


def classes_last(logits: Tensor) -> Tensor:
    """[N,C,H,W] -> [N,HW,C], which ONNX Runtime reduces three times as fast as [N,C,H,W].

    Flat, as it would move a transposition that it can see through behind the reduction again.
    """
    return logits.permute(0, 2, 3, 1).flatten(1, 2)
