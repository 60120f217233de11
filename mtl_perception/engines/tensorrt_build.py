"""From an ONNX file to a TensorRT plan: parsed, compiled, with progress that can end it.

Tested with TensorRT-RTX, which needs no GPU.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..files import write_beside
from .engine import EngineError, EngineOptions, Progress, quiet
from .quantized import unsigned_node
from .tensorrt_api import Api, log_of, making, short

if TYPE_CHECKING:
    import tensorrt


def build_plan(
    trt: Api,
    model: bytes,
    options: EngineOptions,
    *,
    progress: Progress = quiet,
    timing: Path | None = None,
    name: str = 'model.onnx',
) -> bytes:
    """Parse a model and compile it: a serialised engine for 1 to ``max_batch`` images.

    The network is strongly typed: every number format is the one that the file says. With
    ``max_batch`` 1 the shapes are fixed, else there is one profile, best at ``max_batch``.

    Args:
        trt: the module ``tensorrt`` (or ``tensorrt_rtx``, which compiles without a GPU).
        model: ONNX file with one input ``image`` of an open batch.
        options: ``max_batch, dla_core, workspace_mb, precision`` count.
        progress: what it raises ends the build and is raised here.
        timing: file with the times of kernels, read and written; None for none.
        name: of the model, for messages.

    Raises:
        EngineError: TensorRT cannot start, or refuses the model; operator and node are named.
    """
    progress('parsing the model', math.nan)
    _refuse_unsigned(model, name)
    log = log_of(trt)
    log.take()
    with making(trt):
        builder = trt.Builder(log.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    with making(trt):
        parser = trt.OnnxParser(network, log.logger)
    if not parser.parse(model):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = '; '.join(map(_parser_error, errors[:3])) or log.take()
        raise EngineError(f'{name}: TensorRT {trt.__version__} refuses it: {reasons}')
    config = builder.create_builder_config()
    if options.workspace_mb:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if options.dla_core >= 0:
        _use_dla(trt, builder, config, options)
    _set_shapes(trt, builder, network, config, options.max_batch, name)
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor
    with _timing_cache(config, timing):
        plan: Any = builder.build_serialized_network(network, config)
    if monitor.error is not None:
        raise monitor.error
    if plan is None:
        raise EngineError(
            f'{name}: TensorRT {trt.__version__} cannot build an engine: {log.take()}'
        )
    return bytes(plan)


def _refuse_unsigned(model: bytes, name: str) -> None:
    """TensorRT reads uint8 as int8 with just a warning, and computes other numbers."""
    try:
        node = unsigned_node(model)
    except ValueError as error:
        raise EngineError(f'{name}: is not an ONNX file: {error}') from error
    if node:
        raise EngineError(
            f'{name}: node {node!r} quantises to uint8, which TensorRT would take for int8; '
            'expected symmetric int8 (the variant int8, not int8_u8s8)'
        )


def _parser_error(error: tensorrt.ParserError) -> str:
    where = f'operator {error.node_operator()} (node {error.node_name()!r})'
    return f'{where}: {short(error.desc(), 300)}'


def _use_dla(
    trt: Api,
    builder: tensorrt.Builder,
    config: tensorrt.IBuilderConfig,
    options: EngineOptions,
) -> None:
    core, cores = options.dla_core, builder.num_DLA_cores
    if core >= cores:
        raise EngineError(f'dla_core is {core}, but TensorRT finds {cores} DLA cores here')
    if options.precision == 'fp32':
        raise EngineError("dla_core: a DLA has no fp32, expected precision 'fp16' or 'int8'")
    if options.max_batch != 1:
        raise EngineError(
            f'dla_core: a DLA takes fixed shapes only, expected max_batch 1, not '
            f'{options.max_batch}'
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _set_shapes(
    trt: Api,
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
    max_batch: int,
    name: str,
) -> None:
    """Say which shapes the engine must take."""
    if network.num_inputs != 1:
        raise EngineError(f'{name}: has {network.num_inputs} inputs, expected one')
    image = network.get_input(0)
    first, *rest = list(cast('Any', image.shape))
    if first != -1 or min(rest, default=-1) < 1:
        raise EngineError(
            f'{name}: input {image.name!r} has the shape {[first, *rest]}, expected an open batch '
            '(-1) and fixed sizes'
        )
    smallest, largest = trt.Dims([1, *rest]), trt.Dims([max_batch, *rest])
    if max_batch == 1:
        image.shape = smallest
        return
    profile = builder.create_optimization_profile()
    profile.set_shape(image.name, smallest, largest, largest)
    config.add_optimization_profile(profile)


@contextlib.contextmanager
def _timing_cache(config: tensorrt.IBuilderConfig, path: Path | None) -> Iterator[None]:
    """Times of kernels from earlier builds, and those of this one for later ones."""
    if path is None:
        yield
        return
    try:
        content = path.read_bytes()
    except OSError:
        content = b''
    times: Any = config.create_timing_cache(content)
    if times is None or not config.set_timing_cache(times, False):
        config.set_timing_cache(config.create_timing_cache(b''), False)
    yield
    times = config.get_timing_cache()
    # Only speed is lost without it.
    with contextlib.suppress(OSError):
        if times is not None:
            write_beside(path, bytes(times.serialize()))


def _monitor(trt: Api, progress: Progress) -> Any:
    """A progress monitor that tells ``progress``; ``error`` is what that raised, else None.

    TensorRT calls it from C++, where nothing may be raised.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self._lock = threading.Lock()
            self._phases: dict[str, list[int]] = {}  # open ones, nested: [steps done, steps]
            self._share = 0.0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = [0, max(num_steps, 1)]
            self._tell()

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                if phase_name in self._phases:
                    self._phases[phase_name][0] = step + 1
            self._tell()
            return self.error is None

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.pop(phase_name, None)

        def _tell(self) -> None:
            with self._lock:
                share, part = 0.0, 1.0
                for done, steps in self._phases.values():
                    share += part * min(done / steps, 1.0)
                    part /= steps
                # Phases may end early; what was said is never taken back.
                self._share = share = max(self._share, min(share, 1.0))
            if self.error is None:
                try:
                    progress('building the engine', share)
                except BaseException as error:
                    self.error = error

    return Monitor()
