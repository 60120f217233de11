"""Runs are timed in turns, on a clock of the test."""

from __future__ import annotations

import math

import pytest

from mtl_perception.bundle import load_bundle
from mtl_perception.engines.engine import EngineError
from mtl_perception.engines.timing import Rounds, Timing, noise, time_engines, time_runs


class Bench:
    """Runs that take their time on the bench's own clock; ``order`` is who ran."""

    def __init__(self, **seconds):
        self.now, self.order = 0.0, []
        self.runs = {name: self.run_of(name, value) for name, value in seconds.items()}

    def run_of(self, name, seconds):
        def run():
            self.order.append(name)
            self.now += seconds

        return run

    def time(self, **rounds):
        return time_runs(self.runs, Rounds(**rounds), clock=lambda: self.now)


def test_every_run_is_timed_and_the_warm_up_is_not():
    bench = Bench(a=0.5, b=0.25)
    found = bench.time(warm_up=2, least=3)
    assert {name: timing.ms for name, timing in found.items()} == {'a': (500,) * 3, 'b': (250,) * 3}
    assert bench.order.count('a') == 5
    assert len(found['a'].cpu_ms) == 3
    assert all(used >= 0 for used in found['a'].cpu_ms)


def test_the_order_moves_on():
    bench = Bench(a=1, b=1, c=1)
    bench.time(warm_up=0, least=4)
    assert ''.join(bench.order) == 'abcbcacababc'


def test_rounds_go_on_until_the_time_is_over_or_there_were_enough():
    assert len(Bench(a=1, b=2).time(warm_up=1, seconds=10)['a'].ms) == 4  # 12 s of 10
    assert len(Bench(a=1, b=2).time(warm_up=1, least=7, seconds=10)['a'].ms) == 7
    assert len(Bench(a=1, b=2).time(warm_up=1, most=2, seconds=10)['a'].ms) == 2


def test_in_its_turn_a_candidate_runs_for_some_time_and_at_least_once():
    bench = Bench(fast=0.25, slow=2)
    found = bench.time(warm_up=1, turn_s=0.9)
    assert ''.join(name[0] for name in bench.order) == 'fssffff'
    assert len(found['fast'].ms) == 4


def test_what_fails_is_left_out_with_its_reason():
    bench = Bench(good=1)

    def fail():
        bench.order.append('bad')
        if bench.order.count('good') == 2:
            raise EngineError('out of memory')

    bench.runs = {'bad': fail, **bench.runs}
    found = bench.time(warm_up=0, least=4)
    assert found['bad'] == Timing(failure='out of memory')
    assert len(found['good'].ms) == 4
    assert bench.order[-2:] == ['good', 'good']  # it was not tried again
    bench.runs, bench.order = {'bad': fail}, ['good', 'good']
    assert bench.time(least=4)['bad'].failure == 'out of memory'


def test_whose_turn_it_is_is_told_and_may_end_it():
    def enough(name):
        if name == 'b':
            raise KeyboardInterrupt

    bench = Bench(a=1, b=1)
    with pytest.raises(KeyboardInterrupt):
        time_runs(bench.runs, Rounds(), turn=enough)
    assert bench.order == ['a']


def test_the_median_is_that_of_the_runs():
    assert Timing(ms=(9.0, 1.0, 2.0)).median_ms == 2.0
    assert Timing(ms=(0.0, 10.0)).percentile(95) == 9.5
    assert math.isnan(Timing().median_ms)


def test_engines_run_on_images_of_their_bundle(tiny_bundle):
    seen = []

    class Engine:
        def run(self, images, outputs):
            seen.append((images.shape, images.dtype.name, outputs))

    images = noise(load_bundle(tiny_bundle), 2)
    assert images.std() > 50
    time_engines({'a': Engine()}, images, ['depth'], Rounds(warm_up=0))
    assert seen == [((2, 64, 96, 3), 'uint8', ['depth'])]
