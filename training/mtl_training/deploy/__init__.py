"""From a checkpoint to a bundle, and its models in other number formats."""
