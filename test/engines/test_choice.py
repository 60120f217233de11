"""The fastest engine that computes the model's numbers is chosen, and the choice is remembered."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mtl_perception.bundle import BundleError, load_bundle
from mtl_perception.engines.cache import EngineCache
from mtl_perception.engines.choice import ROUNDS, Machine, open_engine
from mtl_perception.engines.engine import BACKENDS, EngineError, EngineOptions
from mtl_perception.engines.entries import Key
from mtl_perception.engines.machine import machine_name
from mtl_perception.engines.opening import open_unchecked

pytest.importorskip('onnxruntime')
OPTIONS = EngineOptions(threads=1)
PROBES = 2  # images of ``probed_bundle``: runs of one self-check


class Fake:
    """An engine that gives the model's numbers, or others, and lets a clock go on as it runs."""

    def __init__(self, name, works, clock):
        self.name = name
        self.variant = 'fp32'
        self.identity = dict.fromkeys(('engine', 'version', 'provider', 'device', 'precision'), '-')
        self.milliseconds = 10.0
        self.cached, self.cache_problem = False, ''
        self.wrong = self.closed = False
        self.fails_after = None
        self.runs = 0
        self.works, self._clock = works, clock

    def run(self, images, outputs):
        assert not self.closed
        self.runs += 1
        if self.fails_after is not None and self.runs > self.fails_after:
            raise EngineError(f'{self.name}: out of memory')
        self._clock.now += self.milliseconds / 1e3
        arrays = self.works.run(images, outputs)
        return {**arrays, 'depth': arrays['depth'] * 1.31} if self.wrong else arrays

    def close(self):
        self.closed = True


class Fakes:
    """Engines that are installed on a machine of the test: name -> how to change a fresh engine."""

    def __init__(self, works):
        self.installed = {}
        self.opened = []
        self.clock = SimpleNamespace(now=0.0)
        self.name, self.number = 'an abacus, 2 cores, x86_64', '1.0'
        self.works = works

    def choose(self, *arguments, **keywords):
        """``open_engine`` on this machine."""
        machine = Machine(
            name=lambda: self.name,
            version=lambda name: self.number if name in self.installed else '',
            open=self.open,
            clock=lambda: self.clock.now,
        )
        return open_engine(*arguments, machine=machine, **keywords)

    def open(self, name, bundle, options, *, cache, progress):
        progress(f'building {name}', 0.5)
        change = self.installed.get(name)
        if change is None:
            raise EngineError(f'the backend {name!r} needs the Python package {name}')
        if isinstance(change, Exception):
            raise change
        engine = Fake(name, self.works, self.clock)
        engine.options = options
        for key, value in change.items():
            setattr(engine, key, value)
        self.opened.append(engine)
        return engine


@pytest.fixture
def bundle(probed_bundle):
    return load_bundle(probed_bundle)


@pytest.fixture
def fakes(bundle):
    """A machine with openvino (10 ms) and onnxruntime (20 ms)."""
    fakes = Fakes(open_unchecked('onnxruntime', bundle, replace(OPTIONS, max_batch=2)))
    fakes.installed = {'openvino': {'milliseconds': 10.0}, 'onnxruntime': {'milliseconds': 20.0}}
    return fakes


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / 'engines')


@pytest.mark.parametrize(
    ('name', 'provider', 'expected'),
    [
        ('tensorrt', 'cpu', 4),
        ('openvino', 'cpu', 1),
        ('onnxruntime', 'cpu', 1),
        ('onnxruntime', 'cuda', 4),
    ],
)
def test_images_share_a_run_where_that_is_faster(fakes, bundle, cache, name, provider, expected):
    fakes.installed = {name: {}}
    fakes.works = open_unchecked('onnxruntime', bundle, replace(OPTIONS, max_batch=4))
    options = EngineOptions(max_batch=4, provider=provider)
    chosen = fakes.choose(name, bundle, options, cache=cache)
    assert (chosen.max_batch, chosen.engine.options.max_batch) == (expected, expected)


# --- auto ---------------------------------------------------------------------------------------


