"""The systems of the literature, one file each, and the one place that builds them by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_training.models.astmt import ASTMT
from mtl_training.models.backbones import BACKBONES, ModelError, Pyramid, ResNetPyramid, pyramid
from mtl_training.models.baseline import MTLBaseline
from mtl_training.models.bmtas import BMTAS
from mtl_training.models.branched import Branched, Tree
from mtl_training.models.cross_stitch import CrossStitch
from mtl_training.models.jtrl import JTRL
from mtl_training.models.ltb import LTB
from mtl_training.models.mt_cp import MTCP
from mtl_training.models.mtan import MTAN
from mtl_training.models.mti_net import MTINet
from mtl_training.models.nddr import NDDR
from mtl_training.models.network import Auxiliary, Network, Predictions
from mtl_training.models.pad_net import PADNet
from mtl_training.models.pap_net import PAPNet
from mtl_training.models.psd import PSD
from mtl_training.models.single_task import SingleTask
from mtl_training.models.sluice import Sluice
from mtl_training.models.tif import TIF

__all__ = [
    'BACKBONES',
    'SYSTEMS',
    'TIF_WIDTHS',
    'Auxiliary',
    'ModelError',
    'Network',
    'Plan',
    'Predictions',
    'TIFWidths',
    'build',
    'pyramid',
]


@dataclass(frozen=True)
class Plan:
    """What every system is built from.

    Attributes:
        backbone: a key of ``BACKBONES``.
        tasks: output channels by task name.
        auxiliary: output channels of tasks that are trained for the others' sake.
        pretrained: whether backbones begin with ImageNet weights.
    """

    backbone: str
    tasks: Mapping[str, int]
    auxiliary: Mapping[str, int]
    pretrained: bool | str

    def pyramid(self) -> Pyramid:
        """A new backbone."""
        return pyramid(self.backbone, pretrained=self.pretrained)

    def dilated_resnet(self, system: str) -> ResNetPyramid:
        """A new backbone for a system that works on the stages of a ResNet of stride 8.

        Raises:
            ModelError: the backbone is none.
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


@dataclass(frozen=True)
class TIFWidths:
    """Width D of the decoders, width E of the final fusion, and whether the fusion is slim."""

    width: int
    fuse_width: int
    slim: bool = False


# D and E reproduce the parameter counts of the paper (Tables 3 and 4); E = sum(C) // 6.
# Swin-S and ViT-B (another pyramid) follow the same rule; EfficientNet-Lite0 is deployed, and not
# in the paper.
TIF_WIDTHS: dict[str, TIFWidths] = {
    'hrnet_w18_small_v2': TIFWidths(width=72, fuse_width=45),
    'swin_tiny': TIFWidths(width=96, fuse_width=240),
    'swin_small': TIFWidths(width=96, fuse_width=240),
    'swin_base': TIFWidths(width=96, fuse_width=320),
    'swin_large': TIFWidths(width=96, fuse_width=480),
    'vit_base': TIFWidths(width=96, fuse_width=352),
    'tf_efficientnet_lite0': TIFWidths(width=64, fuse_width=64, slim=True),
}


