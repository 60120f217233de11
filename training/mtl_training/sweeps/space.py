"""What a sweep tries: a YAML file, and the trials that it stands for."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mtl_training.checkpoints.config import Config, ConfigError, from_mapping, load_config

ALONE = 'alone'  # beginning of the variants that learn a single task


@dataclass(frozen=True)
class Space:
    """What is tried: all variants, under all settings of the grid, with all seeds.

    Attributes:
        config: of all trials; relative paths are beside the file.
        variants: what is compared, by name: keys of the configuration and their values.
        grid: lists of values by key, whose combinations are settings; several are joined.
        singles: every task alone, under the same settings: what replaces values of the
            configuration there, such as ``{model.system: mtl_baseline}``. Without the key there are
            none.
        seeds: of each.
        settings: values by key for all trials.
    """

    config: str
    variants: Mapping[str, Any]
    grid: tuple[Any, ...] = ({},)
    singles: Any = None
    seeds: tuple[int, ...] = (0,)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        name: of its folder.
        variant: a key of ``Space.variants``, or ``alone TASK``.
        setting: one of the grid's, by key.
        overrides: of the configuration, as ``train --set`` takes them.
    """

    name: str
    variant: str
    setting: Mapping[str, Any]
    seed: int
    config_path: Path
    overrides: tuple[str, ...]

    @property
    def config(self) -> Config:
        """The configuration of the run."""
        return load_config(self.config_path, self.overrides)


def read_trials(path: Path) -> list[Trial]:
    """The trials of a sweep's file, by their names in order.

    Raises:
        ConfigError: a file that cannot be read, a wrong key or value, or a configuration that a
            trial cannot have.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f'{path}: cannot be read: {error}') from error
    try:
        trials = expand(from_mapping(Space, values), path.parent)
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from error
    for trial in trials:
        if not trial.config.run.validate_every:
            raise ConfigError(f'{path}: {trial.name} is never judged: run.validate_every is 0')
    return trials


def expand(space: Space, folder: Path) -> list[Trial]:
    """All trials of a space.

    Args:
        folder: of its file.
    """
    path = folder / space.config
    variants = {
        name: mapping(values, f'variants.{name}') for name, values in space.variants.items()
    }
    if space.singles is not None:
        twins = mapping(space.singles, 'singles')
        base = load_config(path, overrides(space.settings))
        alone = {'balancing': {'method': 'fixed'}, 'model.auxiliary': [], **twins}
        variants |= {f'{ALONE} {task}': {**alone, 'tasks': [task]} for task in base.tasks}
    trials = []
    for (variant, values), setting, seed in itertools.product(
        variants.items(), settings_of(space.grid), space.seeds
    ):
        named = [variant, *(f'{k.split(".")[-1]}={v}' for k, v in setting.items()), f'seed={seed}']
        trials.append(
            Trial(
                re.sub(r'[^\w.,=+-]+', '_', ','.join(named)),
                variant,
                setting,
                seed,
                path,
                overrides({**space.settings, **setting, **values, 'seed': seed}),
            )
        )
    names = [trial.name for trial in trials]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(f'{min(twice)} is there twice')
    return trials


def settings_of(grid: Sequence[Any]) -> list[dict[str, Any]]:
    """All combinations of each mapping of lists, one after the other."""
    settings = []
    for number, entry in enumerate(grid):
        lists = mapping(entry, f'grid[{number}]')
        for key, values in lists.items():
            if not isinstance(values, list) or not values:
                raise ConfigError(f'grid[{number}].{key} is {values!r}, expected a list of values')
        settings += [
            dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())
        ]
    return settings


def mapping(values: Any, where: str) -> dict[str, Any]:
    """A mapping of keys of a configuration; nothing is an empty one."""
    if not isinstance(values or {}, dict):
        raise ConfigError(f'{where} is {values!r}, expected a mapping')
    return {str(key): value for key, value in (values or {}).items()}


def overrides(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys and values as ``train --set`` takes them."""
    return tuple(f'{key}={json.dumps(value)}' for key, value in values.items())
