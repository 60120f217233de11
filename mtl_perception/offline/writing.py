"""The bag that a replay writes: beside its place until it is whole, and able to go on after a kill.

While it grows it is ``.NAME.partial`` beside OUT, with ``progress.json``: how many steps are in the
first so many bytes of the file. What comes after those bytes is written again.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import yaml

from ..files import write_beside
from .cdr import RecordingError
from .mcap import CHUNK, MAGIC, MESSAGE_INDEX, Channel, McapFile, read_metadata

LIBRARY = b'mtl_perception '
# At most so many seconds of work are done again after a kill.
_CHECKPOINT_S = 2.0
_METADATA = 'mtl_perception'


@dataclass
class Tally:
    """What came of the images so far.

    Attributes:
        steps: done.
        frames: images that gave outputs.
        bad: kind of bad image -> how many.
        first: kind of bad image -> what was wrong with the first one.
        uncalibrated: reason -> how many of ``frames``.
    """

    steps: int = 0
    frames: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    uncalibrated: dict[str, int] = field(default_factory=dict)


class OutputBag:
    """A bag in the making; it takes its place when the ``with`` block ends after ``finish``.

    A block that fails leaves the part, which ``resume`` goes on with.

    Args:
        path: a folder, or a file that ends with .mcap; an earlier replay there is replaced.
        channels: of all messages.
        job: what makes the bag what it is; a part of another job is not gone on with.
        resume: whether to go on with a part.

    Attributes:
        tally: of what is in the bag; restored from the part.

    Raises:
        RecordingError: something else is at the path, or there is no such part.
    """

    def __init__(
        self, path: Path, channels: Sequence[Channel], job: Mapping[str, Any], *, resume: bool
    ) -> None:
        self.path = path.absolute()
        self._channels = channels
        self._job = dict(job)
        self._resume = resume
        self._lone = path.suffix == '.mcap'
        self._partial = partial_of(path)
        self._folder = self._partial / (path.stem if self._lone else path.name)
        self.file_path = self._folder / f'{self._folder.name}.mcap'
        self._finished = False
        self.tally = Tally()
        check_replaceable(path)

    def __enter__(self) -> OutputBag:
        part = read_part(self.path) if self._resume else None
        if part is None:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._folder.mkdir(parents=True)
            self._file: BinaryIO = self.file_path.open('wb')
            self._mcap = McapFile(self._file, self._channels)
            self._mcap.begin()
            self._size = self._file.tell()
        else:
            check_same_job(self.path, part['job'], self._job)
            self.tally, self._size = Tally(**part['tally']), int(part['size'])
            self._file = self.file_path.open('r+b')
            self._file.truncate(self._size)
            self._mcap = McapFile(self._file, self._channels)
            _note_chunks(self._file, self._mcap)
        self.checkpoint()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # of a full disk, again; what is whole was flushed before
            self._file.close()
        if kind is None and self._finished:
            self._replace()
        elif not self.tally.steps:
            shutil.rmtree(self._partial, ignore_errors=True)

    def append(self, records: bytes) -> None:
        """Write the chunks of a step, which the tally counts already."""
        with self._writing():
            self._mcap.append(records)

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self._checked >= _CHECKPOINT_S

    def checkpoint(self) -> None:
        """Make what is written so far safe: a later run goes on from here."""
        with self._writing():
            self._file.flush()
            os.fsync(self._file.fileno())
            state = {'job': self._job, 'size': self._file.tell(), 'tally': asdict(self.tally)}
            write_beside(self._partial / 'progress.json', json.dumps(state, indent=1).encode())
        self._checked = time.monotonic()

    def finish(self, provenance: Mapping[str, str]) -> None:
        """End the file.

        Args:
            provenance: what made it, for who finds it; nothing that differs from run to run.
        """
        about = self._about()
        text = yaml.safe_dump(about['rosbag2_bagfile_information'], sort_keys=True)
        own = {**provenance, 'job': _digest(self._job), 'tally': json.dumps(asdict(self.tally))}
        with self._writing():
            self._mcap.finish({'rosbag2': {'serialized_metadata': text}, _METADATA: own})
            self._file.flush()
            os.fsync(self._file.fileno())
            if not self._lone:
                content = yaml.safe_dump(about, sort_keys=True).encode()
                write_beside(self._folder / 'metadata.yaml', content)
        self._finished = True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Name the bag in what the disk says, and what to do."""
        try:
            yield
        except OSError as error:
            kept = '; what is written stays, --resume goes on' if self.tally.steps else ''
            raise OSError(error.errno, f'{error.strerror}{kept}', str(self.path)) from error

    def _about(self) -> dict[str, Any]:
        """metadata.yaml, version 8; see ``recordings``."""
        counts = self._mcap.counts
        total = sum(counts.values())
        start = self._mcap.start_ns if total else 0
        span = {
            'duration': {'nanoseconds': self._mcap.end_ns - start if total else 0},
            'message_count': total,
            'starting_time': {'nanoseconds_since_epoch': start},
        }
        name = self.file_path.name
        topics = [
            {
                'message_count': counts[number],
                'topic_metadata': {
                    'name': channel.topic,
                    'type': channel.type,
                    'serialization_format': 'cdr',
                    'type_description_hash': channel.hash,
                    **channel.metadata,
                },
            }
            for number, channel in enumerate(self._channels, 1)
        ]
        return {
            'rosbag2_bagfile_information': {
                **span,
                'version': 8,
                'storage_identifier': 'mcap',
                'compression_format': '',
                'compression_mode': '',
                'custom_data': None,
                'ros_distro': 'rosbags',
                'relative_file_paths': [name],
                'files': [{'path': name, **span}],
                'topics_with_message_count': topics,
            }
        }

    def _replace(self) -> None:
        old = self._partial / 'replaced'
        if self.path.exists():
            self.path.rename(old)
        (self.file_path if self._lone else self._folder).rename(self.path)
        shutil.rmtree(self._partial, ignore_errors=True)


