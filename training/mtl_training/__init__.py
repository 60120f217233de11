"""Trains, compares and exports the multi-task networks that mtl_perception runs on robots."""

__version__ = '0.1.0'
