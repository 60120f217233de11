"""Heads that nobody wants are not computed, and nobody waits for that."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from mtl_perception.bundle import load_bundle
from mtl_perception.engines.engine import EngineError, EngineOptions
from mtl_perception.engines.opening import open_unchecked
from mtl_perception.engines.parts import IDLE_S, MOST, RUNS_BEFORE, Part, Parts

GRAY = np.full((1, 64, 96, 3), 100, np.uint8)


class Model:
    """Makes parts of a model whose outputs are all 1, and lets a test hold them up."""

    def __init__(self):
        self.opened = []
        self.value = 1
        self.failure = None
        self.go = threading.Event()
        self.go.set()

    def open(self, outputs):
        assert self.go.wait(60)
        if self.failure is not None:
            raise self.failure
        self.opened.append(list(outputs))
        run = SimpleNamespace(outputs=list(outputs), value=self.value)
        return Part(lambda images, names: self.arrays(images, names, run.value))

    def whole(self, images, names):
        return self.arrays(images, names, 1)

    @staticmethod
    def arrays(images, names, value):
        shapes = {'normals': images.shape}
        dtypes = {'normals': np.float32, 'depth': np.float32}
        return {
            name: np.full(shapes.get(name, images.shape[:3]), value, dtypes.get(name, np.uint8))
            for name in names
        }


def settle():
    """Wait until no part is being opened."""
    for thread in threading.enumerate():
        if thread.name == 'cut':
            thread.join(60)


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def clock():
    return SimpleNamespace(now=0.0)


@pytest.fixture
def parts(model, clock, tiny_bundle):
    bundle = load_bundle(tiny_bundle)
    parts = Parts(model.whole, model.open, bundle, 'fp32', clock=lambda: clock.now)
    yield parts
    model.go.set()
    parts.close()


def want(parts, *outputs, times=RUNS_BEFORE):
    """Want outputs so often that a part is worth while; what runs the last time."""
    runs = [parts.runner(outputs) for _ in range(times)]
    return runs[-1]


def test_what_is_wanted_for_a_while_gets_a_part_and_until_then_the_whole_runs(parts, model):
    assert want(parts, 'semantic', times=RUNS_BEFORE - 1) == model.whole
    settle()
    assert model.opened == []
    model.go.clear()
    assert want(parts, 'semantic', times=1) == model.whole
    assert want(parts, 'semantic', times=3) == model.whole, 'nobody waits for it'
    model.go.set()
    settle()
    assert parts.runner(['semantic']) != model.whole
    assert model.opened == [['semantic']]


def test_all_outputs_are_the_whole(parts, model, tiny_bundle):
    assert want(parts, *load_bundle(tiny_bundle).outputs) == model.whole
    settle()
    assert model.opened == []


def test_sets_that_come_in_turns_have_their_parts_as_well(parts, model):
    """As of cameras with other subscribers."""
    for _ in range(RUNS_BEFORE + 1):
        for output in ('depth', 'edges'):
            parts.runner([output])
            settle()
    assert sorted(model.opened) == [['depth'], ['edges']]


def test_a_larger_part_serves_until_there_is_a_smaller_one(parts, model):
    want(parts, 'depth', 'semantic', 'edges')
    settle()
    larger = parts.runner(['edges', 'semantic', 'depth'])
    assert larger != model.whole
    assert parts.runner(['semantic']) == larger
    assert parts.runner(['semantic', 'normals']) == model.whole
    want(parts, 'semantic')
    settle()
    assert parts.runner(['semantic']) not in (larger, model.whole)


def test_only_a_few_parts_are_kept_and_those_in_use_stay(parts, model, clock):
    names = ['semantic', 'depth', 'normals', 'edges', 'saliency']
    for name in names[: MOST + 1]:
        want(parts, name)
        settle()
    first, idle, *others, late = names[: MOST + 1]
    assert parts.runner([late]) == model.whole, 'there is no room'
    clock.now += IDLE_S
    for name in (first, *others):
        assert parts.runner([name]) != model.whole
    parts.runner([late])
    settle()
    assert parts.runner([late]) != model.whole
    assert parts.runner([idle]) == model.whole, 'it made room'
    assert parts.runner([first]) != model.whole


def test_a_part_that_cannot_be_opened_is_not_tried_again_and_the_whole_goes_on(parts, model):
    model.failure = EngineError('out of memory')
    want(parts, 'semantic')
    settle()
    model.failure = None
    assert want(parts, 'semantic') == model.whole
    settle()
    assert model.opened == []
    assert parts.problems == {frozenset(['semantic']): 'out of memory'}


def test_a_part_that_computes_something_else_is_not_used(parts, model):
    model.value = 2
    want(parts, 'depth')
    settle()
    assert want(parts, 'depth') == model.whole
    (problem,) = parts.problems.values()
    assert problem.startswith('the part for depth differs: depth relative 1 > 0.0')


def test_closing_waits_for_what_is_being_opened(parts, model):
    model.go.clear()
    want(parts, 'depth')
    closing = threading.Thread(target=parts.close, daemon=True)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    model.go.set()
    closing.join(60)
    assert not closing.is_alive()
    assert parts.runner(['depth']) == model.whole


def test_onnxruntime_does_not_execute_what_nobody_wants(fragile_bundle):
    pytest.importorskip('onnxruntime')
    bundle = load_bundle(fragile_bundle)
    blue = np.full_like(GRAY, 255)
    for cut in (False, True):
        engine = open_unchecked('onnxruntime', bundle, EngineOptions(threads=1, cut=cut))
        with pytest.raises(EngineError):
            engine.run(blue, ['depth', 'saliency', 'edges'])
        for _ in range(RUNS_BEFORE):
            engine.run(GRAY, ['depth'])
        settle()
        if cut:
            assert (engine.run(blue, ['depth'])['depth'] == 255 / 20).all()
        else:
            with pytest.raises(EngineError):
                engine.run(blue, ['depth'])
        with pytest.raises(EngineError):
            engine.run(blue, ['depth', 'edges'])
        assert (engine.run(GRAY, ['edges'])['edges'] == 100).all()
        engine.close()
        with pytest.raises(EngineError, match='closed'):
            engine.run(GRAY, ['depth'])


def test_openvino_compiles_what_is_wanted_and_no_more(tiny_bundle, monkeypatch):
    pytest.importorskip('openvino')
    from mtl_perception.engines.openvino import OpenVinoEngine

    compiled = []
    compile_model = OpenVinoEngine._compile_model

    def spy(self, model):
        compiled.append(sorted(output.get_any_name() for output in model.outputs))
        return compile_model(self, model)

    monkeypatch.setattr(OpenVinoEngine, '_compile_model', spy)
    bundle = load_bundle(tiny_bundle)
    engine = open_unchecked('openvino', bundle, EngineOptions(threads=1, cut=True))
    compiled.clear()  # the whole model, unless it was in the cache
    for _ in range(RUNS_BEFORE):
        engine.run(GRAY, ['depth', 'edges'])
    settle()
    assert compiled == [['depth', 'edges']]
    arrays = engine.run(GRAY, ['edges', 'depth'])
    assert list(arrays) == ['edges', 'depth']
    assert (arrays['depth'] == 5.0).all()
    assert (arrays['edges'] == 100).all()
    engine.close()
