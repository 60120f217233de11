"""The outputs of one camera on the graph: their publishers, who listens, and their messages."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile

from ..bundle import Bundle
from ..outputs import Make, Output, outputs_of
from ..pipeline import Prediction
from .messages import LabelInfo, header_of, label_info, message_class, to_message
from .qos import LATCHED_QOS, OUTPUT_QOS, OVERRIDABLE


class Outlets:
    """What a node publishes of one camera.

    Args:
        node: whose topics they are.
        prefix: in front of their names.
        bundle: decides which there are.
    """

    def __init__(self, node: LifecycleNode, prefix: str, bundle: Bundle) -> None:
        self._node = node
        self._prefix = prefix
        self._bundle = bundle
        self._publishers: dict[Output, Any] = {}
        self._makers: dict[Output, Make] = {}
        self._messages: dict[Output, Any] = {}  # the last ones; their memory is used again
        self._labels: Any = None

    def advertise(self) -> None:
        """Create the publishers; may raise what rclpy does for a QoS override that cannot be."""
        for output in outputs_of(self._bundle):
            self._makers[output] = output.maker(self._bundle)
            self._publishers[output] = self._publisher(
                message_class(output), self._topic(output), OUTPUT_QOS
            )
        if self._bundle.classes and LabelInfo is not None:
            self._labels = self._publisher(LabelInfo, f'~/{self._prefix}label_info', LATCHED_QOS)

    def destroy(self) -> None:
        """Destroy the publishers."""
        for publisher in [*self._publishers.values(), *filter(None, [self._labels])]:
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers, self._labels = {}, None

    def publish_labels(self) -> None:
        """Say what the labels mean, to all who ask from now on."""
        if self._labels is not None:
            message = label_info(self._bundle.classes)
            message.header.stamp = self._node.get_clock().now().to_msg()
            self._labels.publish(message)

    def listened(self) -> list[Output]:
        """The outputs that somebody subscribes to."""
        return [output for output in self._publishers if self._is_listened(output)]

    def needs_calibration(self) -> bool:
        """Whether somebody subscribes to an output that depends on the camera's calibration."""
        return any(o.calibrated and self._is_listened(o) for o in self._publishers)

    def publish(self, prediction: Prediction, outputs: Iterable[Output]) -> int:
        """Publish some outputs of a prediction; returns the number of messages."""
        header = header_of(prediction.frame)
        published = 0
        for output in outputs:
            content = self._makers[output](prediction)
            if content is not None:
                message = to_message(output, content, self._messages.get(output))
                self._messages[output] = message
                message.header = header
                self._publishers[output].publish(message)
                published += 1
        return published

    def _is_listened(self, output: Output) -> bool:
        return bool(self._publishers[output].get_subscription_count() > 0)

    def _topic(self, output: Output) -> str:
        """Where an output goes: a remap of an image also moves what it is compressed."""
        own = f'~/{self._prefix}{output.name}'
        resolve = self._node.resolve_topic_name
        if not output.of or resolve(own) != resolve(own, only_expand=True):
            return own
        form = output.name.removeprefix(output.of)
        return f'{resolve(f"~/{self._prefix}{output.of}")}{form}'

    def _publisher(self, kind: Any, topic: str, qos: QoSProfile) -> Any:
        return self._node.create_lifecycle_publisher(
            kind, topic, copy(qos), qos_overriding_options=OVERRIDABLE
        )
