"""ASTMT: what belongs to a task is its own, and the discriminator's gradient arrives reversed."""

from __future__ import annotations

import math

import pytest
import torch
from mtl_training.checkpoints.config import OptimConfig
from mtl_training.loop.optimizer import make_optimizer
from mtl_training.models import ModelError, build
from mtl_training.models.adversary import confusion
from mtl_training.models.astmt import ASTMT, PerTask
from mtl_training.models.backbones import BACKBONES
from mtl_training.models.pyramids import ResNetPyramid
from torch import Tensor

TASKS = {'semantic': 5, 'depth': 1, 'normals': 3}
SMALL = {'layers': (1, 1, 1, 1), 'channels': (16, 32, 48, 64), 'out_indices': (1, 2, 3, 4)}


@pytest.fixture(autouse=True)
def _small_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    strided = {**SMALL, 'output_stride': 16}
    monkeypatch.setitem(BACKBONES, 'small', (ResNetPyramid, 'resnet18', strided))
    monkeypatch.setitem(BACKBONES, 'small50', (ResNetPyramid, 'resnet50', strided))


def small(backbone: str = 'small', **options: object) -> ASTMT:
    torch.manual_seed(0)
    net = build('astmt', backbone, TASKS, **options)
    assert isinstance(net, ASTMT)
    with torch.no_grad():  # timm begins with residual branches that are zero
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.fill_(1)
    return net