def partial_of(path: Path) -> Path:
    """Where the bag for a path grows."""
    path = path.absolute()
    return path.with_name(f'.{path.name}.partial')


def read_part(path: Path) -> dict[str, Any]:
    """``progress.json`` of the part of a bag.

    Raises:
        RecordingError: there is none.
    """
    progress = partial_of(path) / 'progress.json'
    try:
        part: dict[str, Any] = json.loads(progress.read_bytes())
    except FileNotFoundError:
        raise RecordingError(
            f'there is no part of {path} to resume; start without --resume'
        ) from None
    except ValueError:
        raise RecordingError(f'{progress} is damaged; start without --resume') from None
    return part


def check_same_job(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise RecordingError where a part was made by another job, naming what differs."""
    differs = [key for key in new if old.get(key) != new[key]]
    if differs:
        key = differs[0]
        values = '' if key == 'input' else f' ({old.get(key)}, not {new[key]})'
        raise RecordingError(
            f'the part of {path} was made with another {key}{values}; start without --resume'
        )


def finished(path: Path, job: Mapping[str, Any]) -> Tally | None:
    """What came of the images of a bag that the same job has finished; None if there is none."""
    if partial_of(path).exists() or not is_replay(path):
        return None
    file = path / f'{path.name}.mcap' if path.is_dir() else path
    found = read_metadata(file, _METADATA)
    return Tally(**json.loads(found['tally'])) if found.get('job') == _digest(job) else None


def _digest(job: Mapping[str, Any]) -> str:
    return sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()


def check_replaceable(path: Path) -> None:
    """Raise RecordingError where something is at a path that no replay has made."""
    if path.exists() and not is_replay(path):
        raise RecordingError(f'{path} exists and is not a replay; not overwriting it')


def is_replay(path: Path) -> bool:
    """Whether a bag was made by ``OutputBag``."""
    file = path / f'{path.name}.mcap' if path.is_dir() else path
    try:
        with file.open('rb') as opened:
            return LIBRARY in opened.read(64)
    except OSError:
        return False


def _note_chunks(file: BinaryIO, mcap: McapFile) -> None:
    """Take the chunks of a part into the summary; the file is at its end then."""
    file.seek(len(MAGIC))
    chunk = b''
    start = 0
    while head := file.read(9):
        kind, length = struct.unpack('<BQ', head)
        if kind == CHUNK:
            if chunk:
                mcap.note(start, chunk)
            start = file.tell() - 9
            chunk = head + file.read(length)
        elif kind == MESSAGE_INDEX:
            chunk += head + file.read(length)
        else:
            file.seek(length, os.SEEK_CUR)
    if chunk:
        mcap.note(start, chunk)
