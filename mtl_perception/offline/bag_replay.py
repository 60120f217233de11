"""From a recording to a bag: replay, encode, write, all at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .layout import Layout
from .replay import Result, in_order, pool
from .writing import OutputBag, Tally

# Sees every result, in order, before it is encoded; evaluation and progress are such.
Watcher = Callable[[Result], None]


def write_bag(
    path: Path,
    layout: Layout,
    results: Callable[[int], Iterable[Result]],
    *,
    start_ns: int,
    batch: int = 1,
    job: Mapping[str, Any],
    provenance: Mapping[str, str],
    resume: bool = False,
    threads: int = 2,
    watch: Watcher = lambda result: None,
) -> Tally:
    """Write the results of a replay to a bag.

    Args:
        path: of the bag.
        layout: of the bag.
        results: gives them from a step on.
        start_ns: when the recording starts, for what is said once.
        batch: steps in one run of the network; the bag is resumed between two of these.
        job, resume: see ``OutputBag``.
        provenance: see ``OutputBag.finish``.
        threads: that encode.
        watch: see ``Watcher``.

    Returns:
        What came of the images.

    Raises:
        RecordingError: reading or writing failed.
        EngineError: the engine failed.
        OSError: the bag cannot be written; what is written stays for ``resume``.
    """
    with OutputBag(path, layout.channels, job, resume=resume) as bag:
        if not bag.tally.steps:
            bag.append(layout.first_chunk(start_ns))

        def encode(result: Result) -> tuple[Result, bytes]:
            return result, layout.chunk(result)

        with pool(threads, 'encode') as encoders:
            watched = _watched(results(bag.tally.steps), watch)
            for result, records in in_order(encoders, encode, watched, ahead=threads + batch):
                bag.append(records)
                count(bag.tally, result)
                if bag.tally.steps % batch == 0 and bag.due():
                    bag.checkpoint()
        bag.finish(provenance)
        return bag.tally


def count(tally: Tally, result: Result) -> None:
    """Take a result into a tally."""
    tally.steps += 1
    if result.prediction is not None:
        tally.frames += 1
        if result.uncalibrated:
            reason = result.uncalibrated
            tally.uncalibrated[reason] = tally.uncalibrated.get(reason, 0) + 1
    elif result.problem:
        tally.bad[result.kind] = tally.bad.get(result.kind, 0) + 1


def _watched(results: Iterable[Result], watch: Watcher) -> Iterator[Result]:
    for result in results:
        watch(result)
        yield result
