"""What comes in for one camera: its subscriptions, and why nothing comes where nothing does."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

import rclpy
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSPolicyKind
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from .. import one_line
from ..wiring import full_name
from .qos import INFO_QOS, INPUT_QOS, LATCHED_INFO_QOS, OVERRIDABLE, mismatched
from .silence import COMPRESSED, INFO, RAW, mismatch_of, why_no_info, why_silent

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # before Iron
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

Receive = Callable[[Any], None]


class Inlets:
    """The images and CameraInfos of one camera.

    Args:
        node: whose topics they are.
        prefix: in front of their names.
        transport: ``raw`` or ``compressed`` images.
        logger: of the camera.
        lose: called with a number of images that the middleware has lost.

    Attributes:
        image_topic, info_topic: after remaps.
        failure: why there are no subscriptions; empty if there can be.
        untold: why losses are not known; empty if they are, or before the first subscription.
    """

    def __init__(
        self,
        node: LifecycleNode,
        prefix: str,
        transport: str,
        logger: Any,
        lose: Callable[[int], None],
    ) -> None:
        self.failure = ''
        self.untold = ''
        self._node = node
        self._prefix = prefix
        self._transport = transport
        self._logger = logger
        self._lose = lose
        self.image_topic = self._resolve_images()
        self.info_topic = str(node.resolve_topic_name(f'{prefix}camera_info'))
        self._subscriptions: dict[str, Any] = {}  # by topic
        self._latched: Any = None  # the one of CameraInfos that were published before
        self._crowd = ''
        self._silence: dict[str, str] = {}  # topic -> why nothing has come lately
        self._told: dict[str, str] = {}  # the newest of these that was logged
        self._flow: dict[str, int] = {}  # topic -> intervals in a row without such a reason

    @property
    def opened(self) -> bool:
        """Whether there are subscriptions."""
        return bool(self._subscriptions)

    def open(self, receive_image: Receive, receive_info: Receive) -> None:
        """Subscribe, unless that is done or has failed; then see whether CameraInfos are kept."""
        if not self._subscriptions and not self.failure:
            try:
                self._subscribe(receive_image, receive_info)
            except Exception as error:  # rclpy's, for a QoS override that cannot be
                self.close()
                self.failure = f'cannot subscribe to images: {one_line(error)}'
                self._logger.error(f'C{self.failure[1:]}; start the node without it')
        if self._subscriptions:
            self._follow_latched(receive_info)

    def close(self) -> None:
        """Stop to receive."""
        for subscription in [*self._subscriptions.values(), *filter(None, [self._latched])]:
            self._node.destroy_subscription(subscription)
        self._subscriptions, self._latched = {}, None
        self._silence, self._told, self._flow = {}, {}, {}

    def crowd(self) -> str:
        """What is wrong where several publish images, in words; logged when it is new."""
        found = self._node.get_publishers_info_by_topic(self.image_topic) if self.opened else []
        names = sorted(full_name(one.node_namespace, one.node_name) for one in found)
        why = f'{", ".join(names)} publish them: give each camera a topic of its own'
        why = why if len(names) > 1 else ''
        if why and why != self._crowd:
            self._logger.warning(f'On {self.image_topic} images may be mixed, {why}')
        self._crowd = why
        return why

    def info_publishers(self) -> int:
        """How many publish CameraInfos. From any thread."""
        return int(self._node.count_publishers(self.info_topic))

    def why_silent(self, *, received: bool) -> str:
        """Why no image has come in an interval; logged when it holds for two.

        Args:
            received: whether one has.
        """
        topic = self.image_topic
        if received or not self.opened:
            return self._tell('image', topic, '')
        kind = RAW if self._transport == 'raw' else COMPRESSED
        types, mismatch = self._publishers_of(topic)
        reason = why_silent(topic, kind, self._of_others(RAW, COMPRESSED), types, mismatch)
        return self._tell('image', topic, reason)

    def why_no_info(self, *, missing: bool, received: bool) -> str:
        """Why no CameraInfo is of the images; see ``why_silent``.

        Args:
            missing: whether none is.
            received: whether one has ever come: it says more, while somebody is there to send it.
        """
        topic = self.info_topic
        types, mismatch = self._publishers_of(topic) if missing and self.opened else ([], '')
        if not missing or not self.opened or (received and types):
            return self._tell('CameraInfo', topic, '')
        reason = why_no_info(topic, [*self._of_others(INFO)], types, mismatch)
        return self._tell('CameraInfo', topic, reason)

    def _tell(self, what: str, topic: str, why: str) -> str:
        """Log why something does not come, once, when it holds for two intervals.

        It is logged again when it has come meanwhile, also for two: else what comes seldom would
        be missed again and again.
        """
        self._flow[topic] = 0 if why else self._flow.get(topic, 0) + 1
        if self._flow[topic] > 1:
            self._told.pop(topic, None)
        if why and why == self._silence.get(topic) and why != self._told.get(topic):
            self._told[topic] = why
            self._logger.warning(f'No {what} on {topic}: {why}')
        self._silence[topic] = why
        return why

    def _publishers_of(self, topic: str) -> tuple[list[str], str]:
        """The types of those who publish on a topic, and why the QoS of one does not match."""
        publishers = self._node.get_publishers_info_by_topic(topic)
        wanted = self._subscriptions[topic].qos_profile
        policies = [mismatched(publisher.qos_profile, wanted) for publisher in publishers]
        mismatch = next((mismatch_of(topic, policy) for policy in policies if policy), '')
        return [publisher.topic_type for publisher in publishers], mismatch

    def _of_others(self, *kinds: str) -> dict[str, list[str]]:
        """Topics of some types, with all their types, on which another node publishes."""
        own = (self._node.get_namespace(), self._node.get_name())
        return {
            name: found
            for name, found in self._node.get_topic_names_and_types()
            if {*kinds} & {*found}
            and any(
                (publisher.node_namespace, publisher.node_name) != own
                for publisher in self._node.get_publishers_info_by_topic(name)
            )
        }

    def _subscribe(self, receive_image: Receive, receive_info: Receive) -> None:
        image = Image if self._transport == 'raw' else CompressedImage
        self._add(CameraInfo, self.info_topic, receive_info, INFO_QOS)
        told = self._add(
            image,
            self.image_topic,
            receive_image,
            INPUT_QOS,
            message_lost=lambda event: self._lose(event.total_count_change),
        )
        self.untold = '' if told else f'{rclpy.get_rmw_implementation_identifier()} does not tell'

    def _add(self, kind: Any, topic: str, receive: Receive, qos: Any, **events: Any) -> bool:
        """Subscribe to a topic; returns whether the middleware tells of these events."""
        events['incompatible_qos'] = partial(self._mismatch, topic)
        subscribe = partial(
            self._node.create_subscription, kind, topic, receive, qos_overriding_options=OVERRIDABLE
        )
        try:
            wanted = SubscriptionEventCallbacks(**events)
            self._subscriptions[topic] = subscribe(copy(qos), event_callbacks=wanted)
        except UnsupportedEventTypeError:
            self._subscriptions[topic] = subscribe(copy(qos))
            return False
        return True

    def _mismatch(self, topic: str, event: Any) -> None:
        """A publisher is there from which nothing can come."""
        policy = QoSPolicyKind(event.last_policy_kind).name.lower()
        self._told[topic] = reason = mismatch_of(topic, policy)
        self._logger.warning(f'On {topic} {reason}: nothing comes from it')

    def _follow_latched(self, receive_info: Receive) -> None:
        """Also receive the CameraInfos that were published before, while a publisher keeps them.

        Such a subscription gets nothing from other publishers, which warn of it.
        """
        publishers = self._node.get_publishers_info_by_topic(self.info_topic)
        kept = any(p.qos_profile.durability == LATCHED_INFO_QOS.durability for p in publishers)
        if self._latched is not None and not kept:
            self._node.destroy_subscription(self._latched)
            self._latched = None
        elif self._latched is None and kept:
            self._latched = self._node.create_subscription(
                CameraInfo,
                self.info_topic,
                receive_info,
                copy(LATCHED_INFO_QOS),
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            )

    def _resolve_images(self) -> str:
        """Where images come from: a remap of ``image`` also moves ``image/compressed``."""
        resolve = self._node.resolve_topic_name
        base = resolve(f'{self._prefix}image')
        if self._transport == 'raw':
            return str(base)
        own = resolve(f'{self._prefix}image/compressed')
        plain = resolve(f'{self._prefix}image/compressed', only_expand=True)
        return str(own) if own != plain else f'{base}/compressed'
