"""ASTMT: one network, one forward pass per task, each attentive to its task (CVPR 2019)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_training.bounds import Amount, Count
from mtl_training.models.adversary import confusion, make_discriminator, reversal
from mtl_training.models.layers import resize
from mtl_training.models.network import Network, Plan, Predictions
from mtl_training.models.pyramids import ModelError, Pyramid, ResNetPyramid


class ASTMT(Network):
    """Attentive single-tasking of multiple tasks (Maninis et al., CVPR 2019).

    One pass per task: the shared layers, modulated by what belongs to the task alone.

    SE_t(x)    = x * sigmoid(W_2t relu(W_1t mean_hw(x)))     per task, in encoder and decoder
    L_t(x)     = x + L(x) + RA_t(x),   RA_t a 1x1 convolution that starts at zero
    BN_t                                   per task, in the decoder; in the encoder with ``norms``
    L          = (1 - w) sum_t L_t + w sum_t CE(D(g_t / |g_t|), t),   g_t = dL_t / df_t

    D sees the gradient of a task's loss with respect to the last features f_t, of unit length at
    every pixel, and learns whose it is; what made the gradient learns the contrary, through a
    reversal of factor alpha = 2 / (1 + exp(-10 p)) - 1, p the share of the training that is done.

    Differs from the paper: the tasks' losses are summed and make one step, where the released code
    makes one step per task. ``penalties`` returns w / (1 - w) of the discriminator's term, which
    is the printed total but for the factor 1 - w of the whole. The stem has nothing of a task and
    is computed once. timm's ResNets stride on the 3x3 convolution, the released code's on the 1x1
    before; the first block of the last stage has no dilation in timm. With these undone, weights of
    the released code give its outputs; this was tried without ``norms``.

    Our reading: pixels without a gradient have no label and teach the discriminator nothing. On
    ResNet-18 and 34, which the paper does not have, adapters are beside the second convolution.

    Args:
        backbone: a ResNet; the paper's have SE and stride 16 (``seresnet50_d16``). SE that comes
            with the backbone is copied for every task, as the released code does.
        tasks: output channels by task name.
        width: of the decoder.
        rates: dilations of the decoder's pyramid pooling.
        adapters: whether tasks have residual adapters.
        norms: whether tasks have their own BatchNorm in the blocks of the encoder, as in the runs
            that were released.
        discriminator_weight: w.
        steps: of the training, over which alpha rises.

    Raises:
        ModelError: the backbone is not a ResNet.
    """

    stages: Any  # of blocks
    step: Tensor

    def __init__(
        self,
        backbone: Pyramid,
        tasks: Mapping[str, int],
        *,
        width: Count = 64,
        rates: Sequence[int] = (6, 12, 18),
        adapters: bool = True,
        norms: bool = False,
        discriminator_weight: Amount = 0.01,
        steps: Count = 40_000,
    ) -> None:
        super().__init__(tasks, mean=backbone.mean, std=backbone.std)
        if not isinstance(backbone, ResNetPyramid):
            raise ModelError('astmt works on the blocks of ResNets; expected such a backbone')
        net, modulated = backbone.net, list(tasks) if adapters else []
        self.stem = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool)
        self.stages = nn.ModuleList(
            nn.ModuleList(TaskBlock(block, tasks, modulated, norms=norms) for block in stage)
            for stage in backbone.stages
        )
        self.decoder = TaskDecoder(backbone.channels, tasks, modulated, width=width, rates=rates)
        self.predict = PerTask({task: nn.Conv2d(width, c, 1) for task, c in tasks.items()})
        self.discriminator = make_discriminator(width, width, len(tasks))
        self.discriminator_weight, self.steps = discriminator_weight, steps
        self.register_buffer('step', torch.zeros((), dtype=torch.long))
        self._features: dict[str, Tensor] = {}  # f_t of the last pass that may be trained

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> ASTMT:
        """On one backbone."""
        return cls(plan.pyramid(), plan.tasks, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,H/4,W/4] by task."""
        stem = self.stem(image)  # [B, 64, H/4, W/4]
        features = {task: self.features(stem, task) for task in self.kept}
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # nor exporting
            self._features = features
        return Predictions({task: self.predict[task](f) for task, f in features.items()})

    def of_one_task(self) -> list[nn.Module]:
        """What belongs to a task; the discriminator hears of no loss itself."""
        return [self.discriminator, *(m for m in self.modules() if isinstance(m, PerTask))]

    def features(self, x: Tensor, task: str) -> Tensor:
        """The pass of one task, [B,64,H/4,W/4] -> f_t [B,width,H/4,W/4]."""
        scales = []
        for stage in self.stages:
            for block in stage:
                x = block(x, task)
            scales.append(x)
        return self.decoder(scales[0], scales[-1], task)

    def penalties(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The discriminator's term, to be minimised by D and, reversed, maximised by the rest."""
        alpha = reversal(self.step, self.steps)
        features, self._features = self._features, {}
        self.step += 1
        names = list(self.tasks)
        terms = []
        for task, loss in losses.items():
            (gradient,) = torch.autograd.grad(loss, features[task], create_graph=True)
            terms.append(confusion(gradient, self.discriminator, names.index(task), alpha))
        weight = self.discriminator_weight / (1 - self.discriminator_weight)
        return {'discriminator': weight * torch.stack(terms).sum()}

    def learning_rates(self, *, adaptive: bool) -> dict[str, float]:
        """What belongs to one task learns N times as fast (it sees an N-th), D ten times; SGD."""
        if adaptive:
            return {}
        own = {
            f'{name}.': float(len(self.tasks))
            for name, module in self.named_modules()
            if isinstance(module, PerTask)
        }
        return {**own, 'discriminator.': 10.0}


class PerTask(nn.ModuleDict):
    """Modules of which each task has its own."""


class TaskBlock(nn.Module):
    """A residual block of timm, with SE and an adapter per task (Fig. 4).

    Args:
        block: ``BasicBlock`` or ``Bottleneck``; its parts are taken over.
        tasks: names.
        adapted_tasks: names of those that have an adapter.
        norms: whether each task has its own copy of the norms.
    """

    def __init__(
        self, block: Any, tasks: Iterable[str], adapted_tasks: Iterable[str], *, norms: bool
    ) -> None:
        super().__init__()

        def norm(shared: nn.Module) -> nn.Module:
            return PerTask({t: copy.deepcopy(shared) for t in tasks}) if norms else shared

        conv, bottleneck = block.conv2, hasattr(block, 'conv3')
        channels = block.conv3.out_channels if bottleneck else conv.out_channels
        se = squeeze_excite(channels) if block.se is None else block.se
        self.enter = nn.Sequential(block.conv1, norm(block.bn1), block.act1)
        self.conv, self.norm = conv, norm(block.bn2)
        self.adapters = PerTask({task: adapter(conv) for task in adapted_tasks})
        last = (block.act2, block.conv3, norm(block.bn3)) if bottleneck else ()
        self.leave = nn.Sequential(*last)
        self.se = PerTask({task: copy.deepcopy(se) for task in tasks})
        self.shortcut = nn.Sequential()
        if block.downsample is not None:
            *layers, shared = block.downsample
            self.shortcut = nn.Sequential(*layers, norm(shared))

    def forward(self, x: Tensor, task: str) -> Tensor:
        """[B,C,h,w] -> [B,C',h',w'] as the task sees it."""
        entered = through(self.enter, x, task)
        convolved = adapted(self.conv, self.adapters, entered, task)
        left = through(self.leave, through([self.norm], convolved, task), task)
        return F.relu(self.se[task](left) + through(self.shortcut, x, task))


class TaskConv(nn.Module):
    """A shared convolution, then what belongs to the task: adapter, BatchNorm, ReLU and SE."""

    def __init__(
        self,
        conv: nn.Conv2d,
        tasks: Iterable[str],
        adapted_tasks: Iterable[str],
        *,
        reduction: Count = 16,
    ) -> None:
        super().__init__()
        width = conv.out_channels
        self.conv = conv
        self.adapters = PerTask({task: adapter(conv) for task in adapted_tasks})
        self.norm = PerTask({task: nn.BatchNorm2d(width) for task in tasks})
        self.se = PerTask({task: squeeze_excite(width, reduction) for task in tasks})

    def forward(self, x: Tensor, task: str) -> Tensor:
        """[B,C,h,w] -> [B,width,h,w]."""
        convolved = adapted(self.conv, self.adapters, x, task)
        return self.se[task](F.relu(self.norm[task](convolved)))


class TaskDecoder(nn.Module):
    """The decoder of DeepLab v3+ (Chen et al., ECCV 2018), narrow, modulated by the task.

    Pyramid pooling on the last scale, up-sampled, beside the reduced first scale (width 3/16 of
    the decoder's, 48 of 256), two 3x3 convolutions. The mean of the image has no adapter.
    """

    def __init__(
        self,
        channels: Sequence[int],
        tasks: Iterable[str],
        adapted_tasks: Iterable[str],
        *,
        width: int,
        rates: Sequence[int],
    ) -> None:
        super().__init__()
        low = width * 48 // 256
        high = channels[-1]

        def layer(
            inputs: int, outputs: int, kernel: int, rate: int = 1, reduction: int = 16
        ) -> TaskConv:
            padding = rate * (kernel // 2)
            conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=rate, bias=False)
            return TaskConv(conv, tasks, adapted_tasks, reduction=reduction)

        self.branches = nn.ModuleList(
            [layer(high, width, 1), *(layer(high, width, 3, rate) for rate in rates)]
        )
        self.pool = TaskConv(nn.Conv2d(high, width, 1, bias=False), tasks, ())
        self.project = layer(width * (len(rates) + 2), width, 1)
        self.reduce = layer(channels[0], low, 1, reduction=4)
        self.mix = layer(width + low, width, 3)
        self.process = layer(width, width, 3)

    def forward(self, low: Tensor, high: Tensor, task: str) -> Tensor:
        """First and last scale -> f_t [B,width,H/4,W/4]."""
        pooled = self.pool(high.mean(dim=(2, 3), keepdim=True), task)
        branches = [branch(high, task) for branch in self.branches]
        pyramid = torch.cat([*branches, pooled.expand(-1, -1, *high.shape[-2:])], dim=1)
        deep = resize(self.project(pyramid, task), low.shape[-2:])
        return self.process(self.mix(torch.cat([deep, self.reduce(low, task)], 1), task), task)


def through(layers: Iterable[nn.Module], x: Tensor, task: str) -> Tensor:
    """Layers one after the other, those of the task where each task has its own."""
    for layer in layers:
        x = layer[task](x) if isinstance(layer, PerTask) else layer(x)
    return x


def adapted(conv: nn.Conv2d, adapters: PerTask, x: Tensor, task: str) -> Tensor:
    """L(x) + RA_t(x); the identity of the printed formula is the shortcut of the block."""
    return conv(x) + adapters[task](x) if len(adapters) else conv(x)


def adapter(conv: nn.Conv2d) -> nn.Conv2d:
    """A residual adapter beside a convolution: 1x1, zero (Rebuffi et al., CVPR 2018)."""
    stride = conv.stride[0]  # to both sides
    parallel = nn.Conv2d(conv.in_channels, conv.out_channels, 1, stride=stride, bias=False)
    nn.init.zeros_(parallel.weight)
    return parallel


def squeeze_excite(channels: int, reduction: int = 16) -> SEModule:
    """SE with biases, as timm's SE-ResNets have it; bottleneck C / r."""
    return SEModule(channels, rd_channels=max(channels // reduction, 1))
