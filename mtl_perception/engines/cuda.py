"""CUDA memory, copies, streams and graphs: the little that an engine needs, in one interface.

Through ``cuda-bindings``, and where only that is installed (some robots) through ``pycuda``. The
calls were checked against the packages without a GPU; they have not been run on one yet.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import one_line
from .engine import EngineError

_MISSING = (
    'needs one of the Python packages cuda-bindings and pycuda: pip install cuda-bindings '
    "('cuda-bindings==12.*' where the driver is for CUDA 12, as on JetPack 6)"
)
_NO_DRIVER = (
    'found no NVIDIA driver: nvidia-smi shows whether this machine (or container) has a GPU'
)


class Cuda(Protocol):
    """One GPU. Addresses and streams are plain numbers, as TensorRT takes them.

    Attributes:
        package: what it goes through, with its version.
        device: name of the GPU and its compute capability.
        driver: CUDA version of the driver, for example ``12.6``.
        graphs: whether ``begin_capture`` and ``end_capture`` are there.
    """

    package: str
    device: str
    driver: str
    graphs: bool

    def use(self) -> AbstractContextManager[None]:
        """Make the GPU the calling thread's one; every call below happens inside."""

    def allocate(self, size: int) -> int:
        """Memory of the GPU: its address."""

    def free(self, address: int) -> None:
        """Give it back. The functions that free never fail: there is nothing left to do then."""

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Memory of the host that the GPU copies from and to without the CPU, zeros."""

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        """Give it back; views of the array must not be used any more."""

    def new_stream(self) -> int:
        """A queue of work."""

    def free_stream(self, stream: int) -> None:
        """Give it back."""

    def copy_in(self, address: int, source: NDArray[np.uint8], stream: int) -> None:
        """Queue a copy from pinned memory to the GPU."""

    def copy_out(self, target: NDArray[np.uint8], address: int, stream: int) -> None:
        """Queue a copy from the GPU to pinned memory."""

    def synchronize(self, stream: int) -> None:
        """Wait until all that was queued is done."""

    def begin_capture(self, stream: int) -> None:
        """From here on what is queued is recorded instead of done."""

    def end_capture(self, stream: int) -> Any:
        """End the recording: a graph that can be launched."""

    def launch(self, graph: Any, stream: int) -> None:
        """Queue all that a graph holds."""

    def free_graph(self, graph: Any) -> None:
        """Give it back."""


def open_cuda(device: int) -> Cuda:
    """The GPU of that number.

    Raises:
        EngineError: there is none, the driver is missing or too old, or neither package is
            installed.
    """
    try:
        import cuda.bindings.runtime as runtime
    except ImportError as no_bindings:
        try:
            import pycuda.driver as driver
        except ModuleNotFoundError:
            raise EngineError(f'CUDA {_MISSING} ({one_line(no_bindings)})') from no_bindings
        except ImportError as error:
            raise EngineError(f'CUDA through pycuda: {one_line(error)}; {_NO_DRIVER}') from error
        return PyCuda(driver, device)
    return CudaBindings(runtime, device)


class CudaBindings:
    """``Cuda`` through ``cuda.bindings.runtime``, 12.x or 13.x.

    Args:
        runtime: that module.
        device: number of the GPU.
    """

    package: str
    device: str
    driver: str
    graphs = True

    def __init__(self, runtime: Any, device: int) -> None:
        self._runtime = runtime
        self._number = device
        built_for = _version(self._call('cudaRuntimeGetVersion'))
        self.package = f'cuda-bindings for CUDA {built_for}'
        self.driver = _version(self._call('cudaDriverGetVersion'))
        error, count = runtime.cudaGetDeviceCount()
        if int(error) == 35:
            if self.driver == '0.0':
                raise EngineError(f'CUDA {_NO_DRIVER}')
            raise EngineError(
                f'CUDA: the NVIDIA driver is for CUDA {self.driver}, too old for the installed '
                f'cuda-bindings (CUDA {built_for}): update the driver, or install cuda-bindings '
                f"of its CUDA version: pip install 'cuda-bindings=={self.driver.split('.')[0]}.*'"
            )
        if int(error) == 100:
            count = 0
        elif int(error):
            raise self._error('cudaGetDeviceCount', error)
        _check_number(device, count)
        with self.use():
            about = self._call('cudaGetDeviceProperties', device)
        name = about.name
        name = name.decode(errors='replace') if isinstance(name, bytes) else str(name)
        self.device = f'{name} (compute capability {about.major}.{about.minor})'

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """See ``Cuda``."""
        self._call('cudaSetDevice', self._number)
        yield

    def allocate(self, size: int) -> int:
        """See ``Cuda``."""
        return int(self._call('cudaMalloc', size))

    def free(self, address: int) -> None:
        """See ``Cuda``."""
        self._runtime.cudaFree(address)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """See ``Cuda``."""
        address = int(self._call('cudaMallocHost', size))
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        array[:] = 0
        return array

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        """See ``Cuda``."""
        self._runtime.cudaFreeHost(array.ctypes.data)

    def new_stream(self) -> int:
        """See ``Cuda``. Not ordered with the default stream, which other libraries may use."""
        flag = self._runtime.cudaStreamNonBlocking
        return int(self._call('cudaStreamCreateWithFlags', flag))

    def free_stream(self, stream: int) -> None:
        """See ``Cuda``."""
        self._runtime.cudaStreamDestroy(stream)

    def copy_in(self, address: int, source: NDArray[np.uint8], stream: int) -> None:
        """See ``Cuda``."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call('cudaMemcpyAsync', address, source.ctypes.data, source.nbytes, kind, stream)

    def copy_out(self, target: NDArray[np.uint8], address: int, stream: int) -> None:
        """See ``Cuda``."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call('cudaMemcpyAsync', target.ctypes.data, address, target.nbytes, kind, stream)

    def synchronize(self, stream: int) -> None:
        """See ``Cuda``."""
        self._call('cudaStreamSynchronize', stream)

    def begin_capture(self, stream: int) -> None:
        """See ``Cuda``. What other threads do meanwhile does not spoil it."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call('cudaStreamBeginCapture', stream, mode)

    def end_capture(self, stream: int) -> Any:
        """See ``Cuda``."""
        graph = self._call('cudaStreamEndCapture', stream)
        try:
            return self._call('cudaGraphInstantiate', graph, 0)
        finally:
            self._runtime.cudaGraphDestroy(graph)

    def launch(self, graph: Any, stream: int) -> None:
        """See ``Cuda``."""
        self._call('cudaGraphLaunch', graph, stream)

    def free_graph(self, graph: Any) -> None:
        """See ``Cuda``."""
        self._runtime.cudaGraphExecDestroy(graph)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the runtime: its one result, or an exception."""
        error, *results = getattr(self._runtime, name)(*arguments)
        if int(error):
            raise self._error(name, error)
        return results[0] if results else None

    def _error(self, name: str, error: Any) -> EngineError:
        _, text = self._runtime.cudaGetErrorString(error)
        text = text.decode(errors='replace') if isinstance(text, bytes) else str(text)
        return EngineError(f'CUDA: {name}: {text} (error {int(error)})')


class PyCuda:
    """``Cuda`` through pycuda; it has no graph capture.

    It uses the GPU's primary context, the one that TensorRT runs in.

    Args:
        driver: the module ``pycuda.driver``.
        device: number of the GPU.
    """

    package: str
    device: str
    driver: str
    graphs = False

    def __init__(self, driver: Any, device: int) -> None:
        self._driver = driver
        with self._errors('init'):
            driver.init()
            count = int(driver.Device.count())
        _check_number(device, count)
        with self._errors('retain_primary_context'):
            about = driver.Device(device)
            self._context = about.retain_primary_context()
        self.package = 'pycuda'
        self.driver = _version(driver.get_driver_version())
        major, minor = about.compute_capability()
        self.device = f'{about.name()} (compute capability {major}.{minor})'
        # pycuda's objects free what they stand for when nobody holds them any more.
        self._memory: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """See ``Cuda``."""
        with self._errors('Context.push'):
            self._context.push()
        try:
            yield
        finally:
            self._driver.Context.pop()

    def allocate(self, size: int) -> int:
        """See ``Cuda``."""
        with self._errors('mem_alloc'):
            memory = self._driver.mem_alloc(size)
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        """See ``Cuda``."""
        with contextlib.suppress(self._driver.Error):
            self._memory.pop(address).free()

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """See ``Cuda``."""
        with self._errors('pagelocked_zeros'):
            array: NDArray[np.uint8] = self._driver.pagelocked_zeros(size, np.uint8)
        return array

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        """See ``Cuda``."""
        base: Any = array.base
        with contextlib.suppress(self._driver.Error):
            base.free()

    def new_stream(self) -> int:
        """See ``Cuda``."""
        with self._errors('Stream'):
            stream = self._driver.Stream()
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def free_stream(self, stream: int) -> None:
        """See ``Cuda``."""
        self._streams.pop(stream)

    def copy_in(self, address: int, source: NDArray[np.uint8], stream: int) -> None:
        """See ``Cuda``."""
        with self._errors('memcpy_htod_async'):
            self._driver.memcpy_htod_async(address, source, self._streams[stream])

    def copy_out(self, target: NDArray[np.uint8], address: int, stream: int) -> None:
        """See ``Cuda``."""
        with self._errors('memcpy_dtoh_async'):
            self._driver.memcpy_dtoh_async(target, address, self._streams[stream])

    def synchronize(self, stream: int) -> None:
        """See ``Cuda``."""
        with self._errors('Stream.synchronize'):
            self._streams[stream].synchronize()

    def begin_capture(self, stream: int) -> None:
        """See ``Cuda``."""
        raise EngineError('CUDA: pycuda has no graph capture, cuda-bindings has')

    def end_capture(self, stream: int) -> Any:
        """See ``Cuda``."""
        raise EngineError('CUDA: pycuda has no graph capture, cuda-bindings has')

    def launch(self, graph: Any, stream: int) -> None:
        """See ``Cuda``."""
        raise EngineError('CUDA: pycuda has no graphs, cuda-bindings has')

    def free_graph(self, graph: Any) -> None:
        """See ``Cuda``."""

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise EngineError(f'CUDA through pycuda: {name}: {one_line(error)}') from error


def _check_number(device: int, count: int) -> None:
    if not count:
        raise EngineError('CUDA finds no GPU on this machine, expected one')
    if device >= count:
        raise EngineError(f'device is {device}, expected 0 to {count - 1}: the GPUs that are here')


def _version(number: int) -> str:
    """CUDA's way to write versions: 12060 is 12.6."""
    return f'{number // 1000}.{number % 1000 // 10}'
