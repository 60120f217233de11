"""The plan of a bundle: from the cache, or built and put there; deserialised either way."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..bundle import DataFile
from .cache import EngineCache
from .engine import EngineError, EngineOptions, Progress
from .entries import Key
from .subgraph import cut
from .tensorrt_api import Api, log_of, making
from .tensorrt_build import build_plan

if TYPE_CHECKING:
    import tensorrt

# Part of the key of every plan: counts up when ``build_plan`` changes what it builds.
_RECIPE = '1'


@dataclass(frozen=True)
class Plan:
    """A plan that was deserialised.

    Attributes:
        engine: TensorRT's object.
        runtime: it lives no longer than this.
        cached, cache_problem: see ``Engine``.
    """

    engine: tensorrt.ICudaEngine
    runtime: tensorrt.Runtime
    cached: bool
    cache_problem: str


def open_plan(
    trt: Api,
    model: DataFile,
    options: EngineOptions,
    device: str,
    cache: EngineCache,
    progress: Progress,
    *,
    outputs: Sequence[str] = (),
) -> Plan:
    """Take a plan from the cache or build it; one that does not open is built again, once.

    Args:
        device: name of the GPU, which must be chosen in this thread.
        progress: what it raises ends a build.
        outputs: of the model; the plan is for the part that computes these, or for all.

    Raises:
        EngineError: it cannot be built, or does not open though it was just built.
    """
    key = _key(trt, model, options, device, outputs)

    def build() -> tuple[bytes, Mapping[str, Any]]:
        started = time.monotonic()
        timing = cache.timing_file(f'{trt.__version__} {device}')
        file = cut(model.read(), outputs) if outputs else model.read()
        content = build_plan(
            trt, file, options, progress=progress, timing=timing, name=str(model.path)
        )
        return content, {'build_s': round(time.monotonic() - started, 1)}

    found = cache.get_or_build(key, build, progress=progress)
    problem = found.problem or cache.last_reason
    runtime, engine, why = _deserialize(trt, found.content, options)
    if engine is None and not found.built:
        cache.discard(key)
        found = cache.get_or_build(key, build, progress=progress)
        problem = found.problem or f'the plan in the cache did not open: {why}'
        runtime, engine, why = _deserialize(trt, found.content, options)
    if engine is None:
        raise EngineError(f'tensorrt: the plan that was just built does not open: {why}')
    return Plan(engine, runtime, cached=not found.built, cache_problem=problem)


def _key(
    trt: Api, model: DataFile, options: EngineOptions, device: str, outputs: Sequence[str]
) -> Key:
    """All that the plan depends on."""
    return Key(
        kind='engine',
        model_sha256=model.sha256,
        backend='tensorrt',
        version=trt.__version__,
        device=device,
        precision=options.precision,
        max_batch=options.max_batch,
        options={'recipe': _RECIPE}
        | ({'outputs': ','.join(outputs)} if outputs else {})
        | ({'dla_core': str(options.dla_core)} if options.dla_core >= 0 else {})
        | ({'workspace_mb': str(options.workspace_mb)} if options.workspace_mb else {}),
    )


def _deserialize(
    trt: Api, content: bytes, options: EngineOptions
) -> tuple[tensorrt.Runtime, tensorrt.ICudaEngine | None, str]:
    """A runtime with the engine, or with None and what TensorRT logged."""
    log = log_of(trt)
    log.take()
    with making(trt):
        runtime = trt.Runtime(log.logger)
    if options.dla_core >= 0:
        runtime.DLA_core = options.dla_core
    engine: Any = runtime.deserialize_cuda_engine(content)
    return runtime, engine, log.take()
