"""CameraInfo messages to camera models, and which CameraInfo belongs to an image."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from .camera import IDENTITY, CameraError, CameraModel
from .credibility import doubts
from .lenses import is_fisheye
from .topics import says_raw, says_rectified

# CameraInfos that are kept for images that may still come.
_KEPT = 32
# How long before the newest of a frame another may have come that it is compared with, seconds.
_CLASH_S = 10.0
# How long the CameraInfos of several publishers are compared before one is taken, seconds.
_SETTLED_S = 1.0
# How far off the pixels of an image may be for who takes it for that of a pinhole.
PINHOLE_TOLERANCE = 1.0


def stamp_ns(header: Any) -> int:
    """The stamp of a std_msgs/Header, nanoseconds."""
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)


@dataclass(frozen=True)
class Match:
    """What was found for an image.

    Attributes:
        info: sensor_msgs/CameraInfo; None where none is surely of this camera.
        content: what it says, to compare.
        own: whether it has the image's own stamp.
        problem: why there is none.
    """

    info: Any = None
    content: Hashable = None
    own: bool = False
    problem: str = ''

    @classmethod
    def shared(cls, frame: str, how: str) -> Match:
        """None, since the CameraInfos of a frame differ as those of one camera cannot."""
        return cls(
            problem='two cameras seem to share the topic: different CameraInfos of '
            f'frame {frame!r} {how}'
        )

    @classmethod
    def unsettled(cls, publishers: int) -> Match:
        """None yet, since several publish, and not all may have said something."""
        return cls(
            problem=f'{publishers} publishers send CameraInfos, and whether these differ is not '
            'known yet'
        )

    @classmethod
    def missing(cls, frame: str, others: Iterable[str]) -> Match:
        """None, since there are CameraInfos of other frames only, or of none."""
        seen = ', '.join(map(repr, sorted(others)))
        return cls(problem=f'no CameraInfo of frame {frame!r}' + (seen and f', only of {seen}'))


@dataclass(frozen=True)
class Identity:
    """Which moment of which camera a header is of."""

    stamp: int
    frame: str

    @classmethod
    def of(cls, header: Any) -> Identity:
        """Of a std_msgs/Header."""
        return cls(stamp_ns(header), frame_of(header))

    def agrees(self, other: Identity) -> bool:
        """Whether both may be of the same moment and camera.

        Drivers of a single camera leave frames empty, which says nothing.
        """
        known = self.frame and other.frame
        return self.stamp == other.stamp and (self.frame == other.frame or not known)


@dataclass(frozen=True)
class _Kept:
    """A CameraInfo, with what it is found by."""

    info: Any
    content: Hashable
    identity: Identity
    time: float  # when it came, seconds


class CameraInfos:
    """The CameraInfos of one topic, found again by stamp and frame.

    Most drivers publish a CameraInfo with each image, with the same stamp and at nearly the same
    time, in either order. Others publish a constant one at a rate of its own, or once. So an image
    waits for its own CameraInfo, but only as long as that has been worth while: after one wait in
    vain the newest of the same frame is taken at once, until stamps are seen to match again.

    A topic that two cameras share is noticed by what cannot come of one: different frames, two
    calibrations of one moment, or calibrations that come in turns. What came long before the newest
    does not count there: a camera may be calibrated again, and back, and a second one may leave.
    Without stamps there are no moments, and what comes is compared in its order.

    Where several publish on the topic, the first image may come before the second calibration. So
    none is taken at first, and later none that another one has just contradicted.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._infos: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._lock = Lock()
        self._matching = True
        self._missed: Identity | None = None  # of an image
        self._unstamped = 0  # how often what comes without a stamp has changed
        self._publishers, self._since = 1, 0.0  # how many there are, and since when

    def add(self, info: Any) -> None:
        """Keep a sensor_msgs/CameraInfo."""
        new = _Kept(info, content_of(info), Identity.of(info.header), self._clock())
        with self._lock:
            key: Hashable = (new.identity, new.content)
            if not new.identity.stamp:
                key = self._turn(new)
                self._infos.pop(key, None)
            self._infos.setdefault(key, new)  # it may come twice, and late
            while len(self._infos) > _KEPT:
                self._infos.popitem(last=False)
            if self._missed is not None and new.identity.agrees(self._missed):
                self._matching = True  # it was only late

    @property
    def empty(self) -> bool:
        """Whether none has come yet."""
        return not self._infos

    def due(self, header: Any) -> bool:
        """Whether the CameraInfo of an image is still to come, as far as one can tell."""
        with self._lock:
            return self._matching and not self._own(Identity.of(header))

    def match(self, header: Any, *, waited: bool, publishers: int = 1) -> Match:
        """The CameraInfo for an image.

        Args:
            header: std_msgs/Header of the image.
            waited: whether the image has waited for its own.
            publishers: how many there are on the topic.
        """
        identity = Identity.of(header)
        frame = identity.frame
        with self._lock:
            own = self._own(identity)
            of_frame = [kept for kept in self._infos.values() if kept.identity.frame == frame]
            others = {kept.identity.frame for kept in self._infos.values()} - {frame}
            self._matching = bool(own) or (self._matching and not waited)
            if not own:
                self._missed = identity
            settled = self._settled(publishers)
        candidates = of_frame if identity.stamp else own or of_frame
        lately = [k for k in candidates if k.time >= candidates[-1].time - _CLASH_S]
        # Also of other moments: of this one only the first may have come yet.
        if _differ_at_once(own) or len(moments := _stamped(lately)) > len({*moments}):
            return Match.shared(frame, 'with one stamp')
        if not own and not of_frame:
            return Match.missing(frame, others)
        if not settled:
            return Match.unsettled(publishers)
        if own and identity.stamp:
            return Match(own[0].info, own[0].content, own=True)
        contents = [kept.content for kept in lately]
        if in_turns(contents):
            return Match.shared(frame, 'in turns')
        if publishers > 1 and len(set(contents)) > 1:
            return Match.shared(frame, f'from {publishers} publishers')
        return Match(candidates[-1].info, candidates[-1].content, own=bool(own))

    def _own(self, image: Identity) -> list[_Kept]:
        return [kept for kept in self._infos.values() if kept.identity.agrees(image)]

    def _turn(self, new: _Kept) -> Hashable:
        """The key of one without a stamp: that of the last one where both say the same."""
        alike = [item for item in self._infos.items() if item[1].identity == new.identity]
        if alike and alike[-1][1].content == new.content:
            return alike[-1][0]
        self._unstamped += 1
        return new.identity, self._unstamped

    def _settled(self, publishers: int) -> bool:
        """Whether all publishers have had the time to say something."""
        if publishers > self._publishers or (publishers > 1 and not self._infos):
            self._since = self._clock()
        self._publishers = publishers
        return publishers < 2 or self._clock() - self._since >= _SETTLED_S


