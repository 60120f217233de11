"""The state of a run as a file, and back: to resume, or to begin with what others have learned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtl_training.checkpoints.checkpoint import (
    CheckpointError,
    describe_run,
    load_checkpoint,
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    save_checkpoint,
    with_prefix,
)
from mtl_training.checkpoints.config import Config, from_mapping, to_mapping
from mtl_training.loop.run import Progress, Run

# What single-task networks are made of; systems that join them name it alike.
SINGLE_TASK = ('backbones.', 'heads.')
# What the tensors of a run depend on; anything else may be changed before it is resumed.
FIXED = ('model', 'tasks', 'task_set', 'balancing', 'optim.optimizer', 'optim.frozen_stages')


def describe(run: Run) -> dict[str, Any]:
    """Metadata of a checkpoint of this moment."""
    return describe_run(run.config, run.judged, run.progress.step, run.metrics)


def save(run: Run, path: Path) -> None:
    """Write all that resuming needs."""
    tensors = {f'net.{name}': t for name, t in run.net.state_dict().items()}
    if run.average:
        tensors |= {f'ema.{name}': t for name, t in run.average.net.state_dict().items()}
    tensors |= {f'balancer.{name}': t for name, t in run.balancer.state_dict().items()}
    tensors |= optimizer_tensors(run.optimizer)
    tensors['random.cpu'] = torch.get_rng_state()
    save_checkpoint(path, tensors, {**describe(run), 'progress': vars(run.progress)})


def restore(run: Run, path: Path) -> None:
    """Go back to where a file was saved.

    Raises:
        CheckpointError: no checkpoint of ours, or one of another network.
    """
    tensors, meta = read_checkpoint(path)
    theirs = from_mapping(Config, meta['config'])
    for key in FIXED:
        found, expected = (entry(config, key) for config in (theirs, run.config))
        if found != expected:
            raise CheckpointError(f'{path} was trained with {key} {found}, expected {expected}')
    run.net.load_state_dict(with_prefix(tensors, 'net.'))
    if run.average:
        weights = with_prefix(tensors, 'ema.') or with_prefix(tensors, 'net.')
        run.average.net.load_state_dict(weights)
    run.balancer.load_state_dict(with_prefix(tensors, 'balancer.'))
    restore_optimizer(run.optimizer, tensors)
    run.progress = Progress(**meta['progress'])
    run.metrics = meta['metrics']
    torch.set_rng_state(tensors['random.cpu'])


def begin_with(run: Run, checkpoints: Sequence[Path]) -> None:
    """Take over the weights of other runs: of a network like this one, or of single tasks.

    Systems that join single-task networks (``cross_stitch``, ``nddr``, ``sluice``) take those of
    ``single_task`` runs, of all tasks from one or of some from each; what joins the tasks begins
    as in a run without.

    Raises:
        CheckpointError: no checkpoint of ours, or weights that do not fit.
    """
    runs = {path: load_checkpoint(path) for path in checkpoints}
    weights: dict[str, Tensor] = {}
    if all(meta['config']['model']['system'] == 'single_task' for _, meta in runs.values()):
        mine = run.net.state_dict()
        weights = {n: tensor for n, tensor in mine.items() if not n.startswith(SINGLE_TASK)}
    for path, (net, _) in runs.items():
        again = weights.keys() & net.state_dict().keys()
        if again:
            raise CheckpointError(f'{path}: {min(again)} is in another of the checkpoints, too')
        weights |= net.state_dict()
    try:
        run.net.load_state_dict(weights)
    except RuntimeError as error:
        mismatch = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f'{", ".join(map(str, checkpoints))}: the weights do not fit '
            f'{run.config.name}: {mismatch}'
        ) from error
    if run.average:
        run.average.net.load_state_dict(weights)


def entry(config: Config, key: str) -> Any:
    """The value of a dotted key, as plain data."""
    values = json.loads(json.dumps(to_mapping(config)))
    for part in key.split('.'):
        values = values[part]
    return values
