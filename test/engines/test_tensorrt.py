"""The TensorRT engine, around stand-ins for TensorRT and CUDA (``conftest.py``).

What can run without a GPU is tested with the real things: parsing and compiling in
``test_tensorrt_compile.py``, the API's types in ``tensorrt_api/``.

Tests marked ``gpu`` need a GPU. They have not been run on one yet.
"""

from __future__ import annotations

import shutil
import sys
import threading

import numpy as np
import pytest

from mtl_perception.bundle import BundleError, default_bundle, load_bundle
from mtl_perception.engines.cache import EngineCache
from mtl_perception.engines.cuda import open_gpu
from mtl_perception.engines.engine import EngineError, EngineOptions
from mtl_perception.engines.entries import Key
from mtl_perception.engines.opening import open_unchecked
from mtl_perception.engines.parts import RUNS_BEFORE
from mtl_perception.engines.tensorrt import TensorRtEngine
from mtl_perception.engines.tensorrt_api import import_tensorrt

pytest.importorskip('onnxruntime')
OUTPUTS = ['semantic', 'semantic_confidence', 'depth', 'normals', 'edges']


@pytest.fixture
def open_engine(trt, bundle, cache):
    """A function that opens the backend on the tiny bundle."""

    def open_engine(bundle=bundle, cache=cache, progress=None, **options):
        progress = progress or (lambda activity, share: None)
        return TensorRtEngine(bundle, EngineOptions(**options), cache, progress)

    return open_engine


def frames(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 96, 3), np.uint8)


def expected(bundle, images, outputs=OUTPUTS):
    options = EngineOptions(threads=1, max_batch=len(images))
    return open_unchecked('onnxruntime', bundle, options).run(images, outputs)


def same(found, wanted):
    assert list(found) == list(wanted)
    for name, array in found.items():
        assert array.dtype == wanted[name].dtype
        np.testing.assert_array_equal(array, wanted[name])


def refused(call, error=EngineError, **options):
    with pytest.raises(error) as caught:
        call(**options)
    assert '\n' not in str(caught.value)
    return str(caught.value)


# --- running ---------------------------------------------------------------------------------


@pytest.mark.parametrize('graph', [True, False])
def test_every_batch_size_in_any_order(open_engine, bundle, gpu, graph):
    gpu.capture_error = 0 if graph else 901
    backend = open_engine(max_batch=3)
    first = backend.run(frames(2), OUTPUTS)
    for seed, batch in enumerate([1, 3, 2, 1, 3]):
        same(backend.run(frames(batch, seed), OUTPUTS), expected(bundle, frames(batch, seed)))
    # What was handed over is not written again.
    same(first, expected(bundle, frames(2)))
    backend.close()
    assert gpu.nothing_left


def test_single_images(open_engine, bundle):
    backend = open_engine()
    same(backend.run(frames(1), OUTPUTS), expected(bundle, frames(1)))
    assert backend.name == 'tensorrt'
    assert backend.identity == {
        'engine': 'tensorrt',
        'version': '10.3.0',
        'provider': 'GPU, CUDA graph',
        'device': 'Orin (compute capability 8.7)',
        'precision': 'fp32',
    }


def test_only_what_is_wanted_is_copied(open_engine, gpu):
    backend = open_engine(max_batch=2)
    pixels = 64 * 96
    for outputs, sizes in [
        (['semantic'], [pixels]),
        (['depth', 'edges'], [4 * pixels, pixels]),
        (['normals'], [12 * pixels]),
    ]:
        gpu.copied_in.clear()
        gpu.copied_out.clear()
        assert list(backend.run(frames(1), outputs)) == outputs
        assert gpu.copied_out == sizes
        assert gpu.copied_in == [3 * pixels]
    gpu.copied_in.clear()
    assert backend.run(frames(1), []) == {}
    assert gpu.copied_in == []


def test_graphs_are_captured_once_per_batch_size(open_engine, gpu):
    backend = open_engine(max_batch=2)
    for batch in (1, 2, 1, 2):
        backend.run(frames(batch), ['depth'])
    # Each size was enqueued to warm up and to be captured, never again.
    assert (gpu.enqueued, gpu.launched, len(gpu.graphs)) == (4, 4, 2)


def test_a_graph_that_cannot_be_captured_is_done_without(open_engine, bundle, gpu):
    gpu.capture_error = 901
    backend = open_engine(max_batch=2)
    assert backend.identity['provider'] == (
        'GPU, no CUDA graph: CUDA: cudaStreamEndCapture: error number 901 (error 901)'
    )
    for batch in (1, 2):
        same(backend.run(frames(batch), OUTPUTS), expected(bundle, frames(batch)))
    # To warm up, to be captured, and once a run: it is not tried again for another batch size.
    assert (gpu.launched, gpu.enqueued) == (0, 4)
    backend.close()
    assert gpu.nothing_left