def _differ_at_once(own: Sequence[_Kept]) -> bool:
    """Whether a moment has two calibrations; without a stamp the newest of each frame count."""
    newest = {k.identity: k for k in own if not k.identity.stamp}.values()
    return len({k.content for k in (newest or own)}) > 1


def _stamped(infos: Iterable[_Kept]) -> list[Identity]:
    return [kept.identity for kept in infos if kept.identity.stamp]


def frame_of(header: Any) -> str:
    """The frame of a std_msgs/Header; that of ROS 1 begins with a slash."""
    return str(header.frame_id).lstrip('/')


def content_of(info: Any) -> Hashable:
    """What a CameraInfo says, to compare (also NaN)."""
    roi = info.roi
    return (
        np.concatenate([info.k, info.r, info.p, info.d]).tobytes(),
        (info.width, info.height, info.distortion_model, info.binning_x, info.binning_y),
        (roi.x_offset, roi.y_offset, roi.width, roi.height),
    )


def in_turns(contents: Sequence[Hashable]) -> bool:
    """Whether a content comes back after another one."""
    changes = [new for old, new in zip([None, *contents], contents, strict=False) if new != old]
    return len(changes) > len(set(changes))


def is_rectified(setting: str, topic: str, info: Any) -> bool:
    """Whether images are rectified, so that P of their CameraInfo is the camera, else K and D.

    Args:
        setting: ``true`` or ``false``, or ``auto``: the name of the topic tells, and a CameraInfo
            whose D and R do nothing, as that of rectified images.
        topic: of the images.
        info: sensor_msgs/CameraInfo.
    """
    if setting != 'auto':
        return setting == 'true'
    return says_rectified(topic) or _does_nothing(info)


