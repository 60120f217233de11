"""The cameras of a recording: which of its topics are images, what they show, their calibration.

Types alone do not tell: a depth image is an Image, too. So the first message of each topic is
looked at, and names decide only where that says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np

from ..topics import base_topic, namespace_of, says_depth
from .cdr import RecordingError
from .recordings import RecordingReader
from .sample import IMAGE_TOPIC

IMAGE_TYPES = ('sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/Image')
INFO_TYPE = 'sensor_msgs/msg/CameraInfo'
# What images show, the best for a network first.
CONTENTS = ('colour', 'gray', 'infrared', 'depth', 'unknown')

_DEPTH_ENCODINGS = ('16UC1', '32FC1')
_GRAY_ENCODINGS = ('mono8', 'mono16', '8UC1')
_INFRARED = re.compile(r'(?:^|[/_])(?:ir|infra\d*|infrared|thermal)(?:[/_\d]|$)')


@dataclass(frozen=True)
class Sight:
    """What the first message of a topic says.

    Attributes:
        frame_id: of its header.
        content: of an image, one of ``CONTENTS``; ``unknown`` for a CameraInfo.
    """

    frame_id: str
    content: str = 'unknown'


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one camera.

    Attributes:
        image, image_type: of the images.
        info: of their CameraInfo; empty where there is none.
        content: what the images show, one of ``CONTENTS``.
        others: images of the other cameras of the recording.
        name: before the names of its outputs, where several cameras are replayed.
    """

    image: str
    image_type: str
    info: str
    content: str = 'colour'
    others: tuple[str, ...] = ()
    name: str = ''

    @property
    def transport(self) -> str:
        """The node's ``image_transport`` for it."""
        return 'compressed' if self.image_type.endswith('CompressedImage') else 'raw'

    @property
    def remaps(self) -> dict[str, str]:
        """From the node's input names to the recording's topics."""
        image = 'image/compressed' if self.transport == 'compressed' else 'image'
        return {image: self.image, 'camera_info': self.info}


def look(reader: RecordingReader) -> dict[str, Sight]:
    """Look at the first message of each topic of a camera; unreadable ones are left out."""
    sights = {}
    for topic, kind in reader.topics.items():
        if kind in (*IMAGE_TYPES, INFO_TYPE):
            try:
                message = reader.unpack(next(reader.messages([topic])))
            except (RecordingError, StopIteration):
                continue
            content = 'unknown' if kind == INFO_TYPE else content_of_image(topic, message)
            sights[topic] = Sight(str(message.header.frame_id), content)
    return sights


def content_of_image(topic: str, message: Any) -> str:
    """What an Image or CompressedImage shows, one of ``CONTENTS``."""
    if hasattr(message, 'format'):
        kind = message.format.partition(';')[0].strip()
        depth = 'compressedDepth' in message.format or kind in _DEPTH_ENCODINGS
        picture: Any = None if depth else _picture(message.data)
        if not depth and picture is None:
            return 'unknown'  # a video stream, for example
        mosaic = kind.startswith('bayer')
        gray = not depth and picture.ndim == 2 and not mosaic
        depth = depth or (gray and picture.dtype == np.uint16)
    else:
        depth = message.encoding in _DEPTH_ENCODINGS
        gray = message.encoding in _GRAY_ENCODINGS
    if depth or (gray and says_depth(topic)):
        return 'depth'
    if gray:
        return 'infrared' if _INFRARED.search(topic) else 'gray'
    return 'colour'


def _picture(data: Any) -> Any:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None


def find_camera(
    path: Path,
    topics: Mapping[str, str],
    sights: Mapping[str, Sight] = MappingProxyType({}),
    image: str = '',
) -> CameraTopics:
    """Choose the camera of a recording for a node, which is to get its CameraInfos, too.

    Args:
        path: for messages.
        topics: name of each topic -> its message type.
        sights: from ``look``; without one, the name of a topic tells what it shows.
        image: the images to take; empty to choose.

    Raises:
        RecordingError: There is none, or its CameraInfo is not known for sure.
    """
    (camera,) = find_cameras(path, topics, sights, [image] if image else ())
    infos = sorted(name for name, kind in topics.items() if kind == INFO_TYPE)
    if not infos:
        raise RecordingError(f'{path} has no topic of type {INFO_TYPE}')
    if not camera.info:
        raise RecordingError(
            f'{path} has no CameraInfo beside the images on {camera.image}, only {", ".join(infos)}'
        )
    pairs = _pairs(_without_truth(topics), sights)
    return replace(camera, others=tuple(other for other in camera.others if pairs[other]))