def test_opened_in_one_thread_run_in_another(open_engine, bundle):
    backends, results = [], []
    threads = [
        threading.Thread(target=lambda: backends.append(open_engine())),
        threading.Thread(target=lambda: results.append(backends[0].run(frames(1), OUTPUTS))),
        threading.Thread(target=lambda: backends[0].close()),
    ]
    for thread in threads:
        thread.start()
        thread.join()
    same(results[0], expected(bundle, frames(1)))


def test_what_it_cannot_run(open_engine):
    backend = open_engine(max_batch=2)
    with pytest.raises(EngineError, match=r'tensorrt: images are uint8 \[3, .*N from 1 to 2'):
        backend.run(frames(3), ['depth'])
    for name in ('human_parts', 'image'):
        with pytest.raises(EngineError, match=f'no output {name!r}'):
            backend.run(frames(1), [name])
    assert backend.run(frames(2), ['depth'])


def test_a_failed_run_says_what_tensorrt_said(open_engine, trt, gpu):
    gpu.capture_error = 901  # without a graph a run is enqueued every time
    backend = open_engine(max_batch=2)
    trt.fail_runs = True
    assert refused(lambda: backend.run(frames(1), ['depth'])).endswith('failed: myelin says no')
    trt.fail_runs = False
    assert backend.run(frames(1), ['depth'])


def test_closed(open_engine, gpu):
    backend = open_engine()
    backend.close()
    backend.close()
    assert gpu.nothing_left
    assert 'closed' in refused(lambda: backend.run(frames(1), ['depth']))


# --- plans -----------------------------------------------------------------------------------


def test_a_plan_is_built_once(open_engine, bundle, cache, trt):
    first = open_engine(max_batch=2)
    assert (first.cached, first.cache_problem) == (False, '')
    second = open_engine(max_batch=2)
    assert (second.cached, second.cache_problem) == (True, '')
    assert len(trt.builds) == 1
    same(second.run(frames(2), OUTPUTS), expected(bundle, frames(2)))
    (entry,) = cache.entries()
    assert entry.damaged == ''
    assert entry.key['device'] == 'Orin (compute capability 8.7)'
    assert 'build_s' in entry.notes


@pytest.mark.parametrize('other', [{'max_batch': 2}, {'workspace_mb': 64}, {'version': '10.4.0'}])
def test_other_options_are_other_plans(open_engine, trt, other):
    open_engine()
    trt.__version__ = other.pop('version', trt.__version__)
    assert not open_engine(**other).cached
    assert len(trt.builds) == 2


def test_a_plan_that_does_not_open_is_built_again_once(open_engine, bundle, trt):
    open_engine()
    trt.refuse_plans = 1
    backend = open_engine()
    assert not backend.cached
    assert 'did not open: the plan is of another GPU' in backend.cache_problem
    assert len(trt.builds) == 2
    same(backend.run(frames(1), OUTPUTS), expected(bundle, frames(1)))
    assert open_engine().cached
    trt.refuse_plans = 2
    message = refused(open_engine)
    assert 'just built does not open: the plan is of another GPU' in message
    assert len(trt.builds) == 3


def test_a_damaged_plan_is_built_again(open_engine, cache, trt):
    open_engine()
    (entry,) = cache.entries()
    entry.path.write_bytes(entry.path.read_bytes()[:-10])
    backend = open_engine()
    assert not backend.cached
    assert str(entry.path) in backend.cache_problem
    assert len(trt.builds) == 2


def test_a_cache_that_was_copied_to_an_equal_robot_serves_it(open_engine, cache, trt, tmp_path):
    open_engine()
    copy = EngineCache(shutil.copytree(cache.folder, tmp_path / 'robot'))
    assert open_engine(cache=copy).cached
    trt.__version__ = '10.4.0'
    assert not open_engine(cache=copy).cached


def test_a_cache_that_cannot_be_written_is_told(open_engine, bundle, tmp_path):
    (tmp_path / 'file').write_text('no folder')
    backend = open_engine(cache=EngineCache(tmp_path / 'file'))
    assert str(tmp_path / 'file') in backend.cache_problem
    same(backend.run(frames(1), OUTPUTS), expected(bundle, frames(1)))


def test_times_of_kernels_are_kept(open_engine, trt, cache):
    open_engine()
    open_engine(max_batch=2)
    assert trt.timings == [b'', b'times']
    (path,) = cache.folder.glob('timing_*')
    path.write_bytes(b'damaged')
    open_engine(max_batch=3)
    assert trt.timings == [b'', b'times', b'']


