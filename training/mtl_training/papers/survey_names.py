"""Which tensor of ours is which of the survey's public code, system by system.

Names of modules only, as they stand in its state dicts; none of the code is here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from mtl_training.models import BACKBONES, Network
from mtl_training.models.mti_net import MTINet
from mtl_training.models.pad_net import PADNet

# Our names of tasks and theirs, in the order in which their code stacks the tasks' features.
TASKS: dict[str, str] = {
    'semantic': 'semseg',
    'human_parts': 'human_parts',
    'saliency': 'sal',
    'normals': 'normals',
    'edges': 'edge',
    'depth': 'depth',
}


# Layers inside of a module, ours to theirs.
DEEPLAB: dict[str, str] = {
    **{f'0.branches.{i}': f'0.convs.{i}' for i in range(4)},
    '0.pool.0': '0.convs.4.1',
    '0.pool.1': '0.convs.4.2',
    '0.project.0': '0.project',
    '1.0': '1',
    '1.1': '2',
    '2': '4',
}


HRNET_HEAD: dict[str, str] = {'mix': 'last_layer', 'predict': 'last_layer.3'}


BASIC: dict[str, str] = {
    'body.0.0': 'conv1', 'body.0.1': 'bn1',
    'body.1': 'conv2', 'body.2': 'bn2',
    'shortcut': 'downsample',
}  # fmt: skip


BOTTLENECK: dict[str, str] = {
    'body.0.0': 'conv1', 'body.0.1': 'bn1',
    'body.1.0': 'conv2', 'body.1.1': 'bn2',
    'body.2': 'conv3', 'body.3': 'bn3',
    'shortcut': 'downsample',
}  # fmt: skip


MESSAGE: dict[str, str] = {'gate': 'attention.0', 'value': 'conv'}


NDDR_STAGES = ('conv', 'layer1_without_conv', 'layer2', 'layer3', 'layer4')


Pairs = Iterator[tuple[str, str]]


def _inside(ours: str, theirs: str, layers: Mapping[str, str]) -> Pairs:
    for mine, other in layers.items():
        yield f'{ours}.{mine}', f'{theirs}.{other}'


def _blocks(ours: str, theirs: str, layers: Mapping[str, str]) -> Pairs:
    """Two residual blocks in a row."""
    for i in range(2):
        yield from _inside(f'{ours}.{i}', f'{theirs}.{i}', layers)


def _single_task(net: Network, head: Mapping[str, str]) -> Pairs:
    """A file of theirs holds one task."""
    (task,) = net.tasks
    yield f'backbones.{task}.net', 'backbone'
    yield from _inside(f'heads.{task}', 'decoder', head)


def _mtl_baseline(net: Network, head: Mapping[str, str]) -> Pairs:
    yield 'backbone.net', 'backbone'
    for task in net.tasks:
        yield from _inside(f'heads.{task}', f'decoders.{TASKS[task]}', head)


def _encoders(net: Network, head: Mapping[str, str]) -> Pairs:
    for task in net.tasks:
        yield f'backbones.{task}.net', f'backbone.{TASKS[task]}'
        yield from _inside(f'heads.{task}', f'heads.{TASKS[task]}', head)


def _cross_stitch(net: Network, head: Mapping[str, str]) -> Pairs:
    """The vectors alpha of a unit are gathered before, see ``stitched``."""
    yield from _encoders(net, head)
    for i in range(4):
        yield f'stitch.{i}', f'cross_stitch.layer{i + 1}'


def _nddr(net: Network, head: Mapping[str, str]) -> Pairs:
    yield from _encoders(net, head)
    for i, stage in enumerate(NDDR_STAGES):
        for task in net.tasks:
            yield f'nddr.{i}.layers.{task}', f'nddr.{stage}.layer.{TASKS[task]}'


def _mtan(net: Network, head: Mapping[str, str]) -> Pairs:
    yield 'backbone.net', 'backbone'
    for task in net.tasks:
        yield from _inside(f'heads.{task}', f'heads.{TASKS[task]}', head)
        for i in range(4):
            yield f'attention.{i}.{task}', f'attention_{i + 1}.{TASKS[task]}'
    yield from _inside('refine.0.0', 'refine_1.0', BOTTLENECK)
    for i in (1, 2):
        yield from _inside(f'refine.{i}', f'refine_{i + 1}.0', BOTTLENECK)


def _pad_net(net: PADNet, head: Mapping[str, str]) -> Pairs:
    fused = head is HRNET_HEAD
    yield 'backbone.net', 'backbone.0' if fused else 'backbone'
    yield 'front.mix', 'backbone.1.last_layer'
    for task in net.initial:
        name = TASKS[task]
        yield from _blocks(
            f'initial.{task}.refine', f'initial_task_prediction_heads.layers.{name}', BOTTLENECK
        )
        yield f'initial.{task}.predict', f'initial_task_prediction_heads.conv_out.{name}'
    yield from _distillation('distillation', 'multi_modal_distillation', net, net.initial)
    for task in net.tasks:
        name = TASKS[task]
        yield from _blocks(f'final.{task}.refine', f'heads.{name}', BOTTLENECK)
        yield f'final.{task}.predict', f'heads.{name}.2'


def _distillation(ours: str, theirs: str, net: Network, initial: Iterable[str]) -> Pairs:
    for task, other in itertools.product(net.tasks, initial):
        if task != other:
            yield from _inside(
                f'{ours}.messages.{task}.{other}',
                f'{theirs}.self_attention.{TASKS[task]}.{TASKS[other]}',
                MESSAGE,
            )


def _mti_net(net: MTINet, head: Mapping[str, str]) -> Pairs:
    yield 'backbone.net', 'backbone'
    initial = net.fpm1.tasks
    for scale in range(4):
        for task in initial:
            name = TASKS[task]
            yield from _blocks(
                f'initial{scale}.refine.{task}', f'scale_{scale}.refinement.{name}', BASIC
            )
            yield f'initial{scale}.predict.{task}', f'scale_{scale}.decoders.{name}'
        yield from _distillation(
            f'distillation.{scale}', f'distillation_scale_{scale}', net, initial
        )
    for scale in (1, 2, 3):
        ours, theirs = f'fpm{scale}', f'fpm_scale_{scale}'
        yield from _blocks(f'{ours}.f', f'{theirs}.non_linear', BASIC)
        yield f'{ours}.f.2', f'{theirs}.non_linear.2'
        yield from _inside(f'{ours}.g', f'{theirs}.dimensionality_reduction', BASIC)
        for task in initial:
            yield f'{ours}.excite.{task}.gate', f'{theirs}.se.{TASKS[task]}.squeeze'
    for task in net.tasks:
        yield from _inside(f'heads.{task}', f'heads.{TASKS[task]}', head)


MAPS: dict[str, Callable[..., Pairs]] = {
    'single_task': _single_task,
    'mtl_baseline': _mtl_baseline,
    'cross_stitch': _cross_stitch,
    'nddr': _nddr,
    'mtan': _mtan,
    'pad_net': _pad_net,
    'mti_net': _mti_net,
}


def name_map(system: str, backbone: str, net: Network) -> dict[str, str]:
    """The modules of a network, ours to theirs; what is below them has the same names.

    Args:
        system: a key of ``MAPS``.
        backbone: a key of ``BACKBONES``.
        net: what they are of: the tasks are its own.
    """
    dilated = BACKBONES[backbone][2].get('output_stride') == 8
    return dict(MAPS[system](net, DEEPLAB if dilated else HRNET_HEAD))


def in_order(tasks: Sequence[str]) -> list[str]:
    """Tasks as their code orders them."""
    return [task for task in TASKS if task in tasks]
