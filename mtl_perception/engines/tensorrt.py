"""TensorRT 10.3 to 11: engines for NVIDIA GPUs, built from the bundle's ONNX files.

Parsing and compiling (``build_plan``) are tested with TensorRT-RTX, which needs no GPU, and the
calls are type-checked against the real APIs of 10.3, 10.16 and 11.4. Execution has been driven by
a stand-in for TensorRT only: it has not been run on a GPU yet.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from .. import one_line
from ..bundle import Bundle
from .cache import CacheError, EngineCache, Key, save_bytes
from .cuda import open_cuda
from .engine import EngineError, EngineOptions, Progress, quiet
from .quantized import unsigned_node
from .tensors import Tensor, check_images, check_tensors, model_file

if TYPE_CHECKING:
    import tensorrt

T = TypeVar('T')

# The model of a bundle that a precision is built from: the number formats are those of the file.
MODELS: Mapping[str, str] = {'fp32': 'fp32', 'fp16': 'fp16', 'int8': 'int8'}
OLDEST = (10, 3)
# Part of the key of every plan: counts up when ``build_plan`` changes what it builds.
_RECIPE = '1'

_DTYPES = {
    'BOOL': 'bool',
    'UINT8': 'uint8',
    'INT8': 'int8',
    'INT32': 'int32',
    'INT64': 'int64',
    'HALF': 'float16',
    'FLOAT': 'float32',
}


class Api(Protocol):
    """What is used of the module ``tensorrt``; ``tensorrt_rtx`` has the same."""

    __version__: str

    @property
    def Builder(self) -> type[tensorrt.Builder]: ...  # noqa: N802

    @property
    def BuilderFlag(self) -> type[tensorrt.BuilderFlag]: ...  # noqa: N802

    @property
    def DeviceType(self) -> type[tensorrt.DeviceType]: ...  # noqa: N802

    @property
    def Dims(self) -> type[tensorrt.Dims]: ...  # noqa: N802

    @property
    def ExecutionContextAllocationStrategy(  # noqa: N802
        self,
    ) -> type[tensorrt.ExecutionContextAllocationStrategy]: ...

    @property
    def ILogger(self) -> type[tensorrt.ILogger]: ...  # noqa: N802

    @property
    def IProgressMonitor(self) -> type[tensorrt.IProgressMonitor]: ...  # noqa: N802

    @property
    def MemoryPoolType(self) -> type[tensorrt.MemoryPoolType]: ...  # noqa: N802

    @property
    def NetworkDefinitionCreationFlag(  # noqa: N802
        self,
    ) -> type[tensorrt.NetworkDefinitionCreationFlag]: ...

    @property
    def OnnxParser(self) -> type[tensorrt.OnnxParser]: ...  # noqa: N802

    @property
    def Runtime(self) -> type[tensorrt.Runtime]: ...  # noqa: N802

    @property
    def TensorIOMode(self) -> type[tensorrt.TensorIOMode]: ...  # noqa: N802


class TensorRtEngine:
    """A bundle in TensorRT.

    The plan comes from the cache, or is built and put there; a cached plan that does not
    deserialise is built again, once. For every batch size that is asked for there is an execution
    context of its own with its CUDA graph, because a context must not change once a graph was
    captured from it; all share one block of memory.

    Args:
        bundle: from ``load_bundle``.
        options: ``dla_core`` needs ``max_batch`` 1 (a DLA takes fixed shapes only) and ``fp16`` or
            ``int8``.
        cache: where plans and the times of TensorRT's kernels are kept.
        progress: see ``engine.Progress``; what it raises ends a build.

    Attributes:
        variant, identity, cached, cache_problem: see ``Engine``.

    Raises:
        EngineError: no TensorRT, no GPU, a driver too old, or a model that TensorRT refuses.
        BundleError: the bundle has no model of the precision, or its tensors are not as described.
    """

    name = 'tensorrt'
    identity: Mapping[str, str]

    def __init__(
        self,
        bundle: Bundle,
        options: EngineOptions,
        cache: EngineCache,
        progress: Progress = quiet,
    ) -> None:
        if options.precision not in MODELS:
            raise EngineError(
                f'tensorrt: precision is {options.precision!r}, expected {", ".join(MODELS)}'
            )
        self.variant = MODELS[options.precision]
        model = model_file(bundle, self.variant, options.precision, self.name)
        trt = import_tensorrt()
        self._cuda = open_cuda(options.device)
        key = Key(
            kind='plan',
            model_sha256=model.sha256,
            backend=self.name,
            version=trt.__version__,
            device=self._cuda.device,
            precision=options.precision,
            max_batch=options.max_batch,
            options={'recipe': _RECIPE}
            | ({'dla_core': str(options.dla_core)} if options.dla_core >= 0 else {})
            | ({'workspace_mb': str(options.workspace_mb)} if options.workspace_mb else {}),
        )

        def build() -> tuple[bytes, Mapping[str, Any]]:
            started = time.monotonic()
            timing = cache.timing_file(f'{trt.__version__} {self._cuda.device}')
            content = build_plan(
                trt, model.read(), options, progress=progress, timing=timing, name=str(model.path)
            )
            return content, {'build_s': round(time.monotonic() - started, 1)}

        self.cached, self.cache_problem = True, ''
        self._trt = trt
        self._log = _log_of(trt)
        self._bundle, self._max_batch = bundle, options.max_batch
        self._no_graphs = ''  # why runs are not captured
        self._engine: tensorrt.ICudaEngine | None = None
        self._runtime: tensorrt.Runtime | None = None
        self._shapes: dict[int, _Shape] = {}
        self._frees = contextlib.ExitStack()
        with self._cuda.use(), contextlib.ExitStack() as failed:
            failed.callback(self._free)
            self._open(cache, key, build, options, progress)
            self._io = self._check(bundle, model.path)
            self._allocate()
            # The batch that is run most: memory that is short and a graph that fails show now.
            self._shapes[self._max_batch] = self._prepare(self._max_batch)
            failed.pop_all()
        self.identity = {
            'engine': 'tensorrt',
            'version': trt.__version__,
            'provider': self._provider(options),
            'device': self._cuda.device,
            'precision': options.precision,
        }

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Run the network; see ``Engine.run``. Only ``outputs`` are copied from the GPU."""
        if self._engine is None:
            raise EngineError('tensorrt: the engine is closed')
        check_images(self.name, images, self._bundle, self._max_batch)
        image, batch = self._io['image'], len(images)
        for name in outputs:
            if name == 'image' or name not in self._io:
                raise EngineError(f'tensorrt: the engine has no output {name!r}')
        if not outputs:
            return {}
        with self._cuda.use():
            if batch not in self._shapes:
                self._shapes[batch] = self._prepare(batch)
            shape = self._shapes[batch]
            np.copyto(image.view(batch), images)
            self._cuda.copy_in(image.address, image.bytes(batch), self._stream)
            if shape.graph is None:
                self._enqueue(shape.context)
            else:
                self._cuda.launch(shape.graph, self._stream)
            for name in outputs:
                tensor = self._io[name]
                self._cuda.copy_out(tensor.bytes(batch), tensor.address, self._stream)
            self._cuda.synchronize(self._stream)
            return {name: self._io[name].view(batch).copy() for name in outputs}

    def close(self) -> None:
        """Free the engine and all memory."""
        if self._engine is not None:
            with self._cuda.use():
                self._free()

    # --- the plan ----------------------------------------------------------------------------

    def _open(
        self,
        cache: EngineCache,
        key: Key,
        build: Any,
        options: EngineOptions,
        progress: Progress,
    ) -> None:
        found = cache.get_or_build(key, build, progress=progress)
        self.cache_problem = found.problem or cache.last_reason
        engine, why = self._deserialize(found.content, options)
        if engine is None and not found.built:
            cache.discard(key)
            found = cache.get_or_build(key, build, progress=progress)
            self.cache_problem = found.problem or f'the plan in the cache did not open: {why}'
            engine, why = self._deserialize(found.content, options)
        if engine is None:
            raise EngineError(f'tensorrt: the plan that was just built does not open: {why}')
        self._engine = engine
        self.cached = not found.built

    def _deserialize(
        self, content: bytes, options: EngineOptions
    ) -> tuple[tensorrt.ICudaEngine | None, str]:
        """The engine, or None and what TensorRT logged."""
        self._log.take()
        runtime = self._runtime = _start(self._trt, self._trt.Runtime, self._log.logger)
        if options.dla_core >= 0:
            runtime.DLA_core = options.dla_core
        engine: Any = runtime.deserialize_cuda_engine(content)
        return engine, self._log.take()

    def _check(self, bundle: Bundle, path: Path) -> dict[str, _Buffer]:
        """Compare the engine's tensors with the bundle's description; all of them, by name."""
        engine = self._engine
        assert engine is not None
        tensors: dict[str, Tensor] = {}
        inputs = []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            first, *rest = list(cast('Any', engine.get_tensor_shape(name)))
            kind = engine.get_tensor_dtype(name).name
            # A plan for single images has a fixed first dimension.
            free = first == -1 or (first == 1 == self._max_batch)
            shape = [None if free else first, *(None if size < 0 else size for size in rest)]
            tensors[name] = Tensor(name, _DTYPES.get(kind, kind.lower()), shape)
            if engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT:
                inputs.append(name)
        check_tensors(
            bundle,
            path,
            [tensors[name] for name in inputs],
            [tensor for name, tensor in tensors.items() if name not in inputs],
        )
        buffers = {}
        for name, tensor in tensors.items():
            sizes = [size for size in tensor.shape[1:] if isinstance(size, int)]
            if len(sizes) != len(tensor.shape) - 1 or tensor.dtype not in _DTYPES.values():
                raise EngineError(
                    f'{path}: output {name!r} is {tensor.dtype} {list(tensor.shape)}, expected '
                    'a dtype of NumPy and sizes that are known'
                )
            buffers[name] = _Buffer(np.dtype(tensor.dtype), tuple(sizes))
        return buffers

    # --- memory and execution ----------------------------------------------------------------

    def _allocate(self) -> None:
        """Memory for the largest batch; ``_frees`` gives it back in the opposite order."""
        cuda, engine = self._cuda, self._engine
        assert engine is not None
        self._stream = cuda.new_stream()
        self._frees.callback(cuda.free_stream, self._stream)
        # What the layers hand on to each other: one block for the contexts of all batch sizes,
        # of which only one runs at a time.
        self._scratch_size = max(int(engine.device_memory_size_v2), 1)
        self._scratch = cuda.allocate(self._scratch_size)
        self._frees.callback(cuda.free, self._scratch)
        for buffer in self._io.values():
            size = buffer.size(self._max_batch)
            buffer.address = cuda.allocate(size)
            self._frees.callback(cuda.free, buffer.address)
            buffer.host = cuda.pinned(size)
            self._frees.callback(cuda.free_pinned, buffer.host)
        self._frees.callback(self._shapes.clear)

    def _prepare(self, batch: int) -> _Shape:
        """A context for a batch size, with everything set, and its graph."""
        engine = self._engine
        assert engine is not None
        self._log.take()
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = engine.create_execution_context(strategy)
        if context is None:
            raise EngineError(f'tensorrt: no execution context: {self._log.take()}')
        if context.active_optimization_profile != 0:
            context.set_optimization_profile_async(0, self._stream)
            self._cuda.synchronize(self._stream)
        context.set_device_memory(self._scratch, self._scratch_size)
        good = context.set_input_shape('image', (batch, *self._io['image'].shape))
        for name, buffer in self._io.items():
            good = context.set_tensor_address(name, buffer.address) and good
        if not good or context.infer_shapes():
            raise EngineError(f'tensorrt: a batch of {batch} is refused: {self._log.take()}')
        for name, buffer in self._io.items():
            found = tuple(cast('Any', context.get_tensor_shape(name)))
            if found != (batch, *buffer.shape):
                raise EngineError(
                    f'tensorrt: {name} has the shape {list(found)}, '
                    f'expected {[batch, *buffer.shape]}'
                )
        return _Shape(context, self._capture_graph(context))

    def _capture_graph(self, context: tensorrt.IExecutionContext) -> Any:
        """The graph of a run; None where there is none."""
        if self._no_graphs:
            return None
        if not self._cuda.graphs:
            self._no_graphs = f'{self._cuda.package} cannot capture one'
            return None
        # Once without: layers may still allocate in the first run, which cannot be captured.
        self._enqueue(context)
        self._cuda.synchronize(self._stream)
        graph = None
        try:
            self._cuda.begin_capture(self._stream)
            try:
                self._enqueue(context)
            finally:
                graph = self._cuda.end_capture(self._stream)
        except EngineError as error:
            self._no_graphs = str(error)
            if graph is not None:
                self._cuda.free_graph(graph)
            return None
        self._frees.callback(self._cuda.free_graph, graph)
        return graph

    def _enqueue(self, context: tensorrt.IExecutionContext) -> None:
        if not context.execute_async_v3(self._stream):
            raise EngineError(f'tensorrt: the run failed: {self._log.take()}')

    def _provider(self, options: EngineOptions) -> str:
        where = 'GPU' if options.dla_core < 0 else f'DLA core {options.dla_core} and GPU'
        if self._no_graphs:
            return f'{where}, no CUDA graph: {self._no_graphs}'
        return f'{where}, CUDA graph'

    def _free(self) -> None:
        self._frees.close()
        self._shapes.clear()
        self._engine = None
        self._runtime = None


