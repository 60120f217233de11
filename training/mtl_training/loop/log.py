"""What a run says about itself while it trains: rows of CSV files and a progress bar."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class CsvLog:
    """Rows appended to a CSV file; rows after ``step``, of a run that was cut off, are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        if path.exists():
            header, *rows = path.read_text(encoding='utf-8').splitlines()
            kept = [row for row in rows if int(row.split(',', 1)[0]) <= step]
            path.write_text('\n'.join([header, *kept]) + '\n', encoding='utf-8')
        if step == 0:
            path.unlink(missing_ok=True)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; the first one makes the header."""
        new = not self.path.exists()
        with self.path.open('a', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, row, lineterminator='\n')
            if new:
                writer.writeheader()
            writer.writerow(row)
