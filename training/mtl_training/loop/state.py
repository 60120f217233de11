"""The state of a run as a file, and back: to resume, or to begin with what others have learned."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
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
from mtl_training.models.network import Network

# What single-task networks are made of; systems that join them name it alike.
SINGLE_TASK = ('backbones.', 'heads.')
# What the tensors of a run depend on; anything else may be changed before it is resumed.
FIXED = (
    'model',
    'tasks',
    'task_set',
    'classes',
    'balancing',
    'optim.optimizer',
    'optim.frozen_stages',
)


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


def begin_with(run: Run, checkpoints: Sequence[Path]) -> list[str]:
    """Take over the weights of other runs: of a network like this one, or of single tasks.

    What all tasks share has to fit. Of what is of one task each, what does not fit begins as in a
    run without: another number of classes, or a task that the other network does not have.

    Systems that join single-task networks (``cross_stitch``, ``nddr``, ``sluice``) take those of
    ``single_task`` runs, of all tasks from one or of some from each; what joins the tasks begins
    as in a run without.

    Returns:
        The modules and tensors of one task each that begin anew.

    Raises:
        CheckpointError: no checkpoint of ours, or weights that do not fit.
    """
    runs = {path: load_checkpoint(path) for path in checkpoints}
    weights: dict[str, Tensor] = {}
    mine = run.net.state_dict()
    single = all(meta['config']['model']['system'] == 'single_task' for _, meta in runs.values())
    if single:
        weights = {n: tensor for n, tensor in mine.items() if not n.startswith(SINGLE_TASK)}
    for path, (net, _) in runs.items():
        again = weights.keys() & net.state_dict().keys()
        if again:
            raise CheckpointError(f'{path}: {min(again)} is in another of the checkpoints, too')
        weights |= net.state_dict()
    anew: list[str] = []
    if not single:
        fitting = {n: t for n, t in weights.items() if n in mine and t.shape == mine[n].shape}
        others = {name for net, _ in runs.values() for name in names_of_one_task(net)}
        anew = [name for name in mine if name not in fitting]
        if set(anew) <= names_of_one_task(run.net) and weights.keys() - fitting.keys() <= others:
            weights = mine | fitting
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
    return gathered(anew, mine)


def names_of_one_task(net: Network) -> set[str]:
    """The names of all tensors that are of one task each."""
    modules = {id(module) for module in net.of_one_task()}
    paths = [f'{path}.' for path, module in net.named_modules() if id(module) in modules]
    return {name for name in net.state_dict() if name.startswith(tuple(paths))}


def gathered(names: Collection[str], every: Iterable[str]) -> list[str]:
    """The fewest modules and tensors that are exactly these tensors, of all that there are."""
    others = [other.split('.') for other in set(every) - set(names)]

    def module(name: str) -> str:
        path = name.split('.')
        lengths = range(1, len(path) + 1)
        mixed = (any(other[:length] == path[:length] for other in others) for length in lengths)
        return '.'.join(path[: 1 + sum(mixed)])

    return list(dict.fromkeys(map(module, names)))


def entry(config: Config, key: str) -> Any:
    """The value of a dotted key, as plain data."""
    values = json.loads(json.dumps(to_mapping(config)))
    for part in key.split('.'):
        values = values[part]
    return values
