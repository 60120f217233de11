"""The step of gradient methods: what is shared, what is a task's own, and what is not balanced."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from mtl_training.balancing import METHODS, Balance, GradientBalancer
from mtl_training.checkpoints.config import BalancingConfig, Config, ConfigError, load_config
from mtl_training.datasets.batches import Examples, loader
from mtl_training.loop.run import Run, prepare
from mtl_training.loop.step import make_step
from mtl_training.models import SYSTEMS
from mtl_training.models.backbones import BACKBONES
from mtl_training.models.pyramids import ResNetPyramid
from torch import Tensor

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'
SMALL = {'layers': (1, 1, 1, 1), 'channels': (8, 16, 24, 32), 'out_indices': (1, 2, 3, 4)}
DILATED = ('cross_stitch', 'sluice', 'nddr', 'mtan')
OPTIONS: dict[str, dict[str, Any]] = {
    'tif': {'width': 8, 'fuse_width': 8},
    'mt_cp': {'width': 16},
    'pad_net': {'width': 16},
    'pap_net': {'width': 16},
    'jtrl': {'width': 16},
    'sluice': {'orthogonality': 1.0},
    'ltb': {'steps': 1},
    'bmtas': {'steps': 1},
}
WITH_FEATURES = [
    'tif', 'mt_cp', 'mtl_baseline', 'mti_net', 'pad_net', 'pap_net', 'psd', 'jtrl',
]  # fmt: skip


class Plain(GradientBalancer):
    """The sum of all gradients: what fixed weights do."""

    def forward(self, gradients: Tensor, losses: Mapping[str, Tensor]) -> Balance:
        ones = gradients.new_ones(len(losses))
        return Balance(gradients.sum(0), ones, ones)


class PlainFeatures(Plain):
    of = 'features'


class Picky(GradientBalancer):
    """Shared parameters hear of the second task only, parameters of tasks of the first only."""

    def forward(self, gradients: Tensor, losses: Mapping[str, Tensor]) -> Balance:
        return Balance(gradients[1], torch.tensor([1.0, 0.0]))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, 'small', (ResNetPyramid, 'resnet18', SMALL))
    dilated = {**SMALL, 'layers': (2, 2, 2, 2), 'output_stride': 8}  # MTAN needs two blocks
    monkeypatch.setitem(BACKBONES, 'small_d8', (ResNetPyramid, 'resnet18', dilated))
    for kind in (Plain, PlainFeatures, Picky):
        monkeypatch.setitem(METHODS, kind.__name__, kind)


def configure(system: str, method: str, **options: Any) -> Config:
    config = load_config(TINY, ['optim.optimizer=sgd', 'weights={semantic: 2, depth: 3}'])
    model = dataclasses.replace(
        config.model,
        system=system,
        backbone='small_d8' if system in DILATED else 'small',
        options=OPTIONS.get(system, {}),
        auxiliary=('edges',) if SYSTEMS[system].takes_auxiliary else (),
    )
    balancing = BalancingConfig(method, options)
    return dataclasses.replace(
        config, model=model, tasks=('semantic', 'depth'), balancing=balancing
    )


def after_a_step(
    config: Config, rooms: Path, steps: int = 1
) -> tuple[Run, dict[str, Tensor], dict[str, Tensor]]:
    """A run after some tiny steps, the last gradients, and what the last step returned."""
    run = prepare(config, Fabric(accelerator='cpu', precision=config.run.precision), rooms)
    data = Examples(
        run.split('train'), run.trained_tasks, height=64, width=96, canonical_focal=277.0
    )
    batch = next(iter(loader(data, 0, batch_size=2)))
    for _ in range(steps):
        torch.manual_seed(0)  # dropout, and trees that are sampled
        losses = make_step(run, batch, rate=1e-9).losses
    return run, {n: p.grad for n, p in run.net.named_parameters() if p.grad is not None}, losses


@pytest.mark.parametrize(
    ('system', 'method'),
    [
        *((system, 'Plain') for system in SYSTEMS if system != 'single_task'),
        *((system, 'PlainFeatures') for system in WITH_FEATURES),
    ],
)
def test_plain_sums_are_fixed_weights(system: str, method: str, rooms: Path) -> None:
    """So nothing is lost, weighed wrongly or counted twice on the way; twice, as states change."""
    _, expected, losses = after_a_step(configure(system, 'fixed'), rooms, steps=2)
    run, found, same = after_a_step(configure(system, method), rooms, steps=2)
    assert found.keys() == expected.keys()
    assert found.keys() == {n for n, p in run.net.named_parameters() if p.requires_grad}
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() < 1e-2 * gradient.norm() + 1e-5 * largest, name
    assert losses.keys() == same.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(same[name], loss, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('method', ['Plain', 'PlainFeatures', 'adversarial'])
def test_frozen_stages_stay_out_of_it(method: str, rooms: Path) -> None:
    """The first scale has no gradient: the others get what fixed weights give them."""

    def frozen(method: str) -> Config:
        config = configure('mtl_baseline', method)
        return dataclasses.replace(config, optim=dataclasses.replace(config.optim, frozen_stages=1))

    _, expected, _ = after_a_step(frozen('fixed'), rooms)
    run, found, losses = after_a_step(frozen(method), rooms)
    assert not any(p.requires_grad for p in run.net.early(1)[-1].parameters())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-2, atol=1e-3)
    assert ('discriminator' in losses) == (method == 'adversarial')


def test_systems_with_features_are_all_named_above() -> None:
    assert [
        name for name, kind in SYSTEMS.items() if 'shared_features' in vars(kind)
    ] == WITH_FEATURES


def test_shared_parameters_get_the_step_and_the_others_what_is_theirs(rooms: Path) -> None:
    def only(task: str) -> dict[str, Tensor]:
        config = configure('mtl_baseline', 'fixed')
        weights = {name: 1.0 if name == task else 0.0 for name in config.tasks}
        return after_a_step(dataclasses.replace(config, weights=weights), rooms)[1]

    config = dataclasses.replace(configure('mtl_baseline', 'Picky'), weights={})
    _, found, _ = after_a_step(config, rooms)
    first, second = only('semantic'), only('depth')
    for name, gradient in found.items():
        if name.startswith('backbone'):
            torch.testing.assert_close(gradient, second[name])
        elif name.startswith('heads.semantic'):
            torch.testing.assert_close(gradient, first[name])
        else:
            assert not gradient.any(), name


@pytest.mark.parametrize('method', ['fixed', 'Plain', 'PlainFeatures', 'graddrop'])
def test_no_graph_is_kept_when_a_step_is_decided(
    method: str, rooms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations are the most of what a step holds: what the encoder saved is given back."""
    made: list[Tensor] = []
    original = ResNetPyramid.forward

    def forward(self: ResNetPyramid, image: Tensor) -> list[Tensor]:
        features = original(self, image)
        made.extend(features)
        return features

    monkeypatch.setattr(ResNetPyramid, 'forward', forward)
    run, _, _ = after_a_step(configure('mtl_baseline', method), rooms)
    (weight, *_) = run.net.shared_parameters()
    with pytest.raises(RuntimeError, match='a second time'):
        torch.autograd.grad(made[0].sum(), weight)


