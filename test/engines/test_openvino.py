"""OpenVINO computes what ONNX Runtime computes, in the precision that was asked for."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest
import yaml

from mtl_perception.bundle import BundleError, default_bundle, load_bundle
from mtl_perception.engines.cache import EngineCache
from mtl_perception.engines.engine import EngineError, EngineOptions
from mtl_perception.engines.entries import Key
from mtl_perception.engines.opening import open_unchecked
from mtl_perception.engines.openvino import OpenVinoEngine

pytest.importorskip('openvino')


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / 'engines')


@pytest.fixture
def open_openvino(cache):
    """A function that opens a backend, and closes it at the end."""
    opened = []

    def open_one(bundle, **options):
        options = EngineOptions(**{'threads': 1} | options)
        opened.append(open_unchecked('openvino', bundle, options, cache=cache))
        return opened[-1]

    yield open_one
    for backend in opened:
        backend.close()


@pytest.fixture
def tiny(tiny_bundle):
    return load_bundle(tiny_bundle)


def pictures(count, height=64, width=96):
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize(('max_batch', 'count'), [(1, 1), (3, 3), (3, 2), (3, 1)])
def test_computes_what_onnxruntime_computes(tiny, open_openvino, max_batch, count):
    pytest.importorskip('onnxruntime')
    reference = open_unchecked('onnxruntime', tiny, EngineOptions(threads=1, max_batch=count))
    images = pictures(count)
    expected = reference.run(images, list(tiny.outputs))
    found = open_openvino(tiny, max_batch=max_batch).run(images, list(tiny.outputs))
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize('max_batch', [1, 2])
def test_the_shipped_bundle_agrees_with_onnxruntime(open_openvino, max_batch):
    pytest.importorskip('onnxruntime')
    try:
        bundle = load_bundle(default_bundle())
    except BundleError as error:
        pytest.skip(f'not built yet: {error}')
    # Smooth pictures: noise has no depth.
    y, x = np.mgrid[: bundle.height, : bundle.width]
    waves = [127 + 100 * np.sin(x / a) * np.cos(y / b) for a, b in ((40, 60), (25, 90), (70, 30))]
    images = np.stack([np.stack(waves, axis=-1)] * max_batch).astype(np.uint8)
    images[-1] = images[-1][::-1]
    options = EngineOptions(threads=1, max_batch=max_batch)
    reference = open_unchecked('onnxruntime', bundle, options)
    expected = reference.run(images, list(bundle.outputs))
    found = open_openvino(bundle, max_batch=max_batch).run(images, list(bundle.outputs))
    assert (found['semantic'] == expected['semantic']).mean() >= 0.999
    np.testing.assert_allclose(found['depth'], expected['depth'], rtol=1e-3)
    np.testing.assert_allclose(found['normals'], expected['normals'], atol=1e-3)
    for name in ('semantic_confidence', 'depth_confidence', 'edges'):
        assert np.abs(found[name].astype(int) - expected[name]).max() <= 1, name


def test_gives_what_was_asked_for_to_keep(tiny, open_openvino):
    backend = open_openvino(tiny)
    first = pictures(1)
    kept = backend.run(first, ['edges', 'depth'])
    assert list(kept) == ['edges', 'depth']
    copies = {name: array.copy() for name, array in kept.items()}
    backend.run(255 - first, list(tiny.outputs))
    for name, array in kept.items():
        assert array.flags.writeable
        assert (array == copies[name]).all()
    assert backend.run(first, []) == {}


def test_takes_images_that_nobody_may_write_to(tiny, open_openvino):
    """As they come from the bytes of a message."""
    backend = open_openvino(tiny)
    images = pictures(1)
    view = np.frombuffer(images.tobytes(), np.uint8).reshape(images.shape)
    assert (backend.run(view, ['edges'])['edges'] == images[..., 2]).all()
    assert (backend.run(images[:, ::-1], ['edges'])['edges'] == images[:, ::-1, :, 2]).all()


def test_says_who_it_is(tiny, open_openvino):
    backend = open_openvino(tiny)
    assert backend.name == 'openvino'
    assert set(backend.identity) == {'engine', 'version', 'provider', 'device', 'precision'}
    assert all(backend.identity.values())
    assert (backend.identity['engine'], backend.identity['provider']) == ('openvino', 'CPU')
    assert backend.identity['precision'] == 'fp32'


def test_wrong_images_are_refused_and_the_next_run_works(tiny, open_openvino):
    backend = open_openvino(tiny, max_batch=2)
    with pytest.raises(EngineError, match=r'openvino: images are uint8 \[3, .*N from 1 to 2'):
        backend.run(pictures(3), ['depth'])
    assert backend.run(pictures(2), ['depth'])


def test_results_of_another_size_are_refused(cropping_bundle, open_openvino):
    backend = open_openvino(load_bundle(cropping_bundle))
    assert backend.run(np.full((1, 64, 96, 3), 64, np.uint8), ['edges'])
    with pytest.raises(EngineError, match=r'openvino: output edges .* expected \[1, 64, 96\]'):
        backend.run(np.full((1, 64, 96, 3), 32, np.uint8), ['edges'])


def test_closed_or_asked_for_an_unknown_output(tiny, open_openvino):
    backend = open_openvino(tiny)
    with pytest.raises(EngineError) as caught:
        backend.run(pictures(1), ['heat'])
    assert '\n' not in str(caught.value)
    backend.close()
    with pytest.raises(EngineError, match='closed'):
        backend.run(pictures(1), ['depth'])
    backend.close()


def test_missing_engine_names_the_package(tiny, open_openvino, monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(EngineError, match='pip install openvino'):
        open_openvino(tiny)


def able(precision):
    import openvino

    flags = openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    return {'bf16': 'BF16', 'fp16': 'FP16'}[precision] in flags


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_another_precision_is_used_or_refused(tiny, open_openvino, precision):
    if not able(precision):
        with pytest.raises(EngineError, match=f"precision is '{precision}', expected one of fp32"):
            open_openvino(tiny, precision=precision)
        return
    backend = open_openvino(tiny, precision=precision)
    assert backend.identity['precision'] == precision
    images = pictures(1)
    depth = backend.run(images, ['depth'])['depth']
    np.testing.assert_allclose(depth, images[..., 0] / 20, rtol=2e-2, atol=1e-6)


def test_a_precision_that_the_cpu_has_not(tiny, open_openvino, monkeypatch):
    """As on a CPU without bf16."""
    import openvino

    core = CoreWithout('BF16', openvino.Core())
    monkeypatch.setattr(openvino, 'Core', lambda: core)
    with pytest.raises(EngineError) as caught:
        open_openvino(tiny, precision='bf16')
    assert "precision is 'bf16', expected one of fp32" in str(caught.value)
    assert 'bf16,' not in str(caught.value)


class CoreWithout:
    """A ``Core`` on a CPU that lacks a capability."""

    def __init__(self, lacks, core):
        self._lacks, self._core = lacks, core

    def get_property(self, *args):
        return [flag for flag in self._core.get_property(*args) if flag != self._lacks]


def test_int8_is_a_file_of_the_bundle(make_bundle, open_openvino):
    folder = make_bundle()
    with pytest.raises(BundleError, match='has no int8_u8s8 model, expected one for int8 on openv'):
        open_openvino(load_bundle(folder), precision='int8')
    content = (folder / 'model.onnx').read_bytes()
    description = yaml.safe_load((folder / 'bundle.yaml').read_text())
    sha256 = hashlib.sha256(content).hexdigest()
    description['variants'] = {'int8_u8s8': {'file': 'cpu.onnx', 'sha256': sha256}}
    (folder / 'bundle.yaml').write_text(yaml.safe_dump(description, sort_keys=False))
    (folder / 'cpu.onnx').write_bytes(content)
    backend = open_openvino(load_bundle(folder), precision='int8')
    assert backend.identity['precision'] == 'int8'


def test_a_file_that_is_no_model(make_bundle, open_openvino, cache):
    bundle = load_bundle(make_bundle(model=b'not a network'))
    with pytest.raises(EngineError, match=r'model\.onnx: openvino .* cannot compile it') as caught:
        open_openvino(bundle)
    assert '\n' not in str(caught.value)
    assert cache.entries() == []


def test_a_model_that_is_not_as_described(make_bundle, open_openvino):
    parts = {'kind': 'human_parts', 'outputs': {'human_parts': 'uint8'}}
    bundle = load_bundle(make_bundle(lambda d: d['tasks'].update(parts=parts)))
    with pytest.raises(BundleError, match=r"model\.onnx: output 'human_parts' is missing"):
        open_openvino(bundle)


def test_a_model_of_one_image_only_is_refused(tiny_bundle, make_bundle, open_openvino):
    onnx = pytest.importorskip('onnx')
    model = onnx.load(tiny_bundle / 'model.onnx')
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(BundleError, match='with N free'):
        open_openvino(load_bundle(make_bundle(model=model.SerializeToString())))


# --- cache -----------------------------------------------------------------------------------


def test_the_second_start_compiles_nothing(tiny, cache):
    activities = []

    def progress(activity, share):
        activities.append(activity)

    images = pictures(1)
    first = OpenVinoEngine(tiny, EngineOptions(threads=1), cache, progress)
    assert (first.cached, first.cache_problem, len(activities)) == (False, '', 1)
    second = OpenVinoEngine(tiny, EngineOptions(threads=1), cache, progress)
    assert (second.cached, second.cache_problem, len(activities)) == (True, '', 1)
    assert second.identity == first.identity
    for name, array in first.run(images, list(tiny.outputs)).items():
        assert (second.run(images, [name])[name] == array).all()


def test_other_options_are_other_entries(tiny, open_openvino, cache):
    for options in ({}, {'threads': 2}, {'max_batch': 2}):
        assert not open_openvino(tiny, **options).cached
    assert len(cache.entries()) == 3


def test_a_cached_model_is_compared_with_the_description_too(make_bundle, open_openvino):
    """The description can change and leave the model, and with it the key, as it was."""
    folder = make_bundle()
    open_openvino(load_bundle(folder))
    description = yaml.safe_load((folder / 'bundle.yaml').read_text())
    parts = {'kind': 'human_parts', 'outputs': {'human_parts': 'uint8'}}
    description['tasks']['parts'] = parts
    (folder / 'bundle.yaml').write_text(yaml.safe_dump(description, sort_keys=False))
    with pytest.raises(BundleError, match="output 'human_parts' is missing"):
        open_openvino(load_bundle(folder))


def test_a_damaged_entry_is_compiled_again(tiny, open_openvino, cache):
    open_openvino(tiny)
    (entry,) = cache.entries()
    content = bytearray(entry.path.read_bytes())
    content[len(content) // 2] ^= 1
    entry.path.write_bytes(content)
    backend = open_openvino(tiny)
    assert not backend.cached
    assert 'sha256' in backend.cache_problem
    assert backend.run(pictures(1), ['depth'])
    again = open_openvino(tiny)
    assert (again.cached, again.cache_problem) == (True, '')


def test_an_entry_that_does_not_import_is_compiled_again(tiny, open_openvino, cache):
    """Its hash is right: it was written by something else under this key."""
    open_openvino(tiny)
    (entry,) = cache.entries()
    cache.store(Key(**entry.key), b'not a compiled model')
    backend = open_openvino(tiny)
    assert not backend.cached
    assert 'did not import' in backend.cache_problem
    assert '\n' not in backend.cache_problem
    assert backend.run(pictures(1), ['depth'])
    again = open_openvino(tiny)
    assert (again.cached, again.cache_problem) == (True, '')


def test_a_folder_that_cannot_be_written_is_only_mentioned(tiny, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    cache = EngineCache(tmp_path / 'file' / 'engines')
    backend = open_unchecked('openvino', tiny, EngineOptions(threads=1), cache=cache)
    assert not backend.cached
    assert 'cannot be written' in backend.cache_problem
    assert backend.run(pictures(1), ['depth'])


def test_what_progress_raises_ends_the_build(tiny, cache):
    class Enough(Exception):  # noqa: N818
        pass

    def progress(activity, share):
        raise Enough

    with pytest.raises(Enough):
        OpenVinoEngine(tiny, EngineOptions(threads=1), cache, progress)
    assert cache.entries() == []
