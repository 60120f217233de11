"""Ground truth in recordings: which topics have it, and what they say.

That is the topics of the sample recording or, where there are none, the depth images of an RGB-D
camera that are registered to its colour images.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..topics import namespace_of, says_depth
from .cameras import Sight, look
from .cdr import RecordingError
from .ground_truth import truth_array
from .recordings import Recorded
from .sample import GROUND_TRUTH
from .sources import BagSource, Source

_IMAGE = 'sensor_msgs/msg/Image'
_COMPRESSED = 'sensor_msgs/msg/CompressedImage'
# What drivers call depth in the frame of the colour camera.
_REGISTERED = ('aligned', 'registered', 'depth_to_rgb', 'depth_to_color')
_MILLIMETRE = np.float32(1e-3)
_SHAPE = 0.02  # proportions of sides that are rounded differ so much, at most
_DEPTH_HEADER = struct.Struct('<iff')  # of compressedDepth: format, quantisation A and B


def truth_topics(
    topics: Mapping[str, str], image: str, sights: Mapping[str, Sight] = MappingProxyType({})
) -> dict[str, str]:
    """The topics that have ground truth for the images of a camera.

    Args:
        topics: name of each topic of the recording -> its message type.
        image: topic of the images.
        sights: from ``look``; without one, the name of a topic tells what it shows.

    Returns:
        Topic -> task.
    """
    known = {topic: task for task, (topic, _, _) in GROUND_TRUTH.items() if topic in topics}
    if known:
        return known
    depth = [
        topic
        for topic, kind in topics.items()
        if kind in (_IMAGE, _COMPRESSED)
        and (sights[topic].content == 'depth' if topic in sights else says_depth(topic))
        and topic != image
        and 'confidence' not in topic
        # What a node has said about depth is not the truth: it has labels or confidences beside it.
        and f'{namespace_of(topic)}/depth_confidence' not in topics
    ]
    root = image.split('/')[1]
    frame = _frame(sights[image].frame_id) if image in sights else ''

    def preference(topic: str) -> tuple[bool, bool, bool, bool, str]:
        of_frame = topic in sights and _frame(sights[topic].frame_id) == frame
        registered = any(word in topic for word in _REGISTERED)
        other = topic.split('/')[1] != root
        return not of_frame, not registered, other, topics[topic] != _IMAGE, topic

    return {min(depth, key=preference): 'depth'} if depth else {}


def truth_readers(source: Source) -> dict[str, TruthReader]:
    """What reads the ground truth of the images of a source, by name of the camera."""
    if not isinstance(source, BagSource):
        return {camera.name: TruthReader({}) for camera in source.cameras}
    reader, sights = source.reader, look(source.reader)
    return {
        camera.name: TruthReader(truth_topics(reader.topics, camera.image, sights), reader.unpack)
        for camera in source.cameras
    }


def _frame(frame_id: str) -> str:
    """A frame_id as tf2 spells it: without the slash of earlier days."""
    return frame_id.removeprefix('/')


class TruthReader:
    """Reads what messages say is true of images, and counts what is not used.

    Args:
        tasks: topic -> task, from ``truth_topics``.
        unpack: deserializes a message.

    Attributes:
        used: topics that something was true of so far.
    """

    def __init__(
        self, tasks: Mapping[str, str], unpack: Callable[[Recorded], Any] = lambda message: message
    ) -> None:
        self.tasks = tasks
        self.used: list[str] = []
        self._unpack = unpack
        self._unused: dict[str, int] = {}

    def read(
        self, messages: Mapping[str, Recorded], frame_id: str, size: tuple[int, int]
    ) -> dict[str, NDArray[Any]]:
        """By task, what is true of an image, in the forms of ``truth_array``.

        Args:
            messages: topic -> Image or CompressedImage; other topics are passed over.
            frame_id: of the image; depth in another frame is of other pixels, and left out.
            size: width and height of the image; what has another shape is of another view.
        """
        known: dict[str, NDArray[Any]] = {}
        for topic, task in self.tasks.items():
            if topic not in messages:
                continue
            try:
                message = self._unpack(messages[topic])
                if task == 'depth' and _frame(message.header.frame_id) != _frame(frame_id):
                    self._leave_out(
                        f'depth of frame {message.header.frame_id} is not registered to the '
                        'images; record the aligned depth of the camera'
                    )
                    continue
                depth = task == 'depth'
                array = depth_array(message) if depth else truth_array(task, message.data)
            except RecordingError as error:
                self._leave_out(str(error))
                continue
            if _same_shape(array.shape[:2], size):
                known[task] = array
                if topic not in self.used:
                    self.used.append(topic)
            else:
                height, width = array.shape[:2]
                self._leave_out(
                    f'{task} of {width}x{height} is not of the view of images of '
                    f'{size[0]}x{size[1]}'
                )
        return known

    def _leave_out(self, reason: str) -> None:
        self._unused[reason] = self._unused.get(reason, 0) + 1

    def problems(self) -> list[str]:
        """Why truth was not used, a sentence for each reason."""
        return [f'{reason} (not used {count} times)' for reason, count in self._unused.items()]


def _same_shape(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether height and width are in the proportion of an image's width and height."""
    return abs(shape[1] * size[1] - shape[0] * size[0]) <= _SHAPE * shape[1] * size[1]


def depth_array(message: Any) -> NDArray[np.float32]:
    """Metres of a depth image, float32 [H, W]; 0 or NaN where unknown.

    Args:
        message: Image of 16UC1 (millimetres) or 32FC1 (metres), or CompressedImage of a PNG or of
            ``compressedDepth`` (compressed_depth_image_transport).

    Raises:
        RecordingError: another encoding, or it cannot be decoded.
    """
    if not hasattr(message, 'format'):
        kinds = {'16UC1': '<u2', 'mono16': '<u2', '32FC1': '<f4'}
        if message.encoding not in kinds:
            raise RecordingError(f'depth of encoding {message.encoding!r}, expected 16UC1 or 32FC1')
        kind = np.dtype(kinds[message.encoding])
        kind = kind.newbyteorder('>') if message.is_bigendian else kind
        data = np.frombuffer(message.data, np.uint8)
        row = message.width * kind.itemsize
        if data.size != message.height * message.step or message.step < row:
            raise RecordingError(f'depth of {data.size} bytes, expected {message.height} rows')
        rows = data.reshape(message.height, message.step)
        used = np.ascontiguousarray(rows[:, :row]).view(kind)
        return metres(used)
    data = np.frombuffer(message.data, np.uint8)
    if 'compressedDepth' not in message.format:
        return metres(_decoded(data))
    if data.size < _DEPTH_HEADER.size:
        raise RecordingError('a depth image cannot be decoded')
    _, a, b = _DEPTH_HEADER.unpack(data[: _DEPTH_HEADER.size].tobytes())
    picture = _decoded(data[_DEPTH_HEADER.size :])
    if not message.format.startswith('32FC1'):
        return metres(picture)
    with np.errstate(divide='ignore'):
        inverse = np.float32(a) / (picture.astype(np.float32) - np.float32(b))
    return np.where(picture > 0, inverse, 0).astype(np.float32)


def metres(depth: NDArray[Any]) -> NDArray[np.float32]:
    """Integers are millimetres, floats metres."""
    scaled = depth.astype(np.float32)
    return scaled * _MILLIMETRE if depth.dtype.kind == 'u' else scaled


def _decoded(data: NDArray[np.uint8]) -> NDArray[Any]:
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if picture is None or picture.ndim != 2:
        raise RecordingError('a depth image cannot be decoded')
    return np.asarray(picture)