def _tif(
    plan: Plan,
    *,
    width: int | None = None,
    fuse_width: int | None = None,
    slim: bool | None = None,
    saff: int = 4,
    sfd: int = 2,
    lthd: bool = True,
    cross: bool = False,
) -> TIF:
    backbone = plan.pyramid()
    usual = TIF_WIDTHS.get(plan.backbone, TIFWidths(96, sum(backbone.channels) // 6))
    return TIF(
        backbone,
        plan.tasks,
        width=usual.width if width is None else width,
        fuse_width=usual.fuse_width if fuse_width is None else fuse_width,
        slim=usual.slim if slim is None else slim,
        saff=saff,
        sfd=sfd,
        lthd=lthd,
        cross=cross,
    )


def _single_task(plan: Plan) -> SingleTask:
    return SingleTask({task: plan.pyramid() for task in plan.tasks}, plan.tasks)


def _mtl_baseline(plan: Plan) -> MTLBaseline:
    return MTLBaseline(plan.pyramid(), plan.tasks)


def _cross_stitch(plan: Plan, *, own: float | None = None) -> CrossStitch:
    backbones = {task: plan.dilated_resnet('cross_stitch') for task in plan.tasks}
    return CrossStitch(backbones, plan.tasks, own=own)


def _mti_net(plan: Plan, *, softmax: str = 'tasks') -> MTINet:
    return MTINet(plan.pyramid(), plan.tasks, auxiliary=plan.auxiliary, softmax=softmax)


def _pad_net(plan: Plan, *, width: int = 256) -> PADNet:
    return PADNet(plan.pyramid(), plan.tasks, auxiliary=plan.auxiliary, width=width)


def _astmt(
    plan: Plan,
    *,
    width: int = 64,
    rates: Sequence[int] = (6, 12, 18),
    adapters: bool = True,
    discriminator_weight: float = 0.01,
    steps: int = 40_000,
) -> ASTMT:
    return ASTMT(
        plan.pyramid(),
        plan.tasks,
        width=width,
        rates=rates,
        adapters=adapters,
        discriminator_weight=discriminator_weight,
        steps=steps,
    )


def _nddr(plan: Plan, *, own: float | None = None, shortcut: bool = False) -> NDDR:
    backbones = {task: plan.dilated_resnet('nddr') for task in plan.tasks}
    return NDDR(backbones, plan.tasks, own=own, shortcut=shortcut)


def _mtan(plan: Plan) -> MTAN:
    return MTAN(plan.dilated_resnet('mtan'), plan.tasks)


def _pap_net(
    plan: Plan,
    *,
    affinity_stride: int = 8,
    width: int = 256,
    beta: float = 0.05,
    iterations: int = 3,
) -> PAPNet:
    return PAPNet(
        plan.pyramid(),
        plan.tasks,
        affinity_stride=affinity_stride,
        width=width,
        beta=beta,
        iterations=iterations,
    )


def _psd(plan: Plan, *, width: int | None = None, orders: int = 3) -> PSD:
    return PSD(plan.pyramid(), plan.tasks, auxiliary=plan.auxiliary, width=width, orders=orders)


def _jtrl(plan: Plan, *, width: int = 256) -> JTRL:
    return JTRL(plan.pyramid(), plan.tasks, width=width)


def _branched(plan: Plan, *, tree: Tree | None = None) -> Branched:
    return Branched(plan.pyramid(), plan.tasks, tree)


def _bmtas(
    plan: Plan,
    *,
    size: tuple[int, int] = (512, 512),
    cost_weight: float = 0.05,
    steps: int = 40_000,
) -> BMTAS:
    return BMTAS(plan.pyramid(), plan.tasks, size=size, cost_weight=cost_weight, steps=steps)


def _ltb(
    plan: Plan,
    *,
    size: tuple[int, int] = (512, 512),
    cost_weight: float = 0.0,
    steps: int = 40_000,
) -> LTB:
    backbones = [plan.pyramid() for _ in plan.tasks]
    return LTB(backbones, plan.tasks, size=size, cost_weight=cost_weight, steps=steps)


def _sluice(plan: Plan, *, own: float = 0.9, orthogonality: float = 0.1) -> Sluice:
    backbones = {task: plan.dilated_resnet('sluice') for task in plan.tasks}
    return Sluice(backbones, plan.tasks, own=own, orthogonality=orthogonality)


def _mt_cp(plan: Plan, *, width: int = 256, pool: int = 4) -> MTCP:
    return MTCP(plan.pyramid(), plan.tasks, width=width, pool=pool)


# name -> what builds it: a plan, and the system's own options by keyword
SYSTEMS: dict[str, Callable[..., Network]] = {
    'tif': _tif,
    'mt_cp': _mt_cp,
    'single_task': _single_task,
    'mtl_baseline': _mtl_baseline,
    'mti_net': _mti_net,
    'pad_net': _pad_net,
    'pap_net': _pap_net,
    'psd': _psd,
    'jtrl': _jtrl,
    'cross_stitch': _cross_stitch,
    'astmt': _astmt,
    'nddr': _nddr,
    'mtan': _mtan,
    'branched': _branched,
    'bmtas': _bmtas,
    'ltb': _ltb,
    'sluice': _sluice,
}
# Systems that can train auxiliary tasks.
WITH_AUXILIARY: tuple[str, ...] = ('mti_net', 'pad_net', 'psd')


def build(
    system: str,
    backbone: str,
    tasks: Mapping[str, int],
    *,
    auxiliary: Mapping[str, int] | None = None,
    pretrained: bool | str = False,
    **options: Any,
) -> Network:
    """Build a network: normalised float [B,3,H,W] -> {task: logits [B,channels,H,W]}.

    Args:
        system: a key of ``SYSTEMS``.
        backbone: a key of ``BACKBONES``.
        tasks: output channels by task name.
        auxiliary: of tasks that are trained only for the others' sake.
        pretrained: True or 'imagenet' loads ImageNet weights into the backbone.
        options: of the system; what is left out has the value of the paper.

    Raises:
        ModelError: unknown system, backbone or option, no tasks, tasks that are both, auxiliary
            tasks in a system without, or weights that cannot be had.
    """
    auxiliary = auxiliary or {}
    if system not in SYSTEMS:
        raise ModelError(f'unknown system {system!r}; known: {", ".join(SYSTEMS)}')
    if backbone not in BACKBONES:
        raise ModelError(f'unknown backbone {backbone!r}; known: {", ".join(BACKBONES)}')
    if not tasks:
        raise ModelError(f'{system} needs at least one task')
    if auxiliary and system not in WITH_AUXILIARY:
        raise ModelError(
            f'{system} has no auxiliary tasks; systems that do: {", ".join(WITH_AUXILIARY)}'
        )
    both = [name for name in auxiliary if name in tasks]
    if both:
        raise ModelError(f'{", ".join(both)} cannot be a task and auxiliary')
    known = [
        name
        for name, parameter in inspect.signature(SYSTEMS[system]).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for name in options:
        if name not in known:
            raise ModelError(f'{system} has no option {name!r}; it has: {", ".join(known)}')
    return SYSTEMS[system](Plan(backbone, tasks, auxiliary, pretrained), **options)
