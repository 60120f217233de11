"""Temperatures: confidences that are right as often as they say, fitted before the export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtl_perception.bundle import KINDS
from mtl_perception.offline.evaluation import Calibration
from mtl_perception.offline.metrics import depth_pixels
from mtl_training.datasets.dataset import DataError, thin_out
from mtl_training.evaluation.evaluate import frame_batches, open_judged
from mtl_training.evaluation.predictors import Judged, network_predictor, normalise
from mtl_training.models import Network
from mtl_training.tasks import Task, TaskSet, logits_at

STRIDE = 8  # of the pixels that are looked at: neighbours say the same


def fit_temperatures(
    net: Network, tasks: TaskSet, meta: Mapping[str, Any], data: Path, split: str, limit: int
) -> tuple[TaskSet, dict[str, Any]]:
    """Tasks whose confidences suit a network, and what is to be said about it.

    Args:
        net, meta: as ``load_checkpoint`` gives them.
        tasks: of the network, in the classes of the bundle.
        data, split: frames that the network was not trained on.
        limit: at most so many of them, evenly spaced; 0 for all.

    Returns:
        The tasks, and for bundle.yaml, of each with a confidence, its temperature and the ECE on
        these frames, before and after.

    Raises:
        DataError: data that cannot be read, or has labels of no task with a confidence.
    """
    focal = float(meta['canonical_focal'])
    sure = {name: task for name, task in tasks.items() if len(KINDS[name]) > 1}
    judged = Judged(
        lambda chosen: network_predictor(net, chosen, focal),
        sure,
        meta['height'],
        meta['width'],
        focal,
    )
    judged, whole = open_judged(judged, data, split)
    frames = thin_out(whole, limit)
    sure = {name: task for name, task in judged.tasks.items() if name in frames.tasks}
    if not sure:
        raise DataError(f'{whole.name} has labels of no task with a confidence in these classes')
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in sure}
    grid = (..., slice(STRIDE // 2, None, STRIDE), slice(STRIDE // 2, None, STRIDE))
    for batch in frame_batches(frames, judged, 'temperature'):
        with torch.inference_mode():
            images = normalise(batch['image'], net.mean, net.std)
            logits = logits_at(images.shape[-2:], net.predictions(images).final, sure)
        for name, pairs in seen.items():
            pairs.append((logits[name][grid].clone(), batch[name][grid]))
    fitted = dict(tasks)
    notes: dict[str, Any] = {'data': data.name, 'split': split, 'frames': len(frames)}
    for name, task in sure.items():
        values, target = (torch.cat(parts) for parts in zip(*seen[name], strict=True))
        fitted[name] = task.tempered(values, target)
        notes[name] = {
            'temperature': fitted[name].temperature,
            'ece': [round(ece(t, values, target), 4) for t in (task, fitted[name])],
        }
    return fitted, notes


def ece(task: Task, logits: Tensor, target: Tensor) -> float:
    """The expected calibration error of a task's confidence."""
    outputs = {name: tensor.numpy() for name, tensor in task.head(logits).items()}
    true = task.truth(target, torch.ones(len(target)))
    found = Calibration()
    if task.name == 'depth':
        found.update(outputs, {}, depth_pixels(outputs['depth'], true))
        return found.depth.compute()['ece']
    found.update(outputs, {task.name: true}, None)
    return found.semantic.compute()['ece']
