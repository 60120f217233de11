"""What can be published of a prediction: one table for the node, the demo, the docs and the tests.

No ROS here: message types are text, and a maker gives an array, a cloud or a calibration.
``ros/messages.py`` turns these into messages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from . import colors, compression
from .bundle import Bundle
from .camera import CameraModel
from .clouds import Cloud, CloudBuilder
from .pipeline import Prediction

IMAGE = 'sensor_msgs/msg/Image'
CLOUD = 'sensor_msgs/msg/PointCloud2'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'

# An Image's pixels [h, w] or [h, w, 3], a PointCloud2, the camera of a CameraInfo, or the bytes of
# a CompressedImage.
Content = NDArray[Any] | Cloud | CameraModel | bytes
# The content of one output of a prediction; None where the prediction cannot give it. A maker may
# keep buffers: each camera has its own, and content lasts until the maker is called again.
Make = Callable[[Prediction], Content | None]
# Metres, the last float below what 16 bits of millimetres hold.
_FARTHEST = float(np.nextafter(np.float32(65.535), np.float32(0)))
Painter = Callable[[NDArray[Any]], NDArray[np.uint8]]


@dataclass(frozen=True)
class Output:
    """One topic.

    Attributes:
        name: the topic is ``~/name``, after the name of the camera where there are several.
        type: of its messages.
        encoding: of an Image, or the format of a CompressedImage; empty for other types.
        description: one line for the docs.
        needs: tensors of the bundle without which there is no such output.
        uses: tensors that it takes where the bundle has them.
        maker: gives the function that makes the content, for a bundle.
        of: the output that this is once more, compressed; empty where it is none.
    """

    name: str
    type: str
    encoding: str
    description: str
    needs: tuple[str, ...]
    uses: tuple[str, ...]
    maker: Callable[[Bundle], Make]
    of: str = ''

    @property
    def calibrated(self) -> bool:
        """Whether it depends on the calibration of the camera."""
        return self.type == CAMERA_INFO or 'depth' in self.needs

    def tensors(self, bundle: Bundle) -> set[str]:
        """The tensors that a bundle has to compute for it."""
        return {name for name in (*self.needs, *self.uses) if name in bundle.outputs}


def _tensor(name: str, encoding: str, description: str) -> Output:
    """A tensor of the bundle as it is."""

    def maker(_: Bundle) -> Make:
        return lambda prediction: prediction.arrays.get(name)

    return Output(name, IMAGE, encoding, description, (name,), (), maker)


def _picture(name: str, tensor: str, painter: Callable[[Bundle], Painter]) -> Output:
    """A tensor painted for people."""

    def maker(bundle: Bundle) -> Make:
        paint = painter(bundle)

        def make(prediction: Prediction) -> Content | None:
            array = prediction.arrays.get(tensor)
            return None if array is None else paint(array)

        return make

    description = f'`~/{tensor}` in colours, for people'
    return Output(name, IMAGE, 'rgb8', description, (tensor,), (), maker)


def _semantic_painter(bundle: Bundle) -> Painter:
    return partial(colors.semantic_color, classes=bundle.classes)


def _depth_painter(bundle: Bundle) -> Painter:
    near, far = colors.depth_range(bundle)
    return partial(colors.depth_color, near=near, far=far)


def _normals_painter(_: Bundle) -> Painter:
    return colors.normals_color


def _points(_: Bundle) -> Make:
    builder = CloudBuilder()

    def make(prediction: Prediction) -> Content | None:
        known = prediction.metric and 'depth' in prediction.arrays
        return builder.fill(prediction) if known else None

    return make


def _mask(bundle: Bundle) -> Make:
    ids = {item.name: item.id for item in bundle.classes}

    def make(prediction: Prediction) -> Content | None:
        labels = prediction.arrays.get('semantic')
        if labels is None:
            return None
        shown = np.zeros(256, np.uint8)
        shown[[ids[name] for name in prediction.options.mask_classes]] = 255
        return np.asarray(cv2.LUT(labels, shown), np.uint8)

    return make


def _calibration(_: Bundle) -> Make:
    return lambda prediction: prediction.calibration


def _millimetres(_: Bundle) -> Make:
    def make(prediction: Prediction) -> Content | None:
        depth = prediction.arrays.get('depth')
        if depth is None:
            return None
        near = cv2.threshold(depth, _FARTHEST, 0, cv2.THRESH_TOZERO_INV)[1]
        near *= np.float32(1e3)
        # Rounds, and gives 0 for NaN and what is negative.
        return np.asarray(cv2.add(near, 0.0, dtype=cv2.CV_16U), np.uint16)

    return make


def _image(_: Bundle) -> Make:
    return lambda prediction: prediction.image


# Encoding -> the topic below that of the image, by whose name image_transport chooses the decoder;
# the format, by which that decodes; what encodes; and the same in words.
_COMPRESSIONS: dict[str, tuple[str, str, Callable[[NDArray[Any]], bytes], str]] = {
    'rgb8': ('compressed', 'rgb8; jpeg compressed bgr8', compression.jpeg, 'as JPEG'),
    'mono8': ('compressed', 'mono8; png compressed ', compression.png, 'as PNG, every value kept'),
    '32FC1': (
        'compressedDepth',
        '32FC1; compressedDepth png',
        compression.compressed_depth,
        'inverse depth of 16 bits, exact to 5 mm at 10 m and 0.5 mm at 3 m; NaN where it is not '
        'finite or under 15 cm',
    ),
}


def _compressed(output: Output) -> Output:
    """An image once more, as image_transport's plugins compress it."""
    suffix, format, encode, words = _COMPRESSIONS[output.encoding]

    def maker(bundle: Bundle) -> Make:
        make = output.maker(bundle)

        def make_small(prediction: Prediction) -> Content | None:
            pixels = make(prediction)
            return encode(pixels) if isinstance(pixels, np.ndarray) else None

        return make_small

    name = f'{output.name}/{suffix}'
    return replace(
        output,
        name=name,
        type=COMPRESSED,
        encoding=format,
        description=words,
        maker=maker,
        of=output.name,
    )


