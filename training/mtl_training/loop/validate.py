"""What is looked at while a run goes on: figures and pictures of validation frames."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from tqdm import tqdm

from mtl_training.checkpoints.checkpoint import save_checkpoint
from mtl_training.datasets.batches import Batch, Examples, loader
from mtl_training.datasets.dataset import DataError, DataSet, thin_out
from mtl_training.evaluation.judge import in_short, judge, quality
from mtl_training.evaluation.predictors import Predictor, network_predictor
from mtl_training.evaluation.sheet import sheet, write_sheet
from mtl_training.loop.log import RowLog
from mtl_training.loop.run import Run
from mtl_training.loop.state import describe


class Validation:
    """Judges the network of a run while it is trained, in the first process only.

    Judged are the tasks that the validation frames have labels of.

    Args:
        watch: told every row of the figures.

    Raises:
        DataError: they have labels of none.
    """

    def __init__(self, run: Run, out: Path, watch: Callable[[Mapping[str, float]], None]) -> None:
        self.run, self.out, self.watch = run, out, watch
        self.frames = thin_out(run.split('val'), run.config.run.validate_frames)
        self.tasks = {n: task for n, task in run.tasks.items() if n in self.frames.tasks}
        if not self.tasks:
            raise DataError(
                f'{self.frames.name} has labels of {", ".join(self.frames.tasks)} only, expected '
                f'some of {", ".join(run.config.tasks)}'
            )
        if run.fabric.is_global_zero:
            self.log = RowLog(out, 'validation', run)

    def look(self) -> None:
        """Judge and take pictures, each when it is due.

        Random numbers of the training go on as if nothing had been drawn: the other processes draw
        nothing here, either.
        """
        every = self.run.config.run
        devices = [self.run.fabric.device] if self.run.fabric.device.type == 'cuda' else []
        with torch.random.fork_rng(devices):
            if every.validate_every and (self.run.due(every.validate_every) or self.run.completed):
                self.judge()
            if self.run.due(every.picture_every):
                self.take_picture()

    def judge(self) -> None:
        """Log the figures; keep the network as ``best.safetensors`` if it is the best so far."""
        run, batches = self.run, self.batches(self.frames)
        focal = run.config.data.canonical_focal
        run.metrics = judge(self.predictor(), batches, self.tasks, focal)
        score = quality(run.metrics, self.tasks)
        row = {
            f'{task}.{figure}': round(value, 5)
            for task, figures in in_short(run.metrics).items()
            for figure, value in figures.items()
        }
        row = {'step': run.progress.step, 'quality': round(score, 5), **row}
        self.log.write(row)
        tqdm.write('  '.join(f'{key} {value}' for key, value in row.items()), file=sys.stderr)
        if score > run.progress.best:
            run.progress.best = score
            weights = {f'net.{name}': t for name, t in run.judged.state_dict().items()}
            save_checkpoint(self.out / 'best.safetensors', weights, describe(run))
        self.watch(row)

    def take_picture(self) -> None:
        """Labels and predictions of a few frames, as ``pictures/STEP.png``."""
        batches = self.batches(thin_out(self.frames, 6))
        focal = self.run.config.data.canonical_focal
        rows = sheet(self.predictor(), batches, self.tasks, focal)
        write_sheet(self.out / 'pictures' / f'{self.run.progress.step:06}.png', rows)

    def predictor(self) -> Predictor:
        """Predict with the network as it is now."""
        net, focal = self.run.judged, self.run.config.data.canonical_focal
        return network_predictor(net.eval(), self.run.tasks, focal, self.run.fabric.device)

    def batches(self, frames: DataSet) -> Iterable[Batch]:
        """Batches of frames as they are."""
        config = self.run.config
        data = Examples(
            frames,
            self.tasks,
            height=config.data.height,
            width=config.data.width,
            canonical_focal=config.data.canonical_focal,
        )
        return loader(data, 0, batch_size=config.optim.batch_size)