@pytest.mark.parametrize('features', [False, True])
def test_no_task_loses_by_a_step_of_mgda(features: bool, rooms: Path) -> None:
    """In what is shared: the products with both tasks' gradients are the square of the step."""
    config = configure('mtl_baseline', 'mgda', normalization='l2', features=features)
    config = dataclasses.replace(config, weights={})
    run, found, _ = after_a_step(config, rooms)
    parts = []
    for task in config.tasks:
        weights = {name: 1.0 if name == task else 0.0 for name in config.tasks}
        other = dataclasses.replace(configure('mtl_baseline', 'fixed'), weights=weights)
        parts.append(after_a_step(other, rooms)[1])
    names = [name for name, _ in run.net.named_parameters() if name.startswith('backbone')]
    step, *rows = (torch.cat([p[name].flatten() for name in names]) for p in (found, *parts))
    assert min((row @ step).item() for row in rows) > 0
    if not features:
        first, second = ((row @ step / row.norm()).item() for row in rows)
        assert first == pytest.approx(second, rel=1e-3)
        assert first == pytest.approx((step @ step).item(), rel=1e-3)


@pytest.mark.parametrize(
    ('system', 'method', 'precision', 'message'),
    [
        ('single_task', 'Plain', '32-true', 'shared parameters; expected .* not single_task'),
        ('mtan', 'PlainFeatures', '32-true', 'shared features; expected .* not mtan'),
        ('mtl_baseline', 'Plain', '16-mixed', 'run.precision 16-mixed scales them'),
    ],
)
def test_gradients_that_cannot_be_had_are_told(
    system: str, method: str, precision: str, message: str, rooms: Path
) -> None:
    config = configure(system, method)
    run = dataclasses.replace(config.run, precision=precision)
    with pytest.raises(ConfigError, match=message):
        prepare(dataclasses.replace(config, run=run), Fabric(accelerator='cpu'), rooms)
