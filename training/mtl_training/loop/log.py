"""What a run says about itself: rows of CSV files, TensorBoard's events, and a progress bar."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mtl_training.checkpoints.config import ConfigError
from mtl_training.loop.gradients import angle_names
from mtl_training.loop.run import Run
from mtl_training.loop.step import Step


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
        """Append a row; the first one makes the header, by which later ones are written."""
        new = not self.path.exists()
        if new:
            header = list(row)
        else:
            with self.path.open(encoding='utf-8') as file:
                header = file.readline().rstrip().split(',')
        with self.path.open('a', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(
                file, header, restval='nan', extrasaction='ignore', lineterminator='\n'
            )
            if new:
                writer.writeheader()
            writer.writerow(row)


class Events:
    """Rows as events that TensorBoard reads; those of a run that was cut off are dropped.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                'run.tensorboard is true, which needs the package tensorboard: '
                f"pip install -e 'training[tensorboard]' ({error})"
            ) from error
        self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def write(self, name: str, row: Mapping[str, Any]) -> None:
        """Every column but the step as a curve ``NAME/COLUMN``."""
        for column, value in row.items():
            if column != 'step':
                self.writer.add_scalar(f'{name}/{column}', value, row['step'])
        self.writer.flush()


class RowLog:
    """``NAME.csv`` in a run's folder, and the same as events if ``run.tensorboard`` says so."""

    def __init__(self, out: Path, name: str, run: Run) -> None:
        self.name, step = name, run.progress.step
        self.csv = CsvLog(out / f'{name}.csv', step)
        wanted = run.config.run.tensorboard
        self.events = Events(out / 'tensorboard' / name, step) if wanted else None

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row, which has a ``step``."""
        self.csv.write(row)
        if self.events:
            self.events.write(self.name, row)


class StepLog:
    """``log.csv``, ``gradients.csv`` and the progress bar; silent in all processes but one."""

    def __init__(self, out: Path, run: Run) -> None:
        self.run, self.speaks = run, run.fabric.is_global_zero
        if self.speaks:
            self.rows = RowLog(out, 'log', run)
            self.angles = RowLog(out, 'gradients', run) if run.config.run.gradients_every else None
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

    def write(self, rate: float, step: Step, *, seconds: float, waiting: float) -> None:
        """A row for the step that was made.

        Args:
            rate: learning rate.
            seconds: that the step took, and of these
            waiting: for the batch.
        """
        if not self.speaks:
            return
        values = {name: loss.item() for name, loss in step.losses.items()}
        weights = {name: float(f'{weight.item():.6g}') for name, weight in step.weights.items()}
        self.bar.set_postfix({name: f'{value:.3f}' for name, value in values.items()})
        row = {'step': self.run.progress.step, 'epoch': self.run.progress.epoch, 'lr': rate}
        row |= {'seconds': round(seconds, 4), 'waiting': round(waiting, 4)}
        self.rows.write(row | {name: round(value, 6) for name, value in values.items()} | weights)

    def write_gradients(self, step: Step) -> None:
        """A row for the step that was made, if its gradients were measured."""
        if self.speaks and self.angles and step.gradients:
            values = {name: value.item() for name, value in step.gradients.items()}
            names = angle_names(list(self.run.trained_tasks))
            known = {name: float(f'{values.get(name, math.nan):.6g}') for name in names}
            self.angles.write({'step': self.run.progress.step, **known})
