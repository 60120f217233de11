"""What is replayed, one step after the other: images that are still to be decoded, in order."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..calibration import Match, camera_model, is_rectified
from ..camera import CameraError, CameraModel
from ..images import ImageError, read_image
from .camera_infos import InfoTable
from .cameras import CameraTopics
from .cdr import RecordingError, Types, header_frame, header_stamp_ns
from .recordings import Recorded, RecordingReader

# An image waits so long (of the recording's time) for what belongs to it and comes late.
_LATE_NS = 200_000_000
# Messages that are kept without an image between them are passed on when they are so many bytes.
_KEPT_BYTES = 4 << 20


class Calibration(Protocol):
    """What tells the camera of images of a size."""

    def for_image(self, width: int, height: int) -> CameraModel:
        """The camera; raises CameraError where it cannot be that of such an image."""


@dataclass(frozen=True)
class Shot:
    """An image of a recording that is not decoded yet; it can be sent to another process.

    Attributes:
        camera: name of its camera; empty where there is only one.
        topic: that the image came from; the path of a picture or video.
        stamp, frame_id: of its header.
        time_ns: when it was recorded.
        load: decodes it to [H, W, 3] RGB, in any thread; raises ImageError or RecordingError.
        calibration: of its camera; None where it is not known.
        problem: why there is no ``calibration``.
    """

    camera: str
    topic: str
    stamp: int
    frame_id: str
    time_ns: int
    load: Callable[[], NDArray[np.uint8]] = field(repr=False)
    calibration: Calibration | None = field(default=None, repr=False)
    problem: str = ''


@dataclass(frozen=True)
class Step:
    """A piece of a recording: at most one image, and what else is taken along.

    Attributes:
        index: 0, 1, 2, ... over the whole selection.
        shot: the image; None at the end, and where there is none for long.
        kept: messages of the topics to keep, from after the step before.
        truth: topic -> the message whose stamp is nearest to the image's.
    """

    index: int
    shot: Shot | None
    kept: tuple[Recorded, ...] = ()
    truth: Mapping[str, Recorded] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """What of a recording is replayed.

    Attributes:
        start_ns, stop_ns: recorded from the one until before the other; None for the ends.
        every: only each so manieth image of a camera.
        keep: topics whose messages go along as they are.
        truth: topics of which each image gets the message nearest to its stamp.
        tolerance_ns: how far from the image's stamp that may be.
    """

    start_ns: int | None = None
    stop_ns: int | None = None
    every: int = 1
    keep: tuple[str, ...] = ()
    truth: tuple[str, ...] = ()
    tolerance_ns: int = 20_000_000


class Source(Protocol):
    """Something that is replayed.

    Attributes:
        cameras: whose images these are.
        start_ns: when it begins.
    """

    cameras: Sequence[CameraTopics]
    start_ns: int

    def steps(self, selection: Selection) -> Iterator[Step]:
        """All steps of a selection, the same ones whenever it is asked."""

    def count(self, selection: Selection) -> int:
        """About how many images there are in a selection."""


class BagSource:
    """The steps of a bag.

    Args:
        reader: opened.
        cameras: whose images are taken.
        lens: of the images that have no CameraInfo.

    Attributes:
        losses: which messages could not be read so far, a line each.
    """

    def __init__(
        self,
        reader: RecordingReader,
        cameras: Sequence[CameraTopics],
        lens: Calibration | None = None,
    ) -> None:
        self.reader = reader
        self.cameras = cameras
        self.start_ns = reader.start_ns
        self.losses: list[str] = []
        self._lens = lens
        self._infos: dict[str, InfoTable] = {}
        # By topic and content of its CameraInfo: one object, and one look at it, for all images.
        self._models: dict[tuple[str, Any], tuple[CameraModel | None, str]] = {}

    def count(self, selection: Selection) -> int:
        reader = self.reader
        images = sum(reader.counts[camera.image] for camera in self.cameras)
        start, stop = selection.start_ns or reader.start_ns, selection.stop_ns or reader.end_ns + 1
        share = (min(stop, reader.end_ns + 1) - max(start, reader.start_ns)) / max(
            1, reader.end_ns + 1 - reader.start_ns
        )
        return round(images * max(0.0, share) / selection.every)

    def steps(self, selection: Selection) -> Iterator[Step]:
        for index, (shot, kept, truth) in enumerate(_Cutter(self, selection)):
            yield Step(index, shot, kept, truth)

    def infos(self, topic: str) -> InfoTable:
        """All CameraInfos of a topic."""
        if topic not in self._infos:
            table, bad = InfoTable(), 0
            for message in self.reader.messages([topic]):
                try:
                    table.add(message.time_ns, self.reader.unpack(message))
                except RecordingError:
                    bad += 1
            if bad:
                self.lose(f'{bad} messages on {topic} cannot be read')
            self._infos[topic] = table
        return self._infos[topic]

    def lose(self, what: str) -> None:
        """Say that something could not be read, once."""
        if what not in self.losses:
            self.losses.append(what)

    def shot(self, camera: CameraTopics, message: Recorded) -> Shot:
        """The shot of an image message."""
        load = partial(_load, message)
        try:
            stamp, frame_id = header_stamp_ns(message.data), header_frame(message.data)
        except RecordingError:  # which loading says again
            return Shot(camera.name, message.topic, message.time_ns, '', message.time_ns, load)
        calibration: Calibration | None = self._lens
        problem = '' if self._lens else 'there is no CameraInfo'
        if camera.info:
            match = self.infos(camera.info).match(stamp, frame_id, message.time_ns)
            calibration, problem = self._model(camera, match)
        return Shot(
            camera.name,
            message.topic,
            stamp,
            frame_id,
            message.time_ns,
            load,
            calibration,
            problem,
        )

    def _model(self, camera: CameraTopics, match: Match) -> tuple[CameraModel | None, str]:
        """The camera of a CameraInfo, or why it is none."""
        if match.info is None:
            return None, match.problem
        key = camera.image, match.content
        if key not in self._models:
            try:
                flat = is_rectified('auto', camera.image, match.info)
                self._models[key] = camera_model(match.info, rectified=flat), ''
            except CameraError as error:
                self._models[key] = None, str(error)
        return self._models[key]


def timed_steps(shots: Iterable[Shot], selection: Selection) -> Iterator[Step]:
    """The steps of images that are alone in their recording, in the order of time."""
    start = selection.start_ns or 0

    def chosen() -> Iterator[Shot]:
        for shot in shots:
            if selection.stop_ns is not None and shot.time_ns >= selection.stop_ns:
                return
            if shot.time_ns >= start:
                yield shot

    for index, shot in enumerate(islice(chosen(), 0, None, selection.every)):
        yield Step(index, shot)


_types = cache(Types)  # that of images is built in, so one store serves all recordings


def _load(message: Recorded) -> NDArray[np.uint8]:
    return read_image(_types().unpack(message.type, message.data))


class _Cutter:
    """Cuts the messages of a bag into the parts of steps."""

    def __init__(self, source: BagSource, selection: Selection) -> None:
        self._source = source
        self._selection = selection
        self._cameras = {camera.image: camera for camera in source.cameras}
        self._waiting: deque[tuple[Shot, tuple[Recorded, ...]]] = deque()
        self._near: dict[str, deque[tuple[int, Recorded]]] = {
            topic: deque() for topic in selection.truth
        }

    def __iter__(self) -> Iterator[tuple[Shot | None, tuple[Recorded, ...], dict[str, Recorded]]]:
        selection = self._selection
        topics = {*self._cameras, *selection.keep, *selection.truth}
        seen: Counter[str] = Counter()
        kept: list[Recorded] = []
        for message in self._source.reader.messages(topics, selection.start_ns, selection.stop_ns):
            yield from self._release(message.time_ns - _LATE_NS)
            if message.topic in selection.keep:
                kept.append(message)
            if message.topic in self._near:
                self._remember(message)
            if message.topic in self._cameras:
                seen[message.topic] += 1
                if (seen[message.topic] - 1) % selection.every == 0:
                    shot = self._source.shot(self._cameras[message.topic], message)
                    self._waiting.append((shot, tuple(kept)))
                    kept = []
            elif sum(len(m.data) for m in kept) > _KEPT_BYTES:
                yield from self._release(None)
                yield None, tuple(kept), {}
                kept = []
        yield from self._release(None)
        if kept:
            yield None, tuple(kept), {}

    def _release(
        self, until_ns: int | None
    ) -> Iterator[tuple[Shot, tuple[Recorded, ...], dict[str, Recorded]]]:
        """What waits and was recorded before a time, or has all that it waits for."""
        while self._waiting:
            shot, kept = self._waiting[0]
            truth = self._truth(shot)
            complete = all(
                topic in truth and header_stamp_ns(truth[topic].data) == shot.stamp
                for topic in self._near
            )
            if not complete and until_ns is not None and shot.time_ns >= until_ns:
                return
            self._waiting.popleft()
            yield shot, kept, truth

    def _remember(self, message: Recorded) -> None:
        near = self._near[message.topic]
        try:
            near.append((header_stamp_ns(message.data), message))
        except RecordingError as error:
            self._source.lose(f'{message.topic}: {error}')
            return
        oldest = self._waiting[0][0].time_ns if self._waiting else message.time_ns
        while near[0][1].time_ns < oldest - _LATE_NS:
            near.popleft()

    def _truth(self, shot: Shot) -> dict[str, Recorded]:
        found = {}
        for topic, near in self._near.items():
            stamp, message = min(
                near, key=lambda entry: abs(entry[0] - shot.stamp), default=(0, None)
            )
            if message is not None and abs(stamp - shot.stamp) <= self._selection.tolerance_ns:
                found[topic] = message
        return found


def bad_image(error: Exception) -> str:
    """The kind of a bad image, to count it under."""
    return error.kind if isinstance(error, ImageError) else 'unreadable'
