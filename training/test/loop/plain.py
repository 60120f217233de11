"""The command ``mtl_training`` with a small system without norms, for several processes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mtl_training import cli
from mtl_training.models import SYSTEMS
from mtl_training.models.network import Auxiliary, Network, Plan, Predictions
from torch import Tensor, nn


class Plain(Network):
    """Three convolutions, a head for each task twice, and a penalty of a weight."""

    def __init__(self, tasks: Mapping[str, int]) -> None:
        super().__init__(tasks, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)
        )
        self.heads = nn.ModuleDict({task: nn.Conv2d(8, c, 1) for task, c in tasks.items()})
        self.again = nn.ModuleDict({task: nn.Conv2d(8, c, 1) for task, c in tasks.items()})

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> Plain:
        return cls(plan.tasks)

    def predictions(self, image: Tensor) -> Predictions:
        x = self.encoder(image).relu()
        final, again = (
            {task: head(x) for task, head in heads.items()} for heads in (self.heads, self.again)
        )
        return Predictions(final, [Auxiliary(again, weight=0.5)])

    def penalties(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {'size': 0.1 * self.encoder[0].weight.square().sum()}

    def of_one_task(self) -> list[nn.Module]:
        return [self.heads, self.again]

    def shared_features(self) -> list[nn.Module]:
        return [self.encoder]


if __name__ == '__main__':
    SYSTEMS['plain'] = Plain
    sys.exit(cli.main())
