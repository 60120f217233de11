"""What a protocol of the literature fixes, for each of its data sets: training and judging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from mtl_training import TrainingError

if TYPE_CHECKING:
    from mtl_training.tasks import TaskSet

Settings = Mapping[str, Any]


class ProtocolError(TrainingError):
    """What a protocol does not fix, or what of it cannot be done here."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A protocol on one data set.

    Attributes:
        config: of a training, as in its YAML file: ``data``, ``optim`` and ``augment``.
        losses: attributes of tasks, by task, in which they differ from the task set.
        edges: arguments of ``OdsF``.
        not_augmented: what of its augmentation cannot be done here, in a few words; empty if all
            can.
    """

    config: Mapping[str, Settings]
    losses: Mapping[str, Settings] = field(default_factory=dict)
    edges: Settings
    not_augmented: str = ''


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How one of the code bases measures to which the literature's tables go back.

    Attributes:
        name: of ``PROTOCOLS``.
        resolution: at which predictions are judged: that of the stored pictures, to which they are
            brought by way of 8-bit files, or the network's own.
        saliency: the figure of it: the largest F of all thresholds over the whole set, or the
            largest mean of the pictures' IoU.
        settings: by task set.
    """

    name: str
    resolution: Literal['native', 'network']
    saliency: Literal['maxf', 'miou']
    settings: Mapping[str, Setting]

    def on(self, task_set: str) -> Setting:
        """Its part for a task set.

        Raises:
            ProtocolError: it has none.
        """
        if task_set not in self.settings:
            raise ProtocolError(
                f'protocol {self.name} is for task_set {" or ".join(self.settings)}, not {task_set}'
            )
        return self.settings[task_set]

    def under(self, values: Settings) -> dict[str, Any]:
        """A configuration on top of what the protocol fixes.

        Args:
            values: as in a YAML file; what is said there counts.

        Raises:
            ProtocolError: the protocol cannot be followed in full, and the configuration does not
                say what to do instead.
        """
        setting = self.on(str(values.get('task_set', '')))
        if setting.not_augmented and 'augment' not in values:
            raise ProtocolError(
                f'protocol {self.name} augments by {setting.not_augmented}, which cannot be done '
                'here; expected a key augment that says how to augment instead'
            )
        merged = dict(values)
        for section, own in setting.config.items():
            merged[section] = {**own, **values.get(section, {})}
        return merged

    def with_losses(self, tasks: TaskSet, task_set: str) -> TaskSet:
        """Tasks with the losses of the protocol."""
        losses = self.on(task_set).losses
        return {name: replace(task, **losses.get(name, {})) for name, task in tasks.items()}
