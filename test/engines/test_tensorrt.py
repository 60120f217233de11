"""The TensorRT engine around a stand-in for TensorRT and CUDA, which need a GPU.

What can run without one is tested with the real things: parsing and compiling in
``test_tensorrt_compile.py``, the API's types in ``tensorrt_api/``. The stand-in here computes with
ONNX Runtime, and is strict about what a GPU would not forgive: memory that is not (or no longer)
allocated or too small, work that is looked at before it was waited for, shapes outside of the
profile, a context that changes after a graph was captured from it, calls in a thread that did not
choose its GPU.

Tests marked ``gpu`` need a GPU. They have not been run on one yet.
"""

# The stand-ins have the names of what they stand for.
# ruff: noqa: N802, N815

from __future__ import annotations

import ctypes
import enum
import shutil
import sys
import threading
import types

import numpy as np
import pytest

from mtl_perception.bundle import BundleError, default_bundle, load_bundle
from mtl_perception.engines.cache import EngineCache
from mtl_perception.engines.cuda import CudaBindings, open_gpu
from mtl_perception.engines.engine import EngineError, EngineOptions
from mtl_perception.engines.entries import Key
from mtl_perception.engines.opening import open_unchecked
from mtl_perception.engines.tensorrt import TensorRtEngine
from mtl_perception.engines.tensorrt_api import import_tensorrt

onnxruntime = pytest.importorskip('onnxruntime')
OUTPUTS = ['semantic', 'semantic_confidence', 'depth', 'normals', 'edges']


class Gpu:
    """Memory and streams. What is queued happens when it is waited for, not before."""

    def __init__(self):
        self.memory = {}  # address -> bytes
        self.host = {}
        self.queues = {}  # stream -> what to do
        self.recording = {}  # stream -> recorded calls
        self.graphs = {}
        self.copied_in, self.copied_out = [], []  # sizes
        self.launched = self.enqueued = 0
        self.count = 1
        self.count_error = 0
        self.driver = 12060
        self.capture_error = 0
        self.chosen = threading.local()
        self._next = 4096

    def check_thread(self):
        assert getattr(self.chosen, 'device', None) is not None, 'no GPU chosen in this thread'

    def number(self, size=0):
        self._next += size + 4096 - size % 4096
        return self._next - size - (4096 - size % 4096)

    def array(self, address, size):
        """The memory there; an error where it is not allocated or smaller."""
        assert address in self.memory, f'{address} is not allocated'
        assert size <= self.memory[address].size, f'{address} is too small for {size} bytes'
        return self.memory[address][:size]

    def host_array(self, address, size):
        assert size <= self.host[address].size
        return self.host[address][:size]

    def do(self, stream, work):
        self.check_thread()
        (self.recording if stream in self.recording else self.queues)[stream].append(work)

    @property
    def nothing_left(self):
        return not (self.memory or self.host or self.queues or self.graphs)


