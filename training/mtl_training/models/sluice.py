"""Sluice networks: what to share is learned by subspace and by layer.

Ruder et al., "Latent Multi-Task Architecture Learning", AAAI 2019 (first "Sluice networks:
Learning what to share between loosely related tasks", 2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_training.bounds import Amount, Share
from mtl_training.models.heads import survey_head
from mtl_training.models.layers import ConvBNReLU, convex, resize
from mtl_training.models.network import Network, Plan, Predictions
from mtl_training.models.pyramids import ResNetPyramid

SUBSPACES = 2  # G of each task


class Sluice(Network):
    """One dilated ResNet per task; alpha mixes subspaces across tasks, beta the stages of a task.

    ~h_k  = alpha_k [h_{A,k,1}, h_{A,k,2}, h_{B,k,1}, h_{B,k,2}]      after stage k, ``SluiceUnit``
    y_t   = head_t(sum_k beta_{t,k} P_k(~h_{t,k}))                    ``LayerMixture``
    L     = sum_t L_t + w sum_t sum_k ||G_{t,k,1}^T G_{t,k,2}||_F^2    ``overlap``

    Our reading. The paper and its code tag words with LSTMs; no dense network was published. Here
    layers are the stages of a dilated ResNet and subspaces the halves of its channels, as its code
    halves hidden states. Stages differ in width and grid, which layers of an LSTM do not: all but
    the last are resized and projected (P_k) before they are mixed. G_{t,k,g} are the filters of a
    stage's last convolution that write subspace g, as its code takes the matrices of an LSTM. With
    alpha = 1 and beta = (0, 0, 0, 1) these are the single-task networks; names of parameters are
    those of ``SingleTask``, whose trained networks it may begin with.

    Args:
        backbones: one by task.
        tasks: output channels by task name.
        own: alpha of a subspace's own activations at the start; the others share the rest.
        orthogonality: w, .1 in the example of the authors' code.
    """

    def __init__(
        self,
        backbones: Mapping[str, ResNetPyramid],
        tasks: Mapping[str, int],
        *,
        own: Share = 0.9,
        orthogonality: Amount = 0.1,
    ) -> None:
        first = next(iter(backbones.values()))
        super().__init__(tasks, mean=first.mean, std=first.std)
        self.orthogonality = orthogonality
        self.backbones = nn.ModuleDict(backbones)
        self.sluices = nn.ModuleList(SluiceUnit(len(tasks), own) for _ in first.channels)
        self.mixtures = nn.ModuleDict({task: LayerMixture(first.channels) for task in tasks})
        self.heads = nn.ModuleDict(
            {task: survey_head(backbones[task], channels) for task, channels in tasks.items()}
        )

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> Sluice:
        """On a dilated ResNet for every task."""
        return cls(plan.dilated_resnets('sluice'), plan.tasks, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,H/8,W/8] by task."""
        x = {task: backbone.stem(image) for task, backbone in self.backbones.items()}
        stages: dict[str, list[Tensor]] = {task: [] for task in self.tasks}
        for stage, sluice in enumerate(self.sluices):
            x = sluice({task: net.stages[stage](x[task]) for task, net in self.backbones.items()})
            for task, layers in stages.items():
                layers.append(x[task])  # [B, C, H/4, W/4], then [B, C, H/8, W/8]
        mixed = {task: self.mixtures[task](stages[task]) for task in self.kept}
        return Predictions({task: self.heads[task]([x]) for task, x in mixed.items()})

    def of_one_task(self) -> list[nn.Module]:
        """The mixtures of stages, and the heads."""
        return [self.mixtures, self.heads]

    def penalties(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """How far the subspaces are from orthogonal, weighted."""
        overlaps = [
            overlap(last_convolution(stage[-1]).weight)
            for backbone in self.backbones.values()
            for stage in backbone.stages
        ]
        return {'orthogonality': self.orthogonality * torch.stack(overlaps).sum()}

    def learning_rates(self, *, adaptive: bool) -> dict[str, float]:
        """alpha and beta learn 100 times as fast under SGD, as cross-stitch units do."""
        if adaptive:
            return {}
        return {'sluices.': 100.0, **{f'mixtures.{task}.beta': 100.0 for task in self.tasks}}


class SluiceUnit(nn.Module):
    """Linear combinations of all tasks' subspaces, one alpha for each ordered pair of subspaces.

    alpha is (T G) x (T G); a row is one subspace of one task. A cross-stitch unit with one alpha
    for all channels is the case in which a task's subspaces are mixed alike.

    At the start the combination is convex: ``own`` on the diagonal, the rest shared equally (the
    authors' code has this with one subspace; with two it begins with equal shares or a pattern).
    """

    def __init__(self, tasks: int, own: float) -> None:
        super().__init__()
        count = tasks * SUBSPACES
        own, other = convex(count, own)
        self.alpha = nn.Parameter(torch.full((count, count), other).fill_diagonal_(own))

    def forward(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Activations [B,C,h,w] by task -> combinations [B,C,h,w] by task."""
        stacked = torch.cat(list(x.values()), dim=1)  # [B, T C, h, w]
        subspaces = stacked.unflatten(1, (len(self.alpha), -1)).flatten(2)  # [B, T G, C/G h w]
        mixed = (self.alpha @ subspaces).reshape(stacked.shape)
        return dict(zip(x, mixed.chunk(len(x), dim=1), strict=True))


class LayerMixture(nn.Module):
    """sum_k beta_k P_k(x_k) of one task, on the last stage's grid and in its width.

    P_k is a 1x1 convolution with BatchNorm and ReLU, and nothing for the last stage. beta begins
    as in the authors' code: .9 for the last stage, the others share the rest.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        *others, last = channels
        self.project = nn.ModuleList(
            [*(ConvBNReLU(width, last, 1) for width in others), nn.Identity()]
        )
        own, other = convex(len(channels), 0.9)
        self.beta = nn.Parameter(torch.tensor([other] * len(others) + [own]))

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Stages [B,C_k,h_k,w_k] -> [B,C_K,h_K,w_K]."""
        size = stages[-1].shape[-2:]
        layers = zip(self.beta, self.project, stages, strict=True)
        return sum(beta * project(resize(x, size)) for beta, project, x in layers)


def last_convolution(block: nn.Module) -> nn.Conv2d:
    """The convolution of a residual block that writes its output."""
    convolution = getattr(block, 'conv3', None) or block.conv2
    assert isinstance(convolution, nn.Conv2d)
    return convolution


def overlap(weight: Tensor) -> Tensor:
    """||G_1^T G_2||_F^2 / (C / 2), G_g the filters of half g of a convolution, as columns.

    How much of a filter's length lies along the filters of the other half, averaged.

    Differs from the paper: filters have unit length, as BatchNorm undoes any other, and their
    number is divided by, so that w weighs wide stages like narrow ones. The authors' code takes
    the product over filters, W_1^T W_2 of rows, which is not 0 where all filters are orthogonal.
    """
    first, second = F.normalize(weight.flatten(1), dim=1).chunk(SUBSPACES)
    return (first @ second.mT).square().sum() / len(first)
