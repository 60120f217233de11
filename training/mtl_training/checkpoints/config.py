"""The configuration of a training run: frozen dataclasses that a YAML file fills, strictly."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import yaml

from mtl_training import TrainingError
from mtl_training.bounds import Amount, Count, Fraction, Positive, Share, Whole, complaint
from mtl_training.datasets.augment import AugmentConfig
from mtl_training.labels import CLASS_SETS, IGNORE, LabelClass, with_names
from mtl_training.protocols import PROTOCOLS

T = TypeVar('T')


class ConfigError(TrainingError):
    """A configuration that cannot be used; the message names the key and what is expected."""


@dataclass(frozen=True)
class ModelConfig:
    """The network, as ``models.build`` takes it."""

    backbone: str
    system: str = 'tif'
    # Weights that the backbone begins with: true for ImageNet's, or a name such as tv_in1k, of
    # ``models.pretrained.WEIGHTS``.
    pretrained: bool | str = False
    auxiliary: tuple[str, ...] = ()  # tasks that are trained for the others' sake
    options: Mapping[str, Any] = field(default_factory=dict)  # of the system


@dataclass(frozen=True)
class DataConfig:
    """What is read and how; ``rescan`` lists a growing folder again at every epoch."""

    height: Count
    width: Count
    canonical_focal: Positive  # px; the network's depth is metres * canonical_focal / fx
    workers: Whole = 1
    rescan: bool = False
    # Progressive resizing: epochs that begin in the first ``small_share`` of the steps use small
    # crops.
    small_share: Share = 0.0
    small_height: Whole = 0
    small_width: Whole = 0

    def __post_init__(self) -> None:
        if self.small_share and not (self.small_height and self.small_width):
            raise ConfigError(
                f'data.small_share is {self.small_share}, data.small_height {self.small_height}, '
                f'data.small_width {self.small_width}; expected sizes above 0'
            )


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and schedule: linear warm-up, then lr * (1 - step / max_steps) ** power."""

    lr: Amount
    max_steps: Whole
    batch_size: Count = 8
    accumulate: Count = 1  # parts in which a batch goes through the network, one after the other
    optimizer: Literal['adamw', 'adam', 'sgd'] = 'adamw'
    weight_decay: Amount = 1e-4  # under adam, as under sgd, a part of the gradient
    decay_norms: bool = False  # whether norms and biases decay, too
    momentum: Fraction = 0.9  # sgd only
    warmup_steps: Whole = 0
    power: Amount = 0.9
    poly_by: Literal['step', 'epoch'] = 'step'  # when the rate falls
    clip_norm: Amount = 0.0  # 0: gradients are not clipped
    ema_decay: Fraction = 0.0  # 0: no moving average of the weights
    # The backbone's share of the learning rate: 0.1 where all else begins anew beside its weights.
    backbone_factor: Positive = 1.0
    # First stages of the backbone (and its stem) that keep weights and statistics; ResNets and
    # EfficientNet.
    frozen_stages: Whole = 0
    loss_stride: Count = 1  # 2: losses on a grid of half the size, for speed


@dataclass(frozen=True)
class BalancingConfig:
    """How the losses of the tasks become one step, as ``balancing.make_balancer`` takes it."""

    method: str = 'fixed'
    options: Mapping[str, Any] = field(default_factory=dict)  # of the method


@dataclass(frozen=True)
class DistillConfig:
    """Trained networks that teach what they predict: see ``loop.distillation``."""

    teachers: tuple[str, ...] = ()  # checkpoints, or folders of bundles
    weight: Amount = 1.0  # of the losses with what they say, beside those with the data's labels
    soft: bool = False  # whether they say how likely everything is; else their labels count alone
    temperature: Positive = 1.0  # T of probabilities, where ``soft``


@dataclass(frozen=True)
class RunConfig:
    """How often things happen, in steps, and on what machine."""

    checkpoint_every: Whole = 200
    validate_every: Whole = 500
    validate_frames: Whole = 100  # 0: all
    picture_every: Whole = 500
    log_every: Whole = 10
    # Angles between the tasks' gradients, see ``gradients.csv``; 0: never.
    gradients_every: Whole = 0
    tensorboard: bool = False  # writes what the CSV files have as events, too
    # No bf16-true: weights of 8 bits lose most steps of the optimiser to rounding.
    precision: Literal['32-true', 'bf16-mixed', '16-mixed'] = '32-true'
    accelerator: str = 'auto'
    devices: Count = 1
    threads: Whole = 0  # 0: as many as torch takes by itself


