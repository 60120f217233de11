"""The optimiser of a configuration: what learns how fast, and what decays."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from mtl_training.checkpoints.config import ConfigError, OptimConfig
from mtl_training.models import ModelError, Network

# Optimisers that divide each step by the size of the gradients that were seen.
ADAPTIVE = ('adam', 'adamw')


def make_optimizer(
    net: Network, optim: OptimConfig, others: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """The optimiser of a configuration.

    Networks may ask for other learning rates (``Network.learning_rates``), and so does
    ``backbone_factor``: groups have a ``factor``. Norms and biases decay only if ``decay_norms``
    says so.

    Args:
        others: parameters outside the network, such as a balancer's, which never decay.

    Raises:
        ConfigError: a factor for the backbone of a system that takes it apart.
    """
    groups: list[dict[str, Any]] = []
    factors = {'': 1.0, **net.learning_rates(adaptive=optim.optimizer in ADAPTIVE)}
    slow = backbone_of(net, optim.backbone_factor)
    owner = {
        name: (max((p for p in factors if name.startswith(p)), key=len), parameter in slow)
        for name, parameter in net.named_parameters()
        if parameter.requires_grad
    }
    for prefix, in_backbone in itertools.product(factors, (False, True)):
        own = [p for name, p in net.named_parameters() if owner.get(name) == (prefix, in_backbone)]
        factor = factors[prefix] * (optim.backbone_factor if in_backbone else 1.0)
        matrices, vectors = [p for p in own if p.ndim > 1], [p for p in own if p.ndim <= 1]
        vector_decay = optim.weight_decay if optim.decay_norms else 0.0
        groups += [
            {'params': matrices, 'weight_decay': optim.weight_decay, 'factor': factor},
            {'params': vectors, 'weight_decay': vector_decay, 'factor': factor},
        ]
    groups.append({'params': list(others), 'weight_decay': 0.0, 'factor': 1.0})
    groups = [group for group in groups if group['params']]
    if optim.optimizer == 'sgd':
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum)
    kind = torch.optim.AdamW if optim.optimizer == 'adamw' else torch.optim.Adam
    return kind(groups, lr=optim.lr)


def backbone_of(net: Network, factor: float) -> set[nn.Parameter]:
    """What has its own rate: the parameters of the backbones, none of them for a factor of 1."""
    if factor == 1:
        return set()
    try:
        return {p for pyramid in net.pyramids() for p in pyramid.parameters()}
    except ModelError as error:
        raise ConfigError(f'optim.backbone_factor is {factor}, expected 1: {error}') from error


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the learning rate of a step."""
    for group in optimizer.param_groups:
        group['lr'] = rate * group['factor']


def freeze(net: Network, stages: int) -> list[nn.Module]:
    """Take the gradients from the stems and first stages of the backbones.

    Returns:
        What is frozen, for the caller to keep in evaluation mode; nothing for 0 stages.

    Raises:
        ConfigError: a backbone that cannot be frozen in parts.
    """
    if stages == 0:
        return []
    try:
        modules = net.early(stages)
    except ModelError as error:
        raise ConfigError(f'optim.frozen_stages is {stages}, expected 0: {error}') from error
    for module in modules:
        module.requires_grad_(False)
    return modules
