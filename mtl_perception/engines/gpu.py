"""What an engine needs of a GPU, in one interface: memory, copies, streams and graphs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .engine import EngineError

NO_DRIVER = 'found no NVIDIA driver: nvidia-smi shows whether this machine (or container) has a GPU'


class Gpu(Protocol):
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


def check_number(device: int, count: int) -> None:
    """Refuse the number of a GPU that is not here, of so many that are."""
    if not count:
        raise EngineError('CUDA finds no GPU on this machine, expected one')
    if device >= count:
        raise EngineError(f'device is {device}, expected 0 to {count - 1}: the GPUs that are here')


def version_text(number: int) -> str:
    """CUDA's way to write versions: 12060 is 12.6."""
    return f'{number // 1000}.{number % 1000 // 10}'
