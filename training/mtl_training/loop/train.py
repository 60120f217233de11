"""The training loop: explicit steps on Lightning Fabric, which brings devices and precision."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from mtl_training.datasets import open_data
from mtl_training.datasets.batches import Batch, EpochBatches, Examples, loader
from mtl_training.datasets.classes import CLASS_SETS
from mtl_training.datasets.dataset import DataError, DataSet, class_weights, thin_out
from mtl_training.evaluation import pictures
from mtl_training.evaluation.evaluate import (
    Report,
    figures,
    judge,
    network_predictor,
    normalise,
    sheet,
)
from mtl_training.loop.average import Average
from mtl_training.loop.checkpoint import (
    CheckpointError,
    auxiliary_tasks,
    build_network,
    config_tasks,
    describe_run,
    load_checkpoint,
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    save_checkpoint,
    with_prefix,
)
from mtl_training.loop.config import Config, load_config, to_mapping
from mtl_training.loop.log import CsvLog
from mtl_training.loop.optimizer import freeze, make_optimizer, set_learning_rate
from mtl_training.loop.schedule import learning_rate
from mtl_training.tasks.losses import multi_task_loss, weighted_sum
from mtl_training.tasks.task import Task

# The share by which a task counts when the best checkpoint is chosen; all are in 0..1, higher is
# better.
QUALITY: dict[str, str] = {
    'semantic': 'miou',
    'depth': 'delta1',
    'normals': 'within_11',
    'edges': 'f',
    'saliency': 'maxf',
}
# What single-task networks are made of; systems that join them name it alike.
SINGLE_TASK = ('backbones.', 'heads.')


@dataclass
class Progress:
    """Where a run stands: with the tensors, all it needs to go on as if nothing had happened."""

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0  # batches of this epoch that were seen
    epoch_frames: int = 0  # frames that this epoch began with; 0 at its start
    best: float = -1.0


def train(
    config: Config,
    data: Path,
    out: Path,
    *,
    init: Sequence[Path] = (),
    resume: bool = False,
    stop: Callable[[int], bool] = lambda step: False,
) -> Path:
    """Train a network.

    Writes into ``out``: ``last.safetensors`` (all that resuming needs), ``best.safetensors``
    (weights only, by the mean of ``QUALITY`` on validation frames), ``log.csv``, ``validation.csv``
    and ``pictures/``.

    Args:
        data: folder of a data set with the splits ``train`` and ``val``.
        init: checkpoints whose weights the network begins with, see ``Loop.begin_with``; their
            optimisers are left behind.
        resume: go on from ``last.safetensors`` if there is one. On the CPU the result is bit-equal
            to that of a run that was never interrupted.
        stop: asked after every step; True ends the run with a checkpoint.

    Returns:
        The last checkpoint.
    """
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    cv2.setNumThreads(0)
    fabric = Fabric(
        accelerator=config.run.accelerator,
        devices=config.run.devices,
        precision=config.run.precision,
    )
    fabric.launch()
    out.mkdir(parents=True, exist_ok=True)
    loop = Loop(config, fabric, data, out)
    if resume and loop.last.exists():
        loop.restore()
    elif init:
        loop.begin_with(init)
    loop.run(stop)
    return loop.last


class Loop:
    """One run: what it is made of, one step, and what happens every so many steps."""

    def __init__(self, config: Config, fabric: Fabric, data: Path, out: Path) -> None:
        self.config, self.fabric, self.data, self.out = config, fabric, data, out
        self.classes = CLASS_SETS[config.task_set]
        self.last = out / 'last.safetensors'
        self.tasks: dict[str, Task] = config_tasks(config)
        if config.class_balance and 'semantic' in self.tasks:
            semantic = self.tasks['semantic']
            weights = class_weights(thin_out(self.split('train'), 400), config.class_balance)
            self.tasks['semantic'] = replace(semantic, class_weights=weights)
        # Auxiliary predictions may be of any of these.
        self.trained_tasks = {**auxiliary_tasks(config), **self.tasks}
        self.progress = Progress()
        torch.manual_seed(config.seed)
        net = build_network(config, pretrained=config.model.pretrained)
        net = net.to(memory_format=torch.channels_last)
        self.mean, self.std = net.mean, net.std
        self.frozen = freeze(net, config.optim.frozen_stages)
        self.net, self.optimizer = fabric.setup(net, make_optimizer(net, config.optim))
        self.net.mark_forward_method('predictions')
        decay = config.optim.ema_decay
        self.average = Average(self.net.module, decay) if decay else None
        self.validation = thin_out(self.split('val'), config.run.validate_frames)
        self.metrics: Report = {}

    def run(self, stop: Callable[[int], bool]) -> None:
        """Steps until ``max_steps`` or until ``stop`` says so, then a checkpoint."""
        config, progress = self.config, self.progress
        log = CsvLog(self.out / 'log.csv', progress.step)
        self.validation_log = CsvLog(self.out / 'validation.csv', progress.step)
        bar = tqdm(
            total=config.optim.max_steps,
            initial=progress.step,
            unit='step',
            mininterval=0.5 if sys.stderr.isatty() else 60,
            disable=not self.fabric.is_global_zero,
        )
        clock = time.monotonic()
        for batch in self.batches():
            waited = time.monotonic() - clock
            rate = learning_rate(config.optim, progress.step, progress.epoch_step)
            losses = self.step(batch, rate)
            progress.step += 1
            progress.epoch_step += 1
            took, clock = time.monotonic() - clock, time.monotonic()
            bar.update()
            finished = progress.step >= config.optim.max_steps or stop(progress.step)
            if self.due(config.run.log_every) or finished:
                row = {'step': progress.step, 'epoch': progress.epoch, 'lr': rate}
                row |= {'seconds': round(took, 4), 'waiting': round(waited, 4)}
                row |= {name: round(loss.item(), 6) for name, loss in losses.items()}
                bar.set_postfix({name: f'{loss.item():.3f}' for name, loss in losses.items()})
                self.write(log, row)
            self.look(finished)
            if finished:
                break
            clock = time.monotonic()
        bar.close()

    def split(self, name: str) -> DataSet:
        """A split of the data as it is now, with the classes that the network tells apart."""
        return open_data(self.data, name, self.classes)

    def batches(self) -> Any:
        """Batches without end, epoch by epoch, from where the run stands."""
        config, fabric, progress = self.config, self.fabric, self.progress
        frames = self.split('train')
        while True:
            if config.data.rescan and progress.epoch_frames == 0:
                frames = self.split('train')
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
                raise DataError(
                    f'{frames.name} lists {len(frames)} frames, expected at least a batch'
                )
            dataset = self.dataset(frames, training=True)
            batches = loader(dataset, config.data.workers, batch_sampler=keys)
            yield from fabric.setup_dataloaders(batches, use_distributed_sampler=False)
            progress.epoch += 1
            progress.epoch_step = progress.epoch_frames = 0

    def dataset(self, frames: DataSet, *, training: bool) -> Examples:
        """Frames as the configuration wants them, augmented for training."""
        config, began = self.config, self.progress.step - self.progress.epoch_step
        small = training and began < config.data.small_share * config.optim.max_steps
        return Examples(
            frames,
            [*config.tasks, *config.model.auxiliary] if training else config.tasks,
            height=config.data.small_height if small else config.data.height,
            width=config.data.small_width if small else config.data.width,
            canonical_focal=config.data.canonical_focal,
            augmentation=config.augment if training else None,
            seed=config.seed,
        )

    def step(self, batch: Batch, rate: float) -> dict[str, Tensor]:
        """One step of the optimiser; the unweighted losses and the ``total``."""
        optim = self.config.optim
        set_learning_rate(self.optimizer, rate)
        self.net.train()
        for module in self.frozen:
            module.eval()
        images = normalise(batch['image'], self.mean, self.std)
        batch = sub_sample(batch, optim.loss_stride, self.progress.step)
        predictions = self.net.predictions(images)
        losses = multi_task_loss(predictions.final, batch, self.tasks)
        terms = {
            f'auxiliary_{index}': weighted_sum(
                multi_task_loss(auxiliary.logits, batch, self.trained_tasks), self.trained_tasks
            )
            * auxiliary.weight
            for index, auxiliary in enumerate(predictions.auxiliary)
        }
        terms |= self.net.module.penalties(losses)
        total = weighted_sum(losses, self.tasks) + sum(terms.values())
        self.optimizer.zero_grad()
        self.fabric.backward(total)
        if optim.clip_norm:
            self.fabric.clip_gradients(self.net, self.optimizer, max_norm=optim.clip_norm)
        self.optimizer.step()
        if self.average:
            self.average.update(self.net.module, self.progress.step)
        return {name: x.detach() for name, x in {**losses, **terms, 'total': total}.items()}

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps (0: never) happens now."""
        return every > 0 and self.progress.step % every == 0

    def look(self, finished: bool) -> None:
        """Validate, take pictures and write checkpoints, each when it is due."""
        run = self.config.run
        if not self.fabric.is_global_zero:
            return
        completed = self.progress.step >= self.config.optim.max_steps
        if run.validate_every and (self.due(run.validate_every) or completed):
            self.validate()
        if self.due(run.picture_every):
            self.picture()
        if self.due(run.checkpoint_every) or finished:
            self.save()

    @property
    def trained(self) -> nn.Module:
        """The network that is judged: the average if there is one."""
        return self.average.net if self.average else self.net.module

    def validate(self) -> None:
        """Judge the network, log the figures and keep it if it is the best so far."""
        predict, batches = self.predictor(), self.validation_batches(self.validation)
        focal = self.config.data.canonical_focal
        self.metrics = figures(judge(predict, batches, focal, self.classes), self.classes)
        row = {
            f'{task}.{figure}': round(value, 5)
            for task, report in self.metrics.items()
            for figure, value in report.items()
            if not figure.startswith('iou_')
        }
        quality = sum(self.metrics[task][QUALITY[task]] for task in self.tasks) / len(self.tasks)
        row = {'step': self.progress.step, 'quality': round(quality, 5), **row}
        self.write(self.validation_log, row)
        tqdm.write('  '.join(f'{key} {value}' for key, value in row.items()), file=sys.stderr)
        if quality > self.progress.best:
            self.progress.best = quality
            weights = {f'net.{name}': t for name, t in self.trained.state_dict().items()}
            save_checkpoint(self.out / 'best.safetensors', weights, self.describe())

    def picture(self) -> None:
        """Labels and predictions of a few validation frames, as ``pictures/STEP.png``."""
        batches = self.validation_batches(thin_out(self.validation, 6))
        focal = self.config.data.canonical_focal
        rows = sheet(self.predictor(), batches, focal, self.classes)
        pictures.write_png(self.out / 'pictures' / f'{self.progress.step:06}.png', rows)

    def predictor(self) -> Callable[[Batch], dict[str, Any]]:
        """Predict with the network as it is now."""
        meta = {
            'mean': self.mean,
            'std': self.std,
            'canonical_focal': self.config.data.canonical_focal,
        }
        return network_predictor(self.trained.eval(), meta, self.fabric.device)

    def validation_batches(self, frames: DataSet) -> Any:
        """Batches of frames as they are."""
        data = self.dataset(frames, training=False)
        return loader(data, 0, batch_size=self.config.optim.batch_size)

    def describe(self) -> dict[str, Any]:
        """Metadata of a checkpoint of this moment."""
        return describe_run(self.config, self.trained, self.progress.step, self.metrics)

    def save(self) -> None:
        """Write ``last.safetensors``."""
        tensors = {f'net.{name}': t for name, t in self.net.module.state_dict().items()}
        if self.average:
            tensors |= {f'ema.{name}': t for name, t in self.average.net.state_dict().items()}
        tensors |= optimizer_tensors(self.optimizer)
        tensors['random.cpu'] = torch.get_rng_state()
        save_checkpoint(self.last, tensors, {**self.describe(), 'progress': vars(self.progress)})

    def begin_with(self, checkpoints: Sequence[Path]) -> None:
        """Take over the weights of other runs: of a network like this one, or of single tasks.

        Systems that join single-task networks (``cross_stitch``, ``nddr``, ``sluice``) take those
        of ``single_task`` runs, of all tasks from one or of some from each; what joins the tasks
        begins as in a run without.

        Raises:
            CheckpointError: no checkpoint of ours, or weights that do not fit.
        """
        runs = {path: load_checkpoint(path) for path in checkpoints}
        weights: dict[str, Tensor] = {}
        if all(meta['config']['model']['system'] == 'single_task' for _, meta in runs.values()):
            mine = self.net.module.state_dict()
            weights = {n: tensor for n, tensor in mine.items() if not n.startswith(SINGLE_TASK)}
        for path, (net, _) in runs.items():
            again = weights.keys() & net.state_dict().keys()
            if again:
                raise CheckpointError(f'{path}: {min(again)} is in another of the checkpoints, too')
            weights |= net.state_dict()
        try:
            self.net.module.load_state_dict(weights)
        except RuntimeError as error:
            mismatch = str(error).splitlines()[-1].strip()
            raise CheckpointError(
                f'{", ".join(map(str, checkpoints))}: the weights do not fit '
                f'{self.config.name}: {mismatch}'
            ) from error
        if self.average:
            self.average.net.load_state_dict(weights)

    def restore(self) -> None:
        """Go back to where ``last.safetensors`` was written.

        Raises:
            CheckpointError: no checkpoint of ours, or one of another network.
        """
        tensors, meta = read_checkpoint(self.last)
        mine, theirs = json.loads(json.dumps(to_mapping(self.config))), meta['config']
        for values in (mine, theirs):  # what the state of the optimiser depends on
            values |= {
                f'optim.{key}': values['optim'][key] for key in ('optimizer', 'frozen_stages')
            }
        for key in ('model', 'tasks', 'task_set', 'optim.optimizer', 'optim.frozen_stages'):
            if mine[key] != theirs[key]:
                raise CheckpointError(
                    f'{self.last} was trained with {key} {theirs[key]}, expected {mine[key]}'
                )
        self.net.module.load_state_dict(with_prefix(tensors, 'net.'))
        if self.average:
            weights = with_prefix(tensors, 'ema.') or with_prefix(tensors, 'net.')
            self.average.net.load_state_dict(weights)
        restore_optimizer(self.optimizer, tensors)
        self.progress = Progress(**meta['progress'])
        self.metrics = meta['metrics']
        torch.set_rng_state(tensors['random.cpu'])

    def write(self, log: CsvLog, row: Mapping[str, Any]) -> None:
        """One line of a log, from the first process only."""
        if self.fabric.is_global_zero:
            log.write(row)


