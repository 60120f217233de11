"""Steps under every kind of method: in parts, with labels missing, and what is said of them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from mtl_training.checkpoints.config import ConfigError, load_config
from mtl_training.datasets.batches import Batch, Examples, loader
from mtl_training.loop.losses import losses_of, predictions_of
from mtl_training.loop.run import Run, prepare
from mtl_training.loop.step import Step, make_step
from mtl_training.models import SYSTEMS
from torch import Tensor

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'
PLAIN = Path(__file__).with_name('plain.py')
TASKS = ('semantic', 'depth', 'normals')
SETTINGS = (
    'model={system: plain, backbone: none}',
    'task_set=nyud',
    'tasks=[semantic, depth, normals]',
    'optim={lr: 0.01, max_steps: 9, optimizer: sgd, batch_size: 4}',
    'weights={semantic: 2}',
)


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SYSTEMS, 'plain', runpy.run_path(str(PLAIN))['Plain'])


def begin(data: Path, method: str, *settings: str) -> tuple[Run, Batch]:
    """A run, and a batch of four frames with labels at every pixel."""
    config = load_config(TINY, [*SETTINGS, f'balancing={method}', *settings])
    run = prepare(config, Fabric(accelerator='cpu', precision=config.run.precision), data)
    frames = Examples(
        run.split('train'), run.trained_tasks, height=64, width=96, canonical_focal=277.0
    )
    return run, next(iter(loader(frames, 0, batch_size=4)))


def gradients_of(run: Run) -> dict[str, Tensor]:
    parameters = {**dict(run.net.named_parameters()), **dict(run.balancer.named_parameters())}
    return {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}


def without(batch: Batch, task: str) -> Batch:
    """The batch, without labels of a task."""
    target = torch.full_like(batch[task], 255) if task == 'semantic' else batch[task] * 0
    return {**batch, task: target, f'{task}.labelled': torch.zeros(4, dtype=torch.bool)}


@pytest.mark.parametrize(
    'method',
    [
        '{method: fixed}',
        '{method: uncertainty}',
        '{method: sampling}',
        '{method: gradnorm}',
        '{method: mgda, options: {normalization: l2}}',
        '{method: mgda, options: {normalization: l2, features: true}}',
        '{method: graddrop, options: {leak: 1.0}}',
        '{method: adversarial}',
    ],
)
def test_a_batch_in_parts_is_a_batch(method: str, labelled: Path) -> None:
    found = []
    for parts in (1, 2, 4):
        run, batch = begin(labelled, method, f'optim.accumulate={parts}')
        for _ in range(2):
            step = make_step(run, batch, rate=0.01)
        found.append((step, gradients_of(run)))
    (whole, expected), *others = found
    for step, gradients in others:
        assert gradients.keys() == expected.keys()
        for name, gradient in expected.items():
            assert (gradients[name] - gradient).norm() < 1e-3 * gradient.norm() + 1e-5, name
        for mine, theirs in zip(step, whole, strict=True):
            assert mine.keys() == theirs.keys()
            for name, value in theirs.items():
                torch.testing.assert_close(mine[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_parts_are_of_equal_size(labelled: Path) -> None:
    with pytest.raises(ConfigError, match='accumulate is 3, expected a divisor of'):
        begin(labelled, '{method: fixed}', 'optim.accumulate=3')


@pytest.mark.parametrize(
    'method', ['uncertainty', 'dwa', 'lps', 'gradnorm', 'mgda', 'graddrop', 'log_scaling']
)
def test_what_a_batch_has_no_labels_of_is_left_alone(method: str, labelled: Path) -> None:
    run, batch = begin(labelled, f'{{method: {method}}}')
    step = make_step(run, without(batch, 'depth'), rate=0.01)
    gradients = gradients_of(run)
    assert not [n for n in gradients if n.startswith(('heads.depth', 'again.depth'))]
    assert [n for n in gradients if n.startswith('heads.normals')]
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert 'log_variance.depth' not in gradients
    if method != 'graddrop':  # which has no weights
        assert step.weights['weight_depth'] == 0
        assert step.weights['weight_semantic'] > 0
    if method in ('dwa', 'lps'):
        assert run.balancer.steps.tolist() == [1, 0, 1]


@pytest.mark.parametrize('method', ['fixed', 'uncertainty', 'mgda'])
def test_a_batch_without_labels_moves_nothing_but_penalties(method: str, labelled: Path) -> None:
    run, batch = begin(labelled, f'{{method: {method}}}')
    for task in TASKS:
        batch = without(batch, task)
    step = make_step(run, batch, rate=0.01)
    found = {name for name, gradient in gradients_of(run).items() if gradient.any()}
    assert found == {'encoder.0.weight'}
    assert step.losses['total'] == step.losses['size'] > 0


def test_methods_that_choose_a_task_leave_the_heads_of_others_alone(labelled: Path) -> None:
    run, batch = begin(labelled, '{method: alternating}')
    for turn in TASKS:
        step = make_step(run, batch, rate=0.01)
        heads = {name.split('.')[1] for name in gradients_of(run) if name.startswith('heads')}
        assert heads == {turn}
        chosen = [name for name, weight in step.weights.items() if weight > 0]
        assert chosen == [f'weight_{turn}']


def test_weights_of_tasks_count_unless_a_method_leaves_them_aside(labelled: Path) -> None:
    def total(method: str) -> tuple[float, dict[str, float]]:
        run, batch = begin(labelled, f'{{method: {method}}}')
        step: Step = make_step(run, batch, rate=0.01)
        weights = {name: weight.item() for name, weight in step.weights.items()}
        expected = sum(
            weights[f'weight_{task}'] * (step.losses[task] + step.losses[f'auxiliary_{task}'])
            for task in TASKS
        )
        assert step.losses['total'].item() == pytest.approx(
            (expected + step.losses['size']).item(), rel=1e-5
        )
        return expected.item(), weights

    assert total('fixed')[1] == {'weight_semantic': 2, 'weight_depth': 1, 'weight_normals': 10}
    assert total('uniform')[1] == {'weight_semantic': 1, 'weight_depth': 1, 'weight_normals': 1}


@pytest.mark.parametrize('method', ['uncertainty', 'dtp', 'log_scaling', 'gradnorm', 'pareto_mtl'])
def test_weights_that_are_told_are_those_that_count(method: str, labelled: Path) -> None:
    """The gradient of each task's heads is that under fixed weights, times them."""
    vectors = '{vectors: [[1, 1, 9], [9, 1, 1]], preference: 0}' if method == 'pareto_mtl' else '{}'
    run, batch = begin(labelled, f'{{method: {method}, options: {vectors}}}')
    step = make_step(run, batch, rate=0.0)
    plain, _ = begin(labelled, '{method: fixed}')
    make_step(plain, batch, rate=0.0)
    found, expected = gradients_of(run), gradients_of(plain)
    told = [step.weights[f'weight_{task}'] / run.weights[task] for task in TASKS]
    if method != 'gradnorm':  # which begins with 1
        assert min((weight - 1).abs() for weight in told) > 0.01
    for task, weight in zip(TASKS, told, strict=True):
        for name in (f'heads.{task}.weight', f'again.{task}.bias'):
            torch.testing.assert_close(found[name], weight * expected[name], rtol=1e-3, atol=1e-4)


