"""Built engines on disk: where they live, how they are keyed, checked and replaced.

An entry is two files, ``<digest>.plan`` with the content and ``<digest>.json`` with its hash and
what it is. It counts only when both are there and agree, so that neither a power cut nor a full
disk nor a flipped bit can leave an engine that loads.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from .. import PerceptionError, __version__
from ..files import write_beside

SCHEMA = 1
KINDS = ('plan', 'choice')
# How often a process that waits for another one's build looks again.
_POLL_S = 0.1
# Temporary files that belong to no lock are leftovers when nobody wrote them for so long.
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
class Key:
    """All that decides what an engine is; two engines with the same key are interchangeable.

    Attributes:
        kind: ``plan`` (an engine's bytes) or ``choice`` (a decision, JSON bytes).
        model_sha256: of the ONNX file that it is built from.
        backend: one of ``engine.BACKENDS``; for a choice: of all that were compared.
        version: of the engine's library.
        device: GPU name and compute capability, or the CPU's model.
        precision: one of ``engine.PRECISIONS``.
        max_batch: largest number of images in one run.
        options: the rest that matters.
    """

    kind: str
    model_sha256: str
    backend: str
    version: str
    device: str
    precision: str
    max_batch: int
    options: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f'kind is {self.kind!r}, expected one of {", ".join(KINDS)}')

    def digest(self) -> str:
        """Name of the entry: 32 hexadecimal digits."""
        return _digest(self.as_mapping())

    def as_mapping(self) -> dict[str, Any]:
        """The fields, as they are written into the JSON file."""
        return asdict(self) | {'options': dict(self.options)}


@dataclass(frozen=True)
class Entry:
    """One entry of the cache, for people.

    Attributes:
        key: the fields of its ``Key``; empty when the JSON file cannot be read.
        path: of the plan, even where that is what is missing.
        size: of the plan, bytes.
        created: ISO time; empty when unknown.
        notes: what the builder wrote about it.
        damaged: why it does not count; empty when it does.
    """

    key: Mapping[str, Any]
    path: Path
    size: int
    created: str
    notes: Mapping[str, Any]
    damaged: str


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
            with contextlib.suppress(OSError), self._lock_if_free(key.digest()) as free:
                if free:
                    # Once more: it may have been in the middle of being replaced.
                    content, self.last_reason = self._look(key)
                    if self.last_reason:
                        self._remove(key.digest())
        return content

    def store(self, key: Key, content: bytes, notes: Mapping[str, Any] | None = None) -> Path:
        """Write an entry, or replace it; the path of its plan.

        Raises:
            CacheError: it cannot be written; nothing half written stays.
        """
        with self._lock(key.digest()):
            return self._store(key, content, notes or {})

    def discard(self, key: Key) -> None:
        """Remove an entry whose content turned out to be of no use.

        Where it cannot be removed (read-only folder), this object does not give it any more.
        """
        digest = key.digest()
        with contextlib.suppress(_DamageError):
            self._refused[digest] = str(_read_record(self._record(digest))['sha256'])
        with contextlib.suppress(OSError), self._lock_if_free(digest) as free:
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
        cannot be read, locked or written is no failure: the content is built.

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
                lock.enter_context(self._lock(key.digest(), progress))
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
        return [entry for digest in self._digests() if (entry := self._entry(digest))]

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
                with self._lock_if_free(digest) as free:
                    entry = self._entry(digest)
                    if free and (not entry or everything or _to_go(entry, older_than_days)):
                        self._remove(digest)
                        self._record(digest).with_suffix('.lock').unlink()
                        removed += [entry] if entry else []
            if everything:
                for path in self._files('timing_'):
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise CacheError(f'{self.folder}: cannot be pruned: {error.strerror}') from error
        self._remove_leftovers()
        return removed

    def timing_file(self, name: str) -> Path:
        """Where the timing cache of that name is kept, for ``save_bytes``; any name will do.

        The folder is there while ``get_or_build`` builds, if it can be made at all.
        """
        readable = re.sub('[^A-Za-z0-9]+', '_', name)[:64].strip('_')
        return self.folder / f'timing_{readable}_{hashlib.sha256(name.encode()).hexdigest()[:8]}'

    # --- entries; what writes is called with the lock of the entry held ------------------------

    def _record(self, digest: str) -> Path:
        return self.folder / f'{digest}.json'

    def _look(self, key: Key) -> tuple[bytes | None, str]:
        """The content, or why an entry that is there does not count; (None, '') without one."""
        path = self._record(key.digest())
        if not os.path.lexists(path):
            return None, ''
        try:
            record = _read_record(path)
            if record['key'] != key.as_mapping():
                raise _DamageError(f'{path}: is of another engine')
            content = _read_content(path.with_suffix('.plan'), record)
        except _DamageError as damage:
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
        save_bytes(path.with_suffix('.plan'), content)
        try:
            save_bytes(path, _new_record(content, key, notes))
        except BaseException:
            _unlink(path.with_suffix('.plan'))
            raise
        self._refused.pop(key.digest(), None)
        return path.with_suffix('.plan')

    def _remove(self, digest: str) -> None:
        """Remove an entry, the JSON file first, and what a killed build of it left."""
        self._record(digest).unlink(missing_ok=True)
        self._record(digest).with_suffix('.plan').unlink(missing_ok=True)
        for path in self._files(f'.{digest}.'):
            _unlink(path)

    def _remove_leftovers(self) -> None:
        """Remove temporary files that nobody has written for long."""
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

    def _entry(self, digest: str) -> Entry | None:
        path = self._record(digest)
        plan = path.with_suffix('.plan')
        if not (os.path.lexists(path) or os.path.lexists(plan)):
            return None
        record: dict[str, Any] = {}
        damaged = ''
        try:
            record = _read_record(path)
            if _digest(record['key']) != digest:
                raise _DamageError(f'{path}: is of another engine')
            _read_content(plan, record)
        except _DamageError as damage:
            damaged = str(damage)
        try:
            size = plan.stat().st_size
        except OSError:
            size = 0
        return Entry(
            key=record.get('key', {}),
            path=plan,
            size=size,
            created=record.get('created', ''),
            notes=record.get('notes', {}),
            damaged=damaged,
        )

    # --- locks -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _lock(
        self, digest: str, progress: Callable[[str, float], None] | None = None
    ) -> Iterator[None]:
        """Hold the lock of an entry; it ends with the process that holds it, however that ends.

        Raises:
            CacheError: the folder cannot be written, or its file system has no locks.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            while (handle := self._try_lock(digest)) is None:
                if progress is not None:
                    progress('waiting for another process that builds it', math.nan)
                time.sleep(_POLL_S)
        except OSError as error:
            raise _not_written(self.folder, error) from error
        try:
            yield
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _lock_if_free(self, digest: str) -> Iterator[bool]:
        """Hold the lock of an entry and give True; False where another one has it.

        Raises:
            OSError: the folder cannot be written, or its file system has no locks.
        """
        handle = self._try_lock(digest)
        try:
            yield handle is not None
        finally:
            if handle is not None:
                os.close(handle)

    def _try_lock(self, digest: str) -> int | None:
        """An open file that holds the lock; None if another one has it."""
        while True:
            handle = os.open(self.folder / f'{digest}.lock', os.O_RDWR | os.O_CREAT, 0o600)
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
            os.close(handle)  # ``prune`` removed the file between open and lock


# --- files -----------------------------------------------------------------------------------


def save_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        CacheError: it cannot be written.
    """
    try:
        write_beside(path, content)
    except OSError as error:
        raise _not_written(path, error) from error


class _DamageError(Exception):
    """An entry does not count; the message is the reason."""


def _new_record(content: bytes, key: Key, notes: Mapping[str, Any]) -> bytes:
    record = {
        'schema': SCHEMA,
        'key': key.as_mapping(),
        'sha256': hashlib.sha256(content).hexdigest(),
        'size': len(content),
        'created': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'package': __version__,
        'notes': dict(notes),
    }
    return json.dumps(record, indent=2).encode() + b'\n'


_RECORD = {'key': dict, 'sha256': str, 'size': int, 'created': str, 'package': str, 'notes': dict}


def _read_record(path: Path) -> dict[str, Any]:
    """The JSON file of an engine, its fields checked.

    Raises:
        _DamageError: it is missing, unreadable or not such a file.
    """
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise _DamageError(f'{path}: cannot be read: {error.strerror}') from None
    except (ValueError, RecursionError):
        raise _DamageError(f'{path}: is not valid JSON') from None
    if not isinstance(record, dict) or record.get('schema') != SCHEMA:
        raise _DamageError(f'{path}: is not the description of an engine (schema {SCHEMA})')
    for name, kind in _RECORD.items():
        if not isinstance(record.get(name), kind):
            raise _DamageError(f'{path}: {name} is {record.get(name)!r}, expected {kind.__name__}')
    try:
        aware = datetime.fromisoformat(record['created']).tzinfo is not None
    except ValueError:
        aware = False
    if not aware:
        raise _DamageError(f'{path}: created is {record["created"]!r}, expected a time with zone')
    return record


def _read_content(path: Path, record: Mapping[str, Any]) -> bytes:
    """The file that a record describes.

    Raises:
        _DamageError: it is missing, unreadable or another one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _DamageError(f'{path}: cannot be read: {error.strerror}') from None
    if len(content) != record['size']:
        raise _DamageError(f'{path}: has {len(content)} bytes, expected {record["size"]}')
    if hashlib.sha256(content).hexdigest() != record['sha256']:
        raise _DamageError(f'{path}: its sha256 is not the one that {path.stem}.json gives')
    return content


def _digest(fields: Mapping[str, Any]) -> str:
    text = json.dumps([SCHEMA, fields], sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _to_go(entry: Entry, older_than_days: float | None) -> bool:
    if entry.damaged or older_than_days is None:
        return bool(entry.damaged)
    age = datetime.now(timezone.utc) - datetime.fromisoformat(entry.created)
    return age > timedelta(days=older_than_days)


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _not_written(path: Path, error: OSError) -> CacheError:
    return CacheError(f'{path}: cannot be written: {error.strerror}')