def losses_of(net: ASTMT, image: Tensor) -> dict[str, Tensor]:
    """Losses whose gradients depend on the network; half of the pixels have no label."""
    final = net.predictions(image).final
    return {task: x[..., : x.shape[-1] // 2].square().mean() for task, x in final.items()}


@pytest.mark.parametrize('backbone', ['small', 'small50', 'seresnet50_d16'])
def test_one_prediction_per_task_on_a_quarter_of_the_image(backbone: str) -> None:
    with torch.device('meta'):
        final = small(backbone).predictions(torch.zeros(2, 3, 64, 96)).final
    assert {task: tuple(x.shape) for task, x in final.items()} == {
        task: (2, channels, 16, 24) for task, channels in TASKS.items()
    }


def test_parameters_are_the_released_codes() -> None:
    """SE-ResNet-50, the four tasks of NYUD, counted in the released code, to the unit."""
    tasks = {'semantic': 40, 'depth': 1, 'normals': 3, 'edges': 1}
    with torch.device('meta'):
        net = build('astmt', 'seresnet50_d16', tasks)
        released = build('astmt', 'seresnet50_d16', tasks, norms=True)
    sizes = {name: p.numel() for name, p in net.named_parameters()}
    parts = {
        'discriminator': lambda name: name.startswith('discriminator'),
        'adapters': lambda name: '.adapters.' in name,
        'se': lambda name: '.se.' in name,
    }
    counts = {k: sum(n for name, n in sizes.items() if has(name)) for k, has in parts.items()}
    assert counts == {'discriminator': 39_172, 'adapters': 7_257_088, 'se': 10_142_876}
    assert sum(sizes.values()) == 44_859_565
    # Its runs train the norms of the encoder, of which every task then has its own. ResNet-50 has
    # 26,496 channels in the norms of its blocks: 2 parameters each, 3 tasks more.
    assert sum(p.numel() for p in released.parameters()) == 45_018_541 == 44_859_565 + 6 * 26_496


@pytest.mark.parametrize('backbone', ['small', 'small50'])
def test_tasks_can_have_their_own_norms_in_the_encoder(backbone: str) -> None:
    """They begin as the backbone's; the statistics of one are of its own pass only."""
    net, shared = small(backbone, norms=True).eval(), small(backbone).eval()
    image = torch.rand(2, 3, 64, 96)
    own = {name for name, _ in net.named_parameters() if not name.startswith('decoder')}
    assert {f'stages.0.0.enter.1.{task}.weight' for task in TASKS} <= own
    assert {f'stages.1.0.shortcut.1.{task}.weight' for task in TASKS} <= own
    assert 'stem.1.weight' in own  # has nothing of a task
    state = shared.state_dict()
    sources = {
        name: next(n for n in (name, *(name.replace(f'.{t}.', '.') for t in TASKS)) if n in state)
        for name in net.state_dict()
    }
    net.load_state_dict({name: state[source] for name, source in sources.items()})
    for task, logits in net(image).items():
        assert torch.equal(logits, shared(image)[task])
    with torch.no_grad():
        net.stages[1][0].norm['depth'].bias.add_(0.3)
    after = net(image)
    assert not torch.allclose(after['depth'], shared(image)['depth'])
    assert torch.equal(after['semantic'], shared(image)['semantic'])
    net.train()
    net.keep(['depth'])
    net(image)
    norms = net.stages[2][0].enter[1]
    assert norms['depth'].num_batches_tracked == 1
    assert norms['semantic'].num_batches_tracked == 0


@pytest.mark.parametrize('backbone', ['small', 'small50'])
def test_adapters_at_zero_are_the_network_without_adapters(backbone: str) -> None:
    net, without = small(backbone), small(backbone, adapters=False)
    image = torch.rand(1, 3, 64, 96)
    missing = without.load_state_dict(net.state_dict(), strict=False)
    assert missing.missing_keys == []
    assert all('.adapters.' in key for key in missing.unexpected_keys)
    before = net.eval()(image)
    for task, logits in without.eval()(image).items():
        assert torch.equal(logits, before[task])
    with torch.no_grad():
        net.stages[1][0].adapters['depth'].weight.add_(0.1)
    after = net(image)
    assert not torch.allclose(after['depth'], before['depth'])
    assert torch.equal(after['semantic'], before['semantic'])


def test_tasks_have_their_own_se_adapters_and_decoder_norms() -> None:
    net = small()
    own = {name: m for name, m in net.named_modules() if isinstance(m, PerTask)}
    assert all(list(module) == list(TASKS) for module in own.values() if len(module))
    kinds = {name.rpartition('.')[2] for name in own}
    assert kinds == {'se', 'adapters', 'norm', 'predict'}
    assert all(name.startswith('decoder') for name in own if name.endswith('norm'))
    assert sum(name.startswith('stages') for name in own) == 2 * 4  # four blocks


def test_se_of_the_backbone_is_copied_for_every_task() -> None:
    with torch.device('meta'):
        net = small('seresnet50_d16')
    block = net.stages[2][0]
    assert block.se['depth'] is not block.se['semantic']
    assert block.se['depth'].fc1.out_channels == 1024 // 16
    assert net.stages[3][1].conv.dilation == (2, 2)
    assert net.stages[3][1].conv.stride == (1, 1)


def test_a_task_does_not_move_what_belongs_to_another() -> None:
    net = small().train()
    losses_of(net, torch.rand(2, 3, 64, 96))['depth'].backward()
    for name, parameter in net.named_parameters():
        mine, others = '.depth.' in name, '.semantic.' in name or '.normals.' in name
        if others or name.startswith('discriminator'):
            assert parameter.grad is None
        elif mine or name.startswith(('stem', 'stages', 'decoder')):
            assert parameter.grad is not None, name


def trained(**options: object) -> tuple[ASTMT, dict[str, Tensor]]:
    """A network in double precision and its losses of two images, the same every time."""
    net = small(**options).double().train()
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)).double()
    return net, losses_of(net, image)


def without_reversal() -> tuple[Tensor, dict[str, Tensor | None]]:
    """sum_t CE(D(g_t / |g_t|), t) over pixels with a gradient g_t, written out; its gradients."""
    net, losses = trained()
    term = torch.zeros((), dtype=torch.double)
    for label, (task, loss) in enumerate(losses.items()):
        (gradient,) = torch.autograd.grad(loss, net._features[task], create_graph=True)
        length = gradient.square().sum(1, keepdim=True).sqrt()
        logits = net.discriminator(gradient / (length + 1e-10))
        entropy = logits.logsumexp(1) - logits[:, label]
        term = term + entropy[length[:, 0] > 0].mean()
    term.backward()
    return term.detach(), {name: p.grad for name, p in net.named_parameters()}


