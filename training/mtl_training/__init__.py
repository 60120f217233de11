"""Trains, compares and exports the multi-task networks that mtl_perception runs on robots."""

from mtl_perception.engines import telemetry

__version__ = '0.1.0'

telemetry.switch_off()  # rooms import onnxruntime, before which it has to be done


class TrainingError(Exception):
    """What this package raises on purpose; the message is one sentence, made for the user."""