def find_cameras(
    path: Path,
    topics: Mapping[str, str],
    sights: Mapping[str, Sight] = MappingProxyType({}),
    chosen: Sequence[str] = (),
) -> list[CameraTopics]:
    """Choose cameras of a recording: images and the CameraInfo of one namespace and frame.

    Colour comes before gray, infrared and depth, then what has a CameraInfo, the sample's topic,
    raw images before compressed ones, then the alphabet decides.

    Args:
        path: for messages.
        topics: name of each topic -> its message type.
        sights: from ``look``; without one, the name of a topic tells what it shows.
        chosen: ``IMAGE`` or ``IMAGE:INFO`` of each camera; empty for the best one.

    Returns:
        The chosen ones in their order, or the best one.

    Raises:
        RecordingError: There is none, or not what was chosen.
    """
    topics = _without_truth(topics)
    infos = sorted(name for name, kind in topics.items() if kind == INFO_TYPE)
    pairs = _pairs(topics, sights)
    images = list(pairs)
    if not images:
        raise RecordingError(f'{path} has no topic of type {" or ".join(IMAGE_TYPES)}')
    contents = {name: _content(name, sights) for name in images}

    def preference(name: str) -> tuple[int, bool, bool, str]:
        return CONTENTS.index(contents[name]), not pairs[name], name != IMAGE_TOPIC, name

    ranked = sorted(images, key=preference)
    wanted = []
    for choice in chosen or ranked[:1]:
        image, _, info = choice.partition(':')
        if image not in images:
            raise RecordingError(f'{path} has no images on {image}, only on {", ".join(images)}')
        if info and info not in infos:
            raise RecordingError(
                f'{path} has no CameraInfo on {info}, only on {", ".join(infos) or "nothing"}'
            )
        wanted.append((image, info or pairs[image]))
    if not chosen and contents[wanted[0][0]] in ('depth', 'unknown'):
        raise RecordingError(
            f'{path} has no images that a network can read, only '
            + ', '.join(f'{name} ({contents[name]})' for name in ranked)
        )
    bases = {base_topic(image) for image, _ in wanted}
    others: dict[str, str] = {}  # one of each camera: the best
    for name in ranked:
        if base_topic(name) not in bases:
            others.setdefault(base_topic(name), name)
    names = _names([image for image, _ in wanted])
    return [
        CameraTopics(
            image, topics[image], info, contents[image], tuple(sorted(others.values())), name
        )
        for (image, info), name in zip(wanted, names, strict=True)
    ]


def _without_truth(topics: Mapping[str, str]) -> dict[str, str]:
    return {name: kind for name, kind in topics.items() if not name.startswith('/ground_truth/')}


def _pairs(topics: Mapping[str, str], sights: Mapping[str, Sight]) -> dict[str, str]:
    """The CameraInfo of each topic of images, by the alphabet."""
    images = sorted(name for name, kind in topics.items() if kind in IMAGE_TYPES)
    infos = sorted(name for name, kind in topics.items() if kind == INFO_TYPE)
    return {name: _info_of(name, images, infos, sights) for name in images}


def _content(topic: str, sights: Mapping[str, Sight]) -> str:
    if topic in sights:
        return sights[topic].content
    return 'depth' if says_depth(topic) else 'colour'


def _info_of(
    image: str, images: Sequence[str], infos: Sequence[str], sights: Mapping[str, Sight]
) -> str:
    """The CameraInfo of the same namespace and frame; empty where none is so for sure."""

    def frame(topic: str) -> str:
        return sights[topic].frame_id.lstrip('/') if topic in sights else ''

    def of_frame(info: str) -> bool:
        return not (frame(image) and frame(info)) or frame(image) == frame(info)

    near = [info for info in infos if namespace_of(info) == namespace_of(image) and of_frame(info)]
    if near:
        return max(near, key=lambda info: _common(info, image))
    cameras = {base_topic(name) for name in images}
    if len(infos) == len(cameras) == 1 and of_frame(infos[0]):
        return infos[0]  # there is nothing to confuse
    same = [info for info in infos if frame(image) and frame(info) == frame(image)]
    return same[0] if len(same) == 1 else ''


def _common(one: str, other: str) -> int:
    """How many characters two names have in common from the start on."""
    return next(
        (i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other))
    )


def _names(images: Sequence[str]) -> list[str]:
    """A name for each camera: that of its namespace, of its topic where they share one."""
    if len(images) == 1:
        return ['']
    spaces = [namespace_of(image).strip('/').replace('/', '_') for image in images]
    if len(set(spaces)) == len(spaces) and all(spaces):
        return spaces
    return [base_topic(image).strip('/').replace('/', '_') for image in images]
