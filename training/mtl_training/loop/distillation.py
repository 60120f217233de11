"""Teachers: trained networks from whose predictions another one learns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from mtl_perception.camera import Letterbox
from mtl_training.checkpoints.bundles import read_bundle
from mtl_training.checkpoints.checkpoint import CheckpointError, load_checkpoint, tasks_of
from mtl_training.checkpoints.config import ConfigError, DistillConfig
from mtl_training.datasets.batches import Batch
from mtl_training.evaluation.predictors import (
    Judged,
    Predictor,
    in_classes,
    judged_bundle,
    judged_network,
    normalise,
)
from mtl_training.labels import LabelClass
from mtl_training.models import Network
from mtl_training.tasks import SemanticTask, TaskError, TaskSet, grouped, multi_task_loss

STRIDE = 4  # of the grid that soft targets are on: that of most networks


@dataclass(frozen=True, kw_only=True)
class Teacher(ABC):
    """A trained network, and the tasks that it teaches.

    It sees the pictures at its own size, the whole of each in the middle, its border repeated.

    Attributes:
        tasks: of the network that learns.
        height, width: of what the teacher sees.
        canonical_focal: of the network that learns, px.
    """

    tasks: TaskSet
    height: int
    width: int
    canonical_focal: float

    @abstractmethod
    def targets(self, batch: Batch) -> Batch:
        """What it says about a batch, without a graph, by names that the batch does not have."""

    @abstractmethod
    def losses(self, logits: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Unweighted losses of final logits by task, beside what it said about the batch."""

    def seen(self, batch: Batch) -> tuple[Batch, Letterbox]:
        """Pictures and focal lengths as it sees them, and where the pictures are there."""
        height, width = batch['image'].shape[-2:]
        box = Letterbox.fit(width, height, self.width, self.height)
        inner = box.content_height, box.content_width
        image = functional.interpolate(
            batch['image'].float(), inner, mode='bilinear', antialias=box.scale < 1
        )
        right, below = self.width - box.left - inner[1], self.height - box.top - inner[0]
        border = (box.left, right, box.top, below)
        padded = functional.pad(image, border, mode='replicate').round().byte()
        return {'image': padded, 'fx': batch['fx'] * box.scale}, box


