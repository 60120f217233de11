"""What all systems have in common: a plan to build them from, an image in, predictions out."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from mtl_training.models.backbones import BACKBONES, pyramid
from mtl_training.models.layers import resize
from mtl_training.models.pyramids import ModelError, Pyramid, ResNetPyramid


@dataclass(frozen=True)
class Plan:
    """What every system is built from.

    Attributes:
        backbone: a key of ``BACKBONES``.
        tasks: output channels by task name.
        auxiliary: output channels of tasks that are trained for the others' sake.
        pretrained: weights that backbones begin with, see ``backbones.pyramid``.
    """

    backbone: str
    tasks: Mapping[str, int]
    auxiliary: Mapping[str, int] = field(default_factory=dict)
    pretrained: bool | str = False

    def pyramid(self) -> Pyramid:
        """A new backbone."""
        return pyramid(self.backbone, pretrained=self.pretrained)

    def pyramids(self) -> dict[str, Pyramid]:
        """A new backbone for every task."""
        return {task: self.pyramid() for task in self.tasks}

    def dilated_resnet(self, system: str) -> ResNetPyramid:
        """A new backbone for a system that works on the stages of a ResNet of stride 8.

        Raises:
            ModelError: the backbone is of another kind.
        """
        backbone = self.pyramid()
        if isinstance(backbone, ResNetPyramid) and backbone.dilated:
            return backbone
        known = [
            name for name, (*_, options) in BACKBONES.items() if options.get('output_stride') == 8
        ]
        raise ModelError(
            f'{system} works on the stages of a dilated ResNet, not on {self.backbone}; '
            f'expected one of {", ".join(known)}'
        )

    def dilated_resnets(self, system: str) -> dict[str, ResNetPyramid]:
        """As ``dilated_resnet``, a new one for every task."""
        return {task: self.dilated_resnet(system) for task in self.tasks}


class Auxiliary(NamedTuple):
    """Predictions that are trained but not used: of another scale, stage or task.

    Attributes:
        logits: [B, C_t, h, w] by task, on a grid of their own.
        weight: factor of their losses.
    """

    logits: dict[str, Tensor]
    weight: float = 1.0


class Predictions(NamedTuple):
    """What a network says about a batch.

    Attributes:
        final: logits [B, C_t, h, w] by task, on the network's own grid, usually H/4 x W/4.
        auxiliary: for deep supervision; empty in systems without.
    """

    final: dict[str, Tensor]
    auxiliary: Sequence[Auxiliary] = ()


class Network(nn.Module):
    """A system of the literature. Subclasses implement ``from_plan`` and ``predictions``.

    Their options are the keyword-only arguments of their ``__init__``, with the paper's values as
    defaults; nowhere else are these said.

    Attributes:
        tasks: output channels by task name.
        kept: names of the tasks that ``forward`` predicts: all, until ``keep``.
        mean, std: normalisation of RGB in 0..1 that the backbone expects.
        takes_auxiliary: whether it can train tasks only for the others' sake.
        not_exportable: why it cannot become a bundle, in one sentence; empty if it can.
    """

    takes_auxiliary: ClassVar[bool] = False
    not_exportable: ClassVar[str] = ''

    def __init__(
        self, tasks: Mapping[str, int], *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.tasks = dict(tasks)
        self.kept = tuple(tasks)
        self.mean, self.std = tuple(mean), tuple(std)

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> Network:
        """Build it with backbones of its own: as many as it has, of the kind that it works on.

        Args:
            options: some of ``options()``.

        Raises:
            ModelError: a backbone, tasks or options that it cannot work with.
        """
        raise NotImplementedError

    @classmethod
    def options(cls) -> dict[str, inspect.Parameter]:
        """Its own options by name; one without a default depends on the backbone."""
        return {
            name: parameter
            for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name != 'auxiliary'
        }

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> predictions; the same in training and in use."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Normalised image [B,3,H,W] -> final logits [B,C_t,H,W] by task."""
        size, final = image.shape[-2:], self.predictions(image).final
        return {task: resize(final[task], size) for task in self.kept}

    def penalties(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Further terms of the total loss of the last forward pass, weighted, by name.

        Args:
            losses: unweighted losses of the final predictions by task.
        """
        return {}

    def learning_rates(self, *, adaptive: bool) -> dict[str, float]:
        """Factors of the learning rate by the beginning of a parameter's name; 1 for the others.

        Args:
            adaptive: whether the optimiser divides steps by the size of gradients, as Adam does.
                A factor that makes up for small gradients under SGD would then make huge steps.
        """
        return {}

    def of_one_task(self) -> Iterable[nn.Module]:
        """Modules each of whose parameters is reached by the losses of one task at most."""
        return ()

    def shared_parameters(self) -> list[nn.Parameter]:
        """The parameters that several tasks may disagree about: all but those ``of_one_task``."""
        own = {id(p) for module in self.of_one_task() for p in module.parameters()}
        return [p for p in self.parameters() if id(p) not in own]

    def shared_features(self) -> Sequence[nn.Module] | nn.ModuleList:
        """Modules through whose outputs alone all tasks see the image: the end of the encoder."""
        return ()

    def pyramids(self) -> list[Pyramid]:
        """Its backbones.

        Raises:
            ModelError: it takes its backbone apart.
        """
        found = [module for module in self.modules() if isinstance(module, Pyramid)]
        if not found:
            raise ModelError(f'{type(self).__name__} takes its backbone apart')
        return found

    def early(self, stages: int) -> list[nn.Module]:
        """The stems and the first ``stages`` stages of its backbones, see ``Pyramid.early``.

        Raises:
            ModelError: it takes its backbone apart, or a backbone has no such stages.
        """
        return [module for backbone in self.pyramids() for module in backbone.early(stages)]

    def keep(self, tasks: Sequence[str]) -> None:
        """Predict these tasks only from now on, in this order.

        Raises:
            ModelError: a task that it does not have.
        """
        unknown = [task for task in tasks if task not in self.tasks]
        if unknown:
            raise ModelError(f'no task {unknown[0]!r}; the network has {", ".join(self.tasks)}')
        self.kept = tuple(tasks)
