"""Processes behind the endpoints of a graph, as far as /proc shows them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_FAST_DDS = re.compile(rb'/libfast(dds|rtps)')
_HOST, _PROCESS = slice(2, 4), slice(4, 6)  # in the GID of an endpoint of Fast DDS


@dataclass(frozen=True)
class Process:
    """A running process.

    Attributes:
        number: of the process.
        environment: that it was started with.
        folder: that it works in.
    """

    number: int
    environment: Mapping[str, str]
    folder: Path


def process_of(gid: Sequence[int], own: Sequence[int]) -> Process | None:
    """The process of an endpoint; None where it is of another machine, container or user.

    Fast DDS writes a number of the host and the lower 16 bits of that of the process into the GID.

    Args:
        gid: of the endpoint.
        own: of an endpoint of this process.
    """
    if list(gid[_HOST]) != list(own[_HOST]):
        return None
    lower = int.from_bytes(bytes(gid[_PROCESS]), 'little')
    for folder in Path('/proc').iterdir():
        if folder.name.isdigit() and int(folder.name) & 0xFFFF == lower:
            try:
                if _FAST_DDS.search((folder / 'maps').read_bytes()):
                    return _read(folder)
            except OSError:  # of another user, or it has just ended
                continue
    return None


def _read(folder: Path) -> Process:
    entries = (folder / 'environ').read_bytes().split(b'\0')
    pairs = (os.fsdecode(entry).partition('=') for entry in entries if entry)
    environment = {name: value for name, _, value in pairs}
    return Process(int(folder.name), environment, (folder / 'cwd').resolve())
