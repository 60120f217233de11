"""The camera of a recording: which of its topics are the images and their calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..topics import base_topic, namespace_of, says_depth
from .recordings import RecordingError
from .sample import IMAGE_TOPIC

IMAGE_TYPES = ('sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/Image')
INFO_TYPE = 'sensor_msgs/msg/CameraInfo'


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one camera.

    Attributes:
        image, image_type: of the images.
        info: of their CameraInfo.
        others: images of the other cameras of the recording.
    """

    image: str
    image_type: str
    info: str
    others: tuple[str, ...] = ()

    @property
    def transport(self) -> str:
        """The node's ``image_transport`` for it."""
        return 'compressed' if self.image_type.endswith('CompressedImage') else 'raw'

    @property
    def remaps(self) -> dict[str, str]:
        """From the node's input names to the recording's topics."""
        image = 'image/compressed' if self.transport == 'compressed' else 'image'
        return {image: self.image, 'camera_info': self.info}


def find_camera(folder: Path, topics: Mapping[str, str], image: str = '') -> CameraTopics:
    """Choose the camera of a recording: images and the CameraInfo of one namespace.

    A camera of colour comes before one of depth, the sample's before others, raw images before
    compressed ones, then the alphabet decides.

    Args:
        folder: for messages.
        topics: name of each topic -> its message type.
        image: the images to take; empty to choose.

    Raises:
        RecordingError: There is none, or its CameraInfo is not known for sure.
    """
    topics = {name: kind for name, kind in topics.items() if not name.startswith('/ground_truth/')}
    images = [name for name in sorted(topics, key=_preference) if topics[name] in IMAGE_TYPES]
    infos = sorted(name for name, kind in topics.items() if kind == INFO_TYPE)
    for names, kinds in ((images, IMAGE_TYPES), (infos, (INFO_TYPE,))):
        if not names:
            raise RecordingError(f'{folder} has no topic of type {" or ".join(kinds)}')
    if image and image not in images:
        raise RecordingError(f'{folder} has no images on {image}, only on {", ".join(images)}')
    pairs = {
        name: info for name in images for info in infos if namespace_of(name) == namespace_of(info)
    }
    if not pairs and len(infos) == len({base_topic(name) for name in images}) == 1:
        pairs = dict.fromkeys(images, infos[0])  # there is nothing to confuse
    chosen = image or next(iter(pairs), images[0])
    if chosen not in pairs:
        raise RecordingError(
            f'{folder} has no CameraInfo beside the images on {chosen}, only {", ".join(infos)}'
        )
    others = {pairs[name]: name for name in reversed(pairs) if pairs[name] != pairs[chosen]}
    return CameraTopics(chosen, topics[chosen], pairs[chosen], tuple(sorted(others.values())))


def _preference(topic: str) -> tuple[bool, bool, str]:
    return says_depth(topic), topic != IMAGE_TOPIC, topic
