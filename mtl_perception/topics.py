"""What the name of an image topic says by the conventions of image_transport and image_proc."""

from __future__ import annotations

import re

_RECTIFIED = re.compile(r'(?:^|[/_])(?:rect|rectified|undistorted)(?:[/_]|$)')
_RAW = re.compile(r'(?:^|[/_])raw(?:[/_]|$)')
_DEPTH = re.compile(r'(?:^|[/_])(?:depth|disparity|compressedDepth)(?:[/_]|$)')


def base_topic(topic: str) -> str:
    """The topic of the images without the transport: /camera/image_raw of .../compressed."""
    return topic.removesuffix('/compressed')


def namespace_of(topic: str) -> str:
    """The namespace that the images of a camera share with its CameraInfo."""
    return base_topic(topic).rpartition('/')[0]


def says_rectified(topic: str) -> bool:
    """Whether the name is that of rectified images, such as image_rect_color."""
    return _RECTIFIED.search(base_topic(topic)) is not None


def says_raw(topic: str) -> bool:
    """Whether the name is that of images as the sensor gives them, such as image_raw."""
    return _RAW.search(base_topic(topic)) is not None and not says_rectified(topic)


def says_depth(topic: str) -> bool:
    """Whether the name is that of depth images, which are pictures of no light."""
    return _DEPTH.search(topic) is not None