def test_the_fastest_is_used_and_the_other_closed(fakes, bundle, cache):
    chosen = fakes.choose('auto', bundle, OPTIONS, cache=cache)
    assert chosen.reason == (
        'openvino fp32: 10 ms against 20 ms of onnxruntime (measured now, threads: 1)'
    )
    assert [e.name for e in fakes.opened] == ['openvino', 'onnxruntime']  # each once
    assert chosen.engine is fakes.opened[0]
    assert not chosen.engine.closed
    assert fakes.opened[1].closed
    assert [a.output for a in chosen.agreements] == list(bundle.outputs)
    assert (chosen.refused, chosen.cached, chosen.cache_problem) == ((), False, '')
    assert chosen.skipped == ("tensorrt: the backend 'tensorrt' needs the Python package tensorrt",)


@pytest.mark.parametrize(
    ('openvino', 'winner', 'near'),
    [(9.3, 'onnxruntime', ', nearly equal'), (8.0, 'openvino', ''), (12.0, 'onnxruntime', '')],
)
def test_onnxruntime_is_taken_where_it_is_nearly_as_fast(
    fakes, bundle, cache, openvino, winner, near
):
    fakes.installed['openvino']['milliseconds'] = openvino
    fakes.installed['onnxruntime']['milliseconds'] = 10.0
    chosen = fakes.choose('auto', bundle, OPTIONS, cache=cache)
    assert chosen.engine.name == winner
    assert chosen.reason.endswith(f'{near} (measured now, threads: 1)')
    assert ('nearly equal' in chosen.reason) == bool(near)


def test_threads_that_the_engines_choose_are_said(fakes, bundle, cache):
    chosen = fakes.choose('auto', bundle, cache=cache)
    assert chosen.reason.endswith('(measured now, threads: automatic)')


def test_the_engines_take_turns_and_it_is_soon_over(fakes, bundle, cache):
    fakes.installed['openvino']['milliseconds'] = 400.0
    fakes.installed['onnxruntime']['milliseconds'] = 300.0
    chosen = fakes.choose('auto', bundle, OPTIONS, cache=cache)
    assert chosen.engine.name == 'onnxruntime'
    turns = ROUNDS.warm_up + ROUNDS.least
    assert [e.runs for e in fakes.opened] == [PROBES + turns] * 2


def test_the_choice_is_remembered(fakes, bundle, cache):
    fakes.choose('auto', bundle, OPTIONS, cache=cache)
    fakes.opened.clear()
    chosen = fakes.choose('auto', bundle, OPTIONS, cache=EngineCache(cache.folder))
    assert re.fullmatch(
        r'openvino fp32: chosen among 2 engines \(measured \d{4}-\d\d-\d\d\)', chosen.reason
    )
    assert chosen.cached
    assert chosen.engine.runs == PROBES  # checked, not measured
    assert fakes.opened == [chosen.engine]


@pytest.mark.parametrize(
    'change',
    [
        {'threads': 2},
        {'max_batch': 2},
        {'precision': 'int8'},
    ],
    ids=str,
)
def test_other_options_are_measured_anew(fakes, bundle, cache, change):
    fakes.choose('auto', bundle, OPTIONS, cache=cache)
    chosen = fakes.choose('auto', bundle, replace(OPTIONS, **change), cache=cache)
    assert 'measured now' in chosen.reason


def test_another_model_is_measured_anew(fakes, bundle, cache, make_bundle):
    fakes.choose('auto', bundle, OPTIONS, cache=cache)
    other = load_bundle(make_bundle(width=64, height=64))
    fakes.works = open_unchecked('onnxruntime', other, OPTIONS)
    assert 'measured now' in fakes.choose('auto', other, OPTIONS, cache=cache).reason


def test_another_machine_or_version_is_measured_anew(fakes, bundle, cache):
    def measured():
        return 'measured now' in fakes.choose('auto', bundle, OPTIONS, cache=cache).reason

    assert measured()
    fakes.number = '1.1'
    assert measured()
    assert not measured()
    fakes.name = 'a board, 4 cores, aarch64'
    assert measured()


