"""Stand-ins for TensorRT and CUDA, which need a GPU.

They compute with ONNX Runtime, and are strict about what a GPU would not forgive: memory that is
not (or no longer) allocated or too small, work that is looked at before it was waited for, shapes
outside of the profile, a context that changes after a graph was captured from it, calls in a thread
that did not choose its GPU.
"""

# The stand-ins have the names of what they stand for.
# ruff: noqa: N802, N815

from __future__ import annotations

import ctypes
import enum
import sys
import threading
import types

import numpy as np
import pytest

from mtl_perception.bundle import load_bundle
from mtl_perception.engines.cache import EngineCache


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
    onnxruntime = pytest.importorskip('onnxruntime')
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
        array = np.asarray(Pinned(runtime.cudaMallocHost(size)[1], size))
        array[:] = 0
        return array

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
def pycuda(gpu, monkeypatch):
    """A machine that has pycuda instead of cuda-bindings; gives its driver module."""
    package = types.ModuleType('pycuda')
    package.driver = pycuda_driver(gpu)
    for name in ('cuda', 'cuda.bindings', 'cuda.bindings.runtime'):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, 'pycuda', package)
    monkeypatch.setitem(sys.modules, 'pycuda.driver', package.driver)
    return package.driver


@pytest.fixture
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle)


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / 'engines')
