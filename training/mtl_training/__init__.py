"""Trains, compares and exports the multi-task networks that mtl_perception runs on robots."""

__version__ = '0.1.0'


class TrainingError(Exception):
    """What this package raises on purpose; the message is one sentence, made for the user."""
