"""Temperatures: networks that are too sure, or not sure enough, are told so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mtl_training.deploy.temperature import ece
from mtl_training.labels import LabelClass
from mtl_training.tasks import EdgesTask, L1Depth, LaplaceDepth, SemanticTask, grouped

THINGS = tuple(LabelClass(f'thing {i}', (i, 0, 255 - i)) for i in range(4))


@pytest.mark.parametrize('factor', [0.5, 2.0])
@pytest.mark.parametrize('groups', [False, True])
def test_the_temperature_of_labels_drawn_from_a_network_is_its_exaggeration(
    factor: float, groups: bool
) -> None:
    rng = torch.Generator().manual_seed(0)
    honest = torch.randn(2, 4, 64, 64, generator=rng) * 2
    probability = honest.softmax(1).permute(0, 2, 3, 1).reshape(-1, 4)
    labels = torch.multinomial(probability, 1, generator=rng).view(2, 64, 64)
    task = SemanticTask(classes=THINGS)
    if groups:
        names = [thing.name for thing in THINGS]
        pairs = [LabelClass(two[0], (0, 0, 0), tuple(two)) for two in (names[:2], names[2:])]
        task, labels = grouped(task, pairs), labels // 2
    labels[0, :8] = 255
    logits = task.gather(honest * factor)
    found = task.tempered(logits, labels)
    # Of groups it is near it only: the largest member stands for all, where members differ much.
    assert found.temperature == pytest.approx(factor, rel=0.3 if groups else 0.1)
    assert ece(found, logits, labels) < 0.02 < 0.03 < ece(task, logits, labels)
    assert found.weight == task.weight


@pytest.mark.parametrize('factor', [0.5, 2.0])
def test_the_temperature_of_depth_is_how_much_too_narrow_its_errors_are_said_to_be(
    factor: float,
) -> None:
    rng = np.random.default_rng(0)
    scale = np.exp(rng.uniform(-4, 0, (2, 64, 64)))
    mean = rng.normal(size=(2, 64, 64))
    depth = np.exp(rng.laplace(mean, scale * factor))[:, None].astype(np.float32)
    logits = torch.from_numpy(np.stack([mean, np.log(scale)], axis=1).astype(np.float32))
    target = torch.from_numpy(depth)
    target[0, :, :8] = 0
    task = LaplaceDepth(gradients=0.5)
    found = task.tempered(logits, target)
    assert found.temperature == pytest.approx(factor, rel=0.06)
    assert ece(found, logits, target) < 0.015 < 0.05 < ece(task, logits, target)
    assert torch.equal(found.head(logits)['depth'], task.head(logits)['depth'])


def test_what_has_no_confidence_stays_as_it_is() -> None:
    for task in (L1Depth(), EdgesTask(edge_weight=0.8)):
        assert task.tempered(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)) is task