def cuda_runtime(gpu):
    """The functions of ``cuda.bindings.runtime`` that are used."""
    runtime = types.ModuleType('cuda.bindings.runtime')

    def function(body):
        def called(*arguments):
            gpu.check_thread()
            result = body(*arguments)
            return result if isinstance(result, tuple) else (0, result)

        setattr(runtime, body.__name__, called)

    def anywhere(body):
        setattr(runtime, body.__name__, lambda *arguments: body(*arguments))

    class Kind(enum.Enum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    class Mode(enum.Enum):
        cudaStreamCaptureModeThreadLocal = 1

    runtime.cudaMemcpyKind = Kind
    runtime.cudaStreamCaptureMode = Mode
    runtime.cudaStreamNonBlocking = 1

    @anywhere
    def cudaRuntimeGetVersion():
        return 0, 12090

    @anywhere
    def cudaDriverGetVersion():
        return 0, gpu.driver

    @anywhere
    def cudaGetDeviceCount():
        return gpu.count_error, gpu.count

    @anywhere
    def cudaGetErrorString(error):
        return 0, f'error number {error}'.encode()

    @anywhere
    def cudaSetDevice(device):
        gpu.chosen.device = device
        return (0,)

    @function
    def cudaGetDeviceProperties(device):
        return types.SimpleNamespace(name=b'Orin', major=8, minor=7)

    @function
    def cudaMalloc(size):
        address = gpu.number(size)
        gpu.memory[address] = np.full(size, 77, np.uint8)
        return address

    @function
    def cudaFree(address):
        del gpu.memory[address]

    @function
    def cudaMallocHost(size):
        block = np.full(size, 99, np.uint8)
        gpu.host[block.ctypes.data] = block
        return block.ctypes.data

    @function
    def cudaFreeHost(address):
        del gpu.host[address]

    @function
    def cudaStreamCreateWithFlags(flags):
        stream = gpu.number()
        gpu.queues[stream] = []
        return stream

    @function
    def cudaStreamDestroy(stream):
        del gpu.queues[stream]

    @function
    def cudaMemcpyAsync(target, source, size, kind, stream):
        if kind is Kind.cudaMemcpyHostToDevice:
            to, of = gpu.array(target, size), gpu.host_array(source, size)
            gpu.copied_in.append(size)
        else:
            to, of = gpu.host_array(target, size), gpu.array(source, size)
            gpu.copied_out.append(size)
        gpu.do(stream, lambda: np.copyto(to, of))

    @function
    def cudaStreamSynchronize(stream):
        assert stream not in gpu.recording, 'waiting is not allowed while a graph is captured'
        while gpu.queues[stream]:
            gpu.queues[stream].pop(0)()

    @function
    def cudaStreamBeginCapture(stream, mode):
        gpu.recording[stream] = []

    @function
    def cudaStreamEndCapture(stream):
        work = gpu.recording.pop(stream)
        return (gpu.capture_error, None) if gpu.capture_error else (0, work)

    @function
    def cudaGraphInstantiate(graph, flags):
        executable = gpu.number()
        gpu.graphs[executable] = graph
        return executable

    @function
    def cudaGraphDestroy(graph):
        pass

    @function
    def cudaGraphExecDestroy(graph):
        del gpu.graphs[graph]

    @function
    def cudaGraphLaunch(graph, stream):
        gpu.launched += 1
        for work in gpu.graphs[graph]:
            gpu.do(stream, work)

    return runtime


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


class DataType(enum.Enum):
    UINT8, FLOAT, INT32 = range(3)


class Mode(enum.Enum):
    INPUT, OUTPUT = range(2)


def tensorrt_module(gpu):
    """What is used of the module ``tensorrt``; a plan is its largest batch and the model."""
    trt = types.ModuleType('tensorrt')
    trt.__version__ = '10.3.0'
    trt.builds = []  # configurations
    trt.timings = []  # timing caches that were given
    trt.refuse_plans = 0  # how many plans do not deserialise
    trt.null = ()  # factories that give nothing
    trt.fail_runs = False
    trt.dla_cores = 2
    trt.TensorIOMode = Mode
    trt.Dims = tuple
    for name, members in {
        'BuilderFlag': 'GPU_FALLBACK',
        'DeviceType': 'GPU DLA',
        'ExecutionContextAllocationStrategy': 'STATIC USER_MANAGED',
        'MemoryPoolType': 'WORKSPACE',
        'NetworkDefinitionCreationFlag': 'STRONGLY_TYPED',
    }.items():
        setattr(trt, name, enum.IntEnum(name, members, start=0))

    def factory(kind):
        def make(*arguments):
            if kind.__name__ in trt.null:
                raise TypeError('pybind11::init(): factory function returned nullptr')
            return kind(*arguments)

        setattr(trt, kind.__name__, make)

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO = Severity

    class IProgressMonitor:
        pass

    trt.ILogger, trt.IProgressMonitor = ILogger, IProgressMonitor

    @factory
    class Builder:
        num_DLA_cores = property(lambda self: trt.dla_cores)

        def __init__(self, logger):
            self.logger = logger

        def create_network(self, flags):
            assert flags == 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
            return types.SimpleNamespace(num_inputs=1)

        def create_builder_config(self):
            return Config()

        def create_optimization_profile(self):
            return types.SimpleNamespace(set_shape=lambda *shapes: setattr(self, 'range', shapes))

        def build_serialized_network(self, network, config):
            monitor = config.progress_monitor
            monitor.phase_start('Building', None, 4)
            for step in range(4):
                if not monitor.step_complete('Building', step):
                    self.logger.log(Severity.ERROR, 'cancelled')
                    return None
            monitor.phase_finish('Building')
            trt.builds.append(config)
            largest = 1 if network.image.shape[0] == 1 else self.range[3][0]
            return bytes([largest]) + network.model

    class Config:
        def __init__(self):
            self.flags, self.pools, self.timing = [], {}, None
            self.set_flag = self.flags.append
            self.set_memory_pool_limit = self.pools.__setitem__
            self.add_optimization_profile = lambda profile: 0

        def create_timing_cache(self, content):
            return None if content == b'damaged' else types.SimpleNamespace(content=content)

        def set_timing_cache(self, times, ignore_mismatch):
            trt.timings.append(times.content)
            return True

        def get_timing_cache(self):
            return types.SimpleNamespace(serialize=lambda: b'times')

    @factory
    class OnnxParser:
        num_errors = 0

        def __init__(self, network, logger):
            self.network = network

        def parse(self, model):
            session = onnxruntime.InferenceSession(model)
            image = session.get_inputs()[0]
            shape = tuple(-1 if isinstance(size, str) else size for size in image.shape)
            self.network.image = types.SimpleNamespace(name='image', shape=shape)
            self.network.get_input = lambda index: self.network.image
            self.network.model = model
            return True

    @factory
    class Runtime:
        DLA_core = -1

        def __init__(self, logger):
            self.logger = logger

        def deserialize_cuda_engine(self, plan):
            if trt.refuse_plans:
                trt.refuse_plans -= 1
                self.logger.log(Severity.ERROR, 'the plan is of another GPU')
                return None
            return Engine(self, plan)

    class Engine:
        device_memory_size_v2 = 5000

        def __init__(self, runtime, plan):
            self.runtime, self.max_batch = runtime, plan[0]
            self.session = onnxruntime.InferenceSession(plan[1:])
            self.inputs = self.session.get_inputs()
            self.io = {t.name: t for t in [*self.inputs, *self.session.get_outputs()]}
            self.num_io_tensors = len(self.io)

        def get_tensor_name(self, index):
            return list(self.io)[index]

        def get_tensor_mode(self, name):
            return Mode.INPUT if self.io[name] in self.inputs else Mode.OUTPUT

        def get_tensor_shape(self, name):
            return (1 if self.max_batch == 1 else -1, *self.io[name].shape[1:])

        def get_tensor_dtype(self, name):
            kind = self.io[name].type
            return {'tensor(uint8)': DataType.UINT8, 'tensor(float)': DataType.FLOAT}.get(
                kind, DataType.INT32
            )

        def create_execution_context(self, strategy):
            assert strategy is trt.ExecutionContextAllocationStrategy.USER_MANAGED
            return Context(self)

    class Context:
        active_optimization_profile = -1

        def __init__(self, engine):
            self.engine, self.addresses, self.batch = engine, {}, None
            self.scratch = self.captured = None

        def __setattr__(self, name, value):
            assert not getattr(self, 'captured', None), 'changed after a graph was captured'
            super().__setattr__(name, value)

        def set_optimization_profile_async(self, index, stream):
            self.active_optimization_profile = index

        def set_device_memory(self, address, size):
            assert size >= self.engine.device_memory_size_v2
            self.scratch = gpu.array(address, size)

        def set_input_shape(self, name, shape):
            assert self.active_optimization_profile == 0
            self.batch = shape[0]
            return 1 <= shape[0] <= self.engine.max_batch

        def set_tensor_address(self, name, address):
            self.addresses[name] = address
            return name in self.engine.io

        def infer_shapes(self):
            return []

        def get_tensor_shape(self, name):
            return (self.batch, *self.engine.io[name].shape[1:])

        def execute_async_v3(self, stream):
            assert self.scratch is not None
            assert set(self.addresses) == set(self.engine.io)
            if trt.fail_runs:
                self.engine.runtime.logger.log(Severity.ERROR, 'myelin says no')
                return False
            gpu.enqueued += 1
            gpu.do(stream, self.work)
            if stream in gpu.recording:
                self.captured = True
            return True

        def work(self):
            def array(name):
                shape = self.get_tensor_shape(name)
                dtype = np.dtype({'tensor(float)': 'f4'}.get(self.engine.io[name].type, 'u1'))
                size = int(np.prod(shape)) * dtype.itemsize
                return gpu.array(self.addresses[name], size).view(dtype).reshape(shape)

            names = [name for name in self.engine.io if name != 'image']
            results = self.engine.session.run(names, {'image': array('image')})
            for name, result in zip(names, results, strict=True):
                np.copyto(array(name), result)

    return trt


@pytest.fixture
def gpu(monkeypatch):
    gpu = Gpu()
    package = types.ModuleType('cuda')
    package.bindings = types.ModuleType('cuda.bindings')
    package.bindings.runtime = cuda_runtime(gpu)
    monkeypatch.setitem(sys.modules, 'cuda', package)
    monkeypatch.setitem(sys.modules, 'cuda.bindings', package.bindings)
    monkeypatch.setitem(sys.modules, 'cuda.bindings.runtime', package.bindings.runtime)
    return gpu


@pytest.fixture
def trt(gpu, monkeypatch):
    trt = tensorrt_module(gpu)
    monkeypatch.setitem(sys.modules, 'tensorrt', trt)
    return trt


@pytest.fixture
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle)


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / 'engines')


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
    assert backend._plan.runtime.DLA_core == 1
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


