"""Teachers: trained networks whose predictions are labels for another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from mtl_training.datasets.batches import Batch
from mtl_training.datasets.classes import LabelClass
from mtl_training.deploy.bundles import read_bundle
from mtl_training.evaluation.predictors import (
    Judged,
    Predictor,
    in_classes,
    judged_bundle,
    judged_network,
)
from mtl_training.loop.checkpoint import load_checkpoint
from mtl_training.loop.config import ConfigError
from mtl_training.tasks import TaskSet


@dataclass(frozen=True)
class Teacher:
    """A trained network, and the tasks that it labels.

    Attributes:
        tasks: of the network that learns.
        predict: images of the teacher's own size -> its maps of these tasks.
        height, width: that size.
        canonical_focal: of the network that learns, px.
    """

    tasks: TaskSet
    predict: Predictor
    height: int
    width: int
    canonical_focal: float

    def labels(self, batch: Batch) -> dict[str, Tensor]:
        """Targets by ``TASK.taught``, on the grid of the batch.

        The teacher sees the pictures at its own size, the whole of each, its border repeated; its
        maps are sampled nearest, as labels are.
        """
        height, width = batch['image'].shape[-2:]
        scale = min(self.height / height, self.width / width)
        inner = round(height * scale), round(width * scale)
        image = functional.interpolate(
            batch['image'].float(), inner, mode='bilinear', antialias=scale < 1
        )
        border = (0, self.width - inner[1], 0, self.height - inner[0])
        padded = functional.pad(image, border, mode='replicate').round().byte()
        seen = {'image': padded.cpu(), 'fx': batch['fx'].cpu() * scale}
        rows = (torch.arange(height) + 0.5) * inner[0] / height
        columns = (torch.arange(width) + 0.5) * inner[1] / width
        nearest = (slice(None), rows.long().numpy()[:, None], columns.long().numpy())
        maps = {name: values[nearest] for name, values in self.predict(seen).items()}
        zoom = batch['fx'].cpu() / self.canonical_focal
        return {
            f'{name}.taught': task.of_maps(maps[name], zoom).to(batch['image'].device)
            for name, task in self.tasks.items()
        }


def open_teachers(
    paths: Sequence[str],
    tasks: TaskSet,
    classes: Sequence[LabelClass],
    canonical_focal: float,
    device: torch.device,
) -> list[Teacher]:
    """Teachers from checkpoints and folders of bundles; each has the tasks that are left to it.

    Args:
        paths: the first one that has a task teaches it.
        tasks: of the network that learns.
        classes: of its semantic task.
        canonical_focal: of its depth, px.

    Raises:
        ConfigError: one has no task to teach.
        TrainingError, BundleError: one cannot be read.
    """
    teachers: list[Teacher] = []
    for path in paths:
        judged = in_classes(open_judged(Path(path), device), classes)
        taught = {name for teacher in teachers for name in teacher.tasks}
        left = {name: task for name, task in tasks.items() if name not in taught}
        own = {name: task for name, task in left.items() if name in judged.tasks}
        if not own:
            raise ConfigError(
                f'distill.teachers: {path} has {", ".join(judged.tasks) or "no task"}; '
                f'left to be taught: {", ".join(left) or "none"}'
            )
        chosen = {name: judged.tasks[name] for name in own}
        size = judged.height, judged.width
        teachers.append(Teacher(own, judged.predictor(chosen), *size, canonical_focal))
    return teachers


def open_judged(path: Path, device: torch.device) -> Judged:
    """A bundle, if the path is a folder, or a checkpoint."""
    if path.is_dir():
        return judged_bundle(read_bundle(path))
    return judged_network(*load_checkpoint(path), device=device)