def test_the_encoder_gets_the_discriminators_gradient_with_reversed_sign() -> None:
    expected, plain = without_reversal()
    net, losses = trained()
    features, one = net._features, torch.tensor(1.0)
    gradients = [torch.autograd.grad(losses[t], features[t], create_graph=True)[0] for t in TASKS]
    term = torch.stack(
        [confusion(g, net.discriminator, i, one) for i, g in enumerate(gradients)]
    ).sum()
    term.backward()
    torch.testing.assert_close(term, expected)
    found = {name: p.grad for name, p in net.named_parameters()}
    encoder = [name for name in plain if name.startswith(('stem', 'stages'))]
    shared = [name for name in encoder if '.se.' not in name and '.adapters.' not in name]
    assert any(plain[name].abs().max() > 0 for name in shared)
    for name in shared:
        torch.testing.assert_close(found[name], -plain[name])
    for name in ('discriminator.0.weight', 'discriminator.2.weight'):
        assert plain[name].abs().max() > 0
        torch.testing.assert_close(found[name], plain[name])


def test_the_penalty_is_weighted_and_its_reversal_grows_with_the_steps() -> None:
    net = small(steps=10).train()
    weight = 0.01 / 0.99  # of the total over 1 - w
    losses = losses_of(net, torch.rand(2, 3, 64, 96))
    penalty = net.penalties(losses)['discriminator']
    assert 0 < penalty.item() < 3 * weight * 5
    penalty.backward()
    assert net.stem[0].weight.grad.abs().max() == 0  # alpha is 0 at the first step
    assert net.discriminator[0].weight.grad.abs().max() > 0
    assert net.step.item() == 1
    assert net._features == {}  # nothing of the pass is kept
    net.penalties(losses_of(net, torch.rand(2, 3, 64, 96)))['discriminator'].backward()
    assert net.stem[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize(('step', 'share'), [(2, 0.2), (5, 0.5), (10, 1.0), (25, 1.0)])
def test_the_reversal_rises_as_a_hyperbolic_tangent(step: int, share: float) -> None:
    """2 / (1 + exp(-10 p)) - 1 is tanh(5 p); p stays at one after the last step."""
    _, plain = without_reversal()
    net, losses = trained(steps=10)
    net.step.fill_(step)
    net.penalties(losses)['discriminator'].backward()
    weight = 0.01 / 0.99
    for name in ('stem.0.weight', 'stages.2.0.conv.weight'):
        found = net.get_parameter(name).grad
        torch.testing.assert_close(found, -math.tanh(5 * share) * weight * plain[name])


def test_an_export_keeps_nothing_of_the_pass() -> None:
    net = small().eval()
    torch.export.export(net, (torch.zeros(1, 3, 64, 96),))
    assert net._features == {}


def test_gradients_of_pixels_without_labels_do_not_count() -> None:
    net = small()
    seen: list[Tensor] = []
    hook = net.discriminator.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0]))
    losses = losses_of(net, torch.rand(2, 3, 64, 96))
    net.penalties(losses)
    hook.remove()
    lengths = seen[0].norm(dim=1)
    assert torch.allclose(lengths[..., :12], torch.ones(()), atol=1e-2)
    assert lengths[..., 12:].max() == 0


def test_learning_rates_are_the_released_codes() -> None:
    net = small()
    optim = OptimConfig(lr=1e-3, max_steps=1, optimizer='sgd')
    groups = make_optimizer(net, optim).param_groups
    factor = {id(p): group['factor'] for group in groups for p in group['params']}
    rates = {name: factor[id(p)] for name, p in net.named_parameters()}
    assert rates['stem.0.weight'] == 1
    assert rates['stages.0.0.conv.weight'] == 1
    assert rates['stages.0.0.se.depth.fc1.weight'] == 3
    assert rates['decoder.mix.norm.depth.weight'] == 3
    assert rates['discriminator.0.weight'] == 10


def test_other_backbones_are_refused() -> None:
    with torch.device('meta'), pytest.raises(ModelError, match=r'astmt works on .* ResNets'):
        build('astmt', 'hrnet_w18_small_v2', TASKS)
