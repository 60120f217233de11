"""Runs frame by frame: outputs that were stored in bags, or a recording through pipelines."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ..bundle import KINDS
from ..pipeline import Frame, Pipeline
from .cdr import RecordingError, header_stamp_ns
from .ground_truth import image_array
from .recordings import BAG_SUFFIXES, RecordingReader
from .replay import decode, in_order, pool
from .runs import RunFrame
from .sources import Selection, Source, Step
from .truth import TruthReader

TENSORS = tuple(dict.fromkeys(name for outputs in KINDS.values() for name in outputs))
Arrays = Mapping[str, NDArray[Any]]
Shot = tuple[Frame, Arrays]  # an image, and what is true of it
A = TypeVar('A')
B = TypeVar('B')

_IMAGE = 'sensor_msgs/msg/Image'
_OPEN = 8  # frames that may come mixed up with each other
_THREADS = 2  # that decode images


def output_namespace(reader: RecordingReader, wanted: str = '') -> str:
    """The node, and the camera of it, whose outputs a bag has.

    Args:
        wanted: such as ``/perception`` or ``/perception/front``; empty if there is one only.

    Raises:
        RecordingError: there is none, or not the wanted one, or one is to be chosen.
    """
    found: dict[str, int] = {}
    for topic, kind in reader.topics.items():
        space, _, name = topic.rpartition('/')
        if kind == _IMAGE and name in TENSORS and not topic.startswith('/ground_truth/'):
            found[space] = found.get(space, 0) + 1
    # A depth camera has a topic called depth, too; the node has a neighbour or two beside it.
    most = max(found.values(), default=0)
    likely = sorted(space for space, count in found.items() if count == most)
    if wanted and wanted not in found:
        raise RecordingError(
            f'{reader.path} has no outputs below {wanted}, only below '
            f'{", ".join(sorted(found)) or "nothing"}'
        )
    if not likely:
        raise RecordingError(f'{reader.path} has no outputs of mtl_perception, such as depth')
    if not wanted and len(likely) > 1:
        raise RecordingError(
            f'{reader.path} has outputs below {", ".join(likely)}; choose one with --node'
        )
    return wanted or likely[0]


def stored_frames(
    reader: RecordingReader, node: str = ''
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """The outputs of every image in a bag, by stamp.

    Args:
        node: see ``output_namespace``.

    Yields:
        Stamp in nanoseconds, and outputs by name.

    Raises:
        RecordingError: the bag has no outputs, or cannot be read.
    """
    names = _output_topics(reader, node)
    open_frames: dict[int, dict[str, NDArray[Any]]] = {}
    for message in reader.messages(names):
        stamp = header_stamp_ns(message.data)
        frame = open_frames.setdefault(stamp, {})
        frame[names[message.topic]] = image_array(reader.unpack(message))
        if len(open_frames) > _OPEN:
            oldest = min(open_frames)
            yield oldest, open_frames.pop(oldest)
    for stamp in sorted(open_frames):
        yield stamp, open_frames[stamp]


def count_of_outputs(reader: RecordingReader, node: str = '') -> int:
    """About how many frames ``stored_frames`` gives."""
    return max(reader.counts[topic] for topic in _output_topics(reader, node))


def _output_topics(reader: RecordingReader, node: str) -> dict[str, str]:
    space = output_namespace(reader, node)
    return {f'{space}/{name}': name for name in TENSORS if f'{space}/{name}' in reader.topics}


def paired(
    first: Iterable[tuple[int, A]], second: Iterable[tuple[int, B]]
) -> Iterator[tuple[int, A, B]]:
    """What two sides have of equal stamps, which rise; what only one side has is left out."""
    ahead, behind = iter(first), iter(second)
    one, other = next(ahead, None), next(behind, None)
    while one is not None and other is not None:
        if one[0] == other[0]:
            yield one[0], one[1], other[1]
        stamps = one[0], other[0]
        if stamps[0] <= stamps[1]:
            one = next(ahead, None)
        if stamps[1] <= stamps[0]:
            other = next(behind, None)


def joined(
    sides: Sequence[Iterable[tuple[int, A]]],
) -> Iterator[tuple[int, tuple[A, ...]]]:
    """What all sides have of equal stamps, which rise."""
    both: Iterable[tuple[int, tuple[A, ...]]] = ((stamp, (item,)) for stamp, item in sides[0])
    for side in sides[1:]:
        both = ((stamp, (*items, item)) for stamp, items, item in paired(both, side))
    return iter(both)


class RecordedCamera:
    """A camera of a recording, with what the recording knows to be true.

    Args:
        source: the recording.
        camera: its name.
        truth: reads the ground truth.
    """

    def __init__(self, source: Source, camera: str, truth: TruthReader) -> None:
        self._source, self._camera, self.truth = source, camera, truth
        self._selection = Selection(truth=tuple(truth.tasks))

    def __len__(self) -> int:
        return self._source.count(self._selection)

    def frames(self) -> Iterator[tuple[Frame, dict[str, NDArray[Any]]]]:
        """The good images by stamp: frame, and what is true, by task.

        Raises:
            RecordingError: the recording cannot be read further.
        """
        return by_stamp(self._frames(), lambda shot: shot[0].stamp)

    def _frames(self) -> Iterator[tuple[Frame, dict[str, NDArray[Any]]]]:
        with pool(_THREADS, 'decode') as decoders:
            all_steps = self._source.steps(self._selection)
            steps = (s for s in all_steps if s.shot is not None and s.shot.camera == self._camera)
            for decoded in in_order(decoders, decode, steps, ahead=_THREADS):
                if (frame := decoded.frame) is not None:
                    yield frame, true_of(frame, decoded.step, self.truth)


def true_of(frame: Frame, step: Step, truth: TruthReader) -> dict[str, NDArray[Any]]:
    """What is true of the frame of a step, by task."""
    return truth.read(step.truth, frame.frame_id, (frame.image.shape[1], frame.image.shape[0]))


def by_stamp(items: Iterable[A], stamp: Callable[[A], int]) -> Iterator[A]:
    """Items by their stamps, which may be mixed up with those of a few others."""
    waiting: list[tuple[int, int, A]] = []
    for count, item in enumerate(items):
        heapq.heappush(waiting, (stamp(item), count, item))
        if len(waiting) > _OPEN:
            yield heapq.heappop(waiting)[-1]
    while waiting:
        yield heapq.heappop(waiting)[-1]


def frames_of_bags(
    bags: Sequence[RecordingReader], node: str = ''
) -> Iterator[tuple[RunFrame, ...]]:
    """Frames that one bag of outputs has, or that several have, without their images.

    Args:
        node: see ``output_namespace``.

    Yields:
        A frame of each bag, of one stamp.
    """
    for stamp, found in joined([stored_frames(bag, node) for bag in bags]):
        yield tuple(RunFrame(stamp, None, arrays) for arrays in found)


def frames_of(
    sides: Sequence[RecordingReader | Pipeline], camera: RecordedCamera, node: str = ''
) -> Iterator[tuple[RunFrame, ...]]:
    """Frames of a camera: what bags have of them, and what pipelines make of them.

    Args:
        node: see ``output_namespace``.

    Yields:
        A frame of each side, of one image that all bags have.

    Raises:
        EngineError: an engine failed.
    """
    bags = [side for side in sides if isinstance(side, RecordingReader)]
    shots = ((frame.stamp, (frame, truth)) for frame, truth in camera.frames())
    images: Iterator[tuple[tuple[Arrays, ...], Shot]] = (((), shot) for _, shot in shots)
    if bags:
        stored = joined([stored_frames(bag, node) for bag in bags])
        images = ((found, shot) for _, found, shot in paired(stored, shots))
    for found, (frame, truth) in images:
        rest = iter(found)
        yield tuple(
            _run(side, frame, truth)
            if isinstance(side, Pipeline)
            else _stored(next(rest), frame, truth)
            for side in sides
        )


def _run(pipeline: Pipeline, frame: Frame, truth: Arrays) -> RunFrame:
    (found,) = pipeline([frame], list(pipeline.bundle.outputs))
    return RunFrame(frame.stamp, found.image, found.arrays, truth, found.timings_ms)


def _stored(arrays: Arrays, frame: Frame, truth: Arrays) -> RunFrame:
    height, width = next(iter(arrays.values())).shape[:2]
    rgb = cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA)
    return RunFrame(frame.stamp, np.asarray(rgb, np.uint8), arrays, truth)


def is_bag(path: Path) -> bool:
    """Whether a path is a recording."""
    return (path / 'metadata.yaml').is_file() or (path.suffix in BAG_SUFFIXES and path.is_file())
