"""One camera of the node: its topics, its frames, its calibration and its counts."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from copy import copy
from dataclasses import dataclass
from functools import partial
from time import monotonic, perf_counter
from typing import Any

from mtl_perception_msgs.msg import PerceptionStatus
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode

from ..bundle import Bundle
from ..calibration import (
    PINHOLE_TOLERANCE,
    CameraInfos,
    Identity,
    camera_model,
    doubts_about,
    is_rectified,
    of_another_size,
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
    Verdict,
    calibration_diagnostic,
    input_diagnostic,
    status_message,
)
from .mailbox import Mailbox
from .publishing import Outlets
from .qos import OUTPUT_QOS, OVERRIDABLE
from .receiving import Inlets

CAMERA_INFO_WAIT_S = 0.05
RATE_OF = 10  # images, whose rate is told
PAUSE_S = 1.0  # between two lines about what images are


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
        self._rectified = rectified
        self._info_wait_s = info_wait_s
        self._inlets = Inlets(node, self.prefix, transport, self._logger, self._lose)
        self._outlets = Outlets(node, self.prefix, bundle)
        self._status: Any = None  # without a lifecycle: reports are made from configuring on
        self._enabled = True
        self._infos = CameraInfos()
        self._judged: tuple[Hashable, Verdict] | None = None  # of what
        self._frame_id = ''
        self._image_size = ''  # in words
        self._forget()

    # Topics

    @property
    def inputs(self) -> tuple[str, str]:
        """The topics of its images and of their CameraInfo, after remaps."""
        return self._inlets.image_topic, self._inlets.info_topic

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
        self._forget()
        if self._transport == 'compressed' and not STRICT_JPEG:
            self._logger.info(
                'JPEGs that are damaged inside pass unnoticed: pip install simplejpeg to have them '
                'rejected'
            )
        images, infos = self.inputs
        if namespace_of(images) != namespace_of(infos):
            self._logger.warning(
                f'Images come from {images} and CameraInfos from {infos}: '
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
        if enabled and self.listened():
            self._inlets.open(
                partial(self._receive_image, mailbox), partial(self._receive_info, mailbox)
            )
        elif self._inlets.opened:
            self._inlets.close()
            mailbox.clear(self)
            self._forget()

    def _forget(self) -> None:
        """Begin anew with what is to be said of images: those that come next may be others."""
        self._told_loss = False
        self._arrivals: list[float] = []  # of the first images
        self._facts: tuple[object, ...] = ()  # that were told of images
        self._told_facts = -math.inf  # when
        self._calibration = Verdict()  # of the newest image
        self._warned = ''  # of it

    def unsubscribe(self) -> None:
        """Stop to receive."""
        self._inlets.close()

    def _receive_image(self, mailbox: Mailbox[Camera, Arrival], message: Any) -> None:
        self.statistics.count('frames_received')
        waits = self._outlets.needs_calibration() and self._infos.due(message.header)
        arrival = Arrival(message, perf_counter(), waits)
        if len(self._arrivals) < RATE_OF:
            self._arrivals.append(arrival.time)
            if len(self._arrivals) == RATE_OF:
                rate = (RATE_OF - 1) / (self._arrivals[-1] - self._arrivals[0])
                self._logger.info(f'Images on {self._inlets.image_topic} come at {rate:.1f} Hz')
        if mailbox.put(self, arrival, hold_s=self._info_wait_s if waits else 0.0):
            self.statistics.count('frames_dropped')

    def _lose(self, images: int) -> None:
        """Count images that were lost on their way to this process."""
        self.statistics.count('frames_lost', images)
        if not self._told_loss:
            self._told_loss = True
            self._logger.warning(
                f'Images on {self._inlets.image_topic} are lost before they arrive: {self._advice}'
            )

    @property
    def _advice(self) -> str:
        """What to do about images that are lost on their way."""
        return f'mtl_perception doctor tells what images{self._image_size} need on their way'

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
        self._image_size = f' of {len(arrival.message.data) / 1e6:.1f} MB'
        model = self._calibrate(header, image, waited=arrival.waits)
        self._introduce(arrival.message, image, model)
        return Frame(
            image,
            model,
            camera=self.name,
            frame_id=header.frame_id,
            stamp=stamp_ns(header),
        )

    def reject(self, kind: str, reason: str) -> None:
        """Count an image that nothing can be published of, and log it, once a second."""
        if self.statistics.reject(kind, reason):
            self._logger.warning(f'Bad image ({kind}): {reason}')

    def publish(self, prediction: Prediction, arrival: Arrival, outputs: Iterable[Output]) -> None:
        """Publish some outputs of a prediction."""
        start = perf_counter()
        self.statistics.count('messages_published', self._outlets.publish(prediction, outputs))
        end = perf_counter()
        self.statistics.count('frames_processed')
        for stage, milliseconds in prediction.timings_ms.items():
            self.statistics.time(stage, milliseconds)
        self.statistics.time('publish', 1e3 * (end - start))
        self.statistics.time('latency', 1e3 * (end - arrival.time))

    def _introduce(self, message: Any, image: NDArray[Any], model: CameraModel | None) -> None:
        """Say what the first image is, and what others are that follow."""
        height, width = image.shape[:2]
        encoding = message.encoding if self._transport == 'raw' else message.format
        frame, topic = message.header.frame_id, self._inlets.image_topic
        stamped = '' if stamp_ns(message.header) else ', without a stamp'
        facts, now = (width, height, encoding, frame, stamped), monotonic()
        if facts == self._facts or now < self._told_facts + PAUSE_S:
            return
        what = 'Images are now' if self._facts else 'First image'
        self._facts, self._told_facts = facts, now
        words = CALIBRATIONS[self._calibration.state].meaning
        if self._calibration.detail and not self._calibration.text:  # of which no line warns
            words += f' ({self._calibration.detail})'
        if model is not None:
            lens = model.distortion_model or 'no'
            words += f', focal length {model.fx:.0f} pixels, {lens} distortion'
        self._logger.info(
            f'{what}: {width}x{height} {encoding} on {topic}, frame {frame!r}{stamped}; {words}'
        )

    def _age_s(self, header: Any) -> float:
        """Seconds since an image was taken; 0 where it has no stamp."""
        stamp = stamp_ns(header)
        return 1e-9 * (self._node.get_clock().now().nanoseconds - stamp) if stamp else 0.0

    def _calibrate(self, header: Any, image: NDArray[Any], *, waited: bool) -> CameraModel | None:
        """The calibration of an image; None where there is none that can be used."""
        publishers = self._inlets.info_publishers()
        match = self._infos.match(header, waited=waited, publishers=publishers)
        height, width = image.shape[:2]
        if match.info is None:
            detail = f'{match.problem} on {self._inlets.info_topic}'
            verdict = Verdict(PerceptionStatus.CALIBRATION_MISSING, detail)
        else:
            if not match.own:
                self.statistics.count('camera_info_fallbacks')
            key = match.content, width, height
            if self._judged is None or self._judged[0] != key:  # rarely: it takes a while
                self._judged = key, self._judge(match.info, width, height)
            verdict = self._judged[1]
        if verdict.model is None:
            self.statistics.count('uncalibrated_frames')
        self._calibration = verdict
        return verdict.model

    def _judge(self, info: Any, width: int, height: int) -> Verdict:
        """The camera of images of a size that come with a CameraInfo, and what is to say of it."""
        topic = self._inlets.image_topic
        state = PerceptionStatus.CALIBRATION_MISSING
        try:
            rectified = is_rectified(self._rectified, topic, info)
            calibrated = camera_model(info, rectified=rectified)
            state = PerceptionStatus.CALIBRATION_WRONG_SIZE
            model = calibrated.for_image(width, height)
        except CameraError as error:
            return Verdict(state, str(error))
        if not self._bundle.metric:
            return Verdict(PerceptionStatus.CALIBRATION_NOT_METRIC, '', model)
        doubts = doubts_about(info, setting=self._rectified, topic=topic, image=(width, height))
        if doubts:
            return Verdict(PerceptionStatus.CALIBRATION_NOT_CREDIBLE, '; '.join(doubts), model)
        pixels = model.pinhole_error()
        if pixels > PINHOLE_TOLERANCE:
            detail = (
                'depth_image_proc, nvblox, rtabmap and others that read it with P of its '
                f'CameraInfo are up to {pixels:.0f} pixels of the image off; '
                'take the rectified images (image_rect), or points, which are right'
            )
            return Verdict(PerceptionStatus.CALIBRATION_NOT_PINHOLE, detail, model)
        resized = of_another_size(calibrated, (width, height))
        return Verdict(PerceptionStatus.CALIBRATION_METRIC, resized, model)

    # Reports

    def report(self, engine: EngineHealth) -> Report:
        """Publish the status of the interval that ends now; returns what happened in it."""
        report = self.statistics.report()
        self._warn_of(self._calibration)
        status = status_message(report, self._calibration.state, engine)
        status.header.stamp = self._node.get_clock().now().to_msg()
        status.header.frame_id = self._frame_id
        status.camera = self.name
        self._status.publish(status)
        return report

    def input_diagnostic(self, report: Report, *, active: bool) -> Any:
        """DiagnosticStatus of its images."""
        received = bool(report.counts.get('frames_received'))
        status = input_diagnostic(
            report,
            self._inlets.image_topic if self._inlets.opened else '',
            active=active,
            failure=self._inlets.failure,
            silence=self._inlets.why_silent(received=received),
            advice=self._advice,
            untold=self._inlets.untold,
            crowd=self._inlets.crowd(),
        )
        if active and not self._enabled:
            status.message = 'paused by ~/enable'
        status.name = f'{self.prefix}{status.name}'
        return status

    def calibration_diagnostic(self, report: Report) -> Any:
        """DiagnosticStatus of its calibration."""
        verdict = self._calibration
        missing = verdict.state == PerceptionStatus.CALIBRATION_MISSING
        silence = self._inlets.why_no_info(missing=missing, received=not self._infos.empty)
        status = calibration_diagnostic(report, verdict, silence)
        status.name = f'{self.prefix}{status.name}'
        return status

    def _warn_of(self, verdict: Verdict) -> None:
        """Log what is wrong with a calibration whenever that is something else than before."""
        if verdict.text and verdict.text != self._warned:
            self._logger.warning(verdict.text)
        self._warned = verdict.text
