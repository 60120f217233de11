"""Checkpoints: one safetensors file with the tensors, and JSON metadata that says what they are."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mtl_perception.files import beside
from mtl_training import TrainingError
from mtl_training.checkpoints.bundles import BundleError, read_bundle
from mtl_training.checkpoints.config import Config, ConfigError, convert, from_mapping, to_mapping
from mtl_training.checkpoints.weights import read_weights
from mtl_training.labels import LabelClass, as_table, from_table
from mtl_training.models import Network, build
from mtl_training.protocols import PROTOCOLS
from mtl_training.tasks import TASK_SETS, Task, TaskSet, choose


class CheckpointError(TrainingError):
    """A file that is no checkpoint of ours, or one of another network."""


def build_network(config: Config, *, pretrained: bool | str) -> Network:
    """The network of a configuration, with freshly initialised decoders."""
    auxiliary = auxiliary_tasks(config)
    return build(
        config.model.system,
        config.model.backbone,
        {name: task.channels for name, task in config_tasks(config).items()},
        auxiliary={name: task.channels for name, task in auxiliary.items()},
        pretrained=pretrained,
        **config.model.options,
    )


def config_tasks(config: Config) -> TaskSet:
    """The tasks of a configuration, with its loss weights."""
    return choose(known_tasks(config), config.tasks, config.weights)


def auxiliary_tasks(config: Config) -> TaskSet:
    """The tasks that are trained only for the sake of the others."""
    return choose(known_tasks(config), config.model.auxiliary, config.weights)


def known_tasks(config: Config, classes: Sequence[LabelClass] = ()) -> TaskSet:
    """The task set of a configuration, with the losses of its protocol and its own.

    Args:
        classes: of the semantic task; left out, the configuration's.

    Raises:
        ConfigError: ``losses`` names a task or a setting that does not exist.
    """
    tasks = TASK_SETS[config.task_set](classes or config.label_classes)
    if config.protocol:
        tasks = PROTOCOLS[config.protocol].with_losses(tasks, config.task_set)
    for name, values in config.losses.items():
        if name not in tasks:
            raise ConfigError(f'unknown key losses.{name}, expected one of {", ".join(tasks)}')
        tasks[name] = replace(tasks[name], **loss_settings(tasks[name], values))
    return tasks


def loss_settings(task: Task, values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a task that its loss depends on; its weight is among the configuration's weights.

    Raises:
        ConfigError: unknown ones, of another type, or out of bounds.
    """
    hints, plain = get_type_hints(type(task), include_extras=True), get_type_hints(type(task))
    settings = [item.name for item in fields(task) if plain[item.name] in (bool, float)]
    known = [name for name in settings if name not in ('weight', 'temperature')]
    for key in values:
        if key not in known:
            raise ConfigError(
                f'unknown key losses.{task.name}.{key}, expected {" or ".join(known) or "none"}'
            )
    return {
        key: convert(hints[key], value, f'losses.{task.name}.{key}')
        for key, value in values.items()
    }


def tasks_of(meta: Mapping[str, Any]) -> TaskSet:
    """The tasks of a checkpoint, with the classes that it was trained on."""
    config = from_mapping(Config, meta['config'])
    return choose(known_tasks(config, from_table(meta['classes'])), config.tasks)


def describe_run(
    config: Config, net: Network, step: int, metrics: Mapping[str, Any]
) -> dict[str, Any]:
    """The metadata of a checkpoint, as plain data.

    Returns:
        ``config`` (as in the YAML file), ``step``, ``canonical_focal``, ``height``, ``width``,
        ``mean`` and ``std`` (of images in 0..1), ``tasks`` (name -> channels), ``classes`` (id,
        name, color), ``metrics`` (of the last validation) and ``commit`` (of the training code, or
        None).
    """
    return {
        'schema': 1,
        'config': to_mapping(config),
        'step': step,
        'canonical_focal': config.data.canonical_focal,
        'height': config.data.height,
        'width': config.data.width,
        'mean': list(net.mean),
        'std': list(net.std),
        'tasks': {name: task.channels for name, task in config_tasks(config).items()},
        'classes': as_table(config.label_classes),
        'metrics': dict(metrics),
        'commit': _commit(),
    }


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and metadata; the file is whole at any time."""
    with beside(path) as partial:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            partial,
            metadata={'mtl_training': json.dumps(meta)},
        )


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors of a checkpoint, on the CPU, and its metadata.

    The folder of a bundle is one, too: of the weights alone.

    Names begin with ``net.`` (weights), ``ema.`` (their moving average), ``balancer.``,
    ``optimizer.`` or ``random.``.

    Raises:
        CheckpointError: the file is missing, is not safetensors, or has none of our metadata.
    """
    if Path(path).is_dir():
        try:
            return read_weights(read_bundle(Path(path)).model)
        except BundleError as error:
            raise CheckpointError(f'{path} cannot be read as a checkpoint: {error}') from error
    try:
        with safe_open(path, framework='pt') as file:
            meta = (file.metadata() or {}).get('mtl_training')
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own, undocumented class
        raise CheckpointError(f'{path} cannot be read as a checkpoint: {error}') from error
    if meta is None:
        raise CheckpointError(
            f'{path} has no mtl_training metadata, expected a file that train wrote'
        )
    return tensors, json.loads(meta)


def load_checkpoint(path: str | Path) -> tuple[Network, dict[str, Any]]:
    """The trained network of a checkpoint, with averaged weights if there are any.

    Raises:
        CheckpointError: as ``read_checkpoint``, or weights that do not fit the network.
    """
    tensors, meta = read_checkpoint(path)
    config = from_mapping(Config, meta['config'])
    net = build_network(config, pretrained=False)
    kind = 'ema.' if any(name.startswith('ema.') for name in tensors) else 'net.'
    weights = with_prefix(tensors, kind)
    if missing := sorted(net.state_dict().keys() - weights.keys()):
        raise CheckpointError(
            f'{path} has no {missing[0]} ({len(missing)} of {len(net.state_dict())} tensors are '
            'missing); a bundle has only what its own outputs need'
        )
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f'{path}: the weights do not fit {config.model.backbone}: {error}'
        ) from error
    return net.eval(), meta


def with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser, flat: ``optimizer.<parameter number>.<name>``."""
    state = optimizer.state_dict()['state']
    return {
        f'optimizer.{index}.{name}': value
        for index, entries in state.items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what ``optimizer_tensors`` gave; the parameter groups keep their settings."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in with_prefix(tensors, 'optimizer.').items():
        index, key = name.split('.', 1)
        state.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()['param_groups']
    optimizer.load_state_dict({'state': state, 'param_groups': groups})


def _commit() -> str | None:
    """The commit of this code, with -dirty if it was changed since; None outside of a checkout."""
    command = ['git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*']
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
