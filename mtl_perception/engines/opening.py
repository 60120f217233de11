"""Opens an engine by its name: the one place that imports the engines, each when it is used."""

from __future__ import annotations

from ..bundle import Bundle
from .cache import EngineCache
from .engine import BACKENDS, Engine, EngineError, EngineOptions, Progress, quiet

_DEFAULTS = EngineOptions()


def open_unchecked(
    name: str,
    bundle: Bundle,
    options: EngineOptions = _DEFAULTS,
    *,
    cache: EngineCache | None = None,
    progress: Progress = quiet,
) -> Engine:
    """Open one engine on a bundle and check the bundle's tensors against the model.

    Engines that take long to build are taken from the cache or built and put there. What the
    engine computes is not compared with the model: ``choice.open_engine`` does that.

    Args:
        name: one of ``BACKENDS``.
        bundle: from ``load_bundle``.
        cache: left out, the user's (``cache.default_folder``).
        progress: see ``Progress``.

    Raises:
        EngineError: unknown name, engine not installed, options that it does not have, or it
            cannot open the model.
        bundle.BundleError: the model's tensors are not those that the bundle describes, or the
            bundle has no model of the precision.
    """
    cache = cache or EngineCache()
    if name == 'tensorrt':
        from .tensorrt import TensorRtEngine

        return TensorRtEngine(bundle, options, cache, progress)
    if name == 'openvino':
        from .openvino import OpenVinoEngine

        return OpenVinoEngine(bundle, options, cache, progress)
    if name == 'onnxruntime':
        from .onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(bundle, options)
    raise EngineError(f'unknown backend {name!r}, expected one of {", ".join(BACKENDS)}')