@dataclass(frozen=True)
class Config:
    """A whole training run."""

    name: str
    model: ModelConfig
    data: DataConfig
    optim: OptimConfig
    tasks: tuple[str, ...]
    task_set: str = 'rooms'
    classes: tuple[str, ...] = ()  # of the semantic task; left out, those of the task set
    protocol: str = ''  # of ``PROTOCOLS``, on whose settings this stands; see ``load_config``
    weights: Mapping[str, Amount] = field(default_factory=dict)  # replaces the tasks' own
    # Settings of the tasks' losses, by task, such as edges: {edge_weight: 0.95}.
    losses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    balancing: BalancingConfig = field(default_factory=BalancingConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    class_balance: Amount = 0.0  # b: semantic classes weigh frequency ** -b, on average 1
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    run: RunConfig = field(default_factory=RunConfig)
    seed: Whole = 0

    def __post_init__(self) -> None:
        for key, names in (('tasks', self.tasks), ('model.auxiliary', self.model.auxiliary)):
            if again := [name for name in names if names.count(name) > 1]:
                raise ConfigError(f'{key} has {again[0]!r} twice, expected different ones')
        twice = [name for name in self.classes if self.classes.count(name) > 1]
        if twice or len(self.classes) > IGNORE:
            found = f'{twice[0]!r} twice' if twice else f'{len(self.classes)} names'
            raise ConfigError(f'classes has {found}, expected at most {IGNORE} different names')

    @property
    def label_classes(self) -> tuple[LabelClass, ...]:
        """The classes of the semantic task: its own, or those of the task set."""
        return with_names(self.classes) if self.classes else CLASS_SETS[self.task_set]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, then apply overrides such as ``optim.lr=1e-3``.

    What neither says is up to the ``protocol``, if one is named.

    Raises:
        ConfigError: unreadable file, unknown or missing key, wrong type, unknown protocol.
        ProtocolError: the protocol cannot be followed.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f'{path}: cannot be read: {error}') from error
    try:
        if not isinstance(values, dict):
            raise ConfigError(f'the file is {values!r}, expected a mapping')
        for override in overrides:
            _override(values, override)
        return from_mapping(Config, _under_protocol(values))
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from error


def from_mapping(cls: type[T], values: object, where: str = '') -> T:
    """Build a dataclass from a mapping, checking keys and types all the way down.

    Raises:
        ConfigError: one sentence that names the key.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f'{where or "the file"} is {values!r}, expected a mapping')
    hints = get_type_hints(cls, include_extras=True)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    unknown = [str(key) for key in values if key not in hints]
    if unknown:
        prefix = f'{where}.' if where else ''
        raise ConfigError(f'unknown key {prefix}{unknown[0]}, expected one of {", ".join(hints)}')
    for item in fields:
        required = (
            item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        )
        if required and item.name not in values:
            raise ConfigError(f'key {where}{"." if where else ""}{item.name} is missing')
    return cls(
        **{
            key: convert(hints[key], value, f'{where}.{key}' if where else key)
            for key, value in values.items()
        }
    )


def to_mapping(config: Config) -> dict[str, Any]:
    """The configuration as plain data, as it goes into checkpoints; inverse of ``from_mapping``."""
    return dataclasses.asdict(config)


def _under_protocol(values: Any) -> Any:
    """The values on top of what their protocol fixes."""
    name = values.get('protocol') if isinstance(values, dict) else None
    if not name:
        return values
    if name not in PROTOCOLS:
        raise ConfigError(f'protocol is {name!r}, expected one of {", ".join(PROTOCOLS)}')
    return PROTOCOLS[name].under(values)


def _override(values: Any, override: str) -> None:
    """Set one dotted key of a nested mapping in place from ``key=yaml``."""
    key, separator, text = override.partition('=')
    if not separator:
        raise ConfigError(f'{override!r} is not an override, expected key=value')
    *parents, last = key.split('.')
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f'{override!r}: {parent} is not a section')
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = ' '.join(str(error).split())
        raise ConfigError(f'{override!r} is not an override, expected YAML: {problem}') from error


def convert(hint: Any, value: Any, where: str) -> Any:
    """Check one value against its type hint; whole numbers pass as floats, lists as tuples."""
    if hint is Any:
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        value = convert(arguments[0], value, where)
        if expected := complaint(value, arguments[1:]):
            raise ConfigError(f'{where} is {value}, expected {expected}')
        return value
    if dataclasses.is_dataclass(hint):
        return from_mapping(hint, value, where)  # type: ignore[arg-type]
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f'{where} is {value!r}, expected one of {", ".join(arguments)}')
        return value
    if origin in (Union, types.UnionType):
        if type(value) in arguments:  # None among them
            return value
        return convert(arguments[0], value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f'{where} is {value!r}, expected a list')
        if arguments[-1] is ...:
            arguments = arguments[:1] * len(value)
        if len(value) != len(arguments):
            raise ConfigError(f'{where} has {len(value)} entries, expected {len(arguments)}')
        return tuple(convert(a, v, where) for a, v in zip(arguments, value, strict=True))
    if origin is not None:  # Mapping[str, X]
        if not isinstance(value, Mapping):
            raise ConfigError(f'{where} is {value!r}, expected a mapping')
        return {str(k): convert(arguments[1], v, f'{where}.{k}') for k, v in value.items()}
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except ValueError:
            pass
    elif isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
        return value
    raise ConfigError(f'{where} is {value!r}, expected {hint.__name__}')