_PLAIN = (
    _tensor('semantic', 'mono8', 'class ids; 255 = unlabelled'),
    _tensor('semantic_confidence', 'mono8', 'probability of that class x 255'),
    _tensor(
        'depth',
        '32FC1',
        'metres along the optical axis; NaN = invalid, +Inf = beyond the trained range '
        '(REP 117, 118); never clipped',
    ),
    Output(
        'depth_mm',
        IMAGE,
        '16UC1',
        'the same in millimetres, of half the size: 0 = unknown, not finite or from 65.5 m on',
        ('depth',),
        (),
        _millimetres,
    ),
    _tensor(
        'depth_confidence',
        'mono8',
        'probability x 255 that the true depth is within a factor of 1.25',
    ),
    _tensor(
        'normals',
        '32FC3',
        'unit vectors in the optical frame (x right, y down, z forward), towards the camera',
    ),
    _tensor('edges', 'mono8', 'probability x 255'),
    _tensor('saliency', 'mono8', 'probability x 255'),
    _tensor('human_parts', 'mono8', 'ids of body parts'),
    Output(
        'points',
        CLOUD,
        '',
        'organised on the same grid: x y z rgb label normal_x normal_y normal_z, 32 bytes each; '
        'NaN where depth is not finite; every point, or fewer (`cloud_stride`)',
        ('depth',),
        ('semantic', 'normals'),
        _points,
    ),
    Output(
        'camera_info',
        CAMERA_INFO,
        '',
        'of the output grid: K, D, R and P hold for it as they are, no binning, no region of '
        'interest',
        (),
        (),
        _calibration,
    ),
    Output(
        'image',
        IMAGE,
        'rgb8',
        'the image of the camera on this grid, for what needs colours and depth of one size',
        (),
        (),
        _image,
    ),
    Output(
        'mask',
        IMAGE,
        'mono8',
        '255 where `~/semantic` is one of the parameter `mask_classes`, else 0',
        ('semantic',),
        (),
        _mask,
    ),
    _picture('semantic_color', 'semantic', _semantic_painter),
    _picture('depth_color', 'depth', _depth_painter),
    _picture('normals_color', 'normals', _normals_painter),
)
OUTPUTS = (*_PLAIN, *(_compressed(o) for o in _PLAIN if o.encoding in _COMPRESSIONS))


def camera_info_fields(camera: CameraModel) -> dict[str, Any]:
    """The fields of a CameraInfo without region of interest and binning: all holds as it is.

    Consumers divide by P, so K stands there where the driver left P empty.
    """
    p = [camera.fx, 0.0, camera.cx, 0.0, 0.0, camera.fy, camera.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return {
        'height': camera.height,
        'width': camera.width,
        'distortion_model': camera.distortion_model or 'plumb_bob',
        'd': list(camera.distortion) or [0.0] * 5,
        'k': [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0],
        'r': list(camera.rectification),
        'p': list(camera.projection) or p,
    }


# Topics that say something about the model or the node and nothing about a single image.
OTHER_TOPICS = (
    (
        '~/label_info',
        'vision_msgs/msg/LabelInfo',
        'ids and names of the classes; latched (transient local)',
    ),
    (
        '~/status',
        'mtl_perception_msgs/msg/PerceptionStatus',
        'once a second from configuring on: counts, rates, latencies by stage, engine and why it '
        'is that one, calibration, what is being built',
    ),
    (
        '/diagnostics',
        'diagnostic_msgs/msg/DiagnosticArray',
        'once a second from configuring on: `perception: input`, `perception: engine`, '
        '`perception: calibration`',
    ),
)


def outputs_of(bundle: Bundle) -> tuple[Output, ...]:
    """The outputs that a bundle can give."""
    return tuple(output for output in OUTPUTS if bundle.outputs.keys() >= set(output.needs))


def topic_rows() -> list[tuple[str, str, str]]:
    """All topics: name, type with encoding, content. Those of compressed images are together."""
    rows = [(f'~/{o.name}', f'{o.type} {o.encoding}'.strip(), o.description) for o in _PLAIN]
    for suffix, format, _, words in _COMPRESSIONS.values():
        names = [f'`~/{o.of}`' for o in OUTPUTS if o.of and o.encoding == format]
        what = f'{", ".join(names)} for radio links: {words}'
        rows.append((f'~/.../{suffix}', f'{COMPRESSED} {format}'.strip(), what))
    return [*rows, *OTHER_TOPICS]


def topics_markdown() -> str:
    """The table of topics in README.md and docs/topics.md."""
    return '\n'.join(
        [
            '| topic | type | content |',
            '|---|---|---|',
            *(
                f'| `{topic}` | {kind.replace("/msg/", "/")} | {description} |'
                for topic, kind, description in topic_rows()
            ),
            '',
        ]
    )