@dataclass
class _Buffer:
    """A tensor: its memory on the GPU and pinned memory of the host, for the largest batch."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]  # of one image
    address: int = 0
    host: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))

    def size(self, batch: int) -> int:
        return batch * math.prod(self.shape) * self.dtype.itemsize

    def bytes(self, batch: int) -> NDArray[np.uint8]:
        return self.host[: self.size(batch)]

    def view(self, batch: int) -> NDArray[Any]:
        return self.bytes(batch).view(self.dtype).reshape(batch, *self.shape)


@dataclass(frozen=True)
class _Shape:
    """A batch size: its context, and its graph where there is one."""

    context: tensorrt.IExecutionContext
    graph: Any


# --- building --------------------------------------------------------------------------------


def import_tensorrt() -> Api:
    """The module ``tensorrt``.

    Raises:
        EngineError: it is not installed, cannot be loaded or is too old.
    """
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:
        raise EngineError(
            "the backend 'tensorrt' needs TensorRT and its Python bindings: on a Jetson "
            'sudo apt-get install python3-libnvinfer, on a PC pip install tensorrt '
            f'({one_line(error)})'
        ) from error
    version = tuple(int(part) for part in trt.__version__.split('.')[:2])
    if version < OLDEST:
        raise EngineError(
            f'TensorRT is {trt.__version__}, expected {OLDEST[0]}.{OLDEST[1]} or newer '
            '(JetPack 6.1 or newer)'
        )
    return cast('Api', trt)


def build_plan(
    trt: Api,
    model: bytes,
    options: EngineOptions,
    *,
    progress: Progress = quiet,
    timing: Path | None = None,
    name: str = 'model.onnx',
) -> bytes:
    """Parse a model and compile it: a serialised engine for 1 to ``max_batch`` images.

    The network is strongly typed: every number format is the one that the file says. With
    ``max_batch`` 1 the shapes are fixed, else there is one profile, best at ``max_batch``.

    Args:
        trt: the module ``tensorrt`` (or ``tensorrt_rtx``, which compiles without a GPU).
        model: ONNX file with one input ``image`` of an open batch.
        options: ``max_batch, dla_core, workspace_mb, precision`` count.
        progress: what it raises ends the build and comes out here.
        timing: file with the times of kernels, read and written; None for none.
        name: of the model, for messages.

    Raises:
        EngineError: TensorRT cannot start, or refuses the model; operator and node are named.
    """
    progress('parsing the model', math.nan)
    _refuse_unsigned(model, name)
    log = _log_of(trt)
    log.take()
    builder = _start(trt, trt.Builder, log.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = _start(trt, trt.OnnxParser, network, log.logger)
    if not parser.parse(model):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = '; '.join(map(_parser_error, errors[:3])) or log.take()
        raise EngineError(f'{name}: TensorRT {trt.__version__} refuses it: {reasons}')
    config = builder.create_builder_config()
    if options.workspace_mb:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if options.dla_core >= 0:
        _use_dla(trt, builder, config, options)
    _set_shapes(trt, builder, network, config, options.max_batch, name)
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor
    with _timing_cache(config, timing):
        plan: Any = builder.build_serialized_network(network, config)
    if monitor.error is not None:
        raise monitor.error
    if plan is None:
        raise EngineError(
            f'{name}: TensorRT {trt.__version__} cannot build an engine: {log.take()}'
        )
    return bytes(plan)


def _refuse_unsigned(model: bytes, name: str) -> None:
    """TensorRT reads uint8 as int8 with no more than a warning: other numbers than the model's."""
    try:
        node = unsigned_node(model)
    except ValueError as error:
        raise EngineError(f'{name}: is not an ONNX file: {error}') from error
    if node:
        raise EngineError(
            f'{name}: node {node!r} quantises to uint8, which TensorRT would take for int8; '
            'expected symmetric int8 (the variant int8, not int8_u8s8)'
        )


