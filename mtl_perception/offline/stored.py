"""Runs frame by frame: outputs that were stored in bags, or a recording through pipelines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ..bundle import KINDS
from ..calibration import camera_model, is_rectified
from ..camera import CameraError
from ..images import ImageError, read_image
from ..pipeline import Frame, Pipeline
from .cameras import find_camera, look
from .cdr import RecordingError, header_stamp_ns
from .ground_truth import image_array
from .recordings import RecordingReader
from .runs import RunFrame
from .truth import TruthReader, nearest_in_time, truth_topics

TENSORS = tuple(dict.fromkeys(name for outputs in KINDS.values() for name in outputs))
A = TypeVar('A')
B = TypeVar('B')

_IMAGE = 'sensor_msgs/msg/Image'
_OPEN = 8  # frames whose outputs may come mixed up with each other


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
    space = output_namespace(reader, node)
    names = {f'{space}/{name}': name for name in TENSORS if f'{space}/{name}' in reader.topics}
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
        reader: opened.
        image: topic of the camera, where a recording has several.

    Attributes:
        truth: reads the ground truth.

    Raises:
        RecordingError: the recording has no camera.
    """

    def __init__(self, reader: RecordingReader, image: str = '') -> None:
        self._reader = reader
        self._camera = find_camera(reader.path, reader.topics, look(reader), image)
        self.truth = TruthReader(truth_topics(reader.topics, self._camera.image))

    def frames(self) -> Iterator[tuple[int, Frame, dict[str, NDArray[Any]]]]:
        """The good images: stamp in nanoseconds, frame, and what is true, by task.

        Raises:
            RecordingError: the recording cannot be read further.
        """
        reader, camera = self._reader, self._camera
        # So that an image that comes before its CameraInfo has one.
        info = next((reader.unpack(message) for message in reader.messages([camera.info])), None)
        images: dict[int, Any] = {}
        truths: dict[str, dict[int, Any]] = {topic: {} for topic in self.truth.tasks}

        def finish(stamp: int) -> Iterator[tuple[int, Frame, dict[str, NDArray[Any]]]]:
            frame = _frame(images.pop(stamp), info, camera.image, stamp)
            if frame is not None:
                found = {topic: nearest_in_time(stamp, known) for topic, known in truths.items()}
                messages = {t: truths[t][near] for t, near in found.items() if near is not None}
                yield stamp, frame, self.truth.read(messages, frame.frame_id)

        for message in reader.messages([camera.image, camera.info, *self.truth.tasks]):
            unpacked = reader.unpack(message)
            if message.topic == camera.info:
                info = unpacked
                continue
            waiting = images if message.topic == camera.image else truths[message.topic]
            waiting[header_stamp_ns(message.data)] = unpacked
            if message.topic != camera.image and len(waiting) > 3 * _OPEN:
                waiting.pop(min(waiting))
            if len(images) > _OPEN:
                yield from finish(min(images))
        for stamp in sorted(images):
            yield from finish(stamp)


def _frame(message: Any, info: Any, topic: str, stamp: int) -> Frame | None:
    """The frame of an image message; None of a bad one."""
    try:
        rgb = read_image(message)
    except ImageError:
        return None
    try:
        flat = is_rectified('auto', topic, info)
        model = camera_model(info, rectified=flat).for_image(rgb.shape[1], rgb.shape[0])
    except CameraError:
        model = None
    return Frame(rgb, model, frame_id=str(message.header.frame_id), stamp=stamp)


def frames_of_bags(
    bags: Sequence[RecordingReader], node: str = '', camera: RecordedCamera | None = None
) -> Iterator[tuple[RunFrame, ...]]:
    """Frames that one bag of outputs has, or that several have.

    Args:
        node: see ``output_namespace``.
        camera: whose images they are of, for images and ground truth.

    Yields:
        A frame of each bag, of one stamp.
    """
    runs = joined([stored_frames(bag, node) for bag in bags])
    if camera is None:
        for stamp, found in runs:
            yield tuple(RunFrame(stamp, None, arrays) for arrays in found)
        return
    shots = ((stamp, (frame, truth)) for stamp, frame, truth in camera.frames())
    for stamp, found, (frame, truth) in paired(runs, shots):
        height, width = next(iter(found[0].values())).shape[:2]
        size = (width, height)
        rgb = np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8)
        yield tuple(RunFrame(stamp, rgb, arrays, truth) for arrays in found)


def frames_of_pipelines(
    pipelines: Sequence[Pipeline], camera: RecordedCamera
) -> Iterator[tuple[RunFrame, ...]]:
    """Frames of a camera, run through one pipeline, or through several.

    Yields:
        A frame of each pipeline, of one image.

    Raises:
        EngineError: an engine failed.
    """
    for stamp, frame, truth in camera.frames():
        frames = []
        for pipeline in pipelines:
            (found,) = pipeline([frame], list(pipeline.bundle.outputs))
            frames.append(RunFrame(stamp, found.image, found.arrays, truth, found.timings_ms))
        yield tuple(frames)


def is_bag(path: Path) -> bool:
    """Whether a path is a recording."""
    return (path / 'metadata.yaml').is_file()