def test_the_discriminator_sees_unit_gradients_of_the_features(labelled: Path) -> None:
    """w / (1 - w) sum_t CE(D(g_t / |g_t|), t); nobody is deceived in the first step: alpha is 0."""
    method = '{method: adversarial, options: {weight: 0.2, width: 8, steps: 2}}'
    run, batch = begin(labelled, method)
    (discriminator,) = run.balancer.discriminators
    seen = []
    run.net.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    predictions = predictions_of(run, batch)
    objectives = losses_of(run, batch, predictions).objectives(run.weights)
    expected = torch.zeros(())
    for label, task in enumerate(TASKS):
        (gradient,) = torch.autograd.grad(objectives[task], seen[0], retain_graph=True)
        logits = discriminator(gradient / gradient.norm(dim=1, keepdim=True))
        expected += (logits.logsumexp(1) - logits[:, label]).mean() / 4
    step = make_step(run, batch, rate=0.0)
    assert step.losses['discriminator'].item() == pytest.approx(expected.item(), rel=1e-3)
    plain, _ = begin(labelled, '{method: fixed}')
    make_step(plain, batch, rate=0.0)
    first, expected_gradients = gradients_of(run), gradients_of(plain)
    assert all(first[f'discriminators.0.{name}'].any() for name in ('0.weight', '2.weight'))
    name = 'heads.semantic.weight'
    torch.testing.assert_close(first[name], expected_gradients[name])
    make_step(run, batch, rate=0.0)
    assert not torch.allclose(gradients_of(run)[name], expected_gradients[name], rtol=1e-4)


