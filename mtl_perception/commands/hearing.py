"""Judgements of what is heard on a topic: who publishes, how often, which images and cameras.

Each is a function of what was found, so that tests can show it any graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ..calibration import (
    PINHOLE_TOLERANCE,
    camera_model,
    doubts_about,
    frame_of,
    is_rectified,
    of_another_size,
)
from ..camera import CameraError
from ..images import ImageError, read_image
from ..topics import base_topic
from .findings import Finding

# Less than this share of what was sent is a loss, and not a message at either end of the interval.
_ARRIVES = 0.85
_MANY = 4  # messages that a rate is told from
_OLD_S = 1.0


@dataclass(frozen=True)
class Endpoint:
    """A publisher.

    Attributes:
        node: full name of its node.
        type: of its messages.
        gid: its number in the middleware.
        mismatch: why its QoS does not fit a subscription; empty where it does.
    """

    node: str
    type: str
    gid: tuple[int, ...]
    mismatch: str = ''


@dataclass
class Heard:
    """What has come on a topic.

    Attributes:
        topic: its name.
        arrivals: when each message came, seconds of a monotonic clock.
        ages_s: how old they were, by their stamps and the clock of the doctor's node.
        stamps: of their headers, nanoseconds.
        last: the newest message, as bytes.
    """

    topic: str
    arrivals: list[float] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    last: bytes = b''

    @property
    def rate(self) -> float:
        """Messages that came, Hz; 0 where there are too few to tell."""
        span = self.arrivals[-1] - self.arrivals[0] if len(self.arrivals) >= _MANY else 0.0
        return (len(self.arrivals) - 1) / span if span > 0 else 0.0

    @property
    def sent(self) -> float:
        """Messages that were sent, by their stamps, Hz; 0 where they do not tell."""
        steps = [new - old for old, new in zip(self.stamps, self.stamps[1:], strict=False)]
        if len(self.stamps) < _MANY or median(steps) <= 0:
            return 0.0
        return 1e9 / median(steps)


def check_publishers(topic: str, wanted: str, publishers: Sequence[Endpoint]) -> list[Finding]:
    """Judge who publishes what a node subscribes to.

    Args:
        topic: of the subscription.
        wanted: type of its messages.
        publishers: with the mismatch of QoS with that subscription.
    """
    what = 'camera_info' if wanted.endswith('CameraInfo') else 'image'
    if not publishers:
        return [Finding('fail', topic, 'nobody publishes', f'start the camera, or remap {what}')]
    findings = []
    others = ', or set image_transport' if what == 'image' else ''
    for publisher in publishers:
        if publisher.type != wanted:
            findings.append(
                Finding(
                    'fail',
                    topic,
                    f'{publisher.node} publishes {publisher.type}, expected {wanted}',
                    f'remap {what}{others}',
                )
            )
        elif publisher.mismatch:
            override = f'qos_overrides.{topic}.subscription.durability or ...reliability'
            findings.append(
                Finding(
                    'fail',
                    topic,
                    f'the QoS of {publisher.node} does not match: {publisher.mismatch}',
                    f'set {override} (docs/parameters.md)',
                )
            )
    names = ', '.join(publisher.node for publisher in publishers)
    if len(publishers) > 1:
        remedy = 'let each camera have topics of its own'
        findings.append(Finding('warn', topic, f'{names} publish on it', remedy))
    return findings or [Finding('ok', topic, f'{wanted} of {names}, QoS matches')]


def check_flow(heard: Heard, seconds: float) -> list[Finding]:
    """Judge how messages came while the doctor listened for some seconds."""
    topic, count = heard.topic, len(heard.arrivals)
    if not count:
        remedy = 'see whether it sends: ros2 topic hz'
        return [Finding('fail', topic, f'nothing came in {seconds:g} s', remedy)]
    detail = f'{count} messages in {seconds:g} s'
    if heard.rate and heard.sent * _ARRIVES > heard.rate:
        detail = f'{heard.rate:.1f} Hz arrive of {heard.sent:.1f} Hz by the stamps: some are lost'
        remedy = 'give the publisher the Fast DDS profile as well (see its line)'
        return [Finding('warn', topic, detail, remedy)]
    if heard.rate:
        detail = f'{heard.rate:.1f} Hz'
    if not any(heard.stamps):
        remedy = 'set header.stamp in the driver'
        return [Finding('warn', topic, f'{detail}, without stamps', remedy)]
    if any(new < old for old, new in zip(heard.stamps, heard.stamps[1:], strict=False)):
        remedy = 'let one camera publish, with one clock'
        return [Finding('warn', topic, f'{detail}, and stamps jump back', remedy)]
    age = median(heard.ages_s)
    if abs(age) > _OLD_S:
        detail += f', with stamps {abs(age):.3g} s {"old" if age > 0 else "in the future"}'
        remedy = 'synchronise the clocks; for what is played back, use_sim_time'
        return [Finding('warn', topic, detail, remedy)]
    return [Finding('ok', topic, f'{detail}, {1e3 * age:.0f} ms old')]


def check_image(topic: str, message: Any) -> tuple[Finding, tuple[int, int]]:
    """Judge an image; also returns its width and height, 0 where it cannot be read."""
    try:
        height, width = read_image(message).shape[:2]
    except ImageError as error:
        remedy = 'docs/topics.md has the encodings'
        return Finding('fail', topic, f'bad image ({error.kind}): {error}', remedy), (0, 0)
    what = getattr(message, 'encoding', '') or message.format
    detail = f'{width}x{height} {what}, frame {message.header.frame_id!r}'
    if not frame_of(message.header):
        return Finding('warn', topic, detail, 'set frame_id in the driver'), (width, height)
    return Finding('ok', topic, detail), (width, height)


def check_calibration(
    topic: str,
    info: Any,
    image: Any,
    *,
    images: str,
    size: tuple[int, int],
    setting: str,
) -> Finding:
    """Judge the CameraInfo of an image, as the node does.

    Args:
        topic: of the CameraInfo.
        info: sensor_msgs/CameraInfo.
        image: message that it came with.
        images: topic of that.
        size: its width and height.
        setting: the parameter ``rectified`` of the node.
    """
    remedy = 'calibrate the camera: ros2 run camera_calibration cameracalibrator (docs/topics.md)'
    frames = frame_of(info.header), frame_of(image.header)
    if frames[0] != frames[1]:
        detail = f'is of frame {frames[0]!r}, and images of {frames[1]!r}'
        return Finding('warn', topic, detail, 'remap camera_info to that of the camera')
    try:
        rectified = is_rectified(setting, base_topic(images), info)
        calibrated = camera_model(info, rectified=rectified)
        camera = calibrated.for_image(*size)
    except CameraError as error:
        return Finding('warn', topic, str(error), remedy)
    doubts = doubts_about(info, setting=setting, topic=base_topic(images), image=size)
    if doubts:
        return Finding('warn', topic, f'not credible: {"; ".join(doubts)}', remedy)
    pixels = camera.pinhole_error()
    if pixels > PINHOLE_TOLERANCE:
        detail = f'depth is up to {pixels:.0f} pixels off for who takes it for that of a pinhole'
        return Finding('warn', topic, detail, 'take rectified images, or ~/points')
    resized = of_another_size(calibrated, size)
    detail = f'fx {camera.fx:.1f}, fy {camera.fy:.1f}: credible{resized and "; "}{resized}'
    return Finding('ok', topic, detail)