def sub_sample(batch: Batch, stride: int, step: int) -> Batch:
    """Labels of every ``stride``-th pixel; the place in a cell changes with the step."""
    if stride == 1:
        return batch
    cell = step % stride**2
    rows, columns = slice(cell // stride, None, stride), slice(cell % stride, None, stride)
    return {
        name: tensor[..., rows, columns] if tensor.ndim > 1 and name != 'image' else tensor
        for name, tensor in batch.items()
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtl_training train``."""
    parser.add_argument('config', type=Path, help='a YAML file, see training/configs')
    parser.add_argument('--data', type=Path, required=True, help='folder of a data set')
    parser.add_argument('--out', type=Path, required=True, help='folder for checkpoints and logs')
    parser.add_argument(
        '--init',
        nargs='+',
        type=Path,
        default=[],
        metavar='CHECKPOINT',
        help='begin with the weights of another run, or of runs of single tasks',
    )
    parser.add_argument('--resume', action='store_true', help='go on from OUT/last.safetensors')
    parser.add_argument(
        '--max-steps', type=int, help='replaces optim.max_steps; the schedule follows'
    )
    parser.add_argument(
        '--time-budget', type=float, help='end with a checkpoint after these minutes'
    )
    parser.add_argument(
        '--set', action='append', default=[], metavar='KEY=VALUE', help='such as optim.lr=5e-4'
    )


def run(args: argparse.Namespace) -> int:
    """Train; Ctrl-C and SIGTERM end the run with a checkpoint.

    Raises:
        ConfigError, DataError, CheckpointError: what was given cannot be used.
    """
    overrides = list(args.set)
    if args.max_steps is not None:
        overrides.append(f'optim.max_steps={args.max_steps}')
    config = load_config(args.config, overrides)
    began = time.monotonic()
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: signals.append(received))

    def stop(step: int) -> bool:
        minutes = (time.monotonic() - began) / 60
        return bool(signals) or (args.time_budget is not None and minutes >= args.time_budget)

    last = train(config, args.data, args.out, init=args.init, resume=args.resume, stop=stop)
    print(last)
    return 130 if signals else 0
