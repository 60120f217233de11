"""What a replay stores is what the node publishes, but for the bytes between fields."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rosbags', reason='recordings need rosbags')
pytest.importorskip('onnxruntime', reason='runs the tiny network')

from mtl_perception.bundle import Bundle, load_bundle
from mtl_perception.camera import CameraModel
from mtl_perception.engines.engine import EngineOptions
from mtl_perception.engines.opening import open_unchecked
from mtl_perception.offline.cdr import Types
from mtl_perception.offline.messages import LABEL_INFO, Encoder, label_info
from mtl_perception.outputs import outputs_of
from mtl_perception.pipeline import Frame, Options, Pipeline, Prediction

CAMERAS = {
    'plain': CameraModel.from_calibration(160, 120, [90.0, 0, 79.5, 0, 91.0, 60, 0, 0, 1]),
    'with distortion': CameraModel.from_calibration(
        160,
        120,
        [90.0, 0, 79.5, 0, 91.0, 60, 0, 0, 1],
        [0.1, 0.01, 0, 0, 0.002],
        'plumb_bob',
        projection=[80.0, 0, 79.5, -8.0, 0, 80.0, 60, 0, 0, 0, 1, 0],
    ),
    'none': None,
}


@pytest.fixture(scope='module')
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


def packed(types: Types, kind: str, data: bytes) -> bytes:
    """A message of ROS 2 with zeros between its fields, where its serializer leaves anything."""
    return bytes(types.store.serialize_cdr(types.unpack(kind, data), kind))


def predict(bundle: Bundle, camera: CameraModel | None, frame_id: str) -> Prediction:
    image = np.random.default_rng(7).integers(0, 256, (120, 160, 3), np.uint8)
    engine = open_unchecked('onnxruntime', bundle, EngineOptions())
    pipeline = Pipeline(bundle, engine, Options(min_depth_confidence=40))
    frame = Frame(image, camera, frame_id=frame_id, stamp=1_700_000_000_123_456_789)
    (prediction,) = pipeline([frame], list(bundle.outputs))
    engine.close()
    return prediction


@pytest.mark.parametrize('frame_id', ['camera', 'camera_optical_frame', ''])
@pytest.mark.parametrize('camera', CAMERAS)
def test_messages_are_those_of_the_node(bundle: Bundle, camera: str, frame_id: str) -> None:
    serialization = pytest.importorskip('rclpy.serialization', reason='compares with ROS 2')
    from mtl_perception.ros.messages import header_of, to_message

    prediction = predict(bundle, CAMERAS[camera], frame_id)
    stored = Encoder(bundle, outputs_of(bundle))(prediction)
    published = {}
    for output in outputs_of(bundle):
        content: Any = output.maker(bundle)(prediction)
        if content is not None:
            message = to_message(output, content)
            message.header = header_of(prediction.frame)
            data = serialization.serialize_message(message)
            published[output.name] = packed(Types(), output.type, data)
    assert list(stored) == list(published)
    assert ('points' in stored) == (camera != 'none')
    for name, data in published.items():
        assert b''.join(stored[name]) == data, name


def test_label_info_is_that_of_the_node(bundle: Bundle) -> None:
    serialization = pytest.importorskip('rclpy.serialization', reason='compares with ROS 2')
    messages = pytest.importorskip('mtl_perception.ros.messages')
    if messages.LabelInfo is None:
        pytest.skip('vision_msgs is not installed')
    published = messages.label_info(bundle.classes)
    published.header.stamp.sec = 7
    data = label_info(Types(), bundle.classes, 7_000_000_000)
    types = Types()
    label_info(types, bundle.classes, 0)  # which teaches them the type
    assert data == packed(types, LABEL_INFO, serialization.serialize_message(published))


def test_label_info_needs_no_ros(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its type is that of vision_msgs, which the hash of the real one tells."""
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    types = Types()
    message = types.unpack('vision_msgs/msg/LabelInfo', label_info(types, bundle.classes, 7))
    assert [item.class_name for item in message.class_map] == [c.name for c in bundle.classes]
    assert message.header.stamp.nanosec == 7


def test_cameras_do_not_share_buffers(bundle: Bundle) -> None:
    """A cloud is made in a buffer that the next one overwrites: messages keep their own bytes."""
    encoder = Encoder(bundle, outputs_of(bundle))
    first = predict(bundle, CAMERAS['plain'], 'left')
    once = {name: b''.join(data) for name, data in encoder(first).items()}
    kept = encoder(first)
    encoder(predict(bundle, CAMERAS['with distortion'], 'left'))
    assert {name: b''.join(data) for name, data in kept.items()} == once


def test_pixels_are_not_copied(bundle: Bundle) -> None:
    prediction = predict(bundle, CAMERAS['plain'], 'camera')
    # Whole rows of the grid, as VGA has on the shipped one.
    rows = {name: np.ascontiguousarray(array) for name, array in prediction.arrays.items()}
    stored = Encoder(bundle, outputs_of(bundle))(replace(prediction, arrays=rows))
    for name, array in rows.items():
        assert np.shares_memory(np.asarray(stored[name][-1]), array), name
