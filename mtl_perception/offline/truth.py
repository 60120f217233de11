"""Ground truth in recordings: which topics have it, and what they say.

That is the topics of the sample recording or, where there are none, the depth images of an RGB-D
camera that are registered to its colour images.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..topics import namespace_of, says_depth
from .cdr import RecordingError
from .ground_truth import truth_array
from .sample import GROUND_TRUTH

TOLERANCE_NS = 20_000_000  # between the stamps of an image and its truth
_IMAGE = 'sensor_msgs/msg/Image'
_COMPRESSED = 'sensor_msgs/msg/CompressedImage'
# What drivers call depth in the frame of the colour camera.
_REGISTERED = ('aligned', 'registered', 'depth_to_rgb', 'depth_to_color')
_MILLIMETRE = np.float32(1e-3)
_DEPTH_HEADER = struct.Struct('<iff')  # of compressedDepth: format, quantisation A and B


def truth_topics(topics: Mapping[str, str], image: str) -> dict[str, str]:
    """The topics that have ground truth for the images of a camera.

    Args:
        topics: name of each topic of the recording -> its message type.
        image: topic of the images.

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
        and says_depth(topic)
        and topic != image
        # What a node has said about depth is not the truth: it has labels or confidences beside it.
        and f'{namespace_of(topic)}/depth_confidence' not in topics
    ]
    root = image.split('/')[1]

    def preference(topic: str) -> tuple[bool, bool, bool, str]:
        registered = any(word in topic for word in _REGISTERED)
        return not registered, topic.split('/')[1] != root, topics[topic] != _IMAGE, topic

    return {min(depth, key=preference): 'depth'} if depth else {}


class TruthReader:
    """Reads what messages say is true of images.

    Args:
        tasks: topic -> task, from ``truth_topics``.

    Attributes:
        other_frames: frame_ids of depth that is not of the pixels of the images.
    """

    def __init__(self, tasks: Mapping[str, str]) -> None:
        self.tasks = tasks
        self.other_frames: set[str] = set()

    def read(self, messages: Mapping[str, Any], frame_id: str) -> dict[str, NDArray[Any]]:
        """By task, what is true of an image, in the forms of ``truth_array``.

        Args:
            messages: topic -> Image or CompressedImage.
            frame_id: of the image; depth in another frame is of other pixels, and left out.

        Raises:
            RecordingError: one cannot be decoded.
        """
        known: dict[str, NDArray[Any]] = {}
        for topic, message in messages.items():
            task = self.tasks[topic]
            if task != 'depth':
                known[task] = truth_array(task, message.data)
            elif message.header.frame_id == frame_id:
                known[task] = depth_array(message)
            else:
                self.other_frames.add(str(message.header.frame_id))
        return known

    def problem(self) -> str:
        """Why truth was not used, in a sentence; empty if all was."""
        if not self.other_frames:
            return ''
        return (
            f'depth of frame {", ".join(sorted(self.other_frames))} is not registered to the '
            'images, so it is not used; record the aligned depth of the camera'
        )


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
        rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        used = np.ascontiguousarray(rows[:, : message.width * kind.itemsize]).view(kind)
        return metres(used)
    data = np.frombuffer(message.data, np.uint8)
    if 'compressedDepth' not in message.format:
        return metres(_decoded(data))
    _, a, b = _DEPTH_HEADER.unpack_from(data.tobytes())
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


def nearest_in_time(stamp_ns: int, stamps: Iterable[int]) -> int | None:
    """The nearest stamp that is near enough, or None."""
    found = min(stamps, key=lambda stamp: abs(stamp - stamp_ns), default=None)
    return found if found is not None and abs(found - stamp_ns) <= TOLERANCE_NS else None


def _decoded(data: NDArray[np.uint8]) -> NDArray[Any]:
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if picture is None or picture.ndim != 2:
        raise RecordingError('a depth image cannot be decoded')
    return np.asarray(picture)
