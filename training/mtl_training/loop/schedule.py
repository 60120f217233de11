"""The learning rate of a step."""

from __future__ import annotations

from mtl_training.checkpoints.config import OptimConfig


def learning_rate(optim: OptimConfig, step: int, epoch_step: int = 0) -> float:
    """lr * min(1, (step + 1) / warmup_steps) * (1 - s / max_steps) ** power.

    s is the step, or with ``optim.poly_by == 'epoch'`` the first step of its epoch, as in the
    survey's code, whose rate stays the same for a whole epoch.

    Args:
        step: how many steps were made.
        epoch_step: how many of them in this epoch.
    """
    done = step - epoch_step if optim.poly_by == 'epoch' else step
    warm = min(1.0, (step + 1) / max(optim.warmup_steps, 1))
    return optim.lr * warm * max(0.0, 1 - done / optim.max_steps) ** optim.power
