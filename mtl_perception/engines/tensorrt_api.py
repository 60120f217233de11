"""What is used of TensorRT's Python bindings: the module, how its objects are made, what it logs.

The types are those of the real bindings: ``test/tensorrt_api`` checks every call against 10.3,
10.16 and 11.4.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, cast

from .. import one_line
from .engine import EngineError

if TYPE_CHECKING:
    import tensorrt

OLDEST = (10, 3)


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


@contextlib.contextmanager
def making(trt: Api) -> Iterator[None]:
    """Around a constructor of TensorRT, and nothing else: say why it cannot start.

    The bindings raise a TypeError where TensorRT's library returns null. It cannot mean anything
    else here: the arguments are type-checked against the bindings (``test/tensorrt_api``).
    """
    try:
        yield
    except TypeError as error:
        raise EngineError(
            f'TensorRT {trt.__version__} cannot start ({one_line(error)}): the NVIDIA driver is '
            f'missing or too old for it, or its libraries are of another version '
            f'{log_of(trt).take()}'.rstrip()
        ) from error


class Log:
    """The last warnings and errors that TensorRT logged, and the logger that brings them.

    There is one in a process: TensorRT keeps the first logger that it is given. It calls the logger
    from C++, where nothing may be raised.
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
        return short('; '.join(lines), 500)


_LOGS: dict[Any, Log] = {}


def log_of(trt: Api) -> Log:
    """The log of a module; made when it is first asked for."""
    if trt not in _LOGS:
        _LOGS[trt] = Log(trt)
    return _LOGS[trt]


def short(text: str, length: int) -> str:
    """A text of TensorRT in one line, cut where it is longer."""
    return ' '.join(text.split())[:length]
