"""What a replay is of: a path is looked at, and opened as a bag, as pictures, or as a video."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from ..files import natural
from .cameras import CameraTopics, find_cameras, look
from .cdr import RecordingError
from .layout import kept_channels
from .mcap import Channel
from .pictures import (
    PICTURE_RATE,
    PICTURE_SUFFIXES,
    Lens,
    PictureSource,
    VideoSource,
    is_turned,
    picture_files,
)
from .recordings import BAG_SUFFIXES, RecordingReader, bag_files
from .sources import BagSource, Source

# A calibration is of the pixels as they are, and a robot's camera that hangs is no reason to turn.
_AS_STORED = 'they are taken as they are stored'
_BLOCK = 1 << 16
_READ = 1 << 26  # at most about so many bytes of an input are read to know it again


@dataclass(frozen=True)
class Reading:
    """How an input is read.

    Attributes:
        cameras: ``IMAGE`` or ``IMAGE:INFO`` of each camera of a bag; empty for the best one.
        keep: topics of a bag that are taken along.
        rate: pictures in a second, or images of a video; None for its own times.
        lens: of images that have no CameraInfo.
    """

    cameras: Sequence[str] = ()
    keep: Sequence[str] = ()
    rate: float | None = None
    lens: Lens | None = None


@dataclass(frozen=True)
class Input:
    """An opened input.

    Attributes:
        source: of its images.
        kept: channels of what is taken along.
        taken: what is replayed, and what else was there, a line each.
        files: that it is in, in their order.
        losses: what was found missing of it so far, a line each.
    """

    source: Source
    kept: list[Channel] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    files: Sequence[Path] = ()
    losses: Callable[[], list[str]] = list


@contextmanager
def open_input(path: Path, reading: Reading) -> Iterator[Input]:
    """Open an input.

    Raises:
        RecordingError: it cannot be read, or not so.
    """
    if not path.exists():
        raise RecordingError(f'{path}: no such file or folder')
    pictures, depths = ([path], 0) if path.suffix.lower() in PICTURE_SUFFIXES else ([], 0)
    if path.is_dir() and not (path / 'metadata.yaml').exists() and not bag_files(path):
        pictures, depths = picture_files(path)
    bag = not pictures and (path.is_dir() or path.suffix in BAG_SUFFIXES)
    for option, given, fits in (
        ('--rate', reading.rate, not bag),
        ('--camera', reading.cameras, bag),
        ('--keep', reading.keep, bag),
    ):
        if given and not fits:
            kind = 'a bag' if bag else 'not a bag'
            raise RecordingError(f'{path} is {kind}, which {option} is not for')
    if bag:
        with RecordingReader(path, salvage=True) as reader:
            # Whether split or compressed; not metadata.yaml, which may be made anew.
            stored = [*path.glob('*.mcap*'), *path.glob('*.db3*')] if path.is_dir() else [path]
            files = sorted(stored, key=natural)
            yield replace(_bag(reader, reading), files=files)
    elif pictures:
        rate = reading.rate or PICTURE_RATE
        taken = [f'{len(pictures)} pictures of {path}, {rate:g} a second']
        if depths:
            taken.append(f'{depths} pictures of 16-bit gray, as depth is stored, are left out')
        if turned := sum(map(is_turned, pictures)):
            taken.append(f'{turned} of them ask in EXIF data to be shown turned: {_AS_STORED}')
        source = PictureSource(str(path), pictures, rate, reading.lens)
        yield Input(source, taken=taken, files=pictures)
    else:
        video = VideoSource(path, reading.rate, reading.lens)
        taken = [f'the video {path}']
        if video.turned:
            taken.append(f'it asks to be shown turned by {video.turned} degrees: {_AS_STORED}')
        yield Input(video, taken=taken, files=[path], losses=lambda: video.losses)


def name_of(path: Path) -> str:
    """What an input is called: a file without its ending, a folder with all dots of a date."""
    path = path.resolve()
    return path.name if path.is_dir() else path.stem


def fingerprint(files: Sequence[Path]) -> str:
    """Tells the content of files, wherever they are and whatever they are called.

    By their sizes, and by all that is in them, or of large ones by samples, since nobody wants to
    wait for a hundred gigabytes.

    Raises:
        OSError: they cannot be read.
    """
    sizes = [file.stat().st_size for file in files]
    found = sha256(repr(sizes).encode())
    stride = _BLOCK * (1 + sum(sizes) // _READ)
    for file, size in zip(files, sizes, strict=True):
        with file.open('rb') as opened:
            for place in [*range(0, size, stride), max(0, size - _BLOCK)]:
                opened.seek(place)
                found.update(opened.read(_BLOCK))
    return found.hexdigest()


def _bag(reader: RecordingReader, reading: Reading) -> Input:
    try:
        cameras = find_cameras(reader.path, reader.topics, look(reader), reading.cameras)
    except RecordingError as error:
        raise RecordingError('; '.join([str(error), *reader.losses])) from error
    if reading.lens and all(camera.info for camera in cameras):
        raise RecordingError(
            f'{cameras[0].info} says the focal length of {cameras[0].image}; --focal and --fov are '
            'for images without a CameraInfo'
        )
    source = BagSource(reader, cameras, reading.lens)
    kept, taken = kept_channels(reader, reading.keep), [*_taken(cameras), *reader.notes]
    return Input(source, kept, taken, losses=lambda: [*reader.losses, *source.losses])


def _taken(cameras: Sequence[CameraTopics]) -> list[str]:
    lines = [f'{c.image} ({c.content}) with {c.info or "no CameraInfo"}' for c in cameras]
    others = sorted({other for camera in cameras for other in camera.others})
    return lines + ([f'also there: {", ".join(others)} (--camera)'] if others else [])