def test_progress_and_its_end(open_engine, trt, cache):
    told = []
    open_engine(progress=lambda *what: told.append(what))
    assert told[0][0] == 'parsing the model'
    assert [share for _, share in told[-4:]] == [0.25, 0.5, 0.75, 1.0]

    def stop(activity, share):
        if share >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_engine(max_batch=2, progress=stop)
    assert len(cache.entries()) == len(trt.builds) == 1
    assert open_engine(max_batch=2).run(frames(1), ['depth'])


# --- only what is wanted ---------------------------------------------------------------------


def want(backend, bundle, outputs, batch=2):
    """Run for the same outputs until a part is worth while, and wait for that."""
    for seed in range(RUNS_BEFORE):
        images = frames(batch, seed)
        same(backend.run(images, outputs), expected(bundle, images, outputs))
    for thread in threading.enumerate():
        if thread.name == 'cut':
            thread.join(60)
    return backend._parts.runner(outputs).__self__


def test_what_is_wanted_for_a_while_has_a_plan_of_its_own(open_engine, bundle, trt, gpu):
    backend = open_engine(max_batch=2, cut=True)
    part = want(backend, bundle, ['semantic'])
    assert part.outputs == {'semantic'}
    for batch in (1, 2):
        images = frames(batch, 9)
        same(backend.run(images, ['semantic']), expected(bundle, images, ['semantic']))
        same(backend.run(images, OUTPUTS), expected(bundle, images))
    backend.close()
    assert gpu.nothing_left
    again = open_engine(max_batch=2, cut=True)
    assert want(again, bundle, ['semantic']).outputs == {'semantic'}
    assert len(trt.builds) == 2, 'both plans come from the cache'


@pytest.mark.parametrize('options', [{}, {'cut': True, 'dla_core': 0, 'precision': 'fp16'}])
def test_without_parts_or_on_a_dla_the_whole_model_runs(
    open_engine, tiny_bundle, make_bundle, trt, options
):
    bundle = with_half(tiny_bundle, make_bundle)
    backend = open_engine(bundle=bundle, **options)
    assert want(backend, bundle, ['semantic'], batch=1).outputs == {*bundle.outputs}
    assert len(trt.builds) == 1


def test_a_part_that_does_not_open_is_done_without(open_engine, bundle, trt, gpu):
    backend = open_engine(max_batch=2, cut=True)
    trt.refuse_plans = 9
    assert want(backend, bundle, ['depth']).outputs == {*bundle.outputs}
    assert 'another GPU' in backend._parts.problems[frozenset(['depth'])]
    backend.close()
    assert gpu.nothing_left


def test_closing_gives_up_a_part_that_is_being_built(open_engine, bundle, trt, gpu, monkeypatch):
    building, go_on = threading.Event(), TensorRtEngine._go_on

    def held(self, *progress):
        building.set()
        assert self._closing.wait(60)
        go_on(self, *progress)

    monkeypatch.setattr(TensorRtEngine, '_go_on', held)
    backend = open_engine(max_batch=2, cut=True)
    for _ in range(RUNS_BEFORE):
        backend.run(frames(2), ['edges'])
    assert building.wait(60)
    same(backend.run(frames(2), ['edges']), expected(bundle, frames(2), ['edges']))
    backend.close()
    assert len(trt.builds) == 1
    assert gpu.nothing_left


# --- options ---------------------------------------------------------------------------------


def with_half(tiny_bundle, make_bundle):
    """The tiny bundle, the same model as its fp16 variant too."""
    model = (tiny_bundle / 'model.onnx').read_bytes()

    def edit(description):
        description['variants'] = {'fp16': description['model']}

    return load_bundle(make_bundle(edit, model=model))


def test_dla(open_engine, tiny_bundle, make_bundle, trt):
    bundle = with_half(tiny_bundle, make_bundle)
    backend = open_engine(bundle=bundle, precision='fp16', dla_core=1)
    (config,) = trt.builds
    assert config.default_device_type is trt.DeviceType.DLA
    assert config.DLA_core == 1
    assert config.flags == [trt.BuilderFlag.GPU_FALLBACK]
    assert backend._whole.plan.runtime.DLA_core == 1
    assert backend.identity['provider'] == 'DLA core 1 and GPU, CUDA graph'
    assert backend.identity['precision'] == 'fp16'
    assert 'has no fp32' in refused(open_engine, dla_core=1)
    message = refused(open_engine, bundle=bundle, precision='fp16', dla_core=1, max_batch=2)
    assert 'expected max_batch 1' in message
    message = refused(open_engine, bundle=bundle, precision='fp16', dla_core=2)
    assert 'dla_core is 2, but TensorRT finds 2 DLA cores' in message


