"""What a task is to all who train, judge, export and show it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from mtl_perception.offline.metrics import Metric
from mtl_training import TrainingError
from mtl_training.models.layers import resize

Picture = NDArray[np.uint8]  # [H, W, 3] RGB


class TaskError(TrainingError):
    """A task that there is not, or labels that a task cannot have."""


@dataclass(frozen=True)
class Figure:
    """A row of the tables in which networks are compared.

    Attributes:
        key: of what the task's metric computes.
        title: with its unit.
        factor: from the metric's unit to the title's.
        digits: after the point.
    """

    key: str
    title: str
    factor: float = 1.0
    digits: int = 3


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """One task of a network: its labels, its loss, how it is judged, exported and shown.

    It appears in three forms. ``stored``: labels of a frame as data sets give them, [H, W, ...] of
    small integers. ``target``: labels of a batch as the loss wants them. ``maps``: predictions or
    labels [B, H, W, ...] in the units of the outside world, which metrics and pictures take.

    ``zoom`` is fx / canonical_focal of a frame: metres are canonical metres times zoom. Only depth
    cares.

    Attributes:
        name: key in samples, batches, logits, losses and bundles, where it is the ``kind`` too.
        no_label: the stored value of pixels without a label, and hence of those outside the frame.
        quality: the figure of its metric, in 0..1 and better if higher, by which the best
            checkpoint is chosen.
        figures: what tables show of its metric.
        signed: whether its loss falls below 0, as likelihoods do where a network is sure and right.
        facts: what a bundle says about it, beside its outputs.
        weight: factor of its loss in the total.
        temperature: of its confidence, if it has one, see ``tempered``.
    """

    name: ClassVar[str]
    no_label: ClassVar[int]
    quality: ClassVar[str]
    figures: ClassVar[tuple[Figure, ...]]
    signed: ClassVar[bool] = False
    weight: float
    temperature: float = 1.0

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of the logits."""

    # Labels

    def unlabelled(self, height: int, width: int) -> NDArray[Any]:
        """Stored labels of a frame that has none."""
        return np.full((height, width), self.no_label, np.uint8)

    def labelled(self, stored: NDArray[Any]) -> NDArray[np.bool_]:
        """Which pixels [H, W] have a label."""
        return np.asarray(stored != self.no_label)

    def mirror(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Labels of the frame mirrored left to right."""
        return np.asarray(cv2.flip(stored, 1))

    @abstractmethod
    def target(self, stored: NDArray[Any], zoom: float) -> Tensor:
        """Labels of a frame for the loss.

        Raises:
            TaskError: values that are no labels of this task.
        """

    @abstractmethod
    def truth(self, target: Tensor, zoom: Tensor) -> NDArray[Any]:
        """Targets of a batch, with zooms [B], as maps for the metric."""

    @abstractmethod
    def of_maps(self, values: NDArray[Any], zoom: Tensor) -> Tensor:
        """Targets of a batch from maps, such as another network's: the inverse of ``truth``."""

    def gather(self, logits: Tensor) -> Tensor:
        """The logits of a network [B, C, h, w] as the task takes them, on the same grid."""
        return logits

    # Loss

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The unweighted loss of a batch, a mean over labelled pixels; 0 if there are none.

        Args:
            logits: [B, C, h, w], up-sampled to the labels here.
            target: a batch of what ``target`` gives.
        """
        return self.criterion(resize(self.gather(logits), target.shape[-2:]), target)

    @abstractmethod
    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        """See ``loss``, with logits and labels of one size."""

    # Learning from a network that has the task, too

    @abstractmethod
    def soften(self, logits: Tensor, zoom: Tensor, temperature: float) -> Tensor:
        """What a teacher says, with all that it thinks likely: what ``soft_loss`` takes.

        Args:
            logits: [B, C, h, w] of the teacher, as ``gather`` gives them.
            zoom: [B] the teacher's over that of the network that learns: canonical metres of the
                former, times it, are canonical metres of the latter.
            temperature: T of probabilities, softmax(z / T); depth and normals have none.
        """

    def soft_loss(self, logits: Tensor, soft: Tensor, temperature: float) -> Tensor:
        """The unweighted loss of a batch beside what a teacher says, a mean over pixels.

        It is smallest where the network says the same. T^2 keeps its gradients of one size at all
        T (Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, Sec. 2).

        Args:
            logits: [B, C, h, w], up-sampled to the teacher's here.
            soft: of ``soften``, whatever the losses of the two tasks.
            temperature: T that it was made with.
        """
        return self.soft_criterion(resize(self.gather(logits), soft.shape[-2:]), soft, temperature)

    @abstractmethod
    def soft_criterion(self, logits: Tensor, soft: Tensor, temperature: float) -> Tensor:
        """See ``soft_loss``, with both of one size."""

    # Judging and showing

    @abstractmethod
    def metric(self) -> Metric:
        """A new metric, which takes maps."""

    @abstractmethod
    def decode(self, logits: Tensor, zoom: Tensor) -> NDArray[Any]:
        """Logits [B, C, H, W] as maps."""

    @abstractmethod
    def of_bundle(self, outputs: Mapping[str, NDArray[Any]], zoom: NDArray[Any]) -> NDArray[Any]:
        """The output tensors of a bundle as maps."""

    @abstractmethod
    def picture(self, values: NDArray[Any]) -> Picture:
        """A map [H, W, ...] for people to look at; black where there is no label."""

    @abstractmethod
    def error(self, values: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float32]:
        """How wrong a map is beside its truth, 0..1 [H, W]; NaN where there is no label."""

    @abstractmethod
    def constants(self, counts: NDArray[np.int64]) -> dict[str, Any]:
        """What one predicts best who looks at no picture, by what it is best at.

        Args:
            counts: [channels, 65536] how often labelled pixels of training frames have each stored
                value.

        Returns:
            Values of a pixel in maps.
        """

    # Export

    @abstractmethod
    def head(self, logits: Tensor) -> dict[str, Tensor]:
        """Logits [N, C, H, W] as the output tensors of a bundle, in operations that ONNX has."""

    def tempered(self, logits: Tensor, target: Tensor) -> Task:
        """The same task with a confidence that suits a network; itself where it has none.

        Args:
            logits: [N, C, H, W] of frames that the network was not trained on.
            target: what ``target`` gives for them.
        """
        return self

    @property
    def facts(self) -> dict[str, Any]:
        """What a bundle says about it, beside its outputs."""
        return {}


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid entries; 0 where there are none."""
    return (values * valid).sum() / valid.sum().clamp(min=1)


def levels(probability: Tensor) -> Tensor:
    """Probabilities as bundles have them: uint8, times 255."""
    return (255 * probability).round().to(torch.uint8)


def smallest(entropy: Callable[[float], Tensor]) -> float:
    """The temperature in 0.1..10 of the smallest cross entropy, to 3 digits."""
    found = minimize_scalar(
        lambda log: float(entropy(math.exp(log))), bounds=(-math.log(10), math.log(10)),
        method='bounded', options={'xatol': 1e-3},
    )  # fmt: skip
    return float(f'{math.exp(found.x):.3g}')
