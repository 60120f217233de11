"""Recordings that are damaged, cut off, or without metadata: as much of them as can be read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import yaml

from ..files import natural
from .cdr import RecordingError
from .mcap import zstd_codec
from .salvage_mcap import SalvagedMcap
from .salvage_ros1 import SalvagedRos1
from .salvage_sqlite import SalvagedSqlite
from .storage import Storage, StoredTopic

_ROSBAG2: dict[str, Callable[[Path], Storage]] = {'.mcap': SalvagedMcap, '.db3': SalvagedSqlite}
_SALVAGED: dict[str, Callable[[Path], Storage]] = {**_ROSBAG2, '.bag': SalvagedRos1}
_ZSTD = b'\x28\xb5\x2f\xfd'  # CDR begins with a zero


class Salvaged:
    """What can be read of a .mcap, .db3 or .bag file, or of a rosbag2 folder; see ``Storage``.

    Args:
        path: of the file or folder.

    Raises:
        RecordingError: nothing can be read.
    """

    def __init__(self, path: Path) -> None:
        self.notes: list[str] = []
        self.losses: list[str] = []
        self._files: list[Storage] = []
        files = self._listed(path) if path.is_dir() else [path]
        refusals: list[str] = []
        for file in files:
            try:
                self._files.append(_SALVAGED[file.suffix](file))
            except OSError as error:
                refusals.append(f'{file}: {error.strerror}')
            except RecordingError as error:
                refusals.append(str(error))
        if not self._files:
            raise RecordingError(refusals[0] if refusals else f'{path} has no .mcap or .db3 files')
        self._own_losses = refusals
        self.notes += [line for file in self._files for line in file.notes]
        self.topics: Sequence[StoredTopic] = self._topics()
        full = [file for file in self._files if any(topic.count for topic in file.topics)]
        self.start_ns = min((file.start_ns for file in full), default=0)
        self.end_ns = max((file.end_ns for file in full), default=0)
        self._gather()

    def close(self) -> None:
        for file in self._files:
            file.close()

    def messages(
        self, names: Collection[str], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[tuple[StoredTopic, int, bytes]]:
        for file in self._files:
            for topic, time_ns, data in file.messages(names, start_ns, stop_ns):
                if data.startswith(_ZSTD):
                    data = zstd_codec()[1](data)
                yield topic, time_ns, data
        self._gather()

    def _gather(self) -> None:
        """Take over what the files say."""
        self.losses[:] = [
            *self._own_losses,
            *(line for file in self._files for line in file.losses),
        ]

    def _listed(self, folder: Path) -> list[Path]:
        """The files of a folder, as its metadata or else their names put them in order."""
        with suppress(OSError, yaml.YAMLError, KeyError, TypeError):
            metadata: Any = yaml.safe_load((folder / 'metadata.yaml').read_text())
            names = metadata['rosbag2_bagfile_information']['relative_file_paths']
            paths = [folder / PurePath(name).name for name in names]
            if all(path.suffix in _ROSBAG2 for path in paths):
                return paths
        paths = [path for path in folder.iterdir() if path.suffix in _ROSBAG2]
        self.notes.append(
            f'{folder} has no metadata.yaml that can be read; its {len(paths)} files are taken in '
            'the order of their names (ros2 bag reindex)'
        )
        return sorted(paths, key=natural)

    def _topics(self) -> list[StoredTopic]:
        found: dict[tuple[str, str], StoredTopic] = {}
        for topic in (topic for file in self._files for topic in file.topics):
            known = found.get((topic.name, topic.type))
            count = topic.count + (known.count if known else 0)
            found[topic.name, topic.type] = replace(known or topic, count=count)
        return list(found.values())
