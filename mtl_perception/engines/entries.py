"""What an entry of the cache is: its key, and the two files that it consists of.

``<digest>.bin`` is the content, ``<digest>.json`` the record: its hash and what it is. An entry
counts only when both are there and agree.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from .. import __version__

SCHEMA = 1
KINDS = ('engine', 'choice')
_RECORD = {'key': dict, 'sha256': str, 'size': int, 'created': str, 'package': str, 'notes': dict}


@dataclass(frozen=True)
class Key:
    """All that decides what an engine is; two engines with the same key are interchangeable.

    Attributes:
        kind: ``engine`` (its bytes) or ``choice`` (a decision, JSON bytes).
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
        return digest_of(self.as_mapping())

    def as_mapping(self) -> dict[str, Any]:
        """The fields, as they are written into the JSON file."""
        return asdict(self) | {'options': dict(self.options)}


@dataclass(frozen=True)
class Entry:
    """One entry of the cache, for people.

    Attributes:
        key: the fields of its ``Key``; empty when the JSON file cannot be read.
        path: of the content, even where that is what is missing.
        size: of the content, bytes.
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

    def to_prune(self, older_than_days: float | None) -> bool:
        """Whether it is damaged, or older than so many days."""
        if self.damaged or older_than_days is None:
            return bool(self.damaged)
        age = datetime.now(timezone.utc) - datetime.fromisoformat(self.created)
        return age > timedelta(days=older_than_days)


def content_of(record: Path) -> Path:
    """The path of the content, from that of the record."""
    return record.with_suffix('.bin')


class DamageError(Exception):
    """An entry does not count; the message is the reason."""


def new_record(content: bytes, key: Key, notes: Mapping[str, Any]) -> bytes:
    """The JSON file of a content."""
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


def read_record(path: Path) -> dict[str, Any]:
    """The JSON file of an engine, its fields checked.

    Raises:
        DamageError: it is missing, unreadable or not such a file.
    """
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise DamageError(f'{path}: cannot be read: {error.strerror}') from None
    except (ValueError, RecursionError):
        raise DamageError(f'{path}: is not valid JSON') from None
    if not isinstance(record, dict) or record.get('schema') != SCHEMA:
        raise DamageError(f'{path}: is not the description of an engine (schema {SCHEMA})')
    for name, kind in _RECORD.items():
        if not isinstance(record.get(name), kind):
            raise DamageError(f'{path}: {name} is {record.get(name)!r}, expected {kind.__name__}')
    try:
        aware = datetime.fromisoformat(record['created']).tzinfo is not None
    except ValueError:
        aware = False
    if not aware:
        raise DamageError(f'{path}: created is {record["created"]!r}, expected a time with zone')
    return record


def read_content(path: Path, record: Mapping[str, Any]) -> bytes:
    """The file that a record describes.

    Raises:
        DamageError: it is missing, unreadable or another one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamageError(f'{path}: cannot be read: {error.strerror}') from None
    if len(content) != record['size']:
        raise DamageError(f'{path}: has {len(content)} bytes, expected {record["size"]}')
    if hashlib.sha256(content).hexdigest() != record['sha256']:
        raise DamageError(f'{path}: its sha256 is not the one that {path.stem}.json gives')
    return content


def read_entry(record: Path) -> Entry | None:
    """An entry as it is on the disk, damaged or not; None where there is none."""
    path = content_of(record)
    if not (os.path.lexists(record) or os.path.lexists(path)):
        return None
    fields: dict[str, Any] = {}
    damaged = ''
    try:
        fields = read_record(record)
        if digest_of(fields['key']) != record.stem:
            raise DamageError(f'{record}: is of another engine')
        read_content(path, fields)
    except DamageError as damage:
        damaged = str(damage)
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    return Entry(
        key=fields.get('key', {}),
        path=path,
        size=size,
        created=fields.get('created', ''),
        notes=fields.get('notes', {}),
        damaged=damaged,
    )


def digest_of(fields: Mapping[str, Any]) -> str:
    """Name of the entry of a key, given its fields."""
    text = json.dumps([SCHEMA, fields], sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
