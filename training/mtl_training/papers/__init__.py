"""What papers say and released code has: counts, cards, weights, and where to branch."""

from __future__ import annotations

from mtl_training import TrainingError


class PapersError(TrainingError):
    """What cannot be counted, written, imported or searched, in one sentence."""
