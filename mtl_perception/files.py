"""Files: there whole or not at all, written beside their place and renamed; in natural order."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the place of ``path`` when the block ends well.

    It keeps the suffix of ``path``, by which many writers choose a format. The file is on the disk
    before it is renamed, so that not even a power cut leaves half of one; where the block fails,
    what it wrote is removed and ``path`` is as it was.

    Raises:
        OSError: the file cannot be written.
    """
    partial = path.with_name(f'.{path.stem}.{secrets.token_hex(8)}.tmp{path.suffix}')
    try:
        yield partial
        _flush(partial)
        os.replace(partial, path)
        _flush(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_beside(path: Path, content: bytes) -> None:
    """Write a file as ``beside`` does.

    Raises:
        OSError: it cannot be written.
    """
    with beside(path) as partial:
        partial.write_bytes(content)


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def natural(path: Path) -> list[tuple[int, str]]:
    """What to sort files by so that 10 comes after 9."""
    parts = re.split(r'(\d+)', path.name)
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in parts]
