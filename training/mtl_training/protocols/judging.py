"""The figures that only protocols ask for, as tasks that are judged by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from mtl_training.datasets.dataset import DataSet
from mtl_training.labels import PASCAL21
from mtl_training.protocols.odsf import OdsF
from mtl_training.protocols.protocol import Protocol
from mtl_training.protocols.saliency import SaliencyIoU
from mtl_training.tasks import EdgesTask, SaliencyTask, Task, TaskSet
from mtl_training.tasks.task import Figure


@dataclass(frozen=True, kw_only=True)
class OdsEdges(EdgesTask):
    """Edges that are judged by odsF.

    Attributes:
        max_distance, thresholds, suppress: see ``OdsF``.
    """

    quality: ClassVar[str] = 'odsf'
    figures: ClassVar[tuple[Figure, ...]] = (Figure('odsf', 'edges odsF, %', 100, 2),)
    max_distance: float
    thresholds: int
    suppress: bool = False

    def metric(self) -> OdsF:  # type: ignore[override]
        """F at the best threshold, pixels matched one to one."""
        return OdsF(
            max_distance=self.max_distance, thresholds=self.thresholds, suppress=self.suppress
        )


@dataclass(frozen=True, kw_only=True)
class SaliencyByIoU(SaliencyTask):
    """Saliency that is judged by the IoU of pictures."""

    quality: ClassVar[str] = 'miou'
    figures: ClassVar[tuple[Figure, ...]] = (Figure('miou', 'saliency mIoU, %', 100, 2),)

    def metric(self) -> SaliencyIoU:  # type: ignore[override]
        """The largest mean of the pictures' IoU."""
        return SaliencyIoU()


def judged_by(protocol: Protocol, tasks: Mapping[str, Task], data: DataSet) -> TaskSet:
    """Tasks with the figures of a protocol."""
    people = 'human_parts' in data.tasks or data.classes.get('semantic') == PASCAL21
    edges = protocol.on('pascal' if people else 'nyud').edges
    judged: TaskSet = {}
    for name, task in tasks.items():
        if isinstance(task, EdgesTask):
            judged[name] = OdsEdges(weight=task.weight, edge_weight=task.edge_weight, **edges)
        elif isinstance(task, SaliencyTask) and protocol.saliency == 'miou':
            judged[name] = SaliencyByIoU(weight=task.weight, two_class=task.two_class)
        else:
            judged[name] = task
    return judged