# --- machines where it does not work ---------------------------------------------------------


@pytest.mark.parametrize('kind', ['Builder', 'OnnxParser', 'Runtime'])
def test_a_factory_that_gives_nothing(open_engine, trt, gpu, kind):
    trt.null = (kind,)
    message = refused(open_engine)
    assert 'TensorRT 10.3.0 cannot start' in message
    assert 'driver is missing or too old' in message
    assert gpu.nothing_left


@pytest.mark.parametrize(
    ('state', 'message'),
    [
        ({'count_error': 35, 'driver': 0}, 'found no NVIDIA driver'),
        ({'count_error': 35, 'driver': 11040}, 'driver is for CUDA 11.4, too old'),
        ({'count_error': 100}, 'finds no GPU'),
        ({'count': 0}, 'finds no GPU'),
        ({'count_error': 3}, 'cudaGetDeviceCount: error number 3 (error 3)'),
    ],
)
def test_no_gpu(open_engine, gpu, state, message):
    vars(gpu).update(state)
    assert message in refused(open_engine)


def test_a_gpu_that_is_not_there(open_engine):
    assert 'device is 1, expected 0 to 0' in refused(open_engine, device=1)


def test_tensorrt_missing(open_engine, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorrt', None)
    message = refused(open_engine)
    assert 'python3-libnvinfer' in message
    assert 'pip install tensorrt' in message


def test_tensorrt_too_old(open_engine, trt):
    trt.__version__ = '8.6.2'
    assert 'TensorRT is 8.6.2, expected 10.3 or newer' in refused(open_engine)


def test_cuda_packages_missing(open_engine, monkeypatch):
    for name in ('cuda', 'cuda.bindings', 'cuda.bindings.runtime', 'pycuda', 'pycuda.driver'):
        monkeypatch.setitem(sys.modules, name, None)
    message = refused(open_engine)
    assert 'cuda-bindings' in message
    assert 'pycuda' in message


# --- the packages below ----------------------------------------------------------------------


def pycuda_driver(gpu):
    """What is used of ``pycuda.driver``, over the same stand-in for a GPU."""
    runtime = cuda_runtime(gpu)
    driver = types.ModuleType('pycuda.driver')
    depth = []

    class Context:
        def push(self):
            depth.append(self)
            gpu.chosen.device = 0

        @staticmethod
        def pop():
            depth.pop()

    class Device:
        count = staticmethod(lambda: gpu.count)

        def __init__(self, number):
            pass

        def retain_primary_context(self):
            return Context()

        def name(self):
            return 'Orin'

        def compute_capability(self):
            return 8, 7

    class Memory(int):
        def free(self):
            runtime.cudaFree(int(self))

    class Stream:
        def __init__(self):
            self.handle = runtime.cudaStreamCreateWithFlags(1)[1]

        def synchronize(self):
            runtime.cudaStreamSynchronize(self.handle)

        def __del__(self):
            gpu.queues.pop(self.handle)

    class Pinned:
        def __init__(self, address, size):
            self.block = (ctypes.c_uint8 * size).from_address(address)
            self.address = address
            self.__array_interface__ = {
                'data': (address, False),
                'shape': (size,),
                'typestr': '|u1',
                'version': 3,
            }

        def free(self):
            runtime.cudaFreeHost(self.address)

    def pagelocked_zeros(size, dtype):
        return np.asarray(Pinned(runtime.cudaMallocHost(size)[1], size))

    kinds = runtime.cudaMemcpyKind
    driver.Error = type('Error', (Exception,), {})
    driver.Context, driver.Device, driver.Stream = Context, Device, Stream
    driver.init = lambda: None
    driver.get_driver_version = lambda: 12060
    driver.mem_alloc = lambda size: Memory(runtime.cudaMalloc(size)[1])
    driver.pagelocked_zeros = pagelocked_zeros
    driver.memcpy_htod_async = lambda to, of, stream: runtime.cudaMemcpyAsync(
        to, of.ctypes.data, of.nbytes, kinds.cudaMemcpyHostToDevice, stream.handle
    )
    driver.memcpy_dtoh_async = lambda to, of, stream: runtime.cudaMemcpyAsync(
        to.ctypes.data, of, to.nbytes, kinds.cudaMemcpyDeviceToHost, stream.handle
    )
    driver.depth = depth
    return driver


def test_pycuda_where_only_that_is_installed(open_engine, bundle, gpu, monkeypatch):
    driver = pycuda_driver(gpu)
    package = types.ModuleType('pycuda')
    package.driver = driver
    for name in ('cuda', 'cuda.bindings', 'cuda.bindings.runtime'):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, 'pycuda', package)
    monkeypatch.setitem(sys.modules, 'pycuda.driver', driver)
    backend = open_engine(max_batch=2)
    assert backend.identity['provider'] == 'GPU, no CUDA graph: pycuda cannot capture one'
    for batch in (2, 1):
        same(backend.run(frames(batch), OUTPUTS), expected(bundle, frames(batch)))
    backend.close()
    assert gpu.nothing_left
    assert driver.depth == []  # every context that was pushed was popped


