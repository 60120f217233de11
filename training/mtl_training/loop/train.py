"""The training loop: explicit steps on Lightning Fabric, which brings devices and precision."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from mtl_training.checkpoints.config import Config
from mtl_training.datasets.batches import Batch, EpochBatches, Examples, loader
from mtl_training.datasets.dataset import DataError, DataSet
from mtl_training.datasets.mixture import frames_by_task, of_epoch
from mtl_training.loop.log import StepLog
from mtl_training.loop.processes import launch
from mtl_training.loop.run import Run, prepare
from mtl_training.loop.schedule import learning_rate
from mtl_training.loop.state import begin_with, restore, save
from mtl_training.loop.step import make_step
from mtl_training.loop.validate import Validation


def train(
    config: Config,
    data: Path,
    out: Path,
    *,
    init: Sequence[Path] = (),
    resume: bool = False,
    stop: Callable[[int], bool] = lambda step: False,
    watch: Callable[[Mapping[str, float]], None] = lambda row: None,
) -> Path:
    """Train a network.

    Writes into ``out``: ``last.safetensors`` (all that resuming needs), ``best.safetensors``
    (weights only, by their quality on validation frames), ``log.csv``, ``validation.csv``,
    ``gradients.csv`` if they are measured, ``tensorboard/`` if wanted, and ``pictures/``.

    Args:
        data: folder of a data set with the split ``train``, and ``val`` if it is looked at.
        init: checkpoints whose weights the network begins with, see ``begin_with``; their
            optimisers are left behind.
        resume: go on from ``last.safetensors`` if there is one. On the CPU the result is bit-equal
            to that of a run that was never interrupted.
        stop: asked after every step; True ends the run with a checkpoint.
        watch: told every row of ``validation.csv``, by the first process.

    Returns:
        The last checkpoint.
    """
    fabric = launch(config.run)
    out.mkdir(parents=True, exist_ok=True)
    run = prepare(config, fabric, data)
    last = out / 'last.safetensors'
    if resume and last.exists():
        restore(run, last)
    elif init:
        anew = begin_with(run, init)
        if anew and fabric.is_global_zero:
            print(f'begins anew: {", ".join(anew)}', file=sys.stderr)
    with StepLog(out, run) as log:
        looks = config.run.validate_every or config.run.picture_every
        validation = Validation(run, out, watch) if looks else None
        clock = time.monotonic()
        for batch in batches(run):
            waited = time.monotonic() - clock
            rate = learning_rate(config.optim, run.progress.step, run.progress.epoch_step)
            step = make_step(run, batch, rate)
            run.progress.step += 1
            run.progress.epoch_step += 1
            log.advance()
            log.write_gradients(step)
            finished = run.completed or fabric.broadcast(stop(run.progress.step))
            if run.due(config.run.log_every) or finished:
                log.write(rate, step, seconds=time.monotonic() - clock, waiting=waited)
            if fabric.is_global_zero:
                if validation:
                    validation.look()
                if run.due(config.run.checkpoint_every) or finished:
                    save(run, last)
            if finished:
                break
            clock = time.monotonic()
    return last


def batches(run: Run) -> Iterator[Batch]:
    """Batches without end, epoch by epoch, from where the run stands.

    Raises:
        DataError: the data cannot be read, or has not enough frames for a batch.
    """
    config, fabric, progress = run.config, run.fabric, run.progress
    frames = run.split('train')
    while True:
        if config.data.rescan and progress.epoch_frames == 0:
            frames = run.split('train')
        if progress.epoch_step == 0:
            run.balancer.begin_epoch(frames_by_task(frames))
        progress.epoch_frames = fabric.broadcast(progress.epoch_frames or len(frames))
        keys = EpochBatches(
            progress.epoch_frames,
            config.optim.batch_size,
            seed=config.seed,
            epoch=progress.epoch,
            skip=progress.epoch_step,
            rank=fabric.global_rank,
            ranks=fabric.world_size,
        )
        if keys.count == 0:
            raise DataError(f'{frames.name} lists {len(frames)} frames, expected at least a batch')
        examples = crops(run, of_epoch(frames, progress.epoch))
        loading = loader(examples, config.data.workers, batch_sampler=keys)
        loaded = fabric.setup_dataloaders(loading, use_distributed_sampler=False)
        yield from cast(Iterable[Batch], loaded)
        progress.epoch += 1
        progress.epoch_step = progress.epoch_frames = 0


def crops(run: Run, frames: DataSet) -> Examples:
    """Augmented frames, small while the run is young, if the configuration says so."""
    data, began = run.config.data, run.progress.step - run.progress.epoch_step
    small = began < data.small_share * run.config.optim.max_steps
    return Examples(
        frames,
        run.trained_tasks,
        height=data.small_height if small else data.height,
        width=data.small_width if small else data.width,
        canonical_focal=data.canonical_focal,
        augmentation=run.config.augment,
        seed=run.config.seed,
    )
