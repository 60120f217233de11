"""One camera of the node: its topics, its frames, its calibration and its counts."""

from __future__ import annotations

from collections.abc import Hashable
from copy import copy
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

from mtl_perception_msgs.msg import PerceptionStatus
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from .. import one_line
from ..bundle import Bundle
from ..calibration import (
    PINHOLE_TOLERANCE,
    CameraInfos,
    Identity,
    camera_model,
    doubts_about,
    is_rectified,
    stamp_ns,
)
from ..camera import CameraError, CameraModel
from ..images import STRICT_JPEG, ImageError, read_image
from ..outputs import Output
from ..pipeline import Frame, Prediction
from ..topics import namespace_of
from .diagnostics import (
    CALIBRATIONS,
    EngineHealth,
    Report,
    Statistics,
    calibration_diagnostic,
    input_diagnostic,
    status_message,
)
from .mailbox import Mailbox
from .publishing import Outlets
from .qos import INFO_QOS, INPUT_QOS, LATCHED_INFO_QOS, OUTPUT_QOS, OVERRIDABLE
from .silence import COMPRESSED, RAW, why_silent

CAMERA_INFO_WAIT_S = 0.05


@dataclass(frozen=True)
class Arrival:
    """An image message that has come.

    Attributes:
        message: sensor_msgs Image or CompressedImage.
        time: when it came, ``perf_counter``.
        waits: whether it was held back for its CameraInfo.
    """

    message: Any
    time: float
    waits: bool


@dataclass(frozen=True)
class _Verdict:
    """What a calibration is worth.

    Attributes:
        state: PerceptionStatus.CALIBRATION_*.
        detail: what more there is to say.
        model: the camera; None where it makes none.
    """

    state: int
    detail: str
    model: CameraModel | None = None