def _short(text: str, length: int) -> str:
    return ' '.join(text.split())[:length]


def _parser_error(error: tensorrt.ParserError) -> str:
    where = f'operator {error.node_operator()} (node {error.node_name()!r})'
    return f'{where}: {_short(error.desc(), 300)}'


def _use_dla(
    trt: Api,
    builder: tensorrt.Builder,
    config: tensorrt.IBuilderConfig,
    options: EngineOptions,
) -> None:
    core, cores = options.dla_core, builder.num_DLA_cores
    if core >= cores:
        raise EngineError(f'dla_core is {core}, but TensorRT finds {cores} DLA cores here')
    if options.precision == 'fp32':
        raise EngineError("dla_core: a DLA has no fp32, expected precision 'fp16' or 'int8'")
    if options.max_batch != 1:
        raise EngineError(
            f'dla_core: a DLA takes fixed shapes only, expected max_batch 1, not '
            f'{options.max_batch}'
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _set_shapes(
    trt: Api,
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
    max_batch: int,
    name: str,
) -> None:
    """Say which shapes the engine must take."""
    if network.num_inputs != 1:
        raise EngineError(f'{name}: has {network.num_inputs} inputs, expected one')
    image = network.get_input(0)
    first, *rest = list(cast('Any', image.shape))
    if first != -1 or min(rest, default=-1) < 1:
        raise EngineError(
            f'{name}: input {image.name!r} has the shape {[first, *rest]}, expected an open batch '
            '(-1) and fixed sizes'
        )
    smallest, largest = trt.Dims([1, *rest]), trt.Dims([max_batch, *rest])
    if max_batch == 1:
        image.shape = smallest
        return
    profile = builder.create_optimization_profile()
    profile.set_shape(image.name, smallest, largest, largest)
    config.add_optimization_profile(profile)


@contextlib.contextmanager
def _timing_cache(config: tensorrt.IBuilderConfig, path: Path | None) -> Iterator[None]:
    """Times of kernels from earlier builds, and those of this one for later ones."""
    if path is None:
        yield
        return
    try:
        content = path.read_bytes()
    except OSError:
        content = b''
    times: Any = config.create_timing_cache(content)
    if times is None or not config.set_timing_cache(times, False):
        config.set_timing_cache(config.create_timing_cache(b''), False)
    yield
    times = config.get_timing_cache()
    # Only speed is lost without it.
    with contextlib.suppress(CacheError):
        if times is not None:
            save_bytes(path, bytes(times.serialize()))


def _start(trt: Api, kind: Callable[..., T], *arguments: Any) -> T:
    """Make one of TensorRT's objects.

    Where its library gives nothing, the bindings raise a TypeError: there is no other here, as the
    types of the arguments are checked against the bindings (``test/tensorrt_api``).
    """
    try:
        return kind(*arguments)
    except TypeError as error:
        raise EngineError(
            f'TensorRT {trt.__version__} cannot start ({one_line(error)}): the NVIDIA driver is '
            f'missing or too old for it, or its libraries are of another version '
            f'{_log_of(trt).take()}'.rstrip()
        ) from error


# --- what TensorRT calls; nothing here may raise: there is C++ in between ------------------------


class _Log:
    """The last warnings and errors that TensorRT logged, and the logger that brings them.

    There is one in a process: TensorRT keeps the first logger that it is given.
    """

    def __init__(self, trt: Api) -> None:
        self._lines: deque[str] = deque(maxlen=20)
        lines = self._lines
        worth = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING)

        class Logger(trt.ILogger):  # type: ignore[name-defined,misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in worth:
                    lines.append(message)

        self.logger: tensorrt.ILogger = Logger()

    def take(self) -> str:
        """All since the last call, in one line."""
        lines = []
        with contextlib.suppress(IndexError):
            while True:
                lines.append(self._lines.popleft())
        return _short('; '.join(lines), 500)


_LOGS: dict[Any, _Log] = {}


def _log_of(trt: Api) -> _Log:
    if trt not in _LOGS:
        _LOGS[trt] = _Log(trt)
    return _LOGS[trt]


def _monitor(trt: Api, progress: Progress) -> Any:
    """A progress monitor that tells ``progress``; ``error`` is what that raised, else None."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self._lock = threading.Lock()
            self._phases: dict[str, list[int]] = {}  # open ones, nested: [steps done, steps]
            self._share = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = [0, max(num_steps, 1)]
            self._tell()

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                if phase_name in self._phases:
                    self._phases[phase_name][0] = step + 1
            self._tell()
            return self.error is None

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.pop(phase_name, None)

        def _tell(self) -> None:
            with self._lock:
                share, part = 0.0, 1.0
                for done, steps in self._phases.values():
                    share += part * min(done / steps, 1.0)
                    part /= steps
                # Phases may end early; what was said is never taken back.
                self._share = share = max(self._share, min(share, 1.0))
            if self.error is None:
                try:
                    progress('building the engine', share)
                except BaseException as error:
                    self.error = error

    return Monitor()
