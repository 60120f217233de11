"""Networks as files: how one is configured, checkpoints of a training, bundles of the runtime."""
