"""The systems of the literature, one file each, and the one place that builds them by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_training.bounds import refusal
from mtl_training.models.asp_mtl import ASPMTL
from mtl_training.models.astmt import ASTMT
from mtl_training.models.backbones import BACKBONES, pyramid
from mtl_training.models.baseline import MTLBaseline
from mtl_training.models.bmtas import BMTAS
from mtl_training.models.branched import Branched
from mtl_training.models.cross_stitch import CrossStitch
from mtl_training.models.jtrl import JTRL
from mtl_training.models.ltb import LTB
from mtl_training.models.modulated import Modulated
from mtl_training.models.mt_cp import MTCP
from mtl_training.models.mtan import MTAN
from mtl_training.models.mti_net import MTINet
from mtl_training.models.nddr import NDDR
from mtl_training.models.network import Auxiliary, Network, Plan, Predictions
from mtl_training.models.pad_net import PADNet
from mtl_training.models.pap_net import PAPNet
from mtl_training.models.psd import PSD
from mtl_training.models.pyramids import ModelError
from mtl_training.models.single_task import SingleTask
from mtl_training.models.sluice import Sluice
from mtl_training.models.tif import TIF

__all__ = [
    'BACKBONES',
    'SYSTEMS',
    'Auxiliary',
    'ModelError',
    'Network',
    'Plan',
    'Predictions',
    'build',
    'pyramid',
]

SYSTEMS: dict[str, type[Network]] = {
    'tif': TIF,
    'mt_cp': MTCP,
    'single_task': SingleTask,
    'mtl_baseline': MTLBaseline,
    'mti_net': MTINet,
    'pad_net': PADNet,
    'pap_net': PAPNet,
    'psd': PSD,
    'jtrl': JTRL,
    'cross_stitch': CrossStitch,
    'asp_mtl': ASPMTL,
    'astmt': ASTMT,
    'nddr': NDDR,
    'mtan': MTAN,
    'modulated': Modulated,
    'branched': Branched,
    'bmtas': BMTAS,
    'ltb': LTB,
    'sluice': Sluice,
}


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
        pretrained: weights that the backbone begins with, see ``backbones.pyramid``.
        options: of the system; what is left out has the value of the paper.

    Raises:
        ModelError: unknown system, backbone or option, an option of another type, no tasks, tasks
            that are both, auxiliary tasks in a system without, or weights that are not available.
    """
    auxiliary = auxiliary or {}
    if system not in SYSTEMS:
        raise ModelError(f'unknown system {system!r}; known: {", ".join(SYSTEMS)}')
    kind = SYSTEMS[system]
    if not tasks:
        raise ModelError(f'{system} needs at least one task')
    if auxiliary and not kind.takes_auxiliary:
        others = [name for name, other in SYSTEMS.items() if other.takes_auxiliary]
        raise ModelError(f'{system} has no auxiliary tasks; systems that do: {", ".join(others)}')
    both = [name for name in auxiliary if name in tasks]
    if both:
        raise ModelError(f'{", ".join(both)} cannot be a task and auxiliary')
    known = kind.options()
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ModelError(
            f'{system} has no option {unknown[0]!r}; it has: {", ".join(known) or "none"}'
        )
    for name, value in options.items():
        if wrong := refusal(known[name], value):
            raise ModelError(f'{system} has the option {wrong}')
    return kind.from_plan(Plan(backbone, tasks, auxiliary, pretrained), **options)
