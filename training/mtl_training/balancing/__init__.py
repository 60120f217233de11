"""How losses or gradients of several tasks become one step: one method per file."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from mtl_training.balancing.adversarial import AdversarialGradients
from mtl_training.balancing.aggregation import Aggregation
from mtl_training.balancing.alternating import AlternatingTasks
from mtl_training.balancing.balancer import (
    Balance,
    Balancer,
    BalancingError,
    GradientBalancer,
    LossBalancer,
)
from mtl_training.balancing.dtp import DynamicTaskPrioritization
from mtl_training.balancing.dwa import DynamicWeightAveraging
from mtl_training.balancing.fixed import FixedWeights
from mtl_training.balancing.graddrop import GradDrop
from mtl_training.balancing.gradnorm import GradNorm
from mtl_training.balancing.log_scaling import LogScaling
from mtl_training.balancing.lps import LossPrioritization
from mtl_training.balancing.mgda import MGDA
from mtl_training.balancing.pareto_mtl import ParetoMTL
from mtl_training.balancing.sampling import TaskSampling
from mtl_training.balancing.uncertainty import UncertaintyWeighting
from mtl_training.balancing.uniform import UniformWeights
from mtl_training.bounds import refusal

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
    'uniform': UniformWeights,
    'uncertainty': UncertaintyWeighting,
    'log_scaling': LogScaling,
    'dwa': DynamicWeightAveraging,
    'lps': LossPrioritization,
    'dtp': DynamicTaskPrioritization,
    'sampling': TaskSampling,
    'alternating': AlternatingTasks,
    'adversarial': AdversarialGradients,
    'gradnorm': GradNorm,
    'mgda': MGDA,
    'pareto_mtl': ParetoMTL,
    'graddrop': GradDrop,
    'torchjd': Aggregation,
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
    _, *parameters = inspect.signature(METHODS[method]).parameters.values()
    known = [parameter.name for parameter in parameters]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise BalancingError(
            f'balancing method {method} has no option {unknown[0]!r}; '
            f'it has: {", ".join(known) or "none"}'
        )
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in options]
    if missing:
        raise BalancingError(f'balancing method {method} needs the option {missing[0]}')
    for option in parameters:
        if option.name in options and (wrong := refusal(option, options[option.name])):
            raise BalancingError(f'balancing method {method} has the option {wrong}')
    return METHODS[method](tasks, **options)
