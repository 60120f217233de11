"""What a training run is made of, and how it is put together from a configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from mtl_training.balancing import GradientBalancer, LossBalancer, make_balancer
from mtl_training.checkpoints.checkpoint import auxiliary_tasks, build_network, config_tasks
from mtl_training.checkpoints.config import Config, ConfigError
from mtl_training.datasets import open_data
from mtl_training.datasets.dataset import DataSet, class_weights, thin_out
from mtl_training.evaluation.judge import Report
from mtl_training.labels import LabelClass
from mtl_training.loop.average import Average
from mtl_training.loop.distillation import Teacher, open_teachers
from mtl_training.loop.optimizer import freeze, make_optimizer
from mtl_training.loop.processes import averaging, to_device
from mtl_training.models import Network, Predictions
from mtl_training.tasks import SemanticTask, TaskSet


@dataclass
class Progress:
    """Where a run stands: with the tensors, all it needs to go on as if nothing had happened."""

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0  # batches of this epoch that were seen
    epoch_frames: int = 0  # frames that this epoch began with; 0 at its start
    best: float = -1.0


@dataclass
class Run:
    """A training run in one process; others may have their part of it.

    Attributes:
        data: folder of the data set.
        tasks: what is judged, by name.
        trained_tasks: and what is trained only for the sake of those.
        teachers: from whose predictions it learns, too.
        predict: normalised images -> predictions with a graph.
        frozen: modules that keep their weights and statistics.
        metrics: figures of the last validation.
    """

    config: Config
    fabric: Fabric
    data: Path
    tasks: TaskSet
    trained_tasks: TaskSet
    teachers: Sequence[Teacher]
    net: Network
    predict: Callable[[Tensor], Predictions]
    balancer: LossBalancer | GradientBalancer
    optimizer: torch.optim.Optimizer
    frozen: list[nn.Module]
    average: Average | None
    progress: Progress = field(default_factory=Progress)
    metrics: Report = field(default_factory=dict)

    @property
    def classes(self) -> Sequence[LabelClass]:
        """That the network tells apart."""
        return self.config.label_classes

    def split(self, name: str) -> DataSet:
        """A split of the data as it is now."""
        return open_data(self.data, name, self.classes)

    @property
    def taught(self) -> TaskSet:
        """The tasks that have teachers."""
        return {name: task for teacher in self.teachers for name, task in teacher.tasks.items()}

    @property
    def weights(self) -> dict[str, float]:
        """w_t of all trained tasks; all 1 under a method that leaves them aside."""
        tasks = self.trained_tasks.items()
        return {name: task.weight if self.balancer.weighted else 1.0 for name, task in tasks}

    @property
    def judged(self) -> Network:
        """The network that is validated and shipped: the average if there is one."""
        return self.average.net if self.average else self.net

    @property
    def completed(self) -> bool:
        """Whether all steps were made."""
        return self.progress.step >= self.config.optim.max_steps

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps (0: never) happens now."""
        return every > 0 and self.progress.step % every == 0

    @property
    def measures_gradients(self) -> bool:
        """Whether the step that comes is one whose gradients are compared."""
        every = self.config.run.gradients_every
        return every > 0 and (self.progress.step + 1) % every == 0


def prepare(config: Config, fabric: Fabric, data: Path) -> Run:
    """A run at its beginning.

    Args:
        data: folder of a data set.

    Raises:
        TrainingError: a configuration that cannot be trained, or data that cannot be read.
    """
    if config.optim.batch_size % config.optim.accumulate:
        raise ConfigError(
            f'optim.accumulate is {config.optim.accumulate}, expected a divisor of '
            f'optim.batch_size, which is {config.optim.batch_size}'
        )
    tasks = config_tasks(config)
    semantic = tasks.get('semantic')
    if config.class_balance and isinstance(semantic, SemanticTask):
        frames = open_data(data, 'train', config.label_classes)
        weights = class_weights(thin_out(frames, 400), config.class_balance)
        tasks['semantic'] = replace(semantic, class_weights=weights)
    trained_tasks = {**auxiliary_tasks(config), **tasks}
    balancer = make_balancer(
        config.balancing.method, list(trained_tasks), **config.balancing.options
    )
    signed = [name for name, task in trained_tasks.items() if task.signed]
    if signed and balancer.positive:
        raise ConfigError(
            f'balancing.method is {config.balancing.method}, which has no meaning for losses below '
            f'0, as of {", ".join(signed)} in task_set {config.task_set}; expected another method'
        )
    teachers = open_teachers(
        config.distill,
        tasks,
        config.label_classes,
        config.data.canonical_focal,
        fabric.device,
    )
    torch.manual_seed(config.seed)
    net = build_network(config, pretrained=config.model.pretrained)
    if isinstance(balancer, GradientBalancer):
        check_gradients(config, net, balancer)
    elif balancer.wants_features:
        balancer.meet(channels_of_features(config, net))
    net = to_device(net, fabric)
    frozen = freeze(net, config.optim.frozen_stages)
    optimizer = make_optimizer(net, config.optim, fabric.to_device(balancer).parameters())
    whole = isinstance(balancer, LossBalancer) and not balancer.selective
    decay = config.optim.ema_decay
    return Run(
        config=config,
        fabric=fabric,
        data=data,
        tasks=tasks,
        trained_tasks=trained_tasks,
        teachers=teachers,
        net=net,
        predict=averaging(net, fabric) if whole else net.predictions,
        balancer=balancer,
        optimizer=cast(torch.optim.Optimizer, fabric.setup_optimizers(optimizer)),
        frozen=frozen,
        average=Average(net, decay) if decay else None,
    )


def channels_of_features(config: Config, net: Network) -> list[int]:
    """The channels of what the tasks share, found by showing the network an image.

    Raises:
        ConfigError: they share nothing of the kind.
    """
    if not net.shared_features():
        raise ConfigError(
            f'balancing.method is {config.balancing.method}, which looks at shared features; '
            f'expected a system that has them, not {config.model.system}'
        )
    training = net.training
    with watched(net) as features, torch.random.fork_rng([]), torch.no_grad():
        net.eval().predictions(torch.zeros(1, 3, config.data.height, config.data.width))
    net.train(training)
    return [feature.shape[1] for feature in features]


@contextmanager
def watched(net: Network, wanted: bool = True) -> Iterator[list[Tensor]]:
    """While open, what leaves the modules of ``shared_features`` is gathered in a list."""
    features: list[Tensor] = []

    def gather(module: nn.Module, inputs: object, output: Tensor | list[Tensor]) -> None:
        features.extend([output] if isinstance(output, Tensor) else output)

    handles = [
        module.register_forward_hook(gather) for module in (net.shared_features() if wanted else ())
    ]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def check_gradients(config: Config, net: Network, balancer: GradientBalancer) -> None:
    """Whether a method finds the gradients that it looks at.

    Raises:
        ConfigError: the tasks share nothing of the kind, or gradients are scaled.
    """
    method = f'balancing.method is {config.balancing.method}'
    if not (net.shared_features() if balancer.of == 'features' else net.shared_parameters()):
        raise ConfigError(
            f'{method}, which looks at gradients of shared {balancer.of}; '
            f'expected a system that has them, not {config.model.system}'
        )
    if config.run.precision == '16-mixed':
        raise ConfigError(
            f'{method}, which looks at gradients, and run.precision 16-mixed scales them; '
            'expected 32-true or bf16-mixed'
        )
