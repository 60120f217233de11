"""A GPU through pycuda, which some robots have instead of cuda-bindings; without graph capture.

Driven by a stand-in only: it has not been run on a GPU yet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import one_line
from .engine import EngineError
from .gpu import check_number, version_text


class PyCuda:
    """``Gpu`` through pycuda; it has no graph capture.

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
        check_number(device, count)
        with self._errors('retain_primary_context'):
            about = driver.Device(device)
            self._context = about.retain_primary_context()
        self.package = 'pycuda'
        self.driver = version_text(driver.get_driver_version())
        major, minor = about.compute_capability()
        self.device = f'{about.name()} (compute capability {major}.{minor})'
        # pycuda's objects free what they stand for when nobody holds them any more.
        self._memory: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """See ``Gpu``."""
        with self._errors('Context.push'):
            self._context.push()
        try:
            yield
        finally:
            self._driver.Context.pop()

    def allocate(self, size: int) -> int:
        """See ``Gpu``."""
        with self._errors('mem_alloc'):
            memory = self._driver.mem_alloc(size)
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        """See ``Gpu``."""
        with contextlib.suppress(self._driver.Error):
            self._memory.pop(address).free()

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """See ``Gpu``."""
        with self._errors('pagelocked_zeros'):
            array: NDArray[np.uint8] = self._driver.pagelocked_zeros(size, np.uint8)
        return array

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        """See ``Gpu``."""
        base: Any = array.base
        with contextlib.suppress(self._driver.Error):
            base.free()

    def new_stream(self) -> int:
        """See ``Gpu``."""
        with self._errors('Stream'):
            stream = self._driver.Stream()
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def free_stream(self, stream: int) -> None:
        """See ``Gpu``."""
        self._streams.pop(stream)

    def copy_in(self, address: int, source: NDArray[np.uint8], stream: int) -> None:
        """See ``Gpu``."""
        with self._errors('memcpy_htod_async'):
            self._driver.memcpy_htod_async(address, source, self._streams[stream])

    def copy_out(self, target: NDArray[np.uint8], address: int, stream: int) -> None:
        """See ``Gpu``."""
        with self._errors('memcpy_dtoh_async'):
            self._driver.memcpy_dtoh_async(target, address, self._streams[stream])

    def synchronize(self, stream: int) -> None:
        """See ``Gpu``."""
        with self._errors('Stream.synchronize'):
            self._streams[stream].synchronize()

    def begin_capture(self, stream: int) -> None:
        """See ``Gpu``."""
        raise EngineError('CUDA: pycuda has no graph capture, cuda-bindings has')

    def end_capture(self, stream: int) -> Any:
        """See ``Gpu``."""
        raise EngineError('CUDA: pycuda has no graph capture, cuda-bindings has')

    def launch(self, graph: Any, stream: int) -> None:
        """See ``Gpu``."""
        raise EngineError('CUDA: pycuda has no graphs, cuda-bindings has')

    def free_graph(self, graph: Any) -> None:
        """See ``Gpu``."""

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise EngineError(f'CUDA through pycuda: {name}: {one_line(error)}') from error
