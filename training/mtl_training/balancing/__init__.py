"""How losses or gradients of several tasks become one step: one method per file."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from mtl_training.balancing.balancer import (
    Balance,
    Balancer,
    BalancingError,
    GradientBalancer,
    LossBalancer,
)
from mtl_training.balancing.dwa import DynamicWeightAveraging
from mtl_training.balancing.fixed import FixedWeights
from mtl_training.balancing.mgda import MGDA
from mtl_training.balancing.uncertainty import UncertaintyWeighting

__all__ = [
    'METHODS',
    'Balance',
    'Balancer',
    'BalancingError',
    'GradientBalancer',
    'LossBalancer',
    'make_balancer',
]

METHODS: dict[str, type[LossBalancer | GradientBalancer]] = {
    'fixed': FixedWeights,
    'uncertainty': UncertaintyWeighting,
    'dwa': DynamicWeightAveraging,
    'mgda': MGDA,
}


def make_balancer(
    method: str, tasks: Sequence[str], **options: Any
) -> LossBalancer | GradientBalancer:
    """A method by its name.

    Args:
        tasks: whose losses it balances.
        options: the keyword arguments of the method; the paper's values where left out.

    Raises:
        BalancingError: an unknown method or option, or a value that the method refuses.
    """
    if method not in METHODS:
        raise BalancingError(
            f'unknown balancing method {method!r}, expected one of {", ".join(METHODS)}'
        )
    _, *known = inspect.signature(METHODS[method]).parameters
    unknown = [name for name in options if name not in known]
    if unknown:
        raise BalancingError(
            f'balancing method {method} has no option {unknown[0]!r}; '
            f'it has: {", ".join(known) or "none"}'
        )
    return METHODS[method](tasks, **options)