def _does_nothing(info: Any) -> bool:
    """Whether there is nothing to rectify: no D, no R, and a P that says the rest."""
    turned = tuple(info.r) != IDENTITY and any(info.r)
    known = info.k[0] > 0 and info.p[0] > 0 and info.p[5] > 0
    return known and not turned and not _has_lens(info)


def _has_lens(info: Any) -> bool:
    """Whether raw images differ from those of a pinhole; a fisheye's do without any D."""
    return any(info.d) or is_fisheye(info.distortion_model)


def camera_model(info: Any, *, rectified: bool) -> CameraModel:
    """The camera behind the images that come with a CameraInfo.

    Args:
        info: sensor_msgs/CameraInfo.
        rectified: whether the images are rectified: P is then the camera, or K where neither P nor
            D says something; else K and D are.

    Raises:
        CameraError: uncalibrated, or values that make no camera.
    """
    return _camera(
        info,
        rectified=rectified,
        roi=(info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height),
        binning=(info.binning_x, info.binning_y),
    )


def _camera(info: Any, *, rectified: bool, **cut: Any) -> CameraModel:
    k, d, model, r, p = info.k, info.d, info.distortion_model, info.r, info.p
    if rectified and not (p[0] > 0 and p[5] > 0):
        if any(d):
            raise CameraError(
                'the images are rectified and P of their CameraInfo has no focal length: '
                'the camera is uncalibrated'
            )
        model, r = '', IDENTITY
    elif rectified:
        k, d, model, r = [*p[0:3], *p[4:7], *p[8:11]], (), '', IDENTITY
    return CameraModel.from_calibration(
        info.width, info.height, k, d, model, rectification=r, projection=p, **cut
    )


def of_another_size(camera: CameraModel, image: tuple[int, int]) -> str:
    """What is taken for granted of a camera whose images have another size, in words."""
    if image == (camera.width, camera.height):
        return ''
    return (
        f'the CameraInfo is for images of {camera.width}x{camera.height}, and those of '
        f'{image[0]}x{image[1]} are taken for the same view, resized'
    )


def doubts_about(info: Any, *, setting: str, topic: str, image: tuple[int, int]) -> tuple[str, ...]:
    """What makes the calibration of an image implausible, in words; empty if nothing does.

    Args:
        info: sensor_msgs/CameraInfo that makes a camera.
        setting: see ``is_rectified``.
        topic: of the images.
        image: their width and height.
    """
    full = _camera(info, rectified=is_rectified(setting, topic, info))
    k, p = np.reshape(info.k, (3, 3)), np.reshape(info.p, (3, 4))[:, :3]
    differs = _has_lens(info) or (p[0, 0] > 0 and np.abs(k - p).max() > PINHOLE_TOLERANCE)
    contradictions = {
        f'rectified is false, and images come from {topic}': (
            setting == 'false' and says_rectified(topic)
        ),
        f'rectified is true, and images come from {topic}': setting == 'true' and says_raw(topic),
        'K and P differ, and neither D nor R tells why; P is taken': (
            setting == 'auto' and _does_nothing(info)
        ),
    }
    sent = camera_model(info, rectified=is_rectified(setting, topic, info))
    return (
        *doubts(full, (info.binning_x, info.binning_y), image, (sent.width, sent.height)),
        *(text for text, holds in contradictions.items() if holds and differs),
    )
