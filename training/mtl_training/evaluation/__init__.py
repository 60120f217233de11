"""Judging a trained network on held-out frames."""
