"""MT-CP: decoders of the tasks that are made coherent, and predictions traced back through them.

"Optimizing Dense Visual Predictions Through Multi-Task Coherence and Prioritization" (Fontana,
Spratling, Shi; WACV 2025). R is the shared representation, X_t the finest feature of task t's
decoder, D the width, N the number of tasks.

Our reading. Only a summary of the paper was at hand, so equations have no numbers here; the
structure follows facts about the released code, none of which is used. Each module says what had
to be chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerStage
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_training.bounds import Count
from mtl_training.models.layers import ConvBNReLU, FeatureFuse, flat, grid, resize
from mtl_training.models.network import Auxiliary, Network, Plan, Predictions
from mtl_training.models.pyramids import Mask2FormerPyramid, ModelError, Pyramid
from mtl_training.models.swin import use_shifted_windows


class MTCP(Network):
    """The whole network: a Swin decoder, a CFM and a trace-back per task.

    R = E(I),  B_t^0, B_t^1, B_t^2 = Swin_t(R),  X_t = FPN_t(B_t)
    P_t = CFM_t(X_t; X_o, o != t)
    logits of t, three times, fine last = TraceBack_t(P_t; B_t)

    The first two predictions are trained with half the weight of the last. The other half of the
    paper, loss prioritisation (LPS), is a way to weight losses and not part of the network.

    Differs from the paper: on our pyramids R is conv1x1 of all scales at H/4, BatchNorm, ReLU (our
    reading; the authors fine-tune Mask2Former, which is the backbone ``mask2former_swin_small``).
    Differs from the released code: any number of tasks from two on, three there; the affinity of
    the CFM has fewer keys, see there; one kind of head for all tasks; both intermediate
    predictions of all tasks are trained, each with the loss of its own task.

    Args:
        backbone: pyramid with ``channels`` at strides 4, 8, 16, 32.
        tasks: output channels by task name, two or more.
        width: D.
        pool: how much coarser the grid of the keys in the CFM is than H/4.

    Raises:
        ModelError: fewer than two tasks.
    """

    def __init__(
        self, backbone: Pyramid, tasks: Mapping[str, int], *, width: Count = 256, pool: Count = 4
    ) -> None:
        super().__init__(tasks, mean=backbone.mean, std=backbone.std)
        if len(tasks) < 2:
            raise ModelError('mt_cp makes tasks coherent with each other: expected two or more')
        ready = isinstance(backbone, Mask2FormerPyramid) and backbone.channels[0] == width
        self.backbone = backbone
        self.shared = Finest() if ready else Shared(backbone.channels, width)
        self.decoders = nn.ModuleDict({task: SwinDecoder(width) for task in tasks})
        self.fpn = nn.ModuleDict({task: FPN(width) for task in tasks})
        self.cfm = nn.ModuleDict({task: CFM(width, len(tasks) - 1, pool) for task in tasks})
        self.trace_back = nn.ModuleDict(
            {task: TraceBack(width, channels) for task, channels in tasks.items()}
        )

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> MTCP:
        """On one backbone."""
        return cls(plan.pyramid(), plan.tasks, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,H/4,W/4] by task; auxiliary at H/16, H/8."""
        shared = self.shared(self.backbone(image))  # R [B, D, H/4, W/4]
        stages = {task: decoder(shared) for task, decoder in self.decoders.items()}
        x = {task: fpn(stages[task]) for task, fpn in self.fpn.items()}  # X_t [B, D, H/4, W/4]
        coherent = {
            task: cfm(x[task], [x[other] for other in x if other != task])
            for task, cfm in self.cfm.items()
        }
        traced = {t: back(coherent[t], stages[t]) for t, back in self.trace_back.items()}
        deep, middle, final = ({t: logits[i] for t, logits in traced.items()} for i in range(3))
        return Predictions(final, [Auxiliary(deep, weight=0.5), Auxiliary(middle, weight=0.5)])

    def of_one_task(self) -> list[nn.Module]:
        """What comes after the other tasks were looked at."""
        return [self.cfm, self.trace_back]

    def shared_features(self) -> list[nn.Module]:
        """R."""
        return [self.shared]


