"""From a checkpoint to a bundle, in several number formats, each checked before it is there."""

from __future__ import annotations

from mtl_perception.engines import telemetry
from mtl_training import TrainingError

telemetry.switch_off()


class DeployError(TrainingError):
    """A bundle that cannot be made or quantised, in one sentence."""
