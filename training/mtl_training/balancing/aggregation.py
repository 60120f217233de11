"""Aggregators of torchjd: what the literature has beside the methods of the survey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_training.balancing.balancer import Balance, BalancingError, GradientBalancer

# name -> (class of torchjd.aggregation, what it needs that torchjd has no default for)
AGGREGATORS: dict[str, tuple[str, dict[str, Any]]] = {
    'mgda': ('MGDA', {}),  # Desideri 2012; Sener & Koltun, NeurIPS 2018
    'graddrop': ('GradDrop', {}),  # Chen et al., NeurIPS 2020, on parameters
    'pcgrad': ('PCGrad', {}),  # Yu et al., NeurIPS 2020
    'cagrad': ('CAGrad', {'c': 0.4}),  # Liu et al., NeurIPS 2021; c of its Table 1, on NYU-v2
    'imtl_g': ('IMTLG', {}),  # Liu et al., ICLR 2021
    'aligned_mtl': ('AlignedMTL', {}),  # Senushkin et al., CVPR 2023
    'nash_mtl': ('NashMTL', {}),  # Navon et al., ICML 2022
    'upgrad': ('UPGrad', {}),  # Quinton & Rey, 2024
}


class Aggregation(GradientBalancer):
    """A(J): an aggregator of torchjd makes one step of the gradients J [T, N] of all tasks.

    Tasks' own parameters descend along their own gradients as they are, as under torchjd's
    ``mtl_backward``. Aggregators scale their steps as their papers do: mgda, cagrad, aligned_mtl
    and upgrad give (something like) means of gradients, where fixed weights give the sum.

    Draws, of graddrop and pcgrad, depend on nothing but the number of the step; what nash_mtl
    remembers is a part of the state. nash_mtl wants all tasks in every batch.

    >>> losses = {'a': torch.ones(()), 'b': torch.ones(())}
    >>> conflict = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    >>> step = Aggregation(['a', 'b'], aggregator='upgrad')(conflict, losses).shared
    >>> bool((conflict @ step >= 0).all())
    True

    Args:
        tasks: names.
        aggregator: a key of ``AGGREGATORS``.
        arguments: of the aggregator's class, as torchjd documents them.
        features: whether gradients are of the shared features.

    Raises:
        BalancingError: torchjd or something that the aggregator needs is not installed, or it
            refuses the arguments.
    """

    step: Tensor  # []
    alpha: Tensor  # [N] of nash_mtl

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        aggregator: str,
        arguments: Mapping[str, Any] | None = None,
        features: bool = False,
    ) -> None:
        super().__init__(tasks)
        arguments = {} if arguments is None else arguments
        if not isinstance(arguments, Mapping):
            raise BalancingError(f'arguments of {aggregator} are {arguments!r}, expected a mapping')
        if aggregator not in AGGREGATORS:
            raise BalancingError(
                f'aggregator is {aggregator!r}, expected one of {", ".join(AGGREGATORS)}'
            )
        name, defaults = AGGREGATORS[aggregator]
        if aggregator == 'nash_mtl':
            defaults = {'n_tasks': len(tasks)}
            if 'update_weights_every' in arguments:
                raise BalancingError(
                    'nash_mtl bargains in every step here: no update_weights_every'
                )
        self.name = aggregator
        self.of = 'features' if features else 'parameters'
        self.aggregate = _make(name, {**defaults, **arguments})
        self.register_buffer('step', torch.zeros((), dtype=torch.long))
        self.register_buffer('alpha', torch.ones(len(tasks), dtype=torch.float64))

    def forward(self, gradients: Tensor, losses: Mapping[str, Tensor]) -> Balance:
        """Gradients [T, N] -> A(J) [N]; each task's own gradient as it is."""
        own = gradients.new_ones(len(gradients))
        devices = [gradients.device] if gradients.device.type == 'cuda' else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(int(self.step))
            self.step += 1
            if self.name != 'nash_mtl':
                return Balance(self.aggregate(gradients), own)
            return Balance(self.bargain(gradients), own)

    def bargain(self, gradients: Tensor) -> Tensor:
        """The step of Nash-MTL, which begins its search at the alpha of the step before."""
        if len(gradients) != len(self.tasks):
            raise BalancingError(
                f'nash_mtl got {len(gradients)} tasks, expected labels of all of '
                f'{", ".join(self.tasks)} in every batch'
            )
        weighting = self.aggregate.weighting
        weighting.prvs_alpha = self.alpha.cpu().numpy()
        step: Tensor = self.aggregate(gradients)
        self.alpha.copy_(torch.from_numpy(weighting.prvs_alpha))
        return step


def _make(name: str, arguments: Mapping[str, Any]) -> Any:
    """An aggregator of torchjd."""
    try:
        from torchjd import aggregation

        return getattr(aggregation, name)(**arguments)
    except ImportError as error:
        raise BalancingError(
            f"{name} of torchjd cannot be imported: pip install 'torchjd[full]' ({error})"
        ) from error
    except (TypeError, ValueError) as error:
        raise BalancingError(f'arguments of {name} are {dict(arguments)}: {error}') from error
