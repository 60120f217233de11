"""What every engine that runs a bundle is: its interface, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import PerceptionError

BACKENDS = ('tensorrt', 'openvino', 'onnxruntime')
PRECISIONS = ('fp32', 'fp16', 'bf16', 'int8')
PROVIDERS = ('cpu', 'cuda', 'tensorrt')

# Called with what is being done and its share done so far (0..1, NaN if unknown); what it raises
# ends a build.
Progress = Callable[[str, float], None]


class EngineError(PerceptionError):
    """An engine cannot be opened or cannot run; the message says which and why."""


@dataclass(frozen=True)
class EngineOptions:
    """What an engine is asked to be. An engine that cannot be it says so; it does not guess.

    Attributes:
        precision: one of ``PRECISIONS``. ``int8`` needs a variant of the model that was quantised
            for the engine, TensorRT ``fp16`` one that was typed so (``mtl_training quantize``).
        max_batch: largest number of images in one run.
        threads: CPU threads of one run; 0 leaves it to the engine.
        device: number of the GPU.
        provider: how ONNX Runtime executes, one of ``PROVIDERS``.
        dla_core: TensorRT, Jetson: number of the deep-learning accelerator; -1 for the GPU.
        workspace_mb: TensorRT: memory that building may use; 0 for no limit.
        cut: run a part of the model (``parts``) where not all outputs are wanted for a while.
            Results of the part may differ in their last bits from those of the whole.

    Raises:
        EngineError: a value out of range.
    """

    precision: str = 'fp32'
    max_batch: int = 1
    threads: int = 0
    device: int = 0
    provider: str = 'cpu'
    dla_core: int = -1
    workspace_mb: int = 0
    cut: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise EngineError(
                f'precision is {self.precision!r}, expected one of {", ".join(PRECISIONS)}'
            )
        if self.provider not in PROVIDERS:
            raise EngineError(
                f'provider is {self.provider!r}, expected one of {", ".join(PROVIDERS)}'
            )
        for name, value, least in (
            ('max_batch', self.max_batch, 1),
            ('threads', self.threads, 0),
            ('device', self.device, 0),
            ('dla_core', self.dla_core, -1),
            ('workspace_mb', self.workspace_mb, 0),
        ):
            if value < least:
                raise EngineError(f'{name} is {value}, expected at least {least}')


class Engine(Protocol):
    """An engine that holds one bundle. Not thread-safe: one thread owns it.

    Attributes:
        name: as given to ``open_unchecked``.
        variant: which of the bundle's models it runs, see ``bundle.VARIANTS``.
        identity: ``engine, version, provider, device, precision`` for diagnostics and reports.
        cached: whether what it runs was taken from the cache.
        cache_problem: why something was not taken from the cache, or could not be kept in it;
            empty if all is well.
    """

    name: str
    variant: str
    identity: Mapping[str, str]
    cached: bool
    cache_problem: str

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Run the network.

        Args:
            images: [N, H, W, 3] RGB at the bundle's size, C-contiguous, N from 1 to ``max_batch``.
            outputs: the names of the tensors to compute; the others cost nothing if the engine can.

        Returns:
            name -> [N, H, W] or [N, H, W, 3], dtypes as in ``Bundle.outputs``. The arrays belong to
            the caller.

        Raises:
            EngineError: when the engine fails, is closed, or the images are not such.
        """

    def close(self) -> None:
        """Free the engine; it cannot run any more."""


def quiet(activity: str, share: float) -> None:
    """Ignore progress."""
