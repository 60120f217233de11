"""What the training loop knows of balancing: methods that weigh losses, and methods that look at
gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mtl_training import TrainingError


class BalancingError(TrainingError):
    """A method that cannot be used as it was asked for."""


class Balancer(nn.Module):
    """What both kinds have in common: names of tasks, and a state that may change with every step.

    The state is buffers and parameters. All are kept in checkpoints; parameters make their steps
    with the network's.

    Losses come by task, of the tasks only that a batch has labels of: where data are partly
    labelled, a method balances what there is, and what it knows of the others stays as it was.

    Attributes:
        tasks: names, in the order of what a method remembers.
        positive: whether the method has no meaning for losses below 0, as of a likelihood.
        weighted: whether losses come times the weights of the tasks.
    """

    positive: bool = False
    weighted: bool = True

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    def present(self, losses: Mapping[str, Tensor]) -> list[str]:
        """The tasks that have a loss, in the order of ``tasks``."""
        return [task for task in self.tasks if task in losses]

    def begin_epoch(self, frames: Mapping[str, int]) -> None:
        """Told before the first step of every epoch.

        Args:
            frames: how many of the epoch's frames are from sets with labels, by task.
        """

    def observe(self, losses: Mapping[str, Tensor]) -> None:
        """Told after every step.

        Args:
            losses: of the step by task, without their graph; the mean over all processes.
        """


class LossBalancer(Balancer):
    """A method that only weighs losses.

    Attributes:
        selective: whether it leaves tasks out of steps that have labels.
        wants_figures: whether it wants to know how good predictions are: ``look``.
        wants_features: whether it wants to see what the tasks share: ``meet`` and ``penalties``.
    """

    selective: bool = False
    wants_figures: bool = False
    wants_features: bool = False

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Losses by task -> what is to become smaller, whose gradient in them weighs the tasks."""
        raise NotImplementedError

    def look(self, figures: Mapping[str, float]) -> None:
        """Told before ``forward``.

        Args:
            figures: of the batch by task, ``Task.quality`` of its metric; the mean over processes.
        """

    def meet(self, channels: Sequence[int]) -> None:
        """Told once, before there is an optimiser.

        Args:
            channels: of the features that leave ``Network.shared_features()``.
        """

    def penalties(
        self, losses: Mapping[str, Tensor], features: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Further terms of what is to become smaller, by name.

        Args:
            losses: of this process's batch, with their graph.
            features: [B, C, h, w] that left ``Network.shared_features()``, parts of that graph.
        """
        return {}


class Balance(NamedTuple):
    """What a gradient method decides.

    Attributes:
        shared: [N] what stands for the gradient of what the tasks share.
        own: [T] factors of each task's gradient of what is not shared.
        weights: [T] of the gradients in ``shared``, where it is a sum of them; for the log.
    """

    shared: Tensor
    own: Tensor
    weights: Tensor | None = None


class GradientBalancer(Balancer):
    """A method that looks at the gradients of every task.

    Parameters of the method get their ``grad`` in ``forward``, from the method itself.

    Attributes:
        of: what gradients are of: ``Network.shared_parameters()``, or the features that leave
            ``Network.shared_features()``.
        wants_values: whether it wants to know what they are: ``see``.
    """

    wants_values: bool = False
    of: Literal['parameters', 'features'] = 'parameters'

    def see(self, values: Sequence[Tensor]) -> None:
        """Told before ``forward``.

        Args:
            values: what the gradients are of, in the order of their entries.
        """

    def forward(self, gradients: Tensor, losses: Mapping[str, Tensor]) -> Balance:
        """A step from what each task wants.

        Args:
            gradients: [T, N] of the losses, one row for each of them.
            losses: by task, without their graph, in the order of ``tasks``.
        """
        raise NotImplementedError

    def places(self, losses: Mapping[str, Tensor]) -> list[int]:
        """Where the tasks of the rows are in ``tasks``."""
        return [self.tasks.index(task) for task in losses]


class EpochBalancer(LossBalancer):
    """A method that goes by the mean losses of whole epochs."""

    total: Tensor  # [N] sum of the losses of this epoch
    steps: Tensor  # [N] how many there were

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.register_buffer('total', torch.zeros(len(tasks)))
        self.register_buffer('steps', torch.zeros(len(tasks)))

    def observe(self, losses: Mapping[str, Tensor]) -> None:
        """Counts a step."""
        for place, task in enumerate(self.tasks):
            if task in losses:
                self.total[place] += losses[task]
                self.steps[place] += 1

    def finish_epoch(self) -> Tensor:
        """Mean losses [N] of the epoch that is over: 0 / 0 is NaN where there were none."""
        mean = self.total / self.steps
        self.total, self.steps = torch.zeros_like(self.total), torch.zeros_like(self.steps)
        return mean

    def weights(self) -> Tensor:
        """w [N] of this epoch."""
        raise NotImplementedError

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """L_t by task -> sum_t w_t L_t."""
        weights = dict(zip(self.tasks, self.weights(), strict=True))
        return torch.stack([weights[task] * losses[task] for task in self.present(losses)]).sum()
