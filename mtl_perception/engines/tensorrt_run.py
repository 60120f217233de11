"""A TensorRT plan on its GPU: memory for its tensors, a context and a graph per batch size."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from .engine import EngineError
from .gpu import Gpu
from .tensorrt_api import Api, log_of
from .tensorrt_plan import Plan
from .tensors import Tensor, check_tensors

if TYPE_CHECKING:
    import tensorrt

_DTYPES = {
    'BOOL': 'bool',
    'UINT8': 'uint8',
    'INT8': 'int8',
    'INT32': 'int32',
    'INT64': 'int64',
    'HALF': 'float16',
    'FLOAT': 'float32',
}


class PlanRunner:
    """Runs a plan, in any thread, in one at a time.

    For every batch size that is asked for there is an execution context of its own with its CUDA
    graph, because a context must not change once a graph was captured from it; all share one block
    of memory.

    Args:
        trt: the module ``tensorrt``.
        gpu: which must be chosen in this thread.
        plan: on that GPU.
        path: of the model, for messages.
        max_batch: of the plan.
        bundle: with whose description its tensors are compared; None for a part of a model.

    Attributes:
        plan: as given; None when it is closed.
        outputs: names of its outputs.
        no_graphs: why runs are not captured; empty if they are.

    Raises:
        EngineError: TensorRT refuses a run, or memory is short.
        BundleError: its tensors are not as the bundle describes them.
    """

    def __init__(
        self, trt: Api, gpu: Gpu, plan: Plan, path: Path, max_batch: int, bundle: Bundle | None
    ) -> None:
        self._trt, self._gpu, self._max_batch = trt, gpu, max_batch
        self._log = log_of(trt)
        self._lock = Lock()
        self.plan: Plan | None = plan
        self.no_graphs = ''
        self._shapes: dict[int, _Shape] = {}
        self._frees = contextlib.ExitStack()
        with contextlib.ExitStack() as failed:
            failed.callback(self._free)
            self._io = self._buffers(plan.engine, path, bundle)
            self.outputs = self._io.keys() - {'image'}
            self._allocate(plan.engine)
            # The batch that is run most: memory that is short and a graph that fails show now.
            self._shapes[max_batch] = self._prepare(plan.engine, max_batch)
            failed.pop_all()

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Run the network; only ``outputs`` are copied from the GPU."""
        image, batch = self._io['image'], len(images)
        with self._lock, self._gpu.use():
            if self.plan is None:
                raise EngineError('tensorrt: the engine is closed')
            if batch not in self._shapes:
                self._shapes[batch] = self._prepare(self.plan.engine, batch)
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
        """Free the plan and all its memory."""
        with self._lock:
            if self.plan is not None:
                with self._gpu.use():
                    self._free()

    def _buffers(
        self, engine: tensorrt.ICudaEngine, path: Path, bundle: Bundle | None
    ) -> dict[str, _Buffer]:
        """The engine's tensors by name, without memory yet."""
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
        if bundle is not None:
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
        if self.no_graphs:
            return None
        if not self._gpu.graphs:
            self.no_graphs = f'{self._gpu.package} cannot capture one'
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
            self.no_graphs = str(error)
            if graph is not None:
                self._gpu.free_graph(graph)
            return None
        self._frees.callback(self._gpu.free_graph, graph)
        return graph

    def _enqueue(self, context: tensorrt.IExecutionContext) -> None:
        if not context.execute_async_v3(self._stream):
            raise EngineError(f'tensorrt: the run failed: {self._log.take()}')

    def _free(self) -> None:
        self._frees.close()
        self._shapes.clear()
        self.plan = None


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
