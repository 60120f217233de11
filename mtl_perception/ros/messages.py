"""What the node says as ROS messages: outputs, headers, classes, the description of the model."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import lru_cache
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from ..bundle import Bundle, SemanticClass
from ..camera import CameraModel
from ..clouds import Cloud
from ..outputs import CAMERA_INFO, CLOUD, COMPRESSED, IMAGE, Content, Output, camera_info_fields
from ..pipeline import Frame

try:
    from vision_msgs.msg import LabelInfo as LabelInfo
    from vision_msgs.msg import VisionClass
except ImportError:  # the one output that needs it stays unpublished
    LabelInfo = VisionClass = None


def header_of(frame: Frame) -> Any:
    """The std_msgs/Header of a frame's image."""
    header = Header(frame_id=frame.frame_id)
    header.stamp.sec, header.stamp.nanosec = divmod(frame.stamp, 10**9)
    return header


def empty(kind: Any) -> Any:
    """An empty message of a class, which keeps an ``array.array`` that is assigned to its data.

    Without checks, the default since Iron, rosidl makes one more copy of it.
    """
    try:
        return kind(check_fields=True)
    except AssertionError:  # before Iron, where they are always on
        return kind()


def image(pixels: NDArray[Any], encoding: str, message: Any = None) -> Any:
    """sensor_msgs/Image of pixels [H, W] or [H, W, 3].

    Args:
        message: to be filled, ``empty`` or of the last pixels, whose memory is used again.
    """
    message = empty(Image) if message is None else message
    height, width = pixels.shape[:2]
    if (message.height, message.width, message.encoding) != (height, width, encoding):
        message.height, message.width, message.encoding = height, width, encoding
        message.step = pixels.nbytes // height
        message.data = array('B', bytes(pixels.nbytes))
    np.copyto(np.frombuffer(message.data, pixels.dtype).reshape(pixels.shape), pixels)
    return message


def point_cloud(cloud: Cloud, message: Any = None) -> Any:
    """sensor_msgs/PointCloud2 with the bytes of a cloud, which are not copied.

    Args:
        message: to be filled, ``empty`` or of the last cloud.
    """
    message = empty(PointCloud2) if message is None else message
    message.height, message.width, message.is_dense = cloud.height, cloud.width, False
    message.point_step, message.row_step = cloud.point_step, cloud.row_step
    if not message.fields:
        message.fields = [
            PointField(name=name, offset=offset, datatype=datatype, count=count)
            for name, offset, datatype, count in cloud.fields
        ]
    message.data = cloud.data
    return message


def camera_info(camera: CameraModel) -> Any:
    """sensor_msgs/CameraInfo of a camera; see ``camera_info_fields``.

    Messages of equal cameras share all but the header, which each may have of its own.
    """
    return copy(_camera_info(camera))


@lru_cache(maxsize=16)
def _camera_info(camera: CameraModel) -> Any:
    return CameraInfo(**camera_info_fields(camera))


def compressed_image(content: bytes, format: str) -> Any:
    """sensor_msgs/CompressedImage of what an encoder made."""
    message = empty(CompressedImage)
    message.format, message.data = format, array('B', content)
    return message


# Type -> class, and what makes a message of a content and an encoding, out of the last one.
_TYPES: dict[str, tuple[Any, Callable[[Any, str, Any], Any]]] = {
    IMAGE: (Image, image),
    CLOUD: (PointCloud2, lambda cloud, _, last: point_cloud(cloud, last)),
    CAMERA_INFO: (CameraInfo, lambda camera, *_: camera_info(camera)),
    COMPRESSED: (CompressedImage, lambda content, format, _: compressed_image(content, format)),
}


def label_info(classes: Sequence[SemanticClass]) -> Any:
    """vision_msgs/LabelInfo of some classes, without header."""
    return LabelInfo(
        class_map=[VisionClass(class_id=item.id, class_name=item.name) for item in classes]
    )


def describe_model(bundle: Bundle, model: Mapping[str, str], response: Any) -> Any:
    """Fill the response of mtl_perception_msgs/DescribeModel.

    Args:
        model: see ``diagnostics.EngineHealth``.
    """
    response.success = True
    response.name, response.version = bundle.name, bundle.version
    response.licence, response.sha256 = bundle.licence, bundle.sha256
    response.height, response.width = bundle.height, bundle.width
    response.canonical_focal = bundle.canonical_focal or 0.0
    response.tasks, response.outputs = list(bundle.tasks), list(bundle.outputs)
    response.class_ids = [item.id for item in bundle.classes]
    response.class_names = [item.name for item in bundle.classes]
    for key in ('engine', 'engine_version', 'provider', 'device', 'precision'):
        setattr(response, key, model.get(key, ''))
    response.provenance = yaml.safe_dump(dict(bundle.provenance), sort_keys=False)
    return response


def message_class(output: Output) -> Any:
    """The class of an output's messages."""
    return _TYPES[output.type][0]


def to_message(output: Output, content: Content, last: Any = None) -> Any:
    """The message of an output, without header.

    Args:
        last: the one before, which is overwritten.
    """
    return _TYPES[output.type][1](content, output.encoding, last)