def test_workspace(open_engine, trt):
    open_engine(workspace_mb=64)
    assert trt.builds[0].pools == {trt.MemoryPoolType.WORKSPACE: 64 * 2**20}


def test_precisions_that_are_not_there(open_engine):
    assert 'has no fp16 model' in refused(open_engine, BundleError, precision='fp16')
    assert "precision is 'bf16', expected fp32" in refused(open_engine, precision='bf16')


def test_tensors_other_than_described(open_engine, make_bundle, gpu):
    parts = {'kind': 'human_parts', 'outputs': {'human_parts': 'uint8'}}
    folder = make_bundle(lambda description: description['tasks'].update(parts=parts))
    message = refused(open_engine, BundleError, bundle=load_bundle(folder))
    assert "output 'human_parts' is missing" in message
    assert gpu.nothing_left


def test_memory_is_given_back_when_opening_fails(open_engine, gpu, trt):
    trt.fail_runs = True
    assert 'myelin says no' in refused(open_engine)
    assert gpu.nothing_left


def test_pycuda_where_only_that_is_installed(open_engine, bundle, gpu, pycuda):
    backend = open_engine(max_batch=2)
    assert backend.identity['provider'] == 'GPU, no CUDA graph: pycuda cannot capture one'
    for batch in (2, 1):
        same(backend.run(frames(batch), OUTPUTS), expected(bundle, frames(batch)))
    backend.close()
    assert gpu.nothing_left
    assert pycuda.depth == []  # every context that was pushed was popped


# --- machines where it does not work ---------------------------------------------------------


@pytest.mark.parametrize('kind', ['Builder', 'OnnxParser', 'Runtime'])
def test_a_factory_that_gives_nothing(open_engine, trt, gpu, kind):
    trt.null = (kind,)
    message = refused(open_engine)
    assert 'TensorRT 10.3.0 cannot start' in message
    assert 'driver is missing or too old' in message
    assert gpu.nothing_left


def test_tensorrt_missing(open_engine, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorrt', None)
    message = refused(open_engine)
    assert 'python3-libnvinfer' in message
    assert 'pip install tensorrt' in message


def test_tensorrt_too_old(open_engine, trt):
    trt.__version__ = '8.6.2'
    assert 'TensorRT is 8.6.2, expected 10.3 or newer' in refused(open_engine)


# --- on a GPU; not run yet -------------------------------------------------------------------


@pytest.fixture
def real_gpu():
    try:
        import_tensorrt()
        open_gpu(0)
    except EngineError as error:
        pytest.skip(str(error))


@pytest.mark.gpu
@pytest.mark.timeout(1800)
def test_on_a_gpu_it_computes_what_onnxruntime_does(real_gpu, tmp_path):
    bundle = load_bundle(default_bundle())
    options = EngineOptions(max_batch=2)
    backend = TensorRtEngine(bundle, options, EngineCache(tmp_path))
    assert not backend.cached
    outputs = list(bundle.outputs)
    small = np.random.default_rng(0).integers(0, 256, (3, 16, 20, 3), np.uint8)
    images = small.repeat(bundle.height // 16, 1).repeat(bundle.width // 20, 2)
    wanted = expected(bundle, images, outputs)
    for part in (slice(0, 1), slice(1, 3), slice(2, 3)):
        for name, array in backend.run(images[part], outputs).items():
            reference = wanted[name][part].astype(np.float64)
            difference = np.abs(array.astype(np.float64) - reference)
            if name == 'semantic':
                assert (difference == 0).mean() > 0.99
            elif array.dtype == np.uint8:
                assert np.percentile(difference, 99) <= 3
            else:
                # TF32 in convolutions: 10 bits.
                assert np.percentile(difference, 99) < 0.02 * np.abs(reference).max()
    backend.close()
    again = TensorRtEngine(bundle, options, EngineCache(tmp_path))
    assert again.cached
    again.close()


@pytest.mark.gpu
def test_on_a_gpu_a_truncated_plan_is_built_again(real_gpu, tmp_path):
    bundle = load_bundle(default_bundle())
    cache = EngineCache(tmp_path)
    backend = TensorRtEngine(bundle, EngineOptions(), cache)
    backend.close()
    (entry,) = cache.entries()
    key = Key(**entry.key)
    cache.store(key, cache.load(key)[:1000])
    backend = TensorRtEngine(bundle, EngineOptions(), cache)
    assert 'did not open' in backend.cache_problem
    backend.close()
