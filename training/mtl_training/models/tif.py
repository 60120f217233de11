"""TIF, the Task-Interaction-Free network: a shared encoder, decoders that never see each other.

"Task-Interaction-Free Multi-Task Learning with Efficient Hierarchical Feature Representation".
Scales are numbered as in the paper: 0 is H/4, 3 is H/32. X^i is the backbone's feature, \\hat X^i
the enhanced one, RX^i the refined one of a task; D is the decoders' width, N the number of tasks.

Our reading. No code is public, and the paper leaves widths and several layers open. The choices
made here reproduce its parameters (5.27, 32.91, 204.19 M) and multiply-accumulates (16.6, 76.33,
274.27 G at 425x560, attention products not counted); they are stated in the docstring of each
module.

What cannot be reproduced. Without LTHD (Table 8) the paper has 31.78 M and 62.49 G on Swin-T, 1.13
M and 13.8 G less than with it; here 32.53 M and 75.5 G, as Eq. 11-13 hold no more than 0.37 M and
1.6 G. Cross-distillation saves 0.22 M as in the paper, where it costs 0.40 G, though, and here
saves 0.13 G. ViT-B (Table 10) has 124 M in the paper and 95.65 M here: its pyramid is not said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_training.bounds import Count, Whole
from mtl_training.models.layers import (
    ConvBNReLU,
    FeatureFuse,
    MultiScaleConv,
    flat,
    grid,
    resize,
)
from mtl_training.models.network import Network, Plan, Predictions
from mtl_training.models.pyramids import ModelError, Pyramid


@dataclass(frozen=True)
class Widths:
    """What TIF is built with on a backbone.

    Attributes:
        width: D.
        fuse_width: E.
        slim: whether the last fusion is the slim one.
    """

    width: int
    fuse_width: int
    slim: bool = False


# By backbone. D and E reproduce the parameter counts of the paper (Tables 3 and 4): E is
# sum(C) // 6. Swin-S and ViT-B (another pyramid) follow the same rule, as do backbones that are not
# here, with D = 96; EfficientNet-Lite0 is deployed, and not in the paper.
WIDTHS: dict[str, Widths] = {
    'hrnet_w18_small_v2': Widths(width=72, fuse_width=45),
    'swin_tiny': Widths(width=96, fuse_width=240),
    'swin_small': Widths(width=96, fuse_width=240),
    'swin_base': Widths(width=96, fuse_width=320),
    'swin_large': Widths(width=96, fuse_width=480),
    'vit_base': Widths(width=96, fuse_width=352),
    'tf_efficientnet_lite0': Widths(width=64, fuse_width=64, slim=True),
}


class TIF(Network):
    """The whole network (Fig. 2): backbone, one SAFF per scale, one decoder per task.

    Differs from the paper: in something unknown. All printed equations are here, but two figures of
    its Table 8 do not come out of them (see the module's docstring), so some layer is another.

    Our reading: there is no projection from the shared \\hat X^i to a "task feature" (Section 3.3
    "we abuse"), every decoder starts from \\hat X^i. All attention has one head; the paper names no
    number. Only the final predictions are trained; of deep supervision the paper says nothing.
    With the learning rate of a pre-trained backbone SAFF and the decoders lag behind a plain
    baseline (``optim.backbone_factor``; docs/training.md, "A short run").

    Args:
        backbone: pyramid with ``channels`` at strides 4, 8, 16, 32.
        tasks: output channels by task name.
        width: D.
        fuse_width: E, the width of the last fusion.
        slim: ``SlimFusion`` for deployment instead of ``FinalFusion``.
        saff: on how many scales, the lowest first, SAFF enhances (Tables 6, 9: 0, 2, 4).
        sfd: on how many scales, the lowest first, SFD refines (Tables 6, 7: 0, 1, 2).
        lthd: whether LTHD diffuses to the high scales (Table 6).
        cross: cross-task distillation instead of self-distillation (Table 8).

    Raises:
        ModelError: numbers of scales that there are not, or LTHD without SFD.
    """

    def __init__(
        self,
        backbone: Pyramid,
        tasks: Mapping[str, int],
        *,
        width: Count,
        fuse_width: Count,
        slim: bool,
        saff: Whole = 4,
        sfd: Whole = 2,
        lthd: bool = True,
        cross: bool = False,
    ) -> None:
        super().__init__(tasks, mean=backbone.mean, std=backbone.std)
        if saff not in range(5) or sfd not in range(3):
            raise ModelError(f'saff is {saff}, sfd {sfd}; expected 0 to 4 and 0 to 2 scales')
        if not sfd and (lthd or cross):
            raise ModelError('lthd and cross build on SFD: sfd is 0, expected 1 or 2')
        n, enhanced, refined = len(tasks), range(4 - saff, 4), range(4 - sfd, 4)

        def enhance(scale: int) -> nn.Module:
            kind = SAFF if scale in enhanced else Reduce
            enhancer = kind(backbone.channels, scale, width)
            return WithKey(enhancer, width, n) if cross and scale in refined else enhancer

        def refine(scale: int) -> nn.Module:
            if scale not in refined:
                return Unrefined()
            return CrossFD(width) if cross else SFD(width, n)

        fusion = SlimFusion if slim else FinalFusion
        decoder = Decoder if lthd else LowDecoder
        self.backbone = backbone
        self.saff = nn.ModuleList(enhance(scale) for scale in range(4))
        self.decoders = nn.ModuleDict(
            {
                task: decoder(width, refine, fusion(width, fuse_width, channels))
                for task, channels in tasks.items()
            }
        )

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> TIF:
        """On one backbone, with the ``WIDTHS`` of it unless options say otherwise."""
        backbone = plan.pyramid()
        usual = WIDTHS.get(plan.backbone, Widths(96, sum(backbone.channels) // 6))
        return cls(backbone, plan.tasks, **{**asdict(usual), **options})

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,H/4,W/4] by task."""
        features = self.backbone(image)  # X^0..X^3
        enhanced = [saff(features) for saff in self.saff]  # [B, D, H/4, W/4] .. [B, D, H/32, W/32]
        return Predictions({task: self.decoders[task](enhanced) for task in self.kept})

    def of_one_task(self) -> list[nn.Module]:
        """The decoders."""
        return [self.decoders]

    def shared_features(self) -> nn.ModuleList:
        """The enhanced scales."""
        return self.saff


class SAFF(nn.Module):
    """Scale Attentive-Feature Fusion of one scale i (Fig. 3, Eq. 2-5).

    XL   = BN(conv1x1(X^i))
    Y    = W_i cat{ P(X^j), j != i }                     (2)
    SFX  = SFF(XL, Y) + XL                               (3)
    SP   = ReLU(f_group(SFX)),  \\hat X^i = f_1x1(SP)     (4, 5)

    Our reading: P is bilinear, W_i a 1x1 convolution to D, SFF two 1x1 convolutions with a ReLU
    between (cat(XL, Y), 2D -> D -> D), f_group a depth-wise 3x3.
    """

    def __init__(self, channels: Sequence[int], scale: int, width: int) -> None:
        super().__init__()
        self.scale = scale
        others = [c for i, c in enumerate(channels) if i != scale]
        self.reduce = nn.Sequential(
            nn.Conv2d(channels[scale], width, 1, bias=False), nn.BatchNorm2d(width)
        )
        self.align = MultiScaleConv(others, width)
        self.fuse = nn.Sequential(
            nn.Conv2d(2 * width, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, width, 1)
        )
        self.spatial = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.mix = nn.Conv2d(width, width, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Four X^i -> \\hat X^i [B, D, H_i, W_i]."""
        others = [x for i, x in enumerate(features) if i != self.scale]
        low = self.reduce(features[self.scale])  # XL [B, D, H_i, W_i]
        aligned = self.align(others, low.shape[-2:])  # Y [B, D, H_i, W_i]
        fused = self.fuse(torch.cat([low, aligned], dim=1)) + low  # SFX
        return self.mix(F.relu(self.spatial(fused), inplace=True))


class Reduce(nn.Module):
    """A scale without SAFF (Table 9): \\hat X^i = XL."""

    def __init__(self, channels: Sequence[int], scale: int, width: int) -> None:
        super().__init__()
        self.scale = scale
        self.reduce = nn.Sequential(
            nn.Conv2d(channels[scale], width, 1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Four X^i -> \\hat X^i [B, D, H_i, W_i]."""
        return self.reduce(features[self.scale])


class Decoder(nn.Module):
    """The decoder of one task (Fig. 2): SFD on scales 3 and 2, LTHD on 1 and 0, final fusion."""

    def __init__(self, width: int, refine: Callable[[int], nn.Module], fusion: nn.Module) -> None:
        super().__init__()
        self.sfd2, self.sfd3 = refine(2), refine(3)
        self.lthd0, self.lthd1 = LTHD(width), LTHD(width)
        self.fusion = fusion

    def forward(self, enhanced: Sequence[Tensor]) -> Tensor:
        """Four \\hat X^i [B,D,H_i,W_i] -> logits [B,o_t,H/4,W/4]."""
        x0, x1, x2, x3 = enhanced
        rx2, a2 = self.sfd2(x2)
        rx3, a3 = self.sfd3(x3)
        attention = diffuse(a3, a2)  # Softmax(A^0), one for both high scales
        rx0 = self.lthd0(x0, attention, x2.shape[-2:])
        rx1 = self.lthd1(x1, attention, x2.shape[-2:])
        return self.fusion([rx0, rx1, rx2, rx3])


class LowDecoder(nn.Module):
    """A decoder without LTHD (Table 6): RX^0 and RX^1 are \\hat X^0 and \\hat X^1 as they are."""

    def __init__(self, width: int, refine: Callable[[int], nn.Module], fusion: nn.Module) -> None:
        super().__init__()
        self.sfd2, self.sfd3 = refine(2), refine(3)
        self.fusion = fusion

    def forward(self, enhanced: Sequence[Tensor]) -> Tensor:
        """Four \\hat X^i [B,D,H_i,W_i] -> logits [B,o_t,H/4,W/4]."""
        x0, x1, x2, x3 = enhanced
        (rx2, _), (rx3, _) = self.sfd2(x2), self.sfd3(x3)
        return self.fusion([x0, x1, rx2, rx3])


class Affinity(NamedTuple):
    """A = Q K^T / sqrt(D) (Eq. 8), kept as its factors [B,D,h,w] so that it can be up-sampled."""

    query: Tensor
    key: Tensor

    def up(self, size: Sequence[int]) -> Affinity:
        """f_up of Eq. 11, exactly: A is linear in Q and in K, and so is bilinear interpolation."""
        return Affinity(resize(self.query, size), resize(self.key, size))

    def matrix(self) -> Tensor:
        """A [B, hw (queries), hw (keys)]."""
        width = self.query.shape[1]
        return (flat(self.query) * width**-0.5) @ flat(self.key).mT


def diffuse(a3: Affinity, a2: Affinity) -> Tensor:
    """Softmax(A^0), A^0 = f_up(A^3) + A^2 (Eq. 11), on scale 2's grid: [B, H_2 W_2, H_2 W_2].

    Our reading: A^1 = A^0, and f_up interpolates the key grid, then the query grid.
    """
    up = a3.up(a2.query.shape[-2:])
    return (up.matrix() + a2.matrix()).softmax(-1)


class SFD(nn.Module):
    """Self-Feature Distillation of one task on one low scale (Fig. 4, Eq. 6-10).

    K = V = sum_n Flat(X) W_n,  Q = Flat(X) W_q          (6, 7)
    A = Q K^T                                            (8)
    RX = Softmax(A) V + X,  RX = FFN(RX) + RX            (9, 10)

    Our reading: a branch Flat(X) W_n is LayerNorm(Linear(X)) ("linear normalization"; without
    the norm the sum over n would be one linear map), n = 1..N with N the number of tasks, Q is of
    X_t (Eq. 7 prints X_0), A is divided by sqrt(D), the FFN is pre-norm, ratio 4, GELU.
    """

    def __init__(self, width: int, tasks: int) -> None:
        super().__init__()
        self.branches = nn.Linear(width, (tasks + 1) * width)  # W_q, W_1 .. W_N side by side
        self.gain = nn.Parameter(torch.ones(tasks + 1, width))
        self.shift = nn.Parameter(torch.zeros(tasks + 1, width))
        self.ffn = feed_forward(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Affinity]:
        """\\hat X [B,D,h,w] -> RX [B,D,h,w] and A."""
        size = x.shape[-2:]
        tokens = flat(x)  # [B, hw, D]
        branches = self.branches(tokens).unflatten(-1, self.gain.shape)  # [B, hw, N+1, D]
        branches = F.layer_norm(branches, branches.shape[-1:]) * self.gain + self.shift
        query, key = branches[:, :, 0], branches[:, :, 1:].sum(2)
        affinity = Affinity(grid(query, size), grid(key, size))
        refined = affinity.matrix().softmax(-1) @ key + tokens
        refined = self.ffn(refined) + refined
        return grid(refined, size), affinity


class Unrefined(nn.Module):
    """A low scale without SFD (Tables 6, 7): RX = \\hat X; A = 0, the other scale's counts."""

    def forward(self, x: Tensor) -> tuple[Tensor, Affinity]:
        """\\hat X [B,D,h,w] -> itself and no affinity."""
        nothing = torch.zeros_like(x[:, :1])
        return x, Affinity(nothing, nothing)


class WithKey(nn.Module):
    """\\hat X of a low scale and, behind it, K = V = sum_n Flat(X_n) W_n of all tasks (Table 8).

    Our reading of cross-task distillation: W_n is the map of the source task n and the same for
    every target task, as everywhere \\hat X_n = \\hat X. Against SFD, which has N maps in each of
    N tasks, this saves N (N - 1) maps a scale, 0.22 M for four tasks, as in the paper.
    """

    def __init__(self, enhance: nn.Module, width: int, tasks: int) -> None:
        super().__init__()
        self.enhance = enhance
        self.sources = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width)) for _ in range(tasks)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Four X^i -> \\hat X and K side by side [B, 2D, h, w]."""
        x = self.enhance(features)
        tokens = flat(x)  # [B, hw, D]
        key = sum(source(tokens) for source in self.sources)
        return torch.cat([x, grid(key, x.shape[-2:])], dim=1)


class CrossFD(nn.Module):
    """Cross-task distillation of one task on one low scale: SFD with a K = V of all tasks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.ffn = feed_forward(width)

    def forward(self, x_and_key: Tensor) -> tuple[Tensor, Affinity]:
        """\\hat X and K [B,2D,h,w], of ``WithKey`` -> RX [B,D,h,w] and A."""
        x, key = x_and_key.chunk(2, dim=1)
        size, tokens = x.shape[-2:], flat(x)
        affinity = Affinity(grid(self.query(tokens), size), key)
        refined = affinity.matrix().softmax(-1) @ flat(key) + tokens
        refined = self.ffn(refined) + refined
        return grid(refined, size), affinity


