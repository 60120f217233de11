"""OpenVINO on the CPU, in a precision that is asked for, never in one that it picks itself."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import one_line
from ..bundle import Bundle
from . import telemetry
from .cache import CacheError, EngineCache
from .engine import EngineError, EngineOptions, Progress
from .entries import Key
from .machine import cpu_flags, cpu_name
from .parts import Part, Parts, Runner
from .subgraph import cut
from .tensors import (
    Tensor,
    check_images,
    check_results,
    check_tensors,
    model_file,
)

_DEVICE = 'CPU'
# Part of the key of every compiled model: counts up when ``_compile`` changes what it makes.
_RECIPE = '1'
_DTYPES = {'u8': 'uint8', 'f32': 'float32'}
# Precision -> variant of the bundle that is compiled.
MODELS: Mapping[str, str] = {'fp32': 'fp32', 'bf16': 'fp32', 'fp16': 'fp32', 'int8': 'int8_u8s8'}
# Precision -> what is not quantised is computed in, and what the CPU must be able to do.
_HINTS = {'fp32': 'f32', 'bf16': 'bf16', 'fp16': 'f16', 'int8': 'f32'}
_CAPABILITIES = {'fp32': 'FP32', 'bf16': 'BF16', 'fp16': 'FP16', 'int8': 'INT8'}


class OpenVinoEngine:
    """A bundle in OpenVINO's CPU plugin.

    Left alone, OpenVINO computes in bf16 where the CPU can (normals were up to 3e-2 off), so the
    precision is always given, and asked for again when the model is compiled.

    With ``max_batch`` 1 the model is compiled for exactly one image, which took 0.8 times as long
    as the same model with the batch left open.

    The compiled model is kept in the cache: to import it took a fifth of the time to compile it.

    Args:
        bundle: from ``load_bundle``.
        options: ``threads`` 0 lets OpenVINO choose.
        cache: where the compiled model is kept.
        progress: called before the model is compiled.

    Attributes:
        variant, identity, cached, cache_problem: see ``Engine``.

    Raises:
        EngineError: openvino is not installed, the CPU lacks the precision, or the model
            cannot be compiled.
        BundleError: the file changed since it was loaded, its tensors are not as described, or
            the bundle has none of the precision.
    """

    name = 'openvino'
    identity: Mapping[str, str]
    cached: bool
    cache_problem: str

    def __init__(
        self, bundle: Bundle, options: EngineOptions, cache: EngineCache, progress: Progress
    ) -> None:
        telemetry.switch_off()
        try:
            import openvino
        except ImportError as error:
            raise EngineError(
                "the backend 'openvino' needs the Python package openvino, pip install openvino: "
                f'{error}'
            ) from error
        self._bundle = bundle
        self._options = options
        self.variant = MODELS[options.precision]
        self._file = model_file(bundle, self.variant, options.precision, self.name)
        self._engine = f'openvino {openvino.__version__}'
        try:
            self._core: Any = openvino.Core()
            capabilities = sorted(self._core.get_property(_DEVICE, 'OPTIMIZATION_CAPABILITIES'))
        except Exception as error:  # openvino raises RuntimeError and, rarely, its own
            raise EngineError(f'{self._engine}: {one_line(error)}') from error
        if _CAPABILITIES[options.precision] not in capabilities:
            able = [name for name, flag in _CAPABILITIES.items() if flag in capabilities]
            raise EngineError(
                f'precision is {options.precision!r}, expected one of {", ".join(able)}, which is '
                f'what {self._engine} has on this CPU ({cpu_name()})'
            )
        self._key = Key(
            kind='engine',
            model_sha256=self._file.sha256,
            backend=self.name,
            version=str(openvino.__version__),
            device=cpu_name(),
            precision=options.precision,
            max_batch=options.max_batch,
            options={
                'capabilities': ' '.join(capabilities),
                'cpu_flags': cpu_flags(),
                'threads': str(options.threads),
                'recipe': _RECIPE,
            },
        )
        self._compiled: Any = self._open(cache, progress)
        hint = self._compiled.get_property('INFERENCE_PRECISION_HINT').get_type_name()
        if hint != _HINTS[options.precision]:
            raise EngineError(
                f'{self._engine} computes in {hint}, expected {_HINTS[options.precision]}'
            )
        self._check(self._compiled, any_batch=options.max_batch == 1)
        whole = self._runner(self._compiled)
        self._parts: Parts | None
        open_part = self._open_part if options.cut else None
        self._parts = Parts(whole, open_part, bundle, options.precision)
        self.identity = {
            'engine': self.name,
            'version': str(openvino.__version__).partition('-')[0],
            'provider': _DEVICE,
            'device': cpu_name(),
            'precision': options.precision,
        }

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Run the network; see ``Engine.run``.

        The input is not copied if it is C-contiguous and writable. All outputs of the model are
        computed, or of the part that is run (``Parts``); the wanted ones are copied.
        """
        if self._parts is None:
            raise EngineError('openvino: the engine is closed')
        check_images(self.name, images, self._bundle, self._options.max_batch)
        if not outputs:
            return {}
        return self._parts.runner(outputs)(images, outputs)

    def close(self) -> None:
        """Free the model and its parts."""
        if self._parts is not None:
            self._parts.close()
        self._parts = self._compiled = self._core = None

    def _runner(self, compiled: Any) -> Runner:
        return partial(self._run, compiled.create_infer_request(), Lock())

    def _run(
        self, request: Any, one_by_one: Lock, images: NDArray[np.uint8], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        try:
            with one_by_one:
                request.infer({'image': images}, share_inputs=True, share_outputs=True)
                arrays = {name: request.get_tensor(name).data.copy() for name in outputs}
        except Exception as error:
            raise EngineError(f'openvino: {one_line(error)}') from error
        check_results(self.name, arrays, images)
        return arrays

    def _open_part(self, outputs: Sequence[str]) -> Part:
        """The part of the model that computes these outputs only; not kept in the cache."""
        part = cut(self._file.read(), outputs)
        return Part(self._runner(self._compile_model(self._core.read_model(part))))

    def _open(self, cache: EngineCache, progress: Progress) -> Any:
        """The compiled model: imported from the cache, or made from the ONNX file and put there."""
        made: list[Any] = []

        def build() -> tuple[bytes, Mapping[str, Any]]:
            made.append(self._compile(progress))
            return self._export(made[0]), {}

        found = cache.get_or_build(self._key, build, progress=progress)
        self.cached, self.cache_problem = not found.built, found.problem or cache.last_reason
        if found.built:
            return made[0]
        try:
            return self._core.import_model(found.content, _DEVICE, self._config())
        except RuntimeError as error:
            self.cached = False
            self.cache_problem = f'the model in the cache did not import: {one_line(error)}'
        cache.discard(self._key)
        content, notes = build()
        try:
            cache.store(self._key, content, notes)
        except CacheError as error:
            self.cache_problem = str(error)
        return made[0]

    def _compile(self, progress: Progress) -> Any:
        progress(f'compiling with {self._engine}', math.nan)
        try:
            model = self._core.read_model(self._file.read())
            self._check(model)
            return self._compile_model(model)
        except RuntimeError as error:
            raise EngineError(
                f'{self._file.path}: {self._engine} cannot compile it: {one_line(error)}'
            ) from error

    def _compile_model(self, model: Any) -> Any:
        if self._options.max_batch == 1:
            model.reshape({'image': [1, self._bundle.height, self._bundle.width, 3]})
        return self._core.compile_model(model, _DEVICE, self._config())

    def _export(self, compiled: Any) -> bytes:
        stream = io.BytesIO()
        try:
            compiled.export_model(stream)
        except RuntimeError as error:
            raise EngineError(f'{self._engine}: {one_line(error)}') from error
        return stream.getvalue()

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            'PERFORMANCE_HINT': 'LATENCY',
            'INFERENCE_PRECISION_HINT': _HINTS[self._options.precision],
        }
        if self._options.threads:
            config['INFERENCE_NUM_THREADS'] = self._options.threads
        return config

    def _check(self, model: Any, *, any_batch: bool = False) -> None:
        """Compare the tensors with the bundle; ``any_batch``: the batch was fixed by us."""
        inputs, outputs = (
            [_tensor(port, any_batch) for port in ports] for ports in (model.inputs, model.outputs)
        )
        check_tensors(self._bundle, self._file.path, inputs, outputs)


def _tensor(port: Any, any_batch: bool) -> Tensor:
    kind = port.get_element_type().get_type_name()
    dims = [dim.get_length() if dim.is_static else None for dim in port.get_partial_shape()]
    if any_batch:
        dims[:1] = [None]
    return Tensor(port.get_any_name(), _DTYPES.get(kind, kind), dims)
