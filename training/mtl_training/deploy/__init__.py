"""From a checkpoint to a bundle, in several number formats, each checked before it is there."""

from __future__ import annotations

from mtl_training import TrainingError


class DeployError(TrainingError):
    """A bundle that cannot be made or quantised, in one sentence."""