class Finest(nn.Module):
    """R of Mask2Former, which is the finest scale of its pyramid."""

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features, finest first -> the first."""
        return features[0]


class Shared(nn.Module):
    """R of any other pyramid: conv1x1 of all scales at H/4, BatchNorm, ReLU."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.fuse = FeatureFuse(channels, width)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features [B,C_i,H_i,W_i], finest first -> [B,D,H_0,W_0]."""
        return self.fuse(features, features[0].shape[-2:])


class SwinDecoder(nn.Module):
    """The decoder of one task: Swin without patch embedding, depths 1, 2, 1, two heads, window 7.

    Our reading: every scale ends with a LayerNorm, as Swin's do for dense prediction.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            SwinTransformerStage(
                width * max(2**scale // 2, 1),
                width * 2**scale,
                input_resolution=(56, 56),  # of no effect: windows are always whole ones
                depth=depth,
                downsample=scale > 0,
                num_heads=2,
                window_size=7,
                always_partition=True,
                dynamic_mask=True,
            )
            for scale, depth in enumerate((1, 2, 1))
        )
        use_shifted_windows(self.stages)
        self.norms = nn.ModuleList(nn.LayerNorm(width * 2**scale) for scale in range(3))

    def forward(self, x: Tensor) -> list[Tensor]:
        """R [B,D,h,w] -> B^0 [B,D,h,w], B^1 [B,2D,h/2,w/2], B^2 [B,4D,h/4,w/4]."""
        x = x.permute(0, 2, 3, 1)
        features = []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = stage(x)  # [B, h_i, w_i, C_i]
            features.append(norm(x).permute(0, 3, 1, 2))
        return features


class FPN(nn.Module):
    """Top-down pathway with nearest neighbours (Lin et al., CVPR 2017), of which X_t is the finest.

    Differs from the released code: no 3x3 convolutions on the scales that are not used.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width * 2**i, width, 1) for i in range(3))
        self.smooth = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """B^0, B^1, B^2 -> X_t [B,D,h,w]."""
        x0, x1, x2 = (conv(x) for conv, x in zip(self.lateral, features, strict=True))
        x1 = x1 + F.interpolate(x2, size=x1.shape[-2:], mode='nearest')
        return self.smooth(x0 + F.interpolate(x1, size=x0.shape[-2:], mode='nearest'))


class CBAM(nn.Module):
    """Convolutional block attention (Woo et al., ECCV 2018): channels, then places.

    x' = x * sigmoid(MLP(mean_hw x) + MLP(max_hw x)),  bottleneck C / 16
    x'' = x' * sigmoid(BN(conv7x7([mean_c x', max_c x'])))
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 1)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels)
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(2, 1, 7, padding=3, bias=False),
            nn.BatchNorm2d(1, momentum=0.01),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,C,h,w]."""
        gate = self.mlp(x.mean(dim=(2, 3))) + self.mlp(x.amax(dim=(2, 3)))
        x = x * gate.sigmoid()[..., None, None]
        places = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * self.spatial(places).sigmoid()


