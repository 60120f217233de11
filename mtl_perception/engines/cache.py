"""Built engines on disk, for any number of processes: where they live, checked and replaced.

Neither a power cut nor a full disk nor a flipped bit can leave an engine that loads.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import PerceptionError
from ..files import write_beside
from .entries import (
    DamageError,
    Entry,
    Key,
    content_of,
    new_record,
    read_content,
    read_entry,
    read_record,
)
from .locks import locked, locked_if_free

# Temporary files that no lock belongs to are leftovers once nobody has written them for this long.
_LEFTOVER_S = 3600.0
_DIGEST = re.compile(r'\.?([0-9a-f]{32})\.')


class CacheError(PerceptionError):
    """A file of the cache cannot be read or written; the message names it and says why."""


def default_folder() -> Path:
    """The user's folder: ``$MTL_PERCEPTION_CACHE``, else the XDG cache folder; ``/engines`` below.

    A relative ``$XDG_CACHE_HOME`` counts as not set, as its specification asks.
    """
    named = os.environ.get('MTL_PERCEPTION_CACHE', '')
    if named:
        return Path(named).expanduser().absolute() / 'engines'
    xdg = Path(os.environ.get('XDG_CACHE_HOME', ''))
    if xdg.is_absolute():
        return xdg / 'mtl_perception' / 'engines'
    # A service without a home: nothing can be kept, which the first write says.
    home = Path(os.path.expanduser('~'))
    home = home if home.is_absolute() else Path('/nonexistent')
    return home / '.cache' / 'mtl_perception' / 'engines'


@dataclass(frozen=True)
class Cached:
    """What ``EngineCache.get_or_build`` gives: the content, whether it was built just now, and
    why the cache could not be used (empty if it could)."""

    content: bytes
    built: bool
    problem: str


class EngineCache:
    """Engines in a folder, for any number of processes.

    Args:
        folder: left out, ``default_folder()``. It is made when something is stored.

    Attributes:
        folder: see above.
        last_reason: why the last ``load`` or ``get_or_build`` did not take an entry that was
            there; empty when there was none or it was good.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder)
        self.last_reason = ''
        self._refused: dict[str, str] = {}  # digest -> sha256 of a content that was discarded

    def load(self, key: Key) -> bytes | None:
        """The content of an entry; None when there is none or it is damaged.

        A damaged entry is removed and ``last_reason`` says what was wrong with it.
        """
        content, self.last_reason = self._look(key)
        if self.last_reason:
            with contextlib.suppress(OSError), locked_if_free(self._lock(key.digest())) as free:
                if free:
                    # Once more: it may have been in the middle of being replaced.
                    content, self.last_reason = self._look(key)
                    if self.last_reason:
                        self._remove(key.digest())
        return content

    def store(self, key: Key, content: bytes, notes: Mapping[str, Any] | None = None) -> Path:
        """Write an entry, or replace it; the path of its content.

        Raises:
            CacheError: it cannot be written; nothing half written stays.
        """
        with self._locked(key.digest()):
            return self._store(key, content, notes or {})

    def discard(self, key: Key) -> None:
        """Remove an entry whose content turned out to be of no use.

        Where it cannot be removed (read-only folder), this object does not give it any more.
        """
        digest = key.digest()
        with contextlib.suppress(DamageError):
            self._refused[digest] = str(read_record(self._record(digest))['sha256'])
        with contextlib.suppress(OSError), locked_if_free(self._lock(digest)) as free:
            if free:
                self._remove(digest)

    def get_or_build(
        self,
        key: Key,
        build: Callable[[], tuple[bytes, Mapping[str, Any]]],
        *,
        progress: Callable[[str, float], None] | None = None,
    ) -> Cached:
        """The content of an entry, built and stored where there is none.

        Of several processes that ask at once one builds, the others wait for it. A cache that
        cannot be read, locked or written is not a failure: the content is built.

        Args:
            build: gives content and notes; what it raises goes through.
            progress: called while another process builds, see ``engine.Progress``.
        """
        content = self.load(key)
        if content is not None:
            return Cached(content, built=False, problem='')
        problem = ''
        with contextlib.ExitStack() as lock:
            try:
                lock.enter_context(self._locked(key.digest(), progress))
            except CacheError as error:
                problem = str(error)
            else:
                content, reason = self._look(key)
                if content is not None:
                    return Cached(content, built=False, problem='')
                self.last_reason = reason or self.last_reason
            content, notes = build()
            try:
                self._store(key, content, notes)
            except CacheError as error:
                problem = problem or str(error)
        return Cached(content, built=True, problem=problem)

    def entries(self) -> list[Entry]:
        """All entries, damaged ones too, in the order of their names."""
        return [entry for digest in self._digests() if (entry := read_entry(self._record(digest)))]

    def prune(
        self, *, older_than_days: float | None = None, everything: bool = False
    ) -> list[Entry]:
        """Remove damaged entries and what killed builds left, and old entries or all.

        What another process is building stays.

        Args:
            older_than_days: remove also what was built longer ago.
            everything: remove all entries and timing files.

        Returns:
            The entries that were removed.

        Raises:
            CacheError: something cannot be removed.
        """
        removed = []
        try:
            for digest in self._digests():
                with locked_if_free(self._lock(digest)) as free:
                    entry = read_entry(self._record(digest))
                    if free and (not entry or everything or entry.to_prune(older_than_days)):
                        self._remove(digest)
                        self._lock(digest).unlink()
                        removed += [entry] if entry else []
            if everything:
                for path in self._files('timing_'):
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise CacheError(f'{self.folder}: cannot be pruned: {error.strerror}') from error
        self._remove_leftovers()
        return removed

    def timing_file(self, name: str) -> Path:
        """Where the timing cache of that name is kept, to be written beside; any name will do.

        The folder is there while ``get_or_build`` builds, if it can be made at all.
        """
        readable = re.sub('[^A-Za-z0-9]+', '_', name)[:64].strip('_')
        return self.folder / f'timing_{readable}_{hashlib.sha256(name.encode()).hexdigest()[:8]}'

    # --- entries; what writes is called with the lock of the entry held ------------------------

    def _record(self, digest: str) -> Path:
        return self.folder / f'{digest}.json'

    def _lock(self, digest: str) -> Path:
        return self.folder / f'{digest}.lock'

    @contextlib.contextmanager
    def _locked(
        self, digest: str, progress: Callable[[str, float], None] | None = None
    ) -> Iterator[None]:
        """Hold the lock of an entry.

        Raises:
            CacheError: the folder cannot be written, or its file system has no locks.
        """

        def waiting() -> None:
            if progress is not None:
                progress('waiting for another process that builds it', math.nan)

        with contextlib.ExitStack() as lock:
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock.enter_context(locked(self._lock(digest), waiting))
            except OSError as error:
                raise _not_written(self.folder, error) from error
            yield

    def _look(self, key: Key) -> tuple[bytes | None, str]:
        """The content, or why an entry that is there does not count; (None, '') without one."""
        path = self._record(key.digest())
        if not os.path.lexists(path):
            return None, ''
        try:
            record = read_record(path)
            if record['key'] != key.as_mapping():
                raise DamageError(f'{path}: is of another engine')
            content = read_content(content_of(path), record)
        except DamageError as damage:
            return None, str(damage)
        if self._refused.get(key.digest()) == record['sha256']:
            return None, ''
        return content, ''

    def _store(self, key: Key, content: bytes, notes: Mapping[str, Any]) -> Path:
        path = self._record(key.digest())
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # In this order nothing that is on the disk at any moment is a wrong entry.
            self._remove(key.digest())
        except OSError as error:
            raise _not_written(self.folder, error) from error
        self._remove_leftovers()
        _write(content_of(path), content)
        try:
            _write(path, new_record(content, key, notes))
        except BaseException:
            _unlink(content_of(path))
            raise
        self._refused.pop(key.digest(), None)
        return content_of(path)

    def _remove(self, digest: str) -> None:
        """Remove an entry, the JSON file first, and what a killed build of it left."""
        self._record(digest).unlink(missing_ok=True)
        content_of(self._record(digest)).unlink(missing_ok=True)
        for path in self._files(f'.{digest}.'):
            _unlink(path)

    def _remove_leftovers(self) -> None:
        """Remove temporary files that nobody has written for a long time."""
        for path in self._files('.'):
            with contextlib.suppress(OSError):
                if '.tmp' in path.suffixes and time.time() - path.stat().st_mtime > _LEFTOVER_S:
                    path.unlink()

    def _files(self, prefix: str = '') -> list[Path]:
        try:
            return sorted(path for path in self.folder.iterdir() if path.name.startswith(prefix))
        except OSError:
            return []

    def _digests(self) -> list[str]:
        """Of all files, locks and temporary ones too."""
        found = (_DIGEST.match(path.name) for path in self._files())
        return sorted({match[1] for match in found if match})


def _write(path: Path, content: bytes) -> None:
    try:
        write_beside(path, content)
    except OSError as error:
        raise _not_written(path, error) from error


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _not_written(path: Path, error: OSError) -> CacheError:
    return CacheError(f'{path}: cannot be written: {error.strerror}')
