"""What a run says about itself: rows of CSV files, and a progress bar."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from mtl_training.loop.run import Run


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


class StepLog:
    """``log.csv`` and the progress bar of a run; silent in all processes but the first."""

    def __init__(self, out: Path, run: Run) -> None:
        self.run, self.speaks = run, run.fabric.is_global_zero
        if self.speaks:
            self.csv = CsvLog(out / 'log.csv', run.progress.step)
        self.bar = tqdm(
            total=run.config.optim.max_steps,
            initial=run.progress.step,
            unit='step',
            mininterval=0.5 if sys.stderr.isatty() else 60,
            disable=not self.speaks,
        )

    def __enter__(self) -> StepLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def advance(self) -> None:
        """Move the bar by a step."""
        self.bar.update()

    def write(
        self, rate: float, losses: Mapping[str, Tensor], *, seconds: float, waiting: float
    ) -> None:
        """A row for the step that was made.

        Args:
            rate: learning rate.
            seconds: that the step took, and of these
            waiting: for the batch.
        """
        if not self.speaks:
            return
        values = {name: loss.item() for name, loss in losses.items()}
        self.bar.set_postfix({name: f'{value:.3f}' for name, value in values.items()})
        row = {'step': self.run.progress.step, 'epoch': self.run.progress.epoch, 'lr': rate}
        row |= {'seconds': round(seconds, 4), 'waiting': round(waiting, 4)}
        self.csv.write(row | {name: round(value, 6) for name, value in values.items()})
