"""Outputs of predictions as the CDR bytes that the node's messages have, without ROS."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, SemanticClass
from ..camera import CameraModel
from ..clouds import Cloud
from ..outputs import CAMERA_INFO, CLOUD, COMPRESSED, IMAGE, Make, Output, camera_info_fields
from ..pipeline import Prediction
from .cdr import Types

LABEL_INFO = 'vision_msgs/msg/LabelInfo'

# Bytes that follow each other.
Pieces = Sequence[bytes | memoryview]

_ENDING_WITH_DATA = (IMAGE, COMPRESSED)
_NOTHING = np.empty(0, np.uint8)
_LENGTH = struct.Struct('<I')


class Encoder:
    """Makes messages of the predictions of all cameras; one thread uses it at a time.

    Args:
        bundle: whose predictions they are.
        outputs: what is made of them.
    """

    def __init__(self, bundle: Bundle, outputs: Collection[Output]) -> None:
        self._types = Types()
        self._bundle = bundle
        self._outputs = tuple(outputs)
        self._makers: dict[str, list[Make]] = {}  # of each camera

    def __call__(self, prediction: Prediction) -> dict[str, Pieces]:
        """Name of each output that the prediction can give -> CDR bytes of its message.

        Pixels are not copied: these are the bytes of the prediction's own arrays.
        """
        frame = prediction.frame
        header = self._types.header(frame.stamp, frame.frame_id)
        if frame.camera not in self._makers:
            self._makers[frame.camera] = [output.maker(self._bundle) for output in self._outputs]
        messages = {}
        for output, make in zip(self._outputs, self._makers[frame.camera], strict=True):
            content = make(prediction)
            if content is not None:
                fields = _FIELDS[output.type](self._types, content, output.encoding)
                messages[output.name] = self._pieces(output.type, {'header': header, **fields})
        return messages

    def _pieces(self, kind: str, fields: dict[str, Any]) -> Pieces:
        if kind not in _ENDING_WITH_DATA:
            return (self._types.store.serialize_cdr(self._types.make(kind, **fields), kind),)
        empty = self._types.make(kind, **{**fields, 'data': _NOTHING})
        head = self._types.store.serialize_cdr(empty, kind)[: -_LENGTH.size]
        return head, _LENGTH.pack(fields['data'].size), fields['data'].data


def label_info(
    types: Types, classes: Sequence[SemanticClass], stamp_ns: int, frame_id: str = ''
) -> bytes:
    """A vision_msgs/LabelInfo of some classes."""
    named = [
        types.make('vision_msgs/msg/VisionClass', class_id=item.id, class_name=item.name)
        for item in classes
    ]
    header = types.header(stamp_ns, frame_id)
    return types.pack(LABEL_INFO, header=header, class_map=named, threshold=0.0)


def _image(_: Types, pixels: NDArray[Any], encoding: str) -> dict[str, Any]:
    return {
        'height': pixels.shape[0],
        'width': pixels.shape[1],
        'encoding': encoding,
        'is_bigendian': 0,
        'step': pixels.itemsize * pixels.size // pixels.shape[0],
        'data': np.ascontiguousarray(pixels).reshape(-1).view(np.uint8),
    }


def _cloud(types: Types, cloud: Cloud, _: str) -> dict[str, Any]:
    fields = [
        types.make(
            'sensor_msgs/msg/PointField', name=name, offset=offset, datatype=kind, count=count
        )
        for name, offset, kind, count in cloud.fields
    ]
    return {
        'height': cloud.height,
        'width': cloud.width,
        'fields': fields,
        'is_bigendian': False,
        'point_step': cloud.point_step,
        'row_step': cloud.row_step,
        'data': np.frombuffer(cloud.data, np.uint8),
        'is_dense': False,
    }


def _camera_info(types: Types, camera: CameraModel, _: str) -> dict[str, Any]:
    region = dict.fromkeys(('x_offset', 'y_offset', 'height', 'width'), 0)
    numbers = {
        key: np.array(value) if isinstance(value, list) else value
        for key, value in camera_info_fields(camera).items()
    }
    return {
        **numbers,
        'binning_x': 0,
        'binning_y': 0,
        'roi': types.make('sensor_msgs/msg/RegionOfInterest', **region, do_rectify=False),
    }


def _compressed_image(_: Types, content: bytes, format: str) -> dict[str, Any]:
    return {'format': format, 'data': np.frombuffer(content, np.uint8)}


_FIELDS: Mapping[str, Callable[[Types, Any, str], dict[str, Any]]] = {
    IMAGE: _image,
    CLOUD: _cloud,
    CAMERA_INFO: _camera_info,
    COMPRESSED: _compressed_image,
}
