"""The training loop: configuration, steps, checkpoints."""
