"""The training loop: steps, schedules, gradients, the state of a run."""