def test_a_damaged_choice_is_measured_anew(fakes, bundle, cache):
    fakes.choose('auto', bundle, OPTIONS, cache=cache)
    (entry,) = cache.entries()
    entry.path.write_bytes(b'{')
    assert 'measured now' in fakes.choose('auto', bundle, OPTIONS, cache=cache).reason
    assert 'measured 20' in fakes.choose('auto', bundle, OPTIONS, cache=cache).reason


@pytest.mark.parametrize(
    'content',
    [
        b'\xff',
        b'[]',
        b'{}',
        b'{"winner": "rm -rf", "milliseconds": {"rm -rf": 1}, "date": "2026-11-20"}',
        b'{"winner": "openvino", "milliseconds": 3, "date": "2026-11-20"}',
        b'{"winner": "openvino", "milliseconds": {"openvino": 1}, "date": 20261120}',
    ],
)
def test_a_choice_that_makes_no_sense_is_measured_anew(fakes, bundle, cache, content):
    fakes.choose('auto', bundle, OPTIONS, cache=cache)
    (entry,) = cache.entries()
    cache.store(Key(**entry.key), content)
    assert 'measured now' in fakes.choose('auto', bundle, OPTIONS, cache=cache).reason


def test_a_remembered_engine_that_does_not_open_is_measured_anew(fakes, bundle, cache):
    fakes.choose('auto', bundle, OPTIONS, cache=cache)
    fakes.installed['openvino'] = EngineError('libtbb.so.12 is missing')
    chosen = fakes.choose('auto', bundle, OPTIONS, cache=cache)
    assert chosen.reason == 'onnxruntime fp32: the only engine that works'
    assert chosen.skipped[1:] == ('openvino: libtbb.so.12 is missing',)
    assert not chosen.cached
    fakes.installed['openvino'] = {}
    assert fakes.choose('auto', bundle, OPTIONS, cache=cache).engine.name == 'openvino'


def test_a_remembered_engine_that_is_wrong_now_is_refused(fakes, bundle, cache):
    fakes.choose('auto', bundle, OPTIONS, cache=cache)
    fakes.installed['openvino']['wrong'] = True
    chosen = fakes.choose('auto', bundle, OPTIONS, cache=cache)
    assert chosen.engine.name == 'onnxruntime'
    assert len(chosen.refused) == 1


def test_a_remembered_engine_whose_package_was_removed(fakes, bundle, cache):
    fakes.choose('auto', bundle, OPTIONS, cache=cache)
    del fakes.installed['openvino']
    fakes.opened.clear()
    chosen = fakes.choose('auto', bundle, OPTIONS, cache=cache)
    assert chosen.reason == 'onnxruntime fp32: the only engine that is installed'
    assert chosen.skipped[1:] == ('openvino: the Python package openvino is not installed',)


def test_a_single_engine_is_not_measured(fakes, bundle, cache):
    del fakes.installed['openvino']
    chosen = fakes.choose('auto', bundle, OPTIONS, cache=cache)
    assert chosen.engine.runs == PROBES
    assert cache.entries() == []