@pytest.mark.parametrize('method', ['{method: fixed}', '{method: mgda}'])
def test_angles_of_gradients_are_measured_on_the_way(method: str, labelled: Path) -> None:
    """As the gradients of each task alone have it, and without a trace in the step."""
    plain, batch = begin(labelled, method)
    assert not make_step(plain, batch, rate=0.01).gradients
    run, _ = begin(labelled, method, 'run.gradients_every=1')
    found = make_step(run, batch, rate=0.01).gradients
    expected, measured = gradients_of(plain), gradients_of(run)
    assert all(torch.equal(measured[name], expected[name]) for name in expected)

    rows = {}
    for task in TASKS:
        weights = {other: 1.0 if other == task else 0.0 for other in TASKS}
        weights['semantic'] *= 2
        weights['normals'] *= 10
        alone, _ = begin(labelled, '{method: fixed}', f'weights={weights}')
        make_step(alone, batch, rate=0.01)
        net = dict(alone.net.named_parameters())
        row = torch.cat([p.grad.flatten() for n, p in net.items() if n.startswith('encoder')])
        begun, _ = begin(labelled, '{method: fixed}')
        penalty = 0.2 * begun.net.encoder[0].weight.detach().flatten()
        row[: penalty.numel()] -= penalty
        rows[task] = row
    assert list(found)[:3] == [f'norm_{task}' for task in TASKS]
    assert found['norm_normals'].item() == pytest.approx(rows['normals'].norm().item(), rel=1e-3)
    cosine = torch.cosine_similarity(rows['semantic'], rows['normals'], dim=0).item()
    assert found['cosine_semantic_normals'].item() == pytest.approx(cosine, abs=1e-3)


def test_dtp_is_told_how_good_predictions_are(labelled: Path) -> None:
    """Labels that the network is right about have a figure of 1."""
    run, batch = begin(labelled, '{method: dtp}')
    make_step(run, batch, rate=0.01)
    figures = run.balancer.indicators
    assert ((figures >= 0) & (figures < 1)).all()
    logits = run.net.predictions((batch['image'] / 255 - 0.5) / 0.25).final
    batch = {**batch, 'semantic': logits['semantic'].argmax(1).repeat_interleave(2, 1)}
    batch['semantic'] = batch['semantic'].repeat_interleave(2, 2)
    run, _ = begin(labelled, '{method: dtp, options: {alpha: 1.0}}', 'seed=0')
    make_step(run, batch, rate=0.0)
    make_step(run, without(batch, 'depth'), rate=0.0)
    assert run.balancer.indicators[0] > figures[0]


def test_mixed_precision_keeps_what_methods_learn_in_32_bits(labelled: Path) -> None:
    for method in ('uncertainty', 'gradnorm', 'mgda', 'graddrop', 'log_scaling', 'adversarial'):
        steps = []
        for precision in ('32-true', 'bf16-mixed'):
            run, batch = begin(labelled, f'{{method: {method}}}', f'run.precision={precision}')
            make_step(run, batch, rate=0.01)
            steps.append(make_step(run, batch, rate=0.01))
            assert {p.dtype for p in run.balancer.parameters()} <= {torch.float32}
        full, mixed = (step.losses['total'].item() for step in steps)
        assert full != mixed
        assert full == pytest.approx(mixed, rel=0.05)
