"""Predictors: what turns a batch into maps of its tasks, be it a network or a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtl_perception.bundle import KINDS
from mtl_training.checkpoints.bundles import BundleFiles, open_model
from mtl_training.checkpoints.checkpoint import CheckpointError, tasks_of
from mtl_training.datasets.batches import Batch
from mtl_training.labels import LabelClass, from_table
from mtl_training.models import Network
from mtl_training.tasks import (
    GroupedSemanticTask,
    SemanticTask,
    TaskError,
    TaskSet,
    every,
    grouped,
    logits_at,
)
from mtl_training.tasks.classes import ClassTask

# Of a batch, by task, as ``Task.decode`` gives them; and what bundles have of a task beside its own
# output, by name: confidences.
Maps = dict[str, NDArray[Any]]
Predictor = Callable[[Batch], Maps]


@dataclass(frozen=True)
class Judged:
    """Something that predicts, and what has to be known of it.

    Attributes:
        predictor: of some of its tasks; depth is in metres.
        tasks: that it predicts.
        height, width: of the images that it takes.
        canonical_focal: px.
    """

    predictor: Callable[[TaskSet], Predictor]
    tasks: TaskSet
    height: int
    width: int
    canonical_focal: float

    @property
    def predict(self) -> Predictor:
        """Predict all tasks."""
        return self.predictor(self.tasks)


def normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 images [B, 3, H, W] as float32 (x / 255 - mean) / std, channels last."""
    shift = torch.tensor(mean, device=image.device).view(1, 3, 1, 1) * 255
    factor = 1 / (torch.tensor(std, device=image.device).view(1, 3, 1, 1) * 255)
    return ((image - shift) * factor).contiguous(memory_format=torch.channels_last)


def network_predictor(
    net: Network, tasks: TaskSet, canonical_focal: float, device: str | torch.device = 'cpu'
) -> Predictor:
    """Predict with a network."""

    def predict(batch: Batch) -> Maps:
        images = normalise(batch['image'].to(device), net.mean, net.std)
        zoom = batch['fx'].to(device) / canonical_focal
        with torch.inference_mode():
            final = {name: logits.float() for name, logits in net.predictions(images).final.items()}
            outputs = logits_at(images.shape[-2:], final, tasks)
            maps = {n: task.decode(outputs[n], zoom) for n, task in tasks.items()}
            for name, task in tasks.items():
                if len(KINDS[name]) > 1:
                    tensors = task.head(outputs[name])
                    maps |= {n: t.cpu().numpy() for n, t in tensors.items() if n not in maps}
            return maps

    return predict


def judged_network(
    net: Network, meta: Mapping[str, Any], device: str | torch.device = 'cpu'
) -> Judged:
    """A network and its metadata, as ``load_checkpoint`` gives them."""
    tasks, focal = tasks_of(meta), float(meta['canonical_focal'])
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Judged(
        lambda chosen: network_predictor(net, chosen, focal, device),
        tasks,
        meta['height'],
        meta['width'],
        focal,
    )


def judged_bundle(bundle: BundleFiles, variant: str = 'fp32', threads: int = 0) -> Judged:
    """A model of a bundle in onnxruntime.

    Args:
        variant: such as ``fp16`` or ``int8``.

    Raises:
        BundleError: the bundle has no such variant.
        CheckpointError: the description has no metric depth, or onnxruntime refuses the model.
    """
    model, description = bundle.variant(variant), bundle.description
    try:
        # Without depth nothing depends on it, and bundles do not say it.
        focal = float(description['canonical_focal']) if 'depth' in description['tasks'] else 1.0
        tasks = bundle_tasks(description['tasks'])
        session = open_model(model, threads, variant=variant)
    except Exception as error:  # onnxruntime's classes are not public
        raise CheckpointError(
            f'{description.get("name")} cannot be judged as a bundle: {error}'
        ) from error
    names = [output.name for output in session.get_outputs()]

    def predictor(chosen: TaskSet) -> Predictor:
        semantic = chosen.get('semantic')

        def predict(batch: Batch) -> Maps:
            images = np.ascontiguousarray(batch['image'].permute(0, 2, 3, 1).numpy())
            outputs = dict(zip(names, session.run(names, {'image': images}), strict=True))
            if isinstance(semantic, GroupedSemanticTask):  # probabilities are gone: ids only
                outputs['semantic'] = semantic.table[outputs['semantic']]
                outputs.pop('semantic_confidence', None)
            zoom = batch['fx'].numpy() / focal
            return outputs | {n: task.of_bundle(outputs, zoom) for n, task in chosen.items()}

        return predict

    height, width = bundle.size
    return Judged(predictor, tasks, height, width, focal)


def bundle_tasks(entries: Mapping[str, Mapping[str, Any]]) -> TaskSet:
    """The tasks of a bundle, from the key ``tasks`` of its description."""
    tasks = {name: task for name, task in every(()).items() if name in entries}
    for name, task in tasks.items():
        if isinstance(task, ClassTask) and 'classes' in entries[name]:
            tasks[name] = replace(task, classes=from_table(entries[name]['classes']))
    return tasks


def in_classes(judged: Judged, classes: Sequence[LabelClass]) -> Judged:
    """The same with semantic labels in other classes: groups of its own, or some of them.

    Of a network whose classes are told apart in another way, the semantic task is left out.
    """
    semantic = judged.tasks.get('semantic')
    if not isinstance(semantic, SemanticTask):
        return judged
    tasks = dict(judged.tasks)
    try:
        tasks['semantic'] = grouped(semantic, classes)
    except TaskError:
        del tasks['semantic']
    return replace(judged, tasks=tasks)
