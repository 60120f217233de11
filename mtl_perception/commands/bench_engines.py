"""Engines side by side in one run: what they compute, how fast, and which cannot run here."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..bundle import Bundle, BundleError
from ..engines.agreement import Agreement, SelfCheckError, self_check
from ..engines.engine import Engine, EngineError, EngineOptions, open_unchecked
from ..engines.tensors import cpu_name

# What is compared unless something else is asked for, as far as the bundle and the machine have it.
CANDIDATES = (
    ('onnxruntime', 'fp32'),
    ('onnxruntime', 'int8'),
    ('openvino', 'fp32'),
    ('openvino', 'bf16'),
    ('openvino', 'int8'),
    ('tensorrt', 'fp32'),
    ('tensorrt', 'fp16'),
    ('tensorrt', 'int8'),
)
SLICE_S = 0.25  # engines take turns after so long, so that all see the same disturbances
WARM_UP_RUNS = 3


@dataclass(frozen=True)
class Measured:
    """One engine.

    Attributes:
        backend, precision: what was asked for.
        engine: library, version and provider; empty if it could not be opened.
        open_s: time to open, with building if it was not in the cache.
        latency_ms: times of single images, all outputs, one after another.
        batch_fps: images per second in runs of the largest batch, one after another.
        agreements: with the outputs that the model had at export; empty without probes.
        problem: why it is not usable; empty if it is.
    """

    backend: str
    precision: str
    engine: str = ''
    open_s: float = float('nan')
    latency_ms: tuple[float, ...] = ()
    batch_fps: float = float('nan')
    agreements: tuple[Agreement, ...] = ()
    problem: str = ''

    def percentile(self, share: float) -> float:
        """Latency that ``share`` percent of the runs stayed below, milliseconds."""
        return float(np.percentile(self.latency_ms, share)) if self.latency_ms else float('nan')


def compare(
    bundle: Bundle,
    candidates: Sequence[tuple[str, str]],
    options: EngineOptions,
    *,
    seconds: float,
) -> list[Measured]:
    """Open every engine, check what it computes, and let them take turns.

    Args:
        candidates: (backend, precision).
        options: for all of them; ``precision`` is replaced, ``max_batch`` is the batch of
            ``Measured.batch_fps``.
        seconds: measuring time of each engine, half of it with single images.
    """
    rows: list[Measured] = []
    engines: dict[int, Engine] = {}
    try:
        for index, (name, precision) in enumerate(candidates):
            row = Measured(name, precision)
            start = time.perf_counter()
            try:
                engine = open_unchecked(name, bundle, replace(options, precision=precision))
                engines[index] = engine
                identity = engine.identity
                row = replace(
                    row,
                    engine=f'{identity["engine"]} {identity["version"]} ({identity["provider"]})',
                    open_s=time.perf_counter() - start,
                    agreements=tuple(
                        self_check(engine, bundle, precision, max_batch=options.max_batch)
                    ),
                )
            except SelfCheckError as error:  # it is measured all the same
                row = replace(row, open_s=time.perf_counter() - start, problem=str(error))
            except (EngineError, BundleError) as error:
                row = replace(row, problem=str(error))
            rows.append(row)
        single = _take_turns(engines, bundle, 1, seconds / 2)
        batched = _take_turns(engines, bundle, options.max_batch, seconds / 2)
    finally:
        for engine in engines.values():
            engine.close()
    for index, times in single.items():
        fps = options.max_batch / float(np.median(batched[index]))
        milliseconds = tuple(1e3 * t for t in times)
        rows[index] = replace(rows[index], latency_ms=milliseconds, batch_fps=fps)
    return rows


def _take_turns(
    engines: dict[int, Engine], bundle: Bundle, batch: int, seconds: float
) -> dict[int, list[float]]:
    """Times of runs of each engine, seconds, in slices that alternate."""
    noise = np.random.default_rng(0)
    images = noise.integers(0, 256, (batch, bundle.height, bundle.width, 3), np.uint8)
    outputs = list(bundle.outputs)
    times: dict[int, list[float]] = {index: [] for index in engines}
    for engine in engines.values():
        for _ in range(WARM_UP_RUNS):
            engine.run(images, outputs)
    for _ in range(max(1, round(seconds / SLICE_S))):
        for index, engine in engines.items():
            end = time.perf_counter() + SLICE_S
            while (start := time.perf_counter()) < end:
                engine.run(images, outputs)
                times[index].append(time.perf_counter() - start)
    return times


def report(rows: Sequence[Measured], bundle: Bundle, options: EngineOptions) -> str:
    """The table that people read; the first engine that runs is the unit of the ratios."""
    first = next((row for row in rows if row.latency_ms), None)
    threads = options.threads or 'automatic'
    lines = [
        f'{cpu_name()}, {len(os.sched_getaffinity(0))} cores, threads {threads}, '
        f'load {os.getloadavg()[0]:.1f}',
        f'{bundle.name} {bundle.version} ({bundle.width}x{bundle.height}), all outputs',
        '',
        f'{"backend":<12} {"precision":<9} {"p50 ms":>8} {"p95 ms":>8} {"speed":>6} '
        f'{f"fps, batch {options.max_batch}":>13} {"open s":>7}  agreement with the model',
    ]
    for row in rows:
        name = f'{row.backend:<12} {row.precision:<9}'
        if not row.latency_ms:
            lines.append(f'{name} - {row.problem}')
            continue
        assert first is not None
        speed = first.percentile(50) / row.percentile(50)
        checks = ', '.join(str(a) for a in row.agreements) or 'not checked: no probes'
        lines.append(
            f'{name} {row.percentile(50):8.1f} {row.percentile(95):8.1f} {speed:5.2f}x '
            f'{row.batch_fps:13.1f} {row.open_s:7.1f}  {row.problem or checks}'
        )
    return '\n'.join(lines)
