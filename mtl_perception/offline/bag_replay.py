"""From results to a bag: encode and write, while the next results are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .layout import Layout
from .replay import Result, in_order, pool
from .writing import OutputBag, Tally, finished

# Sees every result, in order, before it is encoded; evaluation is such.
Watcher = Callable[[Result], None]

_THREADS = 2  # that encode


@dataclass(frozen=True)
class Done:
    """A step that is done with but for writing it; it can be sent to another process.

    Attributes:
        index: of the step.
        records: its chunk of the bag; empty if there is nothing to write.
        answered: whether its image gave outputs.
        bad: kind of a bad image; empty if there is none.
        problem: what is wrong with it.
        uncalibrated: why the frame has no calibration; empty if it has one.
    """

    index: int
    records: bytes
    answered: bool = False
    bad: str = ''
    problem: str = ''
    uncalibrated: str = ''


def encoded(
    results: Iterable[Result],
    layout: Layout,
    *,
    batch: int = 1,
    watch: Watcher = lambda result: None,
) -> Iterator[Done]:
    """Encode results in threads, in their order.

    Args:
        batch: so many come at once.
        watch: see ``Watcher``.
    """

    def encode(result: Result) -> Done:
        answered = result.prediction is not None
        return Done(
            result.step.index,
            layout.chunk(result),
            answered,
            result.kind,
            result.problem,
            result.uncalibrated if answered else '',
        )

    def watched() -> Iterator[Result]:
        for result in results:
            watch(result)
            yield result

    with pool(_THREADS, 'encode') as encoders:
        yield from in_order(encoders, encode, watched(), ahead=_THREADS + batch)


def write_bag(
    path: Path,
    layout: Layout,
    done: Callable[[int], Iterable[Done]],
    *,
    start_ns: int,
    batch: int = 1,
    job: Mapping[str, Any],
    provenance: Mapping[str, str],
    resume: bool = False,
    progress: Callable[[int], None] = lambda steps: None,
) -> Tally:
    """Write what a replay has done to a bag.

    Args:
        path: of the bag.
        layout: of the bag.
        done: gives it from a step on.
        start_ns: when the recording starts, for what is said once.
        batch: steps in one run of the network; the bag is resumed between two of these.
        job: see ``OutputBag``.
        resume: go on with a part; a bag that the same job has finished is left as it is.
        provenance: see ``OutputBag.finish``.
        progress: is told how many steps are written.

    Returns:
        What came of the images.

    Raises:
        RecordingError: reading or writing failed.
        EngineError: the engine failed.
        OSError: the bag cannot be written; what is written stays for ``resume``.
    """
    if resume and (tally := finished(path, job)):
        return tally
    with OutputBag(path, layout.channels, job, resume=resume) as bag:
        if not bag.tally.steps:
            bag.append(layout.first_chunk(start_ns))
        for step in done(bag.tally.steps):
            bag.append(step.records)
            _count(bag.tally, step)
            if bag.tally.steps % batch == 0 and bag.due():
                bag.checkpoint()
            progress(bag.tally.steps)
        bag.finish(provenance)
        return bag.tally


def _count(tally: Tally, step: Done) -> None:
    tally.steps += 1
    tally.frames += step.answered
    for reason, counts in ((step.bad, tally.bad), (step.uncalibrated, tally.uncalibrated)):
        if reason:
            counts[reason] = counts.get(reason, 0) + 1
    if step.bad:
        tally.first.setdefault(step.bad, step.problem)
