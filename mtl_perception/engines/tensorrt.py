"""TensorRT 10.3 to 11: a bundle on an NVIDIA GPU, or on the accelerator of a Jetson.

Parsing and compiling (``tensorrt_build``) are tested with TensorRT-RTX, which needs no GPU, and the
calls are type-checked against the real APIs of 10.3, 10.16 and 11.4. Execution has been driven by
a stand-in for TensorRT only: it has not been run on a GPU yet.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from .cache import EngineCache
from .cuda import open_gpu
from .engine import EngineError, EngineOptions, Progress, quiet
from .tensorrt_api import import_tensorrt, log_of
from .tensorrt_plan import Plan, open_plan
from .tensors import Tensor, check_images, check_tensors, model_file

if TYPE_CHECKING:
    import tensorrt

# The model of a bundle that a precision is built from: the number formats are those of the file.
MODELS: Mapping[str, str] = {'fp32': 'fp32', 'fp16': 'fp16', 'int8': 'int8'}

_DTYPES = {
    'BOOL': 'bool',
    'UINT8': 'uint8',
    'INT8': 'int8',
    'INT32': 'int32',
    'INT64': 'int64',
    'HALF': 'float16',
    'FLOAT': 'float32',
}


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
        self._gpu = open_gpu(options.device)
        self._trt = trt
        self._log = log_of(trt)
        self._bundle, self._max_batch = bundle, options.max_batch
        self._no_graphs = ''  # why runs are not captured
        self._plan: Plan | None = None
        self._shapes: dict[int, _Shape] = {}
        self._frees = contextlib.ExitStack()
        with self._gpu.use(), contextlib.ExitStack() as failed:
            failed.callback(self._free)
            self._plan = open_plan(trt, model, options, self._gpu.device, cache, progress)
            self.cached, self.cache_problem = self._plan.cached, self._plan.cache_problem
            self._io = self._check(self._plan.engine, bundle, model.path)
            self._allocate(self._plan.engine)
            # The batch that is run most: memory that is short and a graph that fails show now.
            self._shapes[self._max_batch] = self._prepare(self._plan.engine, self._max_batch)
            failed.pop_all()
        self.identity = {
            'engine': 'tensorrt',
            'version': trt.__version__,
            'provider': self._provider(options),
            'device': self._gpu.device,
            'precision': options.precision,
        }

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Run the network; see ``Engine.run``. Only ``outputs`` are copied from the GPU."""
        if self._plan is None:
            raise EngineError('tensorrt: the engine is closed')
        check_images(self.name, images, self._bundle, self._max_batch)
        image, batch = self._io['image'], len(images)
        for name in outputs:
            if name == 'image' or name not in self._io:
                raise EngineError(f'tensorrt: the engine has no output {name!r}')
        if not outputs:
            return {}
        with self._gpu.use():
            if batch not in self._shapes:
                self._shapes[batch] = self._prepare(self._plan.engine, batch)
            shape = self._shapes[batch]
            np.copyto(image.view(batch), images)
            self._gpu.copy_in(image.address, image.bytes(batch), self._stream)
            if shape.graph is None:
                self._enqueue(shape.context)
            else:
                self._gpu.launch(shape.graph, self._stream)
            for name in outputs:
                tensor = self._io[name]
                self._gpu.copy_out(tensor.bytes(batch), tensor.address, self._stream)
            self._gpu.synchronize(self._stream)
            return {name: self._io[name].view(batch).copy() for name in outputs}

    def close(self) -> None:
        """Free the engine and all memory."""
        if self._plan is not None:
            with self._gpu.use():
                self._free()

    def _check(
        self, engine: tensorrt.ICudaEngine, bundle: Bundle, path: Path
    ) -> dict[str, _Buffer]:
        """Compare the engine's tensors with the bundle's description; all of them, by name."""
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

    def _allocate(self, engine: tensorrt.ICudaEngine) -> None:
        """Memory for the largest batch; ``_frees`` gives it back in the opposite order."""
        gpu = self._gpu
        self._stream = gpu.new_stream()
        self._frees.callback(gpu.free_stream, self._stream)
        # What the layers hand on to each other: one block for the contexts of all batch sizes,
        # of which only one runs at a time.
        self._scratch_size = max(int(engine.device_memory_size_v2), 1)
        self._scratch = gpu.allocate(self._scratch_size)
        self._frees.callback(gpu.free, self._scratch)
        for buffer in self._io.values():
            size = buffer.size(self._max_batch)
            buffer.address = gpu.allocate(size)
            self._frees.callback(gpu.free, buffer.address)
            buffer.host = gpu.pinned(size)
            self._frees.callback(gpu.free_pinned, buffer.host)
        self._frees.callback(self._shapes.clear)

    def _prepare(self, engine: tensorrt.ICudaEngine, batch: int) -> _Shape:
        """A context for a batch size, with everything set, and its graph."""
        self._log.take()
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = engine.create_execution_context(strategy)
        if context is None:
            raise EngineError(f'tensorrt: no execution context: {self._log.take()}')
        if context.active_optimization_profile != 0:
            context.set_optimization_profile_async(0, self._stream)
            self._gpu.synchronize(self._stream)
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
        if not self._gpu.graphs:
            self._no_graphs = f'{self._gpu.package} cannot capture one'
            return None
        # Once without: layers may still allocate in the first run, which cannot be captured.
        self._enqueue(context)
        self._gpu.synchronize(self._stream)
        graph = None
        try:
            self._gpu.begin_capture(self._stream)
            try:
                self._enqueue(context)
            finally:
                graph = self._gpu.end_capture(self._stream)
        except EngineError as error:
            self._no_graphs = str(error)
            if graph is not None:
                self._gpu.free_graph(graph)
            return None
        self._frees.callback(self._gpu.free_graph, graph)
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
        self._plan = None


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
