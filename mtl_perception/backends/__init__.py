"""Engines that run a bundle: the interface, and the choice of one by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle

BACKENDS = ('onnxruntime',)


class BackendError(Exception):
    """An engine cannot be opened or cannot run; the message says which and why."""


class Backend(Protocol):
    """An engine that holds one bundle. Not thread-safe: one thread owns it.

    Attributes:
        name: as given to ``open_backend``.
        identity: ``engine, version, provider, device, precision`` for diagnostics and reports.
    """

    name: str
    identity: Mapping[str, str]

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Run the network.

        Args:
            images: [N, H, W, 3] RGB at the bundle's size, C-contiguous.
            outputs: the names of the tensors to compute; the others cost nothing if the engine can.

        Returns:
            name -> [N, H, W] or [N, H, W, 3], dtypes as in ``Bundle.outputs``.

        Raises:
            BackendError: when the engine fails.
        """

    def close(self) -> None:
        """Free the engine; it cannot run any more."""


def open_backend(name: str, bundle: Bundle, *, threads: int = 0) -> Backend:
    """Open an engine on a bundle and check the bundle's tensors against the model.

    Args:
        name: ``'auto'`` or one of ``BACKENDS``.
        bundle: from ``load_bundle``.
        threads: CPU threads of one run; 0 leaves it to the engine.

    Raises:
        BackendError: unknown name, engine not installed, or it cannot open the model.
        bundle.BundleError: the model's tensors are not those that the bundle describes.
    """
    if name not in ('auto', *BACKENDS):
        raise BackendError(f'unknown backend {name!r}, expected auto or {", ".join(BACKENDS)}')
    from .onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(bundle, threads=threads)
