"""The camera of a recording: which of its topics are the images and their calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .recordings import RecordingError
from .sample import CAMERA_INFO_TOPIC, IMAGE_TOPIC


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one camera."""

    image: str
    image_type: str
    info: str

    @property
    def transport(self) -> str:
        """The node's ``image_transport`` for it."""
        return 'compressed' if self.image_type.endswith('CompressedImage') else 'raw'

    @property
    def remaps(self) -> dict[str, str]:
        """From the node's input names to the recording's topics."""
        image = 'image/compressed' if self.transport == 'compressed' else 'image'
        return {image: self.image, 'camera_info': self.info}


def find_camera(folder: Path, topics: Mapping[str, str]) -> CameraTopics:
    """Choose the camera of a recording: the sample's topics, else the first image and info.

    Raises:
        RecordingError: There is none.
    """

    def first(preferred: str, *kinds: str) -> str:
        names = sorted(n for n in topics if not n.startswith('/ground_truth/'))
        found = [n for n in (preferred, *names) if topics.get(n) in kinds]
        if not found:
            raise RecordingError(f'{folder} has no topic of type {" or ".join(kinds)}')
        return found[0]

    image = first(IMAGE_TOPIC, 'sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/Image')
    info = first(CAMERA_INFO_TOPIC, 'sensor_msgs/msg/CameraInfo')
    return CameraTopics(image, topics[image], info)