@pytest.fixture
def real_bindings():
    runtime = pytest.importorskip('cuda.bindings.runtime', reason='cuda-bindings')
    if int(runtime.cudaGetDeviceCount()[0]) != 35 or runtime.cudaDriverGetVersion()[1]:
        pytest.skip('this machine has an NVIDIA driver')
    return runtime


def test_the_real_bindings_without_a_driver(real_bindings):
    assert 'found no NVIDIA driver' in refused(lambda: open_gpu(0))


def test_the_real_bindings_take_our_calls(real_bindings):
    """Numbers as addresses and streams, these enumerations: an error of CUDA, not of types."""
    cuda = CudaBindings.__new__(CudaBindings)
    cuda._runtime, cuda._number = real_bindings, 0
    array = np.zeros(16, np.uint8)
    for call in (
        lambda: cuda.use().__enter__(),
        lambda: cuda.allocate(16),
        lambda: cuda.pinned(16),
        cuda.new_stream,
        lambda: cuda.copy_in(4096, array, 7),
        lambda: cuda.copy_out(array, 4096, 7),
        lambda: cuda.synchronize(7),
        lambda: cuda.begin_capture(7),
        lambda: cuda.end_capture(7),
        lambda: cuda.launch(real_bindings.cudaGraphExec_t(), 7),
    ):
        assert '(error 35)' in refused(call)
    cuda.free(4096)
    cuda.free_stream(7)
    cuda.free_pinned(array)
    cuda.free_graph(real_bindings.cudaGraphExec_t())


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
