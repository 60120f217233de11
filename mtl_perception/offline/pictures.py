"""Folders of pictures and videos as sources of a replay: images without a recording around them."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..camera import CameraModel
from ..files import natural
from ..images import decode_compressed
from .cameras import CameraTopics
from .cdr import RecordingError
from .sample import FRAME_ID
from .sources import Selection, Shot, Step, timed_steps

PICTURE_SUFFIXES = ('.jpg', '.jpeg', '.png')
# Of pictures that nobody gives a rate for.
PICTURE_RATE = 10.0

_WHOLE = 0.98  # of the images that a video speaks of
_UNCALIBRATED = 'there is no CameraInfo; give --focal or --fov'
_EXIF_WITHIN, _EXIF_MARKS, _ORIENTATION = 1 << 12, (b'Exif\0\0', b'eXIf'), 0x0112
# Where a PNG says how it stores pixels: 16 bits of gray are depth, by everybody's custom.
_PNG_DEPTH, _PNG_FORMAT = b'\x10\x00', slice(24, 26)


@dataclass(frozen=True)
class Lens:
    """A camera without distortion that looks through the middle of its images.

    Attributes:
        focal: focal length in pixels of the image; 0 where ``fov`` says it.
        fov: horizontal field of view, degrees.
    """

    focal: float = 0.0
    fov: float = 0.0

    def for_image(self, width: int, height: int) -> CameraModel:
        """The camera of an image of that size."""
        focal = self.focal or width / 2 / math.tan(math.radians(self.fov) / 2)
        return CameraModel(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)


def picture_files(folder: Path) -> tuple[list[Path], int]:
    """The pictures in a folder in natural order, and how many others are left out as depth.

    So 10 comes after 9. Hidden files are not looked at.
    """
    files = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith('.')
    ]
    pictures = [path for path in files if not _is_depth(path)]
    return sorted(pictures, key=natural), len(files) - len(pictures)


def _is_depth(path: Path) -> bool:
    if path.suffix.lower() != '.png':
        return False
    with path.open('rb') as file:
        return file.read(_PNG_FORMAT.stop)[_PNG_FORMAT] == _PNG_DEPTH


def is_turned(path: Path) -> bool:
    """Whether a JPEG or PNG says in its EXIF data that it is to be shown turned or mirrored."""
    with suppress(OSError), path.open('rb') as file:
        return _orientation(file.read(_EXIF_WITHIN)) > 1
    return False


def _orientation(head: bytes) -> int:
    """What EXIF data say about it, from 1 (as stored) to 8; 0 where there are none."""
    mark = next((mark for mark in _EXIF_MARKS if mark in head), None)
    if mark is None:
        return 0
    place = head.find(mark) + len(mark)
    order = '<' if head[place : place + 2] == b'II' else '>'
    with suppress(struct.error):  # of what is cut off
        (first,) = struct.unpack_from(f'{order}I', head, place + 4)
        (count,) = struct.unpack_from(f'{order}H', head, place + first)
        for index in range(count):
            entry = place + first + 2 + 12 * index
            tag, _, _, value = struct.unpack_from(f'{order}HHIH', head, entry)
            if tag == _ORIENTATION:
                return int(value)
    return 0


class PictureSource:
    """Pictures one after the other, the first at time 0.

    Args:
        name: of all of them.
        files: in their order.
        rate: pictures in a second.
        lens: that they were taken with, if it is known.
    """

    start_ns = 0

    def __init__(
        self, name: str, files: Sequence[Path], rate: float = PICTURE_RATE, lens: Lens | None = None
    ) -> None:
        self.cameras: Sequence[CameraTopics] = [CameraTopics(name, '', '')]
        self._files = files
        self._rate = rate
        self._lens = lens

    def count(self, selection: Selection) -> int:
        return sum(1 for _ in timed_steps(self._shots(lambda _: b''), selection))

    def steps(self, selection: Selection) -> Iterator[Step]:
        return timed_steps(self._shots(_read), selection)

    def _shots(self, read: Callable[[Path], bytes | str]) -> Iterator[Shot]:
        for index, path in enumerate(self._files):
            time_ns = round(index / self._rate * 1e9)
            yield _shot(str(path), time_ns, partial(_decode, read(path)), self._lens)


def _read(path: Path) -> bytes | str:
    """The content of a file, or why it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        return f'{path}: {error.strerror}'


def _decode(content: bytes | str) -> NDArray[np.uint8]:
    if isinstance(content, str):
        raise RecordingError(content)
    return decode_compressed(content)


class VideoSource:
    """The images of a video, in its own time or at another rate; use with ``with``.

    Args:
        path: of a file that OpenCV can decode.
        rate: images in a second; None: the video's own times.
        lens: that it was taken with, if it is known.

    Attributes:
        losses: what was found missing so far, a line each.
        turned: degrees by which it asks to be shown turned.

    Raises:
        RecordingError: it is not such a file.
    """

    start_ns = 0

    def __init__(self, path: Path, rate: float | None = None, lens: Lens | None = None) -> None:
        self.cameras: Sequence[CameraTopics] = [CameraTopics(str(path), '', '')]
        self.losses: list[str] = []
        self._path = path
        self._rate = rate
        self._lens = lens
        # FFmpeg tells the terminal what it stumbles over; here that is a sentence of the command.
        os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
        video = self._open()
        self._frames = max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
        self._own_rate = video.get(cv2.CAP_PROP_FPS)
        if not self._own_rate > 0:
            self._own_rate = PICTURE_RATE
        self.turned = round(video.get(cv2.CAP_PROP_ORIENTATION_META)) % 360
        video.release()

    def _open(self) -> cv2.VideoCapture:
        video = cv2.VideoCapture(str(self._path))
        if not video.isOpened():
            raise RecordingError(
                f'{self._path} is not a recording that can be read, expected a rosbag2 folder, '
                f'.mcap, .db3, .bag, pictures (JPEG, PNG), or a video that OpenCV reads'
            )
        # As the calibration knows them.
        video.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        return video

    def count(self, selection: Selection) -> int:
        rate = self._rate or self._own_rate
        start = (selection.start_ns or 0) * 1e-9 * rate
        stop = math.inf if selection.stop_ns is None else selection.stop_ns * 1e-9 * rate
        return round(max(0.0, min(stop, self._frames) - start) / selection.every)

    def steps(self, selection: Selection) -> Iterator[Step]:
        video = self._open()
        try:
            yield from timed_steps(self._shots(video), selection)
        finally:
            video.release()

    def _shots(self, video: cv2.VideoCapture) -> Iterator[Shot]:
        index, before = 0, -1
        while True:
            found, image = video.read()
            if not found:
                self._end(index)
                return
            time_ns = round(video.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
            if self._rate or time_ns <= before:  # not every container has times
                time_ns = max(before + 1, round(index / (self._rate or self._own_rate) * 1e9))
            yield _shot(str(self._path), time_ns, partial(_rgb, image), self._lens)
            index, before = index + 1, time_ns

    def _end(self, count: int) -> None:
        """Say it where far fewer images came than the file speaks of; some speak of a few more."""
        loss = f'{self._path} ends after {count} of its {self._frames} images'
        if count < _WHOLE * self._frames and loss not in self.losses:
            self.losses.append(loss)


def _rgb(image: Any) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _shot(
    topic: str, time_ns: int, load: Callable[[], NDArray[np.uint8]], lens: Lens | None
) -> Shot:
    problem = '' if lens else _UNCALIBRATED
    return Shot('', topic, time_ns, FRAME_ID, time_ns, load, lens, problem)
