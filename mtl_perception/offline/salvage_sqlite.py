"""SQLite files of rosbag2 in whatever state: messages one by one, as many as can be read."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import one_line
from .cdr import RecordingError
from .storage import QOS, StoredTopic


class SalvagedSqlite:
    """What can be read of a .db3 file; see ``Storage``.

    Args:
        path: of the file.

    Raises:
        RecordingError: it has no topics that can be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.notes: list[str] = []
        self.losses: list[str] = []
        self._db = sqlite3.connect(
            f'{path.absolute().as_uri()}?immutable=1', uri=True, check_same_thread=False
        )
        self._db.text_factory = lambda data: data.decode(errors='replace')
        # Else SQLite reads nothing of a file that is shorter than it says itself.
        self._db.execute('PRAGMA writable_schema = ON')
        try:
            self._read()
        except sqlite3.Error as error:
            self._db.close()
            raise RecordingError(f'{path} has no topics that can be read: {error}') from error

    def close(self) -> None:
        self._db.close()

    def messages(
        self, names: Collection[str], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[tuple[StoredTopic, int, bytes]]:
        wanted = {n: topic for n, topic in self._by_id.items() if topic.name in names}
        start, stop = start_ns or 0, 2**63 if stop_ns is None else stop_ns
        lost: list[sqlite3.Error] = []
        for time_ns, number, topic in self._places:
            if topic in wanted and start <= time_ns < stop:
                try:
                    query = 'SELECT data FROM messages WHERE id = ?'
                    (data,) = self._db.execute(query, (number,)).fetchone()
                except sqlite3.Error as error:
                    lost.append(error)
                    continue
                yield wanted[topic], time_ns, data
        if lost:
            self._lose(
                f'{len(lost)} messages on {", ".join(sorted(names))} cannot be read', lost[0]
            )

    def _lose(self, what: str, error: sqlite3.Error) -> None:
        line = f'{self._path}: {what}: {one_line(error)} (sqlite3 .recover)'
        if line not in self.losses:
            self.losses.append(line)

    def _read(self) -> None:
        definitions: dict[str, str] = {}
        with suppress(sqlite3.Error):  # older bags have none
            query = 'SELECT topic_type, encoded_message_definition FROM message_definitions'
            definitions = dict(self._db.execute(query))
        cursor = self._db.execute('SELECT * FROM topics ORDER BY id')
        columns = [column[0] for column in cursor.description]
        rows = [dict(zip(columns, row, strict=True)) for row in cursor]
        self._places = sorted(self._find())
        counts = Counter(topic for _, _, topic in self._places)
        self._by_id = {row['id']: _topic(row, definitions, counts) for row in rows}
        self.topics: Sequence[StoredTopic] = list(self._by_id.values())
        self.start_ns = self._places[0][0] if self._places else 0
        self.end_ns = self._places[-1][0] if self._places else 0

    def _find(self) -> set[tuple[int, int, int]]:
        """Time, id and topic of all messages, from both ends up to what cannot be read."""
        found: set[tuple[int, int, int]] = set()
        for order in ('ASC', 'DESC'):
            query = f'SELECT timestamp, id, topic_id FROM messages ORDER BY id {order}'
            try:
                for row in self._db.execute(query):
                    found.add(row)
            except sqlite3.Error as error:
                self._lose('some of its messages cannot be read', error)
            else:
                break
        return found


def _topic(row: dict[str, Any], definitions: dict[str, str], counts: Counter[int]) -> StoredTopic:
    return StoredTopic(
        row['name'],
        row['type'],
        definitions.get(row['type'], ''),
        counts[row['id']],
        row.get('offered_qos_profiles') or QOS,
        row.get('type_description_hash') or '',
    )
