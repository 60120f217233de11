"""`mtl_training import`: weights of the survey's public code become a checkpoint of ours.

The code that Vandenhende et al., "Multi-Task Learning for Dense Prediction Tasks: A Survey" (TPAMI
2021) released saves its networks as state dicts, ``best_model.pth.tar``. ``name_map`` says which
tensor is which.
"""

from __future__ import annotations

import argparse
import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtl_training import TrainingError
from mtl_training.deploy.export import class_table
from mtl_training.loop.checkpoint import build_network, config_tasks, describe_run, save_checkpoint
from mtl_training.loop.config import Config, DataConfig, ModelConfig, OptimConfig
from mtl_training.models import BACKBONES, Network
from mtl_training.models.mti_net import MTINet
from mtl_training.models.pad_net import PADNet
from mtl_training.models.pyramids import HRNetPyramid, SurveyHRNetPyramid
from mtl_training.tasks.task import TASK_SETS

# Our names of tasks and theirs, in the order in which their code stacks the tasks' features.
TASKS: dict[str, str] = {
    'semantic': 'semseg',
    'human_parts': 'human_parts',
    'saliency': 'sal',
    'normals': 'normals',
    'edges': 'edge',
    'depth': 'depth',
}
# Size of their images.
SIZES: dict[str, tuple[int, int]] = {'nyud': (480, 640), 'pascal': (512, 512)}
# fx of NYUD-v2's camera at that size, px: with it their metres are canonical metres.
FOCAL = 518.86
# Options with which our networks compute what theirs do.
OPTIONS: dict[str, dict[str, Any]] = {'mti_net': {'softmax': 'released'}}
# Classes of PASCAL VOC, which their semantic task has on PASCAL-Context.
VOC: tuple[str, ...] = (
    'background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair',
    'cow', 'dining table', 'dog', 'horse', 'motorbike', 'person', 'potted plant', 'sheep', 'sofa',
    'train', 'tv monitor',
)  # fmt: skip
NAMED = 3  # tensors that an error names

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


class WeightsError(TrainingError):
    """Weights that cannot be imported, in one sentence."""


