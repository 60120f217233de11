"""What tasks have in common that ask one question of every pixel: edges and saliency."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mtl_training.labels import IGNORE
from mtl_training.tasks.task import Picture, Task, TaskError, levels, masked_mean


@dataclass(frozen=True, kw_only=True)
class BinaryTask(Task):
    """Every pixel is positive or not; labels are 1, 0, or 255 where there is none.

    Loss: binary cross entropy whose classes are balanced, L = -(w y log p + (1 - w) (1 - y)
    log(1 - p)); subclasses say what w is.
    """

    no_label: ClassVar[int] = IGNORE

    @property
    def channels(self) -> int:
        """The logit of being positive."""
        return 1

    @abstractmethod
    def positive_weight(self, truth: Tensor, valid: Tensor) -> Tensor:
        """w for a batch of labels or probabilities, of which some are valid, the others 0."""

    def logit(self, logits: Tensor) -> Tensor:
        """log p / (1 - p), [B, 1, H, W]."""
        return logits

    def target(self, stored: NDArray[Any], zoom: float) -> Tensor:
        """Labels uint8 [H, W] as float32 [1, H, W].

        Raises:
            TaskError: a value that is not 0, 1 or 255.
        """
        highest = np.max(stored, where=stored != self.no_label, initial=0)
        if highest > 1:
            raise TaskError(
                f'{self.name} labels have the value {highest}, expected 0 or 1, '
                f'or {self.no_label} for no label'
            )
        return torch.from_numpy(stored.astype(np.float32)[None])

    def truth(self, target: Tensor, zoom: Tensor) -> NDArray[np.uint8]:
        """Labels uint8 [B, H, W]: 1, 0, or 255."""
        return np.asarray(target[:, 0].byte().cpu().numpy())

    def of_maps(self, values: NDArray[Any], zoom: Tensor) -> Tensor:
        """Probabilities or labels [B, H, W] as float32 [B, 1, H, W]: 1 above 1/2; 255 as it is."""
        positive = np.where(values > 1, values, values > 0.5).astype(np.float32)
        return torch.from_numpy(positive).unsqueeze(1)

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        """The balanced binary cross entropy, mean over labelled pixels."""
        valid = target != self.no_label
        return self.entropy(self.logit(logits), target * valid, valid)

    def entropy(self, logit: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
        """(w y + (1 - w) (1 - y)) -(y log p + (1 - y) log(1 - p)), mean over valid pixels.

        Of labels that is the loss above. Of probabilities y it is smallest at p = y, which the loss
        above is not.
        """
        weight = self.positive_weight(truth, valid)
        entropy = functional.binary_cross_entropy_with_logits(logit, truth, reduction='none')
        return masked_mean((weight * truth + (1 - weight) * (1 - truth)) * entropy, valid)

    def soften(self, logits: Tensor, zoom: Tensor, temperature: float) -> Tensor:
        """y = sigmoid(z / T) [B, 1, h, w]."""
        return (self.logit(logits) / temperature).sigmoid()

    def soft_criterion(self, logits: Tensor, soft: Tensor, temperature: float) -> Tensor:
        """T^2 times ``entropy`` of z / T."""
        everywhere = torch.ones_like(soft, dtype=torch.bool)
        return temperature**2 * self.entropy(self.logit(logits) / temperature, soft, everywhere)

    def decode(self, logits: Tensor, zoom: Tensor) -> NDArray[np.float32]:
        """Probabilities float32 [B, H, W]."""
        return np.asarray(self.logit(logits)[:, 0].sigmoid().cpu().numpy())

    def of_bundle(
        self, outputs: Mapping[str, NDArray[Any]], zoom: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Probabilities float32 [B, H, W]."""
        return np.asarray(outputs[self.name] / np.float32(255), np.float32)

    def picture(self, values: NDArray[Any]) -> Picture:
        """Probabilities or labels [H, W] from black to white."""
        gray = np.rint(255 * np.where(values > 1, 0, values)).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=-1)

    def error(self, values: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float32]:
        """|p - y| of maps [H, W]."""
        distance = np.abs(values - truth)
        return np.where(truth <= 1, distance, np.nan).astype(np.float32)

    def constants(self, counts: NDArray[np.int64]) -> dict[str, Any]:
        """Positive: an F of 0 is not for the taking."""
        return {'best constant': np.float32(1)}

    def head(self, logits: Tensor) -> dict[str, Tensor]:
        """Probabilities uint8 [N, H, W], times 255."""
        return {self.name: levels(self.logit(logits)[:, 0].sigmoid())}