class CFM(nn.Module):
    """Coherence fusion: what the other tasks find alike is averaged in this one's feature.

    V = BN(CBAM(X_t)),  M = ReLU(conv1x1(cat{ sigmoid(conv1x1(X_o)) X_o, o != t }))
    A = Softmax(theta(M) phi(M)^T),  theta, phi = ReLU(BN(CBAM(.)))
    P_t = BN(CBAM(A V))

    The affinity A of the release has (H/4 W/4)^2 entries, 19,200^2 at 480x640. Here queries keep
    their grid, but keys and values are averaged over ``pool`` x ``pool`` places, as in non-local
    networks (Wang et al., CVPR 2018, which take the maximum): a ``pool``^2-th of the entries;
    ``pool`` = 1 is the release's.

    Our reading: a gate has one entry for each channel; widths between are (N - 1) D.
    """

    def __init__(self, width: int, others: int, pool: int) -> None:
        super().__init__()
        wide = others * width
        self.value = nn.Sequential(CBAM(width), nn.BatchNorm2d(width))
        self.gates = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(others))
        self.mix = nn.Sequential(nn.Conv2d(wide, wide, 1), nn.ReLU(inplace=True))
        self.theta = nn.Sequential(CBAM(wide), nn.BatchNorm2d(wide), nn.ReLU(inplace=True))
        self.phi = nn.Sequential(CBAM(wide), nn.BatchNorm2d(wide), nn.ReLU(inplace=True))
        self.pool = nn.AvgPool2d(pool, ceil_mode=True)
        self.out = nn.Sequential(CBAM(width), nn.BatchNorm2d(width))

    def forward(self, x: Tensor, others: Sequence[Tensor]) -> Tensor:
        """X_t and the other tasks' X_o, all [B,D,h,w] -> P_t [B,D,h,w]."""
        gated = [gate(o).sigmoid() * o for gate, o in zip(self.gates, others, strict=True)]
        values = flat(self.pool(self.value(x)))  # [B, h w / pool^2, D]
        coherent = self.affinity(self.mix(torch.cat(gated, dim=1))) @ values
        return self.out(grid(coherent, x.shape[-2:]))

    def affinity(self, mixed: Tensor) -> Tensor:
        """M [B,(N-1)D,h,w] -> A [B, hw, hw / pool^2], rows that sum to 1."""
        return (flat(self.theta(mixed)) @ self.pool(self.phi(mixed)).flatten(2)).softmax(-1)


class TraceBack(nn.Module):
    """Back through the decoder, deepest scale first: each refines the prediction of the last."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.refine = nn.ModuleList(
            [
                SRM(width, 4 * width, width, carry=4 * width),
                SRM(4 * width, 2 * width, width, carry=2 * width),
                SRM(2 * width, width, width, carry=None),
            ]
        )
        self.heads = nn.ModuleList(
            nn.Sequential(ConvBNReLU(width, width, 1), nn.Conv2d(width, channels, 1))
            for _ in range(3)
        )

    def forward(self, coherent: Tensor, stages: Sequence[Tensor]) -> list[Tensor]:
        """P_t [B,D,h,w], B^0, B^1, B^2 -> logits [B,o_t,.,.] on the grids of B^2, B^1, B^0."""
        logits, carried = [], coherent
        for refine, head, back in zip(self.refine, self.heads, reversed(stages), strict=True):
            feature, carried = refine(carried, back)
            logits.append(head(feature))
        return logits


class SRM(nn.Module):
    """Spatial refinement: a feature of the prediction meets one of the decoder's.

    C = cat(CBAM(P), CBAM(B)),  feature = ReLU(BN(conv1x1(C))),  P' = ReLU(BN(conv1x1(C)))

    Our reading: P is resized to the grid of B, so the predictions go from H/16 to H/4; the last
    SRM has no P'.
    """

    def __init__(self, width: int, back: int, feature: int, *, carry: int | None) -> None:
        super().__init__()
        self.attend, self.attend_back = CBAM(width), CBAM(back)
        self.feature = ConvBNReLU(width + back, feature, 1)
        self.carry = nn.Identity() if carry is None else ConvBNReLU(width + back, carry, 1)

    def forward(self, carried: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
        """P [B,width,.,.], B [B,back,h,w] -> feature [B,D,h,w] and P' [B,carry,h,w]."""
        attended = resize(self.attend(carried), back.shape[-2:])
        joined = torch.cat([attended, self.attend_back(back)], dim=1)
        return self.feature(joined), self.carry(joined)
