"""Engines side by side in one run: what they compute, how fast, and which cannot run here."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..bundle import Bundle, BundleError
from ..engines.agreement import Agreement, SelfCheckError, self_check
from ..engines.engine import Engine, EngineError, EngineOptions
from ..engines.machine import cores, cpu_name
from ..engines.opening import open_unchecked
from ..engines.timing import Rounds, Timing, noise, time_engines

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
TURN_S = 0.25  # engines take turns after so long, so that all see the same disturbances


@dataclass(frozen=True)
class Measured:
    """One engine.

    Attributes:
        backend, precision: what was asked for.
        engine: library, version and provider; empty if it could not be opened.
        open_s: time to open, with building if it was not in the cache.
        single: of single images, all outputs, one after another.
        batch_fps: images per second in runs of the largest batch, one after another.
        agreements: with the outputs that the model had at export; empty without probes.
        problem: why it is not usable; empty if it is.
    """

    backend: str
    precision: str
    engine: str = ''
    open_s: float = float('nan')
    single: Timing = field(default_factory=Timing)
    batch_fps: float = float('nan')
    agreements: tuple[Agreement, ...] = ()
    problem: str = ''


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
        rounds = Rounds(seconds=seconds / 2 * len(engines), turn_s=TURN_S)
        outputs, batch = list(bundle.outputs), options.max_batch
        single = time_engines(engines, noise(bundle, 1), outputs, rounds)
        batched = time_engines(engines, noise(bundle, batch), outputs, rounds)
    finally:
        for engine in engines.values():
            engine.close()
    for index in engines:
        failure = single[index].failure or batched[index].failure
        if failure:
            rows[index] = replace(rows[index], problem=failure)
        else:
            fps = 1e3 * batch / batched[index].median_ms
            rows[index] = replace(rows[index], single=single[index], batch_fps=fps)
    return rows


def report(rows: Sequence[Measured], bundle: Bundle, options: EngineOptions) -> str:
    """The table that people read; the first engine that runs is the unit of the ratios."""
    first = next((row for row in rows if row.single.ms), None)
    threads = options.threads or 'automatic'
    lines = [
        f'{cpu_name()}, {cores()} cores, threads {threads}, load {os.getloadavg()[0]:.1f}',
        f'{bundle.name} {bundle.version} ({bundle.width}x{bundle.height}), all outputs',
        '',
        f'{"backend":<12} {"precision":<9} {"p50 ms":>8} {"p95 ms":>8} {"speed":>6} '
        f'{f"fps, batch {options.max_batch}":>13} {"open s":>7}  agreement with the model',
    ]
    for row in rows:
        name = f'{row.backend:<12} {row.precision:<9}'
        if not row.single.ms:
            lines.append(f'{name} - {row.problem}')
            continue
        assert first is not None
        speed = first.single.median_ms / row.single.median_ms
        checks = ', '.join(str(a) for a in row.agreements) or 'not checked: no probes'
        lines.append(
            f'{name} {row.single.median_ms:8.1f} {row.single.percentile(95):8.1f} {speed:5.2f}x '
            f'{row.batch_fps:13.1f} {row.open_s:7.1f}  {row.problem or checks}'
        )
    return '\n'.join(lines)
