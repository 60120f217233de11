"""A GPU through cuda-bindings; and which of the two packages for Python this machine has.

The calls were checked against the package without a GPU; they have not been run on one yet.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import one_line
from .engine import EngineError
from .gpu import NO_DRIVER, Gpu, check_number, version_text
from .pycuda import PyCuda

_MISSING = (
    'needs one of the Python packages cuda-bindings and pycuda: pip install cuda-bindings '
    "('cuda-bindings==12.*' where the driver is for CUDA 12, as on JetPack 6)"
)


def open_gpu(device: int) -> Gpu:
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
            raise EngineError(f'CUDA through pycuda: {one_line(error)}; {NO_DRIVER}') from error
        return PyCuda(driver, device)
    return CudaBindings(runtime, device)


class CudaBindings:
    """``Gpu`` through ``cuda.bindings.runtime``, 12.x or 13.x.

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
        built_for = version_text(self._call('cudaRuntimeGetVersion'))
        self.package = f'cuda-bindings for CUDA {built_for}'
        self.driver = version_text(self._call('cudaDriverGetVersion'))
        error, count = runtime.cudaGetDeviceCount()
        if int(error) == 35:
            if self.driver == '0.0':
                raise EngineError(f'CUDA {NO_DRIVER}')
            raise EngineError(
                f'CUDA: the NVIDIA driver is for CUDA {self.driver}, too old for the installed '
                f'cuda-bindings (CUDA {built_for}): update the driver, or install cuda-bindings '
                f"of its CUDA version: pip install 'cuda-bindings=={self.driver.split('.')[0]}.*'"
            )
        if int(error) == 100:
            count = 0
        elif int(error):
            raise self._error('cudaGetDeviceCount', error)
        check_number(device, count)
        with self.use():
            about = self._call('cudaGetDeviceProperties', device)
        name = about.name
        name = name.decode(errors='replace') if isinstance(name, bytes) else str(name)
        self.device = f'{name} (compute capability {about.major}.{about.minor})'

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """See ``Gpu``."""
        self._call('cudaSetDevice', self._number)
        yield

    def allocate(self, size: int) -> int:
        """See ``Gpu``."""
        return int(self._call('cudaMalloc', size))

    def free(self, address: int) -> None:
        """See ``Gpu``."""
        self._runtime.cudaFree(address)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """See ``Gpu``."""
        address = int(self._call('cudaMallocHost', size))
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        array[:] = 0
        return array

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        """See ``Gpu``."""
        self._runtime.cudaFreeHost(array.ctypes.data)

    def new_stream(self) -> int:
        """See ``Gpu``. Not ordered with the default stream, which other libraries may use."""
        flag = self._runtime.cudaStreamNonBlocking
        return int(self._call('cudaStreamCreateWithFlags', flag))

    def free_stream(self, stream: int) -> None:
        """See ``Gpu``."""
        self._runtime.cudaStreamDestroy(stream)

    def copy_in(self, address: int, source: NDArray[np.uint8], stream: int) -> None:
        """See ``Gpu``."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call('cudaMemcpyAsync', address, source.ctypes.data, source.nbytes, kind, stream)

    def copy_out(self, target: NDArray[np.uint8], address: int, stream: int) -> None:
        """See ``Gpu``."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call('cudaMemcpyAsync', target.ctypes.data, address, target.nbytes, kind, stream)

    def synchronize(self, stream: int) -> None:
        """See ``Gpu``."""
        self._call('cudaStreamSynchronize', stream)

    def begin_capture(self, stream: int) -> None:
        """See ``Gpu``. What other threads do meanwhile does not spoil it."""
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call('cudaStreamBeginCapture', stream, mode)

    def end_capture(self, stream: int) -> Any:
        """See ``Gpu``."""
        graph = self._call('cudaStreamEndCapture', stream)
        try:
            return self._call('cudaGraphInstantiate', graph, 0)
        finally:
            self._runtime.cudaGraphDestroy(graph)

    def launch(self, graph: Any, stream: int) -> None:
        """See ``Gpu``."""
        self._call('cudaGraphLaunch', graph, stream)

    def free_graph(self, graph: Any) -> None:
        """See ``Gpu``."""
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