@dataclass(frozen=True, kw_only=True)
class HardTeacher(Teacher):
    """One whose predictions are labels.

    Attributes:
        predict: images of the teacher's own size -> its maps of these tasks.
    """

    predict: Predictor

    def targets(self, batch: Batch) -> Batch:
        """Labels by ``TASK.taught``, on the grid of the batch; sampled nearest, as labels are."""
        height, width = batch['image'].shape[-2:]
        seen, box = self.seen(batch)
        rows, columns = (n.long().numpy() for n in rows_and_columns((height, width), box))
        nearest = (slice(None), rows[:, None], columns)
        predicted = self.predict({name: values.cpu() for name, values in seen.items()})
        maps = {name: values[nearest] for name, values in predicted.items()}
        zoom = batch['fx'].cpu() / self.canonical_focal
        return {
            f'{name}.taught': task.of_maps(maps[name], zoom).to(batch['image'].device)
            for name, task in self.tasks.items()
        }

    def losses(self, logits: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Those with labels."""
        return multi_task_loss(logits, {t: batch[f'{t}.taught'] for t in self.tasks}, self.tasks)


@dataclass(frozen=True, kw_only=True)
class SoftTeacher(Teacher):
    """One that says how likely it thinks everything, see ``Task.soften``.

    Attributes:
        net: which predicts nothing else.
        own: its tasks, in the classes of the network that learns.
        own_focal: its canonical focal length, px.
        temperature: T.
    """

    net: Network
    own: TaskSet
    own_focal: float
    temperature: float

    def targets(self, batch: Batch) -> Batch:
        """Soft targets by ``TASK.soft``, on a grid of a quarter of the batch's size."""
        height, width = batch['image'].shape[-2:]
        seen, box = self.seen(batch)
        zoom = seen['fx'] / self.own_focal * self.canonical_focal / batch['fx']
        grid = centres((height // STRIDE, width // STRIDE), box).to(zoom)
        with torch.no_grad():
            images = normalise(seen['image'], self.net.mean, self.net.std)
            final = self.net.predictions(images).final
            return {
                f'{name}.soft': task.soften(
                    sampled(task.gather(final[name].float()), grid), zoom, self.temperature
                )
                for name, task in self.own.items()
            }

    def losses(self, logits: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Those with soft targets."""
        return {
            name: task.soft_loss(logits[name], batch[f'{name}.soft'], self.temperature)
            for name, task in self.tasks.items()
        }


def rows_and_columns(size: tuple[int, int], box: Letterbox) -> tuple[Tensor, Tensor]:
    """Where the pixels of a grid over what is in a box lie there, their centres: [h] and [w].

    Args:
        size: of the grid.
        box: in the middle of a picture.
    """
    height, width = size
    rows = box.top + (torch.arange(height) + 0.5) * box.content_height / height
    columns = box.left + (torch.arange(width) + 0.5) * box.content_width / width
    return rows, columns


def centres(size: tuple[int, int], box: Letterbox) -> Tensor:
    """``rows_and_columns`` as one grid [h, w, 2], as ``grid_sample`` counts."""
    rows, columns = rows_and_columns(size, box)
    x, y = 2 * columns / box.width - 1, 2 * rows / box.height - 1
    return torch.stack(torch.meshgrid(x, y, indexing='xy'), dim=-1)


def sampled(x: Tensor, grid: Tensor) -> Tensor:
    """[B,C,H,W] at the places of a grid [h,w,2], bilinear -> [B,C,h,w]."""
    places = grid.expand(len(x), -1, -1, -1)
    return functional.grid_sample(x, places, padding_mode='border', align_corners=False)


def open_teachers(
    distill: DistillConfig,
    tasks: TaskSet,
    classes: Sequence[LabelClass],
    canonical_focal: float,
    device: torch.device,
) -> list[Teacher]:
    """Teachers from checkpoints and folders of bundles: the first that has a task teaches it.

    Args:
        tasks: of the network that learns.
        classes: of its semantic task.
        canonical_focal: of its depth, px.

    Raises:
        ConfigError: one has no task to teach, or cannot do so softly; or settings of soft teachers
            without any.
        TrainingError, BundleError: one cannot be read.
    """
    check(distill)
    soft = partial(open_soft, temperature=distill.temperature)
    open_one = soft if distill.soft else open_hard
    teachers: list[Teacher] = []
    for path in distill.teachers:
        taught = {name for teacher in teachers for name in teacher.tasks}
        left = {name: task for name, task in tasks.items() if name not in taught}
        teachers.append(open_one(Path(path), left, classes, canonical_focal, device))
    return teachers


def check(distill: DistillConfig) -> None:
    """Whether the settings have a meaning together.

    Raises:
        ConfigError: they have none.
    """
    if distill.temperature != 1 and not distill.soft:
        raise ConfigError(
            f'distill.temperature is {distill.temperature:g}, but labels have no temperature; '
            'expected 1, or distill.soft: true'
        )
    if distill.soft and not distill.teachers:
        raise ConfigError('distill.soft is true, but distill.teachers names none')


def open_hard(
    path: Path,
    left: TaskSet,
    classes: Sequence[LabelClass],
    canonical_focal: float,
    device: torch.device,
) -> HardTeacher:
    """A teacher of those of the tasks that are left which it has; see ``open_teachers``."""
    judged = in_classes(open_judged(path, device), classes)
    tasks = to_teach(path, judged.tasks, left)
    return HardTeacher(
        tasks=tasks,
        height=judged.height,
        width=judged.width,
        canonical_focal=canonical_focal,
        predict=judged.predictor({name: judged.tasks[name] for name in tasks}),
    )


def open_soft(
    path: Path,
    left: TaskSet,
    classes: Sequence[LabelClass],
    canonical_focal: float,
    device: torch.device,
    temperature: float,
) -> SoftTeacher:
    """As ``open_hard``, of a network in torch."""
    try:
        net, meta = load_checkpoint(path)
    except CheckpointError as error:
        if not path.is_dir():
            raise
        raise ConfigError(
            f'distill.soft is true, which takes networks, and no network can be made of a teacher: '
            f'{error}'
        ) from error
    known = tasks_of(meta)
    tasks = to_teach(path, known, left)
    own = {name: known[name] for name in tasks}
    semantic = own.get('semantic')
    if isinstance(semantic, SemanticTask):
        try:
            own['semantic'] = grouped(semantic, classes)
        except TaskError as error:
            raise ConfigError(
                f'distill.soft is true, and {path} cannot say how likely the classes of this '
                f'task_set are: {error}'
            ) from error
    net.keep(list(own))
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return SoftTeacher(
        tasks=tasks,
        height=meta['height'],
        width=meta['width'],
        canonical_focal=canonical_focal,
        net=net,
        own=own,
        own_focal=float(meta['canonical_focal']),
        temperature=temperature,
    )


def open_judged(path: Path, device: torch.device) -> Judged:
    """A bundle, if the path is a folder, or a checkpoint."""
    if path.is_dir():
        return judged_bundle(read_bundle(path))
    return judged_network(*load_checkpoint(path), device=device)


def to_teach(path: Path, known: TaskSet, left: TaskSet) -> TaskSet:
    """Those of the tasks that are left which a teacher knows.

    Raises:
        ConfigError: there are none.
    """
    tasks = {name: task for name, task in left.items() if name in known}
    if not tasks:
        raise ConfigError(
            f'distill.teachers: {path} has {", ".join(known) or "no task"}; '
            f'left to be taught: {", ".join(left) or "none"}'
        )
    return tasks
