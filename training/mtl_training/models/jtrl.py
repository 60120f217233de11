"""JTRL, joint task-recursive learning: two tasks predicted in turn, ever finer.

"Joint Task-Recursive Learning for Semantic Segmentation and Depth Estimation" (Zhang et al., ECCV
2018; survey, Section 2.3.3, Fig. 8). Only the abstract, the introduction and the survey were
available: the states of two tasks alternate, D_1, S_1, D_2, S_2 .., along a coarse-to-fine scale
space; a task-attentional module (TAM) takes what one task knows to the other; previous responses
are concatenated to what the next state is made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mtl_training.bounds import Count
from mtl_training.models.layers import BasicBlock, ConvBNReLU, resize
from mtl_training.models.network import Auxiliary, Network, Plan, Predictions
from mtl_training.models.pyramids import ModelError, Pyramid


class JTRL(Network):
    """The whole network (survey, Fig. 8): four scales, at each a state of the one and the other.

    D_t = State(X_i, TAM(D_{t-1}, S_{t-1}), D_{t-1})
    S_t = State(X_i, TAM(S_{t-1}, D_t), S_{t-1})

    t = 1 .. 4 is scale i = 3 .. 0; what comes from the coarser scale is up-sampled; D_0 and S_0
    are conv1x1 of X_3. Every state is predicted; the predictions of the finest are the final ones,
    the others are trained with the same weights. D is depth, as in the paper, in whatever order the
    tasks are given; of two others, the first.

    Our reading: the layers of ``State`` and ``TAM``, and that all states have one width. The
    paper's decoder is wider: 295 M and 660 G (survey, Table V) cannot be reproduced.

    Args:
        backbone: pyramid with ``channels`` at strides 4, 8, 16, 32; the paper's is ResNet-50.
        tasks: output channels by task name; exactly two.
        width: of the states.

    Raises:
        ModelError: not two tasks.
    """

    def __init__(self, backbone: Pyramid, tasks: Mapping[str, int], *, width: Count = 256) -> None:
        super().__init__(tasks, mean=backbone.mean, std=backbone.std)
        if len(tasks) != 2:
            raise ModelError(f'jtrl alternates between two tasks; found {", ".join(tasks)}')
        tasks = dict(sorted(tasks.items(), key=lambda task: task[0] != 'depth'))  # D, then S
        self.backbone = backbone
        self.begin = nn.ModuleDict({t: ConvBNReLU(backbone.channels[-1], width, 1) for t in tasks})
        self.states: Any = nn.ModuleList(
            nn.ModuleDict({task: State(channels, width, c) for task, c in tasks.items()})
            for channels in reversed(backbone.channels)
        )

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> JTRL:
        """On one backbone."""
        return cls(plan.pyramid(), plan.tasks, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,H/4,W/4]; auxiliary ones at H/8 .. H/32."""
        features = self.backbone(image)
        d, s = (begin(features[-1]) for begin in self.begin.values())
        logits = []
        for x, states in zip(reversed(features), self.states, strict=True):
            first, second = states.values()
            d, d_logits = first(x, d, s)  # D_t
            s, s_logits = second(x, s, d)  # S_t
            logits.append(dict(zip(states, (d_logits, s_logits), strict=True)))
        return Predictions(logits[-1], [Auxiliary(y) for y in logits[-2::-1]])

    def of_one_task(self) -> list[nn.Module]:
        """What makes predictions, and the last state of all."""
        states = [state for scale in self.states for state in scale.values()]
        return [states[-1], *(state.predict for state in states)]

    def shared_features(self) -> list[nn.Module]:
        """The backbone."""
        return [self.backbone]


class State(nn.Module):
    """The next state of a task at one scale and its prediction.

    Our reading: X_i by conv1x1 to the width; X_i, TAM(own, other) and the task's previous state
    concatenated (3 D), two residual blocks (3 D -> D -> D), conv1x1 to logits.
    """

    def __init__(self, channels: int, width: int, outputs: int) -> None:
        super().__init__()
        self.reduce = ConvBNReLU(channels, width, 1)
        self.attend = TAM(width)
        self.refine = nn.Sequential(BasicBlock(3 * width, width), BasicBlock(width, width))
        self.predict = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor, own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """X_i [B,C,h,w], states [B,D,..] of this task and the other -> state, logits [B,.,h,w]."""
        size = x.shape[-2:]
        own, other = resize(own, size), resize(other, size)
        state = self.refine(torch.cat([self.reduce(x), self.attend(own, other), own], dim=1))
        return state, self.predict(state)


class TAM(nn.Module):
    """Task-attentional module: enhances what two tasks have in common.

    B = sigmoid(W_b cat(f, g)),   f_b = B * f + (1 - B) * g        how much of whom, per value
    M = sigmoid(h(f_b))                                            where to look
    TAM(f, g) = W cat((1 + M) * f, (1 + M) * g)

    Our reading: W_b a 3x3 convolution, h a ConvBNReLU and a 3x3 convolution to D, W a ConvBNReLU
    of 3x3.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.balance = nn.Conv2d(2 * width, width, 3, padding=1)
        self.look = nn.Sequential(
            ConvBNReLU(width, width, 3), nn.Conv2d(width, width, 3, padding=1)
        )
        self.fuse = ConvBNReLU(2 * width, width, 3)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        """f, g [B,D,h,w] -> [B,D,h,w]."""
        balance = self.balance(torch.cat([own, other], dim=1)).sigmoid()
        balanced = balance * own + (1 - balance) * other
        attention = 1 + self.look(balanced).sigmoid()
        return self.fuse(torch.cat([attention * own, attention * other], dim=1))
