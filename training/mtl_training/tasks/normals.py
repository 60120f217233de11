"""Surface normals: unit vectors in the optical frame, towards the camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mtl_perception.offline.metrics import NormalError
from mtl_training.tasks.task import Figure, Picture, Task, masked_mean

DECODED = np.arange(256, dtype=np.float32) / 127.5 - 1  # stored value -> component


@dataclass(frozen=True, kw_only=True)
class NormalsTask(Task):
    """Normals of any length out of the network, made unit by whoever uses them.

    Stored: uint8 [H, W, 3], n = 2 v / 255 - 1; 0 0 0 where there is none.

    Attributes:
        per_element: whether the loss is a mean over the components of all pixels, as in the
            survey's code, instead of over pixels, as in ATRC's: a third of it.
    """

    name: ClassVar[str] = 'normals'
    no_label: ClassVar[int] = 0
    quality: ClassVar[str] = 'within_11'
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure('mean', 'normals mean, degrees', digits=1),
        Figure('median', 'normals median, degrees', digits=1),
        Figure('within_11', 'normals < 11.25 degrees, %', 100, 1),
    )
    weight: float = 10.0
    per_element: bool = False

    @property
    def channels(self) -> int:
        """x, y, z."""
        return 3

    def unlabelled(self, height: int, width: int) -> NDArray[np.uint8]:
        """Stored normals of a frame that has none."""
        return np.zeros((height, width, 3), np.uint8)

    def labelled(self, stored: NDArray[Any]) -> NDArray[np.bool_]:
        """Which pixels [H, W] have a normal."""
        x, y, z = cv2.split(stored)
        return np.asarray((x | y | z) != 0)

    def mirror(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The x of the normals changes its sign, too."""
        flipped = cv2.flip(stored, 1)
        x, y, z = cv2.split(flipped)
        # -(2 v / 255 - 1) = 2 (255 - v) / 255 - 1; invalid ones stay 0 0 0.
        mirrored = np.where(self.labelled(flipped), 255 - x, x)
        return np.asarray(cv2.merge([mirrored, y, z]))

    def target(self, stored: NDArray[Any], zoom: float) -> Tensor:
        """Unit vectors float32 [3, H, W], 0 0 0 where there is no label."""
        x, y, z = vectors = DECODED[np.stack(cv2.split(stored))]
        factor = self.labelled(stored) / np.sqrt(x * x + y * y + z * z)
        return torch.from_numpy(np.asarray(vectors * factor, np.float32))

    def truth(self, target: Tensor, zoom: Tensor) -> NDArray[np.float32]:
        """Unit vectors float32 [B, H, W, 3], 0 0 0 where there is no label."""
        return np.asarray(target.permute(0, 2, 3, 1).cpu().numpy())

    def of_maps(self, values: NDArray[Any], zoom: Tensor) -> Tensor:
        """Unit vectors [B, H, W, 3] as float32 [B, 3, H, W]."""
        return torch.from_numpy(values.astype(np.float32)).permute(0, 3, 1, 2)

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        """sum_c |n_c - n_c*| with n made unit, c = x, y, z; mean over pixels, or elements."""
        distance = (functional.normalize(logits, dim=1) - target).abs()
        valid = (target != 0).any(dim=1, keepdim=True)
        if self.per_element:
            return masked_mean(distance, valid.expand_as(distance))
        return masked_mean(distance.sum(dim=1, keepdim=True), valid)

    def soften(self, logits: Tensor, zoom: Tensor, temperature: float) -> Tensor:
        """Unit vectors [B, 3, h, w]."""
        return functional.normalize(logits, dim=1)

    def soft_criterion(self, logits: Tensor, soft: Tensor, temperature: float) -> Tensor:
        """The loss with labels."""
        return self.criterion(logits, soft)

    def metric(self) -> NormalError:
        """Angles in degrees."""
        return NormalError()

    def decode(self, logits: Tensor, zoom: Tensor) -> NDArray[np.float32]:
        """Unit vectors float32 [B, H, W, 3]."""
        unit = functional.normalize(logits, dim=1).permute(0, 2, 3, 1)
        return np.asarray(unit.cpu().numpy())

    def of_bundle(
        self, outputs: Mapping[str, NDArray[Any]], zoom: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Unit vectors float32 [B, H, W, 3]."""
        return np.asarray(outputs['normals'], np.float32)

    def picture(self, values: NDArray[Any]) -> Picture:
        """Vectors [H, W, 3] as (n + 1) / 2."""
        valid = (values != 0).any(axis=-1, keepdims=True)
        return np.asarray(np.rint((values + 1) * 127.5) * valid, np.uint8)

    def error(self, values: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float32]:
        """The angle between vectors [H, W, 3], 1 from 45 degrees on."""
        cosine = np.clip((values * truth).sum(axis=-1), np.sqrt(0.5), 1)
        known = (truth != 0).any(axis=-1)
        return np.where(known, np.arccos(cosine) / (np.pi / 4), np.nan).astype(np.float32)

    def constants(self, counts: NDArray[np.int64]) -> dict[str, Any]:
        """The mean, made unit."""
        total = counts[:, :256] @ DECODED.astype(np.float64)
        unit = total / max(float(np.linalg.norm(total)), 1e-12)
        return {'best constant': unit.astype(np.float32)}

    def head(self, logits: Tensor) -> dict[str, Tensor]:
        """Unit vectors float32 [N, H, W, 3]; of logits that are all zero, (0, 0, -1).

        A surface that is seen looks towards the camera: n . ray < 0. The graph does not know the
        rays, and n_z < 0 is another thing: at the border of a wide picture a surface that is seen
        may look slightly away from the optical axis.
        """
        x, y, z = logits.unbind(dim=1)
        length = (x * x + y * y + z * z).sqrt()
        tiny = length < 1e-6
        inverse = torch.where(tiny, 1.0, length.reciprocal())
        unit = torch.stack([x * inverse, y * inverse, torch.where(tiny, -1.0, z * inverse)], dim=1)
        return {'normals': unit.permute(0, 2, 3, 1)}

    @property
    def facts(self) -> dict[str, Any]:
        """The frame."""
        return {'frame': 'optical'}