def name_map(system: str, backbone: str, net: Network) -> dict[str, str]:
    """The modules of a network, ours to theirs; what is below them has the same names.

    Args:
        system: a key of ``MAPS``.
        backbone: a key of ``BACKBONES``.
        net: what they are of: the tasks are its own.
    """
    dilated = BACKBONES[backbone][2].get('output_stride') == 8
    return dict(MAPS[system](net, DEEPLAB if dilated else HRNET_HEAD))


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


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, without the ``module.`` of DataParallel.

    A file that needs more than tensors to be read is not read: pickles can run code.

    Raises:
        WeightsError: the file is missing or no state dict.
    """
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition('\n')[0].partition('. ')[0]
        raise WeightsError(
            f'{path} cannot be read as tensors alone (weights_only; other pickles could run code): '
            f'{reason}'
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get('model'), Mapping):
        content = content['model']  # their checkpoint.pth.tar
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f'{path} holds {type(content).__name__}, expected a state dict')
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f'{path}: {name!r} is {type(value).__name__}, expected a state dict of tensors'
            )
    return {name.removeprefix('module.'): value for name, value in content.items()}


def stitched(weights: Mapping[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
    """Weights in which each cross-stitch unit is one tensor alpha [T,T,C].

    Raises:
        WeightsError: a vector that is missing, or of another length.
    """
    weights = dict(weights)
    for stage in (f'cross_stitch.layer{i}' for i in range(1, 5)):
        names = [
            f'{stage}.cross_stitch_unit.{TASKS[i]}.{TASKS[j]}.param' for i in tasks for j in tasks
        ]
        missing = [name for name in names if name not in weights]
        if missing:
            raise WeightsError(f'the weights lack {_first(missing)} of CrossStitch')
        vectors = [weights.pop(name) for name in names]
        if len({vector.shape for vector in vectors}) > 1:
            raise WeightsError(f'the vectors of {stage} are not of one length')
        weights[f'{stage}.alpha'] = torch.stack(vectors).unflatten(0, (len(tasks), -1))
    return weights


def renamed(
    theirs: Mapping[str, Tensor], ours: Network, names: Mapping[str, str]
) -> dict[str, Tensor]:
    """Their tensors under our names, each in its place.

    Args:
        names: modules, ours to theirs; the longest name that fits decides.

    Raises:
        WeightsError: a tensor that is missing, left over, or of another shape.
    """
    wanted = ours.state_dict()
    sources = {name: _source(name, names) for name in wanted}
    missing = [source for source in sources.values() if source not in theirs]
    if missing:
        raise WeightsError(f'the weights lack {_first(missing)} of {type(ours).__name__}')
    used = set(sources.values())
    surplus = [name for name in theirs if name not in used]
    if surplus:
        raise WeightsError(f'{type(ours).__name__} has no place for {_first(surplus)}')
    for name, source in sources.items():
        found, expected = list(theirs[source].shape), list(wanted[name].shape)
        if found != expected:
            raise WeightsError(f'{source} is {found}, expected {expected} as {name}')
    return {name: theirs[source] for name, source in sources.items()}


def _source(name: str, names: Mapping[str, str]) -> str:
    prefix = name
    while prefix and prefix not in names:
        prefix = prefix.rpartition('.')[0]
    return names[prefix] + name[len(prefix) :] if prefix else name


def _first(names: Sequence[str]) -> str:
    more = f' and {len(names) - NAMED} more' if len(names) > NAMED else ''
    return ', '.join(names[:NAMED]) + more


def restack(weights: dict[str, Tensor], net: MTINet) -> None:
    """Put what the FPMs of MTI-Net stack into our order: tasks first, then auxiliary ones.

    Theirs is the order of ``TASKS``. Their softmax over N channels that follow each other is only
    the same if no group lies in two tasks.

    Raises:
        WeightsError: N does not divide the channels.
    """
    ours = net.fpm1.tasks
    theirs = in_order(ours)
    if ours == theirs:
        return
    place = [theirs.index(task) for task in ours]
    for scale in ('fpm1', 'fpm2', 'fpm3'):
        width = weights[f'{scale}.g.body.0.0.weight'].shape[0]
        if width % len(ours):
            raise WeightsError(
                f'{scale} has {width} channels, no multiple of {len(ours)} tasks: with auxiliary '
                f'tasks between the others such weights cannot be imported'
            )
        for layer in ('f.0.body.0.0', 'f.0.shortcut.0', 'g.body.0.0', 'g.shortcut.0'):
            name = f'{scale}.{layer}.weight'
            weights[name] = weights[name].unflatten(1, (len(ours), -1))[:, place].flatten(1, 2)
        for name in (f'{scale}.f.2.weight', f'{scale}.f.2.bias'):
            weights[name] = weights[name].unflatten(0, (len(ours), -1))[place].flatten(0, 1)


def in_order(tasks: Sequence[str]) -> list[str]:
    """Tasks as their code orders them."""
    return [task for task in TASKS if task in tasks]


def import_weights(weights: Mapping[str, Tensor], config: Config) -> Network:
    """The network of a configuration with weights of the survey's code.

    Raises:
        WeightsError: a system or backbone without a map, or weights that do not fit.
    """
    system, backbone = config.model.system, config.model.backbone
    if system not in MAPS:
        raise WeightsError(f'no weights are known for {system!r}; known: {", ".join(MAPS)}')
    if system == 'single_task' and len(config.tasks) != 1:
        raise WeightsError(f'a file of single_task has 1 task, not {len(config.tasks)}')
    kind = BACKBONES[backbone][0] if backbone in BACKBONES else None
    if kind is HRNetPyramid:
        raise WeightsError(
            f'{backbone} up-samples its branches in another way than the survey: expected '
            f'{_first([name for name, row in BACKBONES.items() if row[0] is SurveyHRNetPyramid])}'
        )
    net = build_network(config, pretrained=False)
    if system == 'cross_stitch':
        weights = stitched(weights, list(net.tasks))
    fitting = renamed(weights, net, name_map(system, backbone, net))
    if isinstance(net, MTINet):
        restack(fitting, net)
    net.load_state_dict(fitting)
    return net.eval()


def configure(
    system: str,
    backbone: str,
    tasks: Sequence[str],
    *,
    auxiliary: Sequence[str] = (),
    task_set: str | None = None,
) -> Config:
    """The configuration of such a network, with tasks in the order of their code.

    Args:
        task_set: nyud or pascal; left out, nyud if depth is among the tasks.

    Raises:
        WeightsError: a task that the data set does not have.
    """
    every = [*tasks, *auxiliary]
    task_set = task_set or ('nyud' if 'depth' in every else 'pascal')
    known = TASK_SETS[task_set]
    unknown = [task for task in every if task not in known]
    if unknown:
        raise WeightsError(f'{task_set} has no task {unknown[0]!r}; it has: {", ".join(known)}')
    height, width = SIZES[task_set]
    return Config(
        name=f'{system}_{task_set}',
        model=ModelConfig(
            backbone=backbone,
            system=system,
            auxiliary=tuple(in_order(auxiliary)),
            options=OPTIONS.get(system, {}),
        ),
        data=DataConfig(height=height, width=width, canonical_focal=FOCAL),
        optim=OptimConfig(lr=1e-4, max_steps=0),
        tasks=tuple(in_order(tasks)),
        task_set=task_set,
    )


def classes(config: Config) -> list[dict[str, Any]]:
    """What the semantic channels are, for the metadata: NYUD's 40, or the 21 of PASCAL VOC."""
    if config.task_set == 'nyud':
        return class_table({}, TASK_SETS['nyud']['semantic'].channels)
    table = class_table({}, len(VOC))
    return [{**entry, 'name': name} for entry, name in zip(table, VOC, strict=True)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mtl_training import`."""
    parser.add_argument('system', metavar='SYSTEM', help=f'one of: {", ".join(MAPS)}')
    parser.add_argument('weights', metavar='WEIGHTS', type=Path, help='their best_model.pth.tar')
    parser.add_argument(
        '--backbone',
        required=True,
        help='resnet18_d8, resnet50_d8 or hrnet_w18_small_v2_bilinear',
    )
    parser.add_argument(
        '--tasks', nargs='+', required=True, metavar='TASK', help=f'of: {", ".join(TASKS)}'
    )
    parser.add_argument(
        '--auxiliary', nargs='+', default=[], metavar='TASK', help='tasks predicted at first only'
    )
    parser.add_argument(
        '--task-set',
        choices=list(SIZES),
        help='how many channels the tasks have (default: nyud if depth is among them)',
    )
    parser.add_argument('--out', type=Path, required=True, metavar='CHECKPOINT')


def run(args: argparse.Namespace) -> int:
    """Import, write the checkpoint and say what was in the file."""
    config = configure(
        args.system, args.backbone, args.tasks, auxiliary=args.auxiliary, task_set=args.task_set
    )
    weights = read_weights(args.weights)
    net = import_weights(weights, config)
    tensors = {f'net.{name}': tensor for name, tensor in net.state_dict().items()}
    meta = {**describe_run(config, net, 0, {}), 'classes': classes(config)}
    save_checkpoint(args.out, tensors, meta)
    tasks = ', '.join(f'{n} ({task.channels})' for n, task in config_tasks(config).items())
    print(
        f'{args.out}: {args.system} on {args.backbone}, {tasks}; {len(weights)} tensors, all used'
    )
    return 0