def test_a_cache_that_cannot_be_written_is_no_failure(fakes, bundle, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    cache = EngineCache(tmp_path / 'file' / 'engines')
    for _ in range(2):
        chosen = fakes.choose('auto', bundle, OPTIONS, cache=cache)
        assert 'measured now' in chosen.reason
        assert str(tmp_path / 'file') in chosen.cache_problem


def test_an_engine_that_fails_while_it_is_measured_is_left_out(fakes, bundle, cache):
    fakes.installed['openvino']['fails_after'] = PROBES + 3
    chosen = fakes.choose('auto', bundle, OPTIONS, cache=cache)
    assert chosen.reason == 'onnxruntime fp32: the only engine that works'
    assert chosen.skipped[1:] == ('openvino: openvino: out of memory',)
    assert fakes.opened[0].closed
    assert cache.entries() == []


def test_tensorrt_comes_first_and_nothing_is_measured(fakes, bundle, cache):
    fakes.installed['tensorrt'] = {'milliseconds': 100.0}
    chosen = fakes.choose('auto', bundle, OPTIONS, cache=cache)
    assert chosen.reason == 'tensorrt fp32: it works here'
    assert [e.name for e in fakes.opened] == ['tensorrt']
    assert chosen.skipped == ()


def test_an_engine_from_the_cache_says_so(fakes, bundle, cache):
    fakes.installed['tensorrt'] = {'cached': True, 'cache_problem': 'the disk is full'}
    chosen = fakes.choose('auto', bundle, OPTIONS, cache=cache)
    assert chosen.cached
    assert chosen.cache_problem == 'the disk is full'


def test_an_engine_without_the_precision_is_skipped_with_the_reason(bundle, cache):
    with pytest.raises(EngineError) as caught:
        open_engine('auto', bundle, replace(OPTIONS, precision='int8'), cache=cache)
    assert 'has no int8_u8s8 model' in str(caught.value)


# --- refused by the self-check ------------------------------------------------------------------


REFUSED = 'was refused by the self-check (depth relative 0.31 > 0.014)'


def test_auto_falls_back_and_says_so(fakes, bundle, cache):
    fakes.installed['tensorrt'] = {'wrong': True}
    chosen = fakes.choose('auto', bundle, OPTIONS, cache=cache)
    assert chosen.refused == (f'tensorrt {REFUSED}',)
    assert chosen.reason.startswith(f'tensorrt {REFUSED}; openvino fp32: 10 ms against')
    assert fakes.opened[0].closed
    # The choice among the others is remembered, the refusal is found out again.
    chosen = fakes.choose('auto', bundle, OPTIONS, cache=cache)
    assert chosen.cached
    assert chosen.refused == (f'tensorrt {REFUSED}',)


def test_a_wrong_engine_does_not_win_by_being_fast(fakes, bundle, cache):
    fakes.installed['openvino']['wrong'] = True
    chosen = fakes.choose('auto', bundle, OPTIONS, cache=cache)
    assert chosen.reason == f'openvino {REFUSED}; onnxruntime fp32: the only engine that works'
    assert cache.entries() == []


def test_a_named_engine_that_is_refused_is_replaced_by_the_next(fakes, bundle, cache):
    fakes.installed |= {'tensorrt': {'wrong': True}, 'openvino': {'wrong': True}}
    chosen = fakes.choose('tensorrt', bundle, OPTIONS, cache=cache)
    assert chosen.refused == (f'tensorrt {REFUSED}', f'openvino {REFUSED}')
    assert chosen.reason == '; '.join([*chosen.refused, 'onnxruntime fp32 instead'])
    assert [e.closed for e in fakes.opened] == [True, True, False]


def test_the_replacement_need_not_be_installed(fakes, bundle, cache):
    fakes.installed['tensorrt'] = {'wrong': True}
    del fakes.installed['openvino']
    chosen = fakes.choose('tensorrt', bundle, OPTIONS, cache=cache)
    assert chosen.engine.name == 'onnxruntime'
    assert len(chosen.skipped) == 1


@pytest.mark.parametrize('name', ['auto', 'tensorrt'])
def test_when_all_are_refused_every_reason_is_given(fakes, bundle, cache, name):
    fakes.installed = {name: {'wrong': True} for name in BACKENDS}
    with pytest.raises(EngineError) as caught:
        fakes.choose(name, bundle, OPTIONS, cache=cache)
    message = str(caught.value)
    assert message.startswith(f'no engine works for {bundle.folder}: ')
    assert all(f'{backend} {REFUSED}' in message for backend in BACKENDS)
    assert '\n' not in message
    assert all(e.closed for e in fakes.opened)


def test_when_none_is_there_every_reason_is_given(fakes, bundle, cache):
    fakes.installed = {}
    with pytest.raises(EngineError) as caught:
        fakes.choose('auto', bundle, OPTIONS, cache=cache)
    assert "the backend 'tensorrt' needs the Python package tensorrt" in str(caught.value)
    for name in ('openvino', 'onnxruntime'):
        assert f'{name}: the Python package {name} is not installed' in str(caught.value)


# --- by name ------------------------------------------------------------------------------------


def test_a_named_engine_is_used_even_if_it_is_slow(fakes, bundle, cache):
    chosen = fakes.choose('onnxruntime', bundle, OPTIONS, cache=cache)
    assert chosen.reason == 'onnxruntime fp32: asked for by name'
    assert [e.name for e in fakes.opened] == ['onnxruntime']
    assert chosen.engine.runs == PROBES


@pytest.mark.parametrize('name', BACKENDS)
def test_a_named_engine_that_is_missing_is_an_error(bundle, cache, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=rf"the backend '{name}' needs .*{name}"):
        open_engine(name, bundle, OPTIONS, cache=cache)


def test_a_package_that_is_missing_is_not_tried(bundle, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino', None)
    chosen = open_engine('auto', bundle, OPTIONS, cache=cache)
    assert chosen.reason == 'onnxruntime fp32: the only engine that is installed'
    chosen.engine.close()


def test_a_named_engine_without_the_precision_is_an_error(bundle, cache):
    with pytest.raises(BundleError, match='has no int8_u8s8 model'):
        open_engine('onnxruntime', bundle, replace(OPTIONS, precision='int8'), cache=cache)


def test_an_unknown_name(bundle, cache):
    with pytest.raises(EngineError, match=r"unknown backend 'ncnn', expected auto or tensorrt, "):
        open_engine('ncnn', bundle, OPTIONS, cache=cache)


# --- progress, real engines, the machine --------------------------------------------------------


def test_progress_tells_what_is_done(fakes, bundle, cache):
    told = []
    fakes.choose(
        'auto', bundle, OPTIONS, cache=cache, progress=lambda what, share: told.append(what)
    )
    assert list(dict.fromkeys(told)) == [
        'opening tensorrt',
        'building tensorrt',
        'opening openvino',
        'building openvino',
        'checking openvino',
        'opening onnxruntime',
        'building onnxruntime',
        'checking onnxruntime',
        'measuring openvino',
        'measuring onnxruntime',
    ]


@pytest.mark.parametrize('moment', ['checking openvino', 'measuring onnxruntime'])
def test_what_progress_raises_ends_it_and_closes_all(fakes, bundle, cache, moment):
    def cancel(what, share):
        if what == moment:
            raise KeyError('cancelled')

    with pytest.raises(KeyError):
        fakes.choose('auto', bundle, OPTIONS, cache=cache, progress=cancel)
    assert fakes.opened
    assert all(e.closed for e in fakes.opened)


def test_real_engines_are_compared_and_the_choice_remembered(bundle, cache):
    pytest.importorskip('openvino')
    images = np.zeros((1, bundle.height, bundle.width, 3), np.uint8)
    names = []
    for measured in (True, False):
        chosen = open_engine('auto', bundle, OPTIONS, cache=cache)
        assert ('measured now' in chosen.reason) is measured
        assert chosen.engine.run(images, ['depth'])['depth'].shape == (1, 64, 96)
        chosen.engine.close()
        names.append(chosen.engine.name)
    assert names[0] == names[1]
    (entry,) = (entry for entry in cache.entries() if entry.key['kind'] == 'choice')
    choice = json.loads(entry.path.read_bytes())
    assert choice['winner'] == names[0]
    assert set(choice['milliseconds']) == {'openvino', 'onnxruntime'}
    assert entry.key['device'] == machine_name()
    assert importlib.metadata.version('openvino') in entry.key['version']


def test_a_bundle_that_changed_is_an_error_that_says_so(probed_bundle, tmp_path, cache):
    shutil.copytree(probed_bundle, tmp_path / 'bundle')
    bundle = load_bundle(tmp_path / 'bundle')
    (tmp_path / 'bundle' / 'model.onnx').write_bytes(b'something else')
    with pytest.raises(EngineError, match='changed since'):
        open_engine('auto', bundle, OPTIONS, cache=cache)
