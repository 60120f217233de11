"""What the training loop knows of balancing: methods that weigh losses, and methods that look at
gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn

from mtl_training import TrainingError


class BalancingError(TrainingError):
    """A method that cannot be used as it was asked for."""


class Balancer(nn.Module):
    """What both kinds have in common: names of tasks, and a state that may change with every step.

    The state is buffers and parameters. All are kept in checkpoints; parameters make their steps
    with the network's.

    Attributes:
        tasks: names, in the order of what a method gets and gives.
        positive: whether the method has no meaning for losses below 0, as of a likelihood.
    """

    positive: bool = False

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    def begin_epoch(self) -> None:
        """Told before the first step of every epoch."""

    def observe(self, losses: Mapping[str, Tensor]) -> None:
        """Told after every step.

        Args:
            losses: of the step by task, without their graph; the mean over all processes.
        """


class LossBalancer(Balancer):
    """A method that only weighs losses."""

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Losses by task, times the weights of the tasks -> what is to become smaller."""
        raise NotImplementedError


class Balance(NamedTuple):
    """What a gradient method decides.

    Attributes:
        shared: [N] what stands for the gradient of what the tasks share.
        own: [T] factors of each task's gradient of what is not shared.
    """

    shared: Tensor
    own: Tensor


class GradientBalancer(Balancer):
    """A method that looks at the gradients of every task.

    Parameters of the method get their ``grad`` in ``forward``, from the method itself.

    Attributes:
        of: what gradients are of: ``Network.shared_parameters()``, or the features that leave
            ``Network.shared_features()``.
    """

    of: Literal['parameters', 'features'] = 'parameters'

    def forward(self, gradients: Tensor, losses: Tensor) -> Balance:
        """A step from what each task wants.

        Args:
            gradients: [T, N] of the losses, one row for each task.
            losses: [T], times the weights of the tasks, without their graph.
        """
        raise NotImplementedError
