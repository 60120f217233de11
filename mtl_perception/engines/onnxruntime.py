"""ONNX Runtime: exact in fp32 on the CPU, from the same file that other engines are built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import one_line
from ..bundle import Bundle
from . import telemetry
from .engine import EngineError, EngineOptions
from .machine import cpu_name
from .parts import Part, Parts
from .subgraph import cut
from .tensors import Tensor, check_images, check_results, check_tensors, model_file

_DTYPES = {'tensor(uint8)': 'uint8', 'tensor(float)': 'float32'}
_PROVIDERS = {
    'cpu': 'CPUExecutionProvider',
    'cuda': 'CUDAExecutionProvider',
    'tensorrt': 'TensorrtExecutionProvider',
}
# Precision -> variant of the bundle: on the CPU and with CUDA, and with TensorRT.
MODELS: Mapping[str, str] = {'fp32': 'fp32', 'fp16': 'fp16', 'int8': 'int8_u8s8'}
MODELS_TENSORRT: Mapping[str, str] = {'fp32': 'fp32', 'fp16': 'fp16', 'int8': 'int8'}
_INSTALL = (
    'install onnxruntime-gpu in place of onnxruntime, with the CUDA, cuDNN and TensorRT that it '
    'was made for'
)


class OnnxRuntimeEngine:
    """A bundle in ONNX Runtime, on the CPU or, by ``options.provider``, on an NVIDIA GPU.

    The session is made from the very bytes whose hash was compared, never from a path: what was
    checked is what runs, and no file beside the model can be pulled in.

    ONNX Runtime executes the whole graph whatever is fetched. (``only_execute_path_to_fetches`` of
    its ``RunOptions`` changes nothing in the released CPU wheels: in 1.32 a node that fails on
    purpose, needed by an unwanted output only, still fails the run.) So, with ``options.cut``, what
    is wanted for a while gets a session of its own (``Parts``), which shares the scratch memory.

    Args:
        bundle: from ``load_bundle``.
        options: ``threads`` are intra-op threads; 0 lets ONNX Runtime choose (one per physical
            core).

    Raises:
        EngineError: onnxruntime is not installed, lacks the provider, or cannot open the
            model.
        BundleError: the file changed since it was loaded, its tensors are not as described, or
            the bundle has none of the precision.
    """

    name = 'onnxruntime'
    identity: Mapping[str, str]
    # It is ready as soon as it is opened: there is nothing to keep.
    cached = False
    cache_problem = ''

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        telemetry.switch_off()
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(
                f"the backend 'onnxruntime' needs the Python package onnxruntime: {error}"
            ) from error
        self._engine = f'onnxruntime {onnxruntime.__version__}'
        provider = _PROVIDERS[options.provider]
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise EngineError(
                f'{self._engine} has no {provider}, only {", ".join(available)}; {_INSTALL}'
            )
        variants = MODELS_TENSORRT if options.provider == 'tensorrt' else MODELS
        if options.precision not in variants:
            raise EngineError(
                f'precision is {options.precision!r}, expected one of {", ".join(variants)} '
                f'with onnxruntime'
            )
        self.variant = variants[options.precision]
        file = model_file(bundle, self.variant, options.precision, self.name)
        self._onnxruntime, self._bundle, self._options = onnxruntime, bundle, options
        self._file = file
        self._run_options = onnxruntime.RunOptions()
        self._run_options.log_severity_level = 4
        content = file.read()
        try:
            session = self._new_session(content)
        except Exception as error:  # onnxruntime's exceptions share no narrower base
            hint = '' if options.provider == 'cpu' else f'; {provider} may not start: {_INSTALL}'
            raise EngineError(
                f'{file.path}: {self._engine} cannot open it: {one_line(error).rstrip(".")}{hint}'
            ) from error
        if options.provider != 'cpu':
            self._check_provider(session, provider)
        check_tensors(
            bundle,
            file.path,
            [_tensor(value) for value in session.get_inputs()],
            [_tensor(value) for value in session.get_outputs()],
        )
        whole = partial(self._run, session)
        # TensorRT would need minutes for each part.
        cuts = options.cut and options.provider != 'tensorrt'
        self._parts: Parts | None
        self._parts = Parts(whole, self._open_part if cuts else None, bundle, options.precision)
        self.identity = {
            'engine': 'onnxruntime',
            'version': str(onnxruntime.__version__),
            'provider': provider,
            'device': cpu_name() if options.provider == 'cpu' else f'GPU {options.device}',
            'precision': options.precision,
        }

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Run the network; see ``Engine.run``. The input is not copied if it is C-contiguous."""
        if self._parts is None:
            raise EngineError('onnxruntime: the engine is closed')
        check_images(self.name, images, self._bundle, self._options.max_batch)
        if not outputs:
            return {}
        return self._parts.runner(outputs)(images, outputs)

    def close(self) -> None:
        """Free the sessions."""
        if self._parts is not None:
            self._parts.close()
        self._parts = None

    def _open_part(self, outputs: Sequence[str]) -> Part:
        """A session that computes these outputs only."""
        return Part(partial(self._run, self._new_session(cut(self._file.read(), outputs))))

    def _new_session(self, content: bytes) -> Any:
        """A session of a model, the whole one or a part."""
        onnxruntime, options = self._onnxruntime, self._options
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = options.threads
        for key, value in _spinning(str(onnxruntime.__version__)).items():
            session_options.add_session_config_entry(f'session.intra_op.{key}', value)
        if options.provider != 'cpu':
            session_options.add_session_config_entry('session.record_ep_graph_assignment_info', '1')
        if options.cut:
            _share_memory(onnxruntime)
            session_options.add_session_config_entry('session.use_env_allocators', '1')
        # Failures come as exceptions; no second copy on stderr.
        session_options.log_severity_level = 4
        # A provider that fails must fail: by default it is replaced by the CPU, which is only
        # printed, when the session is made and in every run.
        return onnxruntime.InferenceSession(
            content,
            session_options,
            providers=_providers(self._bundle, options, onnxruntime.get_available_providers()),
            enable_fallback=0,
        )

    def _run(
        self, session: Any, images: NDArray[np.uint8], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        names = list(outputs)
        try:
            arrays = session.run(names, {'image': images}, self._run_options)
        except Exception as error:
            raise EngineError(f'onnxruntime: {one_line(error)}') from error
        results = dict(zip(names, arrays, strict=True))
        check_results(self.name, results, images)
        return results

    def _check_provider(self, session: Any, provider: str) -> None:
        """Refuse a session that was made without the provider, or hardly uses it."""
        used = str(session.get_providers()[0])
        if used != provider:
            raise EngineError(
                f'{self._engine} uses {used}, expected {provider}, which did not start; {_INSTALL}'
            )
        # Since 1.24. Shapes are computed on the CPU on purpose, so a few nodes there are fine.
        if hasattr(session, 'get_provider_graph_assignment_info'):
            parts = session.get_provider_graph_assignment_info()
            nodes = [part.ep_name for part in parts for _ in part.get_nodes()]
            on_cpu = nodes.count(_PROVIDERS['cpu'])
            if 2 * on_cpu > len(nodes):
                raise EngineError(
                    f'{self._engine} runs {on_cpu} of {len(nodes)} nodes in '
                    f'{_PROVIDERS["cpu"]}, expected most of them in {provider}'
                )


@cache
def _share_memory(onnxruntime: Any) -> None:
    """Keep the scratch memory of all sessions in one place: a part took 38 MB instead of 56."""
    kind, use = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
    info = onnxruntime.OrtMemoryInfo('Cpu', kind, 0, use)
    onnxruntime.create_and_register_allocator(info, None)


def _spinning(version: str) -> dict[str, str]:
    """How long a thread without work waits before it sleeps, as entries of a session.

    The default, on and on, took 1.6 times the CPU and was slower on a busy machine. A moment
    bridges the pauses between operators: on two idle cores 0.83 of the time of no spinning at all
    for the same CPU, on busy ones between 0.91 and 1.16. Before 1.26 it cannot be limited.
    """
    if tuple(map(int, version.split('.')[:2])) < (1, 26):
        return {'allow_spinning': '0'}
    return {'allow_spinning': '1', 'spin_duration_us': '20'}


def _providers(
    bundle: Bundle, options: EngineOptions, available: Sequence[str]
) -> list[tuple[str, dict[str, str]]]:
    """Providers for a session, in the order in which they may take nodes."""
    device = {'device_id': str(options.device)}
    cuda = (_PROVIDERS['cuda'], device)
    if options.provider == 'cpu':
        return [(_PROVIDERS['cpu'], {})]
    if options.provider == 'cuda':
        return [cuda]
    # The range of batches is given, else an engine is built again for every new batch.
    shape = f'{bundle.height}x{bundle.width}x3'
    tensorrt = device | {
        'trt_fp16_enable': str(options.precision == 'fp16'),
        'trt_int8_enable': str(options.precision == 'int8'),
        'trt_profile_min_shapes': f'image:1x{shape}',
        'trt_profile_opt_shapes': f'image:{options.max_batch}x{shape}',
        'trt_profile_max_shapes': f'image:{options.max_batch}x{shape}',
    }
    # What TensorRT cannot do stays on the GPU.
    return [(_PROVIDERS['tensorrt'], tensorrt), *[cuda] * (cuda[0] in available)]


def _tensor(value: Any) -> Tensor:
    return Tensor(value.name, _DTYPES.get(value.type, value.type), value.shape)