class Camera:
    """One camera of a node.

    The ROS thread receives (``look``, subscriptions) and reports; the thread of the engine makes
    frames of what came and publishes predictions.

    Args:
        node: whose topics they are.
        name: in front of the names of all topics; empty for the only camera of a node.
        bundle: decides which outputs there are.
        transport: ``raw`` or ``compressed`` images.
        rectified: whether the images are: ``auto``, ``true`` or ``false``.
        max_age_s: older images are rejected; 0 takes all.
        info_wait_s: how long an image waits for its CameraInfo.

    Attributes:
        name: as given.
        prefix: of its topics.
        max_age_s: may be changed at any time.
    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        bundle: Bundle,
        *,
        transport: str,
        rectified: str,
        max_age_s: float = 0.0,
        info_wait_s: float = CAMERA_INFO_WAIT_S,
    ) -> None:
        self.name = name
        self.prefix = f'{name}/' if name else ''
        self.max_age_s = max_age_s
        self.statistics = Statistics()
        self._node = node
        self._logger = node.get_logger().get_child(name) if name else node.get_logger()
        self._bundle = bundle
        self._transport = transport
        self._image_topic = self._resolve_images()
        self._info_topic = str(node.resolve_topic_name(f'{self.prefix}camera_info'))
        self._rectified = rectified
        self._info_wait_s = info_wait_s
        self._outlets = Outlets(node, self.prefix, bundle)
        self._status: Any = None  # without a lifecycle: reports are made from configuring on
        self._subscriptions: list[Any] = []
        self._enabled = True
        self._latched: Any = None  # the one of CameraInfos that were published before
        self._cannot_subscribe = ''  # why
        self._silence = ''  # why no image has come lately
        self._told = ''  # the newest of these that was logged
        self._infos = CameraInfos()
        self._judged: tuple[Hashable, _Verdict] | None = None  # of what
        self._frame_id = ''
        self._calibration = PerceptionStatus.CALIBRATION_UNKNOWN
        self._calibration_detail = ''

    # Topics

    @property
    def inputs(self) -> tuple[str, str]:
        """The topics of its images and of their CameraInfo, after remaps."""
        return self._image_topic, self._info_topic

    def advertise(self) -> None:
        """Create all publishers; may raise what rclpy does for a QoS override that cannot be."""
        self._outlets.advertise()
        self._status = self._node.create_publisher(
            PerceptionStatus,
            f'~/{self.prefix}status',
            copy(OUTPUT_QOS),
            qos_overriding_options=OVERRIDABLE,
        )

    def destroy(self) -> None:
        """Destroy all publishers."""
        self._outlets.destroy()
        if self._status is not None:
            self._node.destroy_publisher(self._status)
            self._status = None

    def activate(self) -> None:
        """Say what the labels mean, and begin a new interval of reports."""
        self.statistics.report()
        if self._transport == 'compressed' and not STRICT_JPEG:
            self._logger.info(
                'JPEGs that are damaged inside pass unnoticed: pip install simplejpeg to have them '
                'rejected'
            )
        if namespace_of(self._image_topic) != namespace_of(self._info_topic):
            self._logger.warning(
                f'Images come from {self._image_topic} and CameraInfos from {self._info_topic}: '
                'make sure that they are of one camera'
            )
        self._outlets.publish_labels()

    def listened(self) -> list[Output]:
        """The outputs that somebody subscribes to."""
        return self._outlets.listened()

    def look(self, mailbox: Mailbox[Camera, Arrival], *, enabled: bool = True) -> None:
        """Subscribe to images if somebody listens to an output, and only then.

        Args:
            mailbox: where images go.
            enabled: else as if nobody listened.
        """
        self._enabled = enabled
        listened = enabled and bool(self.listened())
        if listened and not self._subscriptions and not self._cannot_subscribe:
            try:
                self._subscribe(mailbox)
            except Exception as error:  # rclpy's, for a QoS override that cannot be
                self.unsubscribe()
                self._cannot_subscribe = f'cannot subscribe to images: {one_line(error)}'
                self._logger.error(f'C{self._cannot_subscribe[1:]}; start the node without it')
        elif not listened and self._subscriptions:
            self.unsubscribe()
            mailbox.clear(self)
        if self._subscriptions and self._latched is None:
            self._subscribe_latched(mailbox)

    def unsubscribe(self) -> None:
        """Stop to receive."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions, self._latched = [], None

    def _subscribe(self, mailbox: Mailbox[Camera, Arrival]) -> None:
        image = Image if self._transport == 'raw' else CompressedImage
        receive_info = partial(self._receive_info, mailbox)
        for kind, topic, receive, qos in (
            (CameraInfo, self._info_topic, receive_info, INFO_QOS),
            (image, self._image_topic, partial(self._receive_image, mailbox), INPUT_QOS),
        ):
            subscription = self._node.create_subscription(
                kind, topic, receive, copy(qos), qos_overriding_options=OVERRIDABLE
            )
            self._subscriptions.append(subscription)

    def _subscribe_latched(self, mailbox: Mailbox[Camera, Arrival]) -> None:
        """Also receive the CameraInfos that were published before, if a publisher keeps them.

        Such a subscription gets nothing from other publishers, which warn of it.
        """
        publishers = self._node.get_publishers_info_by_topic(self._info_topic)
        if any(p.qos_profile.durability == LATCHED_INFO_QOS.durability for p in publishers):
            self._latched = self._node.create_subscription(
                CameraInfo,
                self._info_topic,
                partial(self._receive_info, mailbox),
                copy(LATCHED_INFO_QOS),
            )
            self._subscriptions.append(self._latched)

    def _resolve_images(self) -> str:
        """Where images come from: a remap of ``image`` also moves ``image/compressed``."""
        resolve = self._node.resolve_topic_name
        base = resolve(f'{self.prefix}image')
        if self._transport == 'raw':
            return str(base)
        own = resolve(f'{self.prefix}image/compressed')
        plain = resolve(f'{self.prefix}image/compressed', only_expand=True)
        return str(own) if own != plain else f'{base}/compressed'

    def _receive_image(self, mailbox: Mailbox[Camera, Arrival], message: Any) -> None:
        self.statistics.count('frames_received')
        calibrated = any(output.calibrated for output in self.listened())
        waits = calibrated and self._infos.due(message.header)
        arrival = Arrival(message, perf_counter(), waits)
        if mailbox.put(self, arrival, hold_s=self._info_wait_s if waits else 0.0):
            self.statistics.count('frames_dropped')

    def _receive_info(self, mailbox: Mailbox[Camera, Arrival], info: Any) -> None:
        self._infos.add(info)
        own = Identity.of(info.header)
        mailbox.release(self, lambda arrival: own.agrees(Identity.of(arrival.message.header)))

    # Frames and predictions

    def frame(self, arrival: Arrival) -> Frame | None:
        """The frame of an image that has come; None, and counted, where the image is bad."""
        start = perf_counter()
        header = arrival.message.header
        age = self._age_s(header)
        if age > self.max_age_s > 0:
            wanted = f'expected at most {self.max_age_s:g} s (max_age)'
            self.reject('old', f'the image is {age:.3g} s old, {wanted}')
            return None
        try:
            image = read_image(arrival.message)
        except ImageError as error:
            self.reject(error.kind, str(error))
            return None
        self.statistics.time('decode', 1e3 * (perf_counter() - start))
        self._frame_id = header.frame_id
        return Frame(
            image,
            self._calibrate(header, image, waited=arrival.waits),
            camera=self.name,
            frame_id=header.frame_id,
            stamp=stamp_ns(header),
        )

    def reject(self, kind: str, reason: str) -> None:
        """Count an image that nothing can be published of, and log it, once a second."""
        if self.statistics.reject(kind, reason):
            self._logger.warning(f'Bad image ({kind}): {reason}')

    def publish(self, prediction: Prediction, arrival: Arrival) -> None:
        """Publish what somebody listens to of a prediction."""
        start = perf_counter()
        self.statistics.count('messages_published', self._outlets.publish(prediction))
        end = perf_counter()
        self.statistics.count('frames_processed')
        for stage, milliseconds in prediction.timings_ms.items():
            self.statistics.time(stage, milliseconds)
        self.statistics.time('publish', 1e3 * (end - start))
        self.statistics.time('latency', 1e3 * (end - arrival.time))

    def _age_s(self, header: Any) -> float:
        """Seconds since an image was taken; 0 where it has no stamp."""
        stamp = stamp_ns(header)
        return 1e-9 * (self._node.get_clock().now().nanoseconds - stamp) if stamp else 0.0

    def _calibrate(self, header: Any, image: NDArray[Any], *, waited: bool) -> CameraModel | None:
        """The calibration of an image; None where there is none that can be used."""
        match = self._infos.match(header, waited=waited)
        height, width = image.shape[:2]
        if match.info is None:
            detail = f'{match.problem} on {self._info_topic}'
            verdict = _Verdict(PerceptionStatus.CALIBRATION_MISSING, detail)
        else:
            if not match.own:
                self.statistics.count('camera_info_fallbacks')
            key = match.content, width, height
            if self._judged is None or self._judged[0] != key:  # rarely: it takes a while
                self._judged = key, self._judge(match.info, width, height)
            verdict = self._judged[1]
        if verdict.model is None:
            self.statistics.count('uncalibrated_frames')
        self._note_calibration(verdict.state, verdict.detail)
        return verdict.model

    def _judge(self, info: Any, width: int, height: int) -> _Verdict:
        """The camera of images of a size that come with a CameraInfo, and what is to say of it."""
        topic = self._image_topic
        state = PerceptionStatus.CALIBRATION_MISSING
        try:
            rectified = is_rectified(self._rectified, topic, info)
            calibrated = camera_model(info, rectified=rectified)
            state = PerceptionStatus.CALIBRATION_WRONG_SIZE
            model = calibrated.for_image(width, height)
        except CameraError as error:
            return _Verdict(state, str(error))
        if not self._bundle.metric:
            return _Verdict(PerceptionStatus.CALIBRATION_NOT_METRIC, '', model)
        doubts = doubts_about(info, setting=self._rectified, topic=topic, image=(width, height))
        if doubts:
            return _Verdict(PerceptionStatus.CALIBRATION_NOT_CREDIBLE, '; '.join(doubts), model)
        pixels = model.pinhole_error()
        if pixels > PINHOLE_TOLERANCE:
            detail = (
                'depth_image_proc, nvblox, rtabmap and others that read it with P of its '
                f'CameraInfo are up to {pixels:.0f} pixels of the image off; '
                'take the rectified images (image_rect), or points, which are right'
            )
            return _Verdict(PerceptionStatus.CALIBRATION_NOT_PINHOLE, detail, model)
        return _Verdict(PerceptionStatus.CALIBRATION_METRIC, '', model)

    def _note_calibration(self, state: int, detail: str) -> None:
        if state not in (self._calibration, PerceptionStatus.CALIBRATION_METRIC):
            known = CALIBRATIONS[state]
            consequence = (
                ''
                if known.published
                else '; depth (unless allow_uncalibrated is set) and points are not published'
            )
            self._logger.warning(
                f'{known.meaning[0].upper()}{known.meaning[1:]}{": " if detail else ""}{detail}'
                f'{consequence}'
            )
        self._calibration, self._calibration_detail = state, detail

    # Reports

    def report(self, engine: EngineHealth) -> Report:
        """Publish the status of the interval that ends now; returns what happened in it."""
        report = self.statistics.report()
        status = status_message(report, self._calibration, engine)
        status.header.stamp = self._node.get_clock().now().to_msg()
        status.header.frame_id = self._frame_id
        status.camera = self.name
        self._status.publish(status)
        return report

    def input_diagnostic(self, report: Report, *, active: bool) -> Any:
        """DiagnosticStatus of its images."""
        topic = self._image_topic if self._subscriptions else ''
        silence = self._why_silent(report) if topic else ''
        status = input_diagnostic(
            report, topic, active=active, failure=self._cannot_subscribe, silence=silence
        )
        if active and not self._enabled:
            status.message = 'paused by ~/enable'
        status.name = f'{self.prefix}{status.name}'
        return status

    def _why_silent(self, report: Report) -> str:
        """Why no image has come in an interval; logged when it holds for two."""
        if report.counts.get('frames_received'):
            self._silence = ''
            return ''
        own = (self._node.get_namespace(), self._node.get_name())
        topics = {
            name: kinds
            for name, kinds in self._node.get_topic_names_and_types()
            if {RAW, COMPRESSED} & {*kinds}
            and any(
                (publisher.node_namespace, publisher.node_name) != own
                for publisher in self._node.get_publishers_info_by_topic(name)
            )
        }
        found = self._node.get_publishers_info_by_topic(self._image_topic)
        kind = RAW if self._transport == 'raw' else COMPRESSED
        silence = why_silent(self._image_topic, kind, topics, [p.topic_type for p in found])
        if silence == self._silence and silence != self._told:
            self._told = silence
            self._logger.warning(f'No image on {self._image_topic}: {silence}')
        self._silence = silence
        return silence

    def calibration_diagnostic(self, report: Report) -> Any:
        """DiagnosticStatus of its calibration."""
        status = calibration_diagnostic(report, self._calibration, self._calibration_detail)
        status.name = f'{self.prefix}{status.name}'
        return status
