"""Locks between processes: files. A lock ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# How often a process that waits for another one looks again.
_POLL_S = 0.1


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Wait for a lock and hold it.

    Args:
        waiting: called again and again until it is free; what it raises ends the waiting.

    Raises:
        OSError: the folder cannot be written, or its file system has no locks.
    """
    while (handle := try_lock(path)) is None:
        waiting()
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold a lock and give True; False where another one has it.

    Raises:
        OSError: the folder cannot be written, or its file system has no locks.
    """
    handle = try_lock(path)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def try_lock(path: Path) -> int | None:
    """An open file that holds the lock; None if another one has it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink:
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # somebody removed the file between open and lock
