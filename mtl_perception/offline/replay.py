"""Every frame of a recording through the network, in order, while other stages work ahead.

Reading, decoding, inference and what the caller does with the results overlap: each stage is a
pool of threads that works a few steps ahead of the one who takes from it. NumPy, OpenCV and the
engines let go of the interpreter while they compute. Results come in the order of the recording,
whatever finished first, so nothing that is made of them depends on the number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from time import perf_counter
from typing import TypeVar

from ..bundle import Bundle
from ..camera import CameraError
from ..engines.engine import Engine
from ..images import ImageError
from ..pipeline import Frame, Options, Pipeline, Prediction
from .cdr import RecordingError
from .sources import Selection, Step, bad_image

_DEFAULTS = Options()
_THREADS = 2  # that decode

T = TypeVar('T')
R = TypeVar('R')


@dataclass(frozen=True)
class Result:
    """One step of a replay.

    Attributes:
        step: what of the recording it is; ``step.truth`` has the messages near the image's stamp.
        prediction: of its image, with the frame (camera, stamp, picture, calibration); None where
            the step has no image, or a bad one.
        problem: why an image gave no prediction; empty if it did.
        kind: of the problem, to count it under.
        uncalibrated: why the frame has no calibration; empty if it has one.
        timings_ms: milliseconds of ``decode``, and of ``resize``, ``engine`` and ``post`` for the
            whole batch.
    """

    step: Step
    prediction: Prediction | None = None
    problem: str = ''
    kind: str = ''
    uncalibrated: str = ''
    timings_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """How a recording is replayed.

    Attributes:
        selection: what of it.
        wanted: tensors of the bundle that are computed.
        options: of the pipeline.
        batch: images in one run of the network, at most the engine's ``max_batch``.
    """

    selection: Selection
    wanted: frozenset[str]
    options: Options = _DEFAULTS
    batch: int = 1


def replay(steps: Iterable[Step], job: Job, bundle: Bundle, engine: Engine) -> Iterator[Result]:
    """Replay steps of a recording.

    Args:
        steps: consecutive ones, of which the first begins a batch.
        job: how.
        bundle: that they run through.
        engine: that runs it, in a thread of its own.

    Yields:
        A result for every step, in their order.

    Raises:
        RecordingError: the recording cannot be read further.
        EngineError: the engine failed.
    """
    pipeline = Pipeline(bundle, engine, job.options)

    def infer(group: Sequence[Decoded]) -> list[Result]:
        return _infer(pipeline, job.wanted, group)

    with pool(_THREADS, 'decode') as decoders, pool(1, 'engine') as runner:
        decoded = in_order(decoders, decode, steps, ahead=_THREADS + job.batch)
        for results in in_order(runner, infer, _grouped(decoded, job.batch), ahead=2):
            yield from results


class pool(ThreadPoolExecutor):  # noqa: N801 - it reads as the context that it is
    """Threads that end without doing what still waits, when the caller is done or fails."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)

    def __exit__(self, *_: object) -> None:
        self.shutdown(cancel_futures=True)


def in_order(
    executor: Executor, function: Callable[[T], R], items: Iterable[T], *, ahead: int
) -> Iterator[R]:
    """Map items in an executor, which works at most ``ahead`` items ahead; results in order."""
    pending: deque[Future[R]] = deque()
    for item in items:
        pending.append(executor.submit(function, item))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


@dataclass(frozen=True)
class Decoded:
    """A step with its frame, or why it has none."""

    step: Step
    frame: Frame | None = None
    problem: str = ''
    kind: str = ''
    uncalibrated: str = ''
    decode_ms: float = 0.0


def decode(step: Step) -> Decoded:
    """The frame of a step."""
    shot = step.shot
    if shot is None:
        return Decoded(step)
    start = perf_counter()
    try:
        image = shot.load()
    except (ImageError, RecordingError) as error:
        return Decoded(step, problem=str(error), kind=bad_image(error))
    decode_ms = 1e3 * (perf_counter() - start)
    calibration, problem = None, shot.problem
    if shot.calibration is not None:
        try:
            calibration = shot.calibration.for_image(image.shape[1], image.shape[0])
        except CameraError as error:
            problem = str(error)
    frame = Frame(image, calibration, shot.camera, shot.frame_id, shot.stamp)
    return Decoded(step, frame, uncalibrated=problem, decode_ms=decode_ms)


def _grouped(decoded: Iterable[Decoded], size: int) -> Iterator[list[Decoded]]:
    """Groups of so many steps, counted from the start of the recording wherever this one starts.

    So each image shares its run of the network with the same others every time.
    """
    return (list(group) for _, group in groupby(decoded, lambda item: item.step.index // size))


def _infer(pipeline: Pipeline, wanted: Collection[str], group: Sequence[Decoded]) -> list[Result]:
    frames = [item.frame for item in group if item.frame is not None]
    predictions = iter(pipeline(frames, wanted))
    results = []
    for item in group:
        prediction = next(predictions) if item.frame is not None else None
        timings = {'decode': item.decode_ms, **(prediction.timings_ms if prediction else {})}
        results.append(
            Result(item.step, prediction, item.problem, item.kind, item.uncalibrated, timings)
        )
    return results