class LTHD(nn.Module):
    """Low-To-High Scale Feature Diffusion of one task on one high scale (Fig. 5, Eq. 11-13).

    RX = Softmax(A^0) (Pool(X) W)                        (12)
    RX = FeatureFuse(FFN(RX), X)                         (13)

    Our reading: Pool averages to scale 2's grid, the FFN is pre-norm with ratio 1 and GELU, its
    result is up-sampled bilinearly, FeatureFuse is conv1x1 (2D -> D), BN, ReLU. Eq. 12 prints the
    attention on the right; the shapes ask for it on the left. Neither line has a residual, as
    printed; that of Eq. 10 has.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, width)
        self.ffn = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.fuse = FeatureFuse([width, width], width)

    def forward(self, x: Tensor, attention: Tensor, low: tuple[int, int]) -> Tensor:
        """\\hat X [B,D,H_i,W_i], Softmax(A^0), scale 2's size -> RX [B,D,H_i,W_i]."""
        values = self.value(flat(F.adaptive_avg_pool2d(x, low)))  # [B, H_2 W_2, D]
        diffused = self.ffn(attention @ values)
        return self.fuse([grid(diffused, low), x], x.shape[-2:])


class FinalFusion(nn.Module):
    """FX_t = FeatureFuse(RX^0, .., RX^3) (Eq. 14) and the prediction.

    Our reading: up-sampled to H/4, concatenated, conv3x3 (4D -> E), BN, ReLU, conv1x1 to logits.
    """

    def __init__(self, width: int, fuse_width: int, channels: int) -> None:
        super().__init__()
        self.fuse = ConvBNReLU(4 * width, fuse_width, 3)
        self.predict = nn.Conv2d(fuse_width, channels, 1)

    def forward(self, refined: Sequence[Tensor]) -> Tensor:
        """Four RX^i [B,D,H_i,W_i] -> logits [B,o_t,H/4,W/4]."""
        size = refined[0].shape[-2:]
        return self.predict(self.fuse(torch.cat([resize(x, size) for x in refined], dim=1)))


class SlimFusion(nn.Module):
    """The final fusion for deployment: Eq. 14 with a 1x1 convolution before a narrow 3x3.

    Differs from the paper: conv1x1 (4D -> E), BN, ReLU, conv3x3 (E -> E), BN, ReLU, conv1x1. The
    wide 3x3 of ``FinalFusion`` is 62 % of the published network's decoders.
    """

    def __init__(self, width: int, fuse_width: int, channels: int) -> None:
        super().__init__()
        self.reduce = FeatureFuse([width] * 4, fuse_width)
        self.fuse = ConvBNReLU(fuse_width, fuse_width, 3)
        self.predict = nn.Conv2d(fuse_width, channels, 1)

    def forward(self, refined: Sequence[Tensor]) -> Tensor:
        """Four RX^i [B,D,H_i,W_i] -> logits [B,o_t,H/4,W/4]."""
        return self.predict(self.fuse(self.reduce(refined, refined[0].shape[-2:])))


def feed_forward(width: int) -> nn.Sequential:
    """The FFN of Eq. 10, pre-norm, ratio 4."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
    )
