"""Uniform weights: every task's loss as it is."""

from __future__ import annotations

from mtl_training.balancing.fixed import FixedWeights


class UniformWeights(FixedWeights):
    """L = sum_t L_t: the survey's "Uniform" (Table V d).

    The weights of the tasks are left aside. A grid search over weights begins here: it is a sweep
    over ``weights`` under ``fixed``.
    """

    weighted = False
