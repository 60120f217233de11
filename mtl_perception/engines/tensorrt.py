"""TensorRT 10.3 to 11: a bundle on an NVIDIA GPU, or on the accelerator of a Jetson.

Parsing and compiling (``tensorrt_build``) are tested with TensorRT-RTX, which needs no GPU, and the
calls are type-checked against the real APIs of 10.3, 10.16 and 11.4. Execution has been driven by
a stand-in for TensorRT only: it has not been run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from .cache import EngineCache
from .cuda import open_gpu
from .engine import EngineError, EngineOptions, Progress, quiet
from .parts import Part, Parts
from .tensorrt_api import import_tensorrt
from .tensorrt_plan import open_plan
from .tensorrt_run import PlanRunner
from .tensors import check_images, model_file

# The model of a bundle that a precision is built from: the number formats are those of the file.
MODELS: Mapping[str, str] = {'fp32': 'fp32', 'fp16': 'fp16', 'int8': 'int8'}


class TensorRtEngine:
    """A bundle in TensorRT.

    The plan comes from the cache, or is built and put there; a cached plan that does not
    deserialise is built again, once. With ``options.cut`` a set of outputs that is wanted for a
    while gets a plan of its own, which is built in the background while the whole model goes on,
    and is in the cache from then on; a DLA, which has room for few, keeps to the whole model.

    Args:
        bundle: from ``load_bundle``.
        options: ``dla_core`` needs ``max_batch`` 1 (a DLA takes fixed shapes only) and ``fp16`` or
            ``int8``.
        cache: where plans and the times of TensorRT's kernels are kept.
        progress: see ``engine.Progress``; what it raises ends a build.

    Attributes:
        variant, identity, cached, cache_problem: see ``Engine``.

    Raises:
        EngineError: no TensorRT, no GPU, a driver too old, or a model that TensorRT refuses.
        BundleError: the bundle has no model of the precision, or its tensors are not as described.
    """

    name = 'tensorrt'
    identity: Mapping[str, str]

    def __init__(
        self,
        bundle: Bundle,
        options: EngineOptions,
        cache: EngineCache,
        progress: Progress = quiet,
    ) -> None:
        if options.precision not in MODELS:
            raise EngineError(
                f'tensorrt: precision is {options.precision!r}, expected {", ".join(MODELS)}'
            )
        self.variant = MODELS[options.precision]
        self._model = model_file(bundle, self.variant, options.precision, self.name)
        self._trt = import_tensorrt()
        self._gpu = open_gpu(options.device)
        self._bundle, self._options, self._cache = bundle, options, cache
        self._closing = Event()
        self._whole = self._open((), progress)
        plan = self._whole.plan
        assert plan is not None
        self.cached, self.cache_problem = plan.cached, plan.cache_problem
        cuts = options.cut and options.dla_core < 0
        open_part = self._open_part if cuts else None
        self._parts = Parts(self._whole.run, open_part, bundle, options.precision)
        self.identity = {
            'engine': 'tensorrt',
            'version': self._trt.__version__,
            'provider': self._provider(),
            'device': self._gpu.device,
            'precision': options.precision,
        }

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Run the network; see ``Engine.run``. Only ``outputs`` are copied from the GPU."""
        if self._closing.is_set():
            raise EngineError('tensorrt: the engine is closed')
        check_images(self.name, images, self._bundle, self._options.max_batch)
        for name in outputs:
            if name not in self._whole.outputs:
                raise EngineError(f'tensorrt: the engine has no output {name!r}')
        return self._parts.runner(outputs)(images, outputs) if outputs else {}

    def close(self) -> None:
        """Free the engine and all memory; a part that is being built is given up."""
        self._closing.set()
        self._parts.close()
        self._whole.close()

    def _open(self, outputs: Sequence[str], progress: Progress) -> PlanRunner:
        """The plan for some outputs, or for all of them where none are named, ready to run."""
        options, path = self._options, self._model.path
        with self._gpu.use():
            plan = open_plan(
                self._trt,
                self._model,
                options,
                self._gpu.device,
                self._cache,
                progress,
                outputs=outputs,
            )
            described = None if outputs else self._bundle
            return PlanRunner(self._trt, self._gpu, plan, path, options.max_batch, described)

    def _open_part(self, outputs: Sequence[str]) -> Part:
        """A plan that computes these outputs only."""
        runner = self._open(outputs, self._go_on)
        return Part(runner.run, runner.close)

    def _go_on(self, activity: str, share: float) -> None:
        """Progress of a part, which ends when the engine does."""
        if self._closing.is_set():
            raise EngineError('tensorrt: the engine is closed')

    def _provider(self) -> str:
        core = self._options.dla_core
        where = 'GPU' if core < 0 else f'DLA core {core} and GPU'
        why = self._whole.no_graphs
        return f'{where}, no CUDA graph: {why}' if why else f'{where}, CUDA graph'
