"""`mtl_training import`: weights of the survey's public code become a checkpoint of ours.

The code that Vandenhende et al., "Multi-Task Learning for Dense Prediction Tasks: A Survey" (TPAMI
2021) released saves its networks as state dicts, ``best_model.pth.tar``. ``survey_names`` says
which tensor is which.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtl_training.checkpoints.checkpoint import (
    build_network,
    config_tasks,
    describe_run,
    save_checkpoint,
)
from mtl_training.checkpoints.config import Config, DataConfig, ModelConfig, OptimConfig
from mtl_training.labels import CLASS_SETS
from mtl_training.models import BACKBONES, Network
from mtl_training.models.mti_net import MTINet
from mtl_training.models.pyramids import HRNetPyramid, SurveyHRNetPyramid
from mtl_training.papers import PapersError
from mtl_training.papers.survey_names import MAPS, TASKS, in_order, name_map
from mtl_training.tasks import TASK_SETS

# Size of their images.
SIZES: dict[str, tuple[int, int]] = {'nyud': (480, 640), 'pascal': (512, 512)}
# fx of NYUD-v2's camera at that size, px: with it their metres are canonical metres.
FOCAL = 518.86
# Options with which our networks compute what theirs do.
OPTIONS: dict[str, dict[str, Any]] = {'mti_net': {'softmax': 'released'}}
NAMED = 3  # tensors that an error names


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, without the ``module.`` of DataParallel.

    A file that needs more than tensors to be read is not read: pickles can run code.

    Raises:
        PapersError: the file is missing, or not a state dict.
    """
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition('\n')[0].partition('. ')[0]
        raise PapersError(
            f'{path} cannot be read as tensors alone (weights_only; other pickles could run code): '
            f'{reason}'
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get('model'), Mapping):
        content = content['model']  # their checkpoint.pth.tar
    if not isinstance(content, Mapping) or not content:
        raise PapersError(f'{path} holds {type(content).__name__}, expected a state dict')
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise PapersError(
                f'{path}: {name!r} is {type(value).__name__}, expected a state dict of tensors'
            )
    return {name.removeprefix('module.'): value for name, value in content.items()}


def import_weights(weights: Mapping[str, Tensor], config: Config) -> Network:
    """The network of a configuration with weights of the survey's code.

    Raises:
        PapersError: a system or backbone without a map, or weights that do not fit.
    """
    system, backbone = config.model.system, config.model.backbone
    if system not in MAPS:
        raise PapersError(f'no weights are known for {system!r}; known: {", ".join(MAPS)}')
    if system == 'single_task' and len(config.tasks) != 1:
        raise PapersError(f'a file of single_task has 1 task, not {len(config.tasks)}')
    kind = BACKBONES[backbone][0] if backbone in BACKBONES else None
    if kind is HRNetPyramid:
        raise PapersError(
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


def stitched(weights: Mapping[str, Tensor], tasks: Sequence[str]) -> dict[str, Tensor]:
    """Weights in which each cross-stitch unit is one tensor alpha [T,T,C].

    Raises:
        PapersError: a vector that is missing, or of another length.
    """
    weights = dict(weights)
    for stage in (f'cross_stitch.layer{i}' for i in range(1, 5)):
        names = [
            f'{stage}.cross_stitch_unit.{TASKS[i]}.{TASKS[j]}.param' for i in tasks for j in tasks
        ]
        missing = [name for name in names if name not in weights]
        if missing:
            raise PapersError(f'the weights lack {_first(missing)} of CrossStitch')
        vectors = [weights.pop(name) for name in names]
        if len({vector.shape for vector in vectors}) > 1:
            raise PapersError(f'the vectors of {stage} are not of one length')
        weights[f'{stage}.alpha'] = torch.stack(vectors).unflatten(0, (len(tasks), -1))
    return weights


def renamed(
    theirs: Mapping[str, Tensor], ours: Network, names: Mapping[str, str]
) -> dict[str, Tensor]:
    """Their tensors under our names, each in its place.

    Args:
        names: modules, ours to theirs; the longest name that fits decides.

    Raises:
        PapersError: a tensor that is missing, left over, or of another shape.
    """
    wanted = ours.state_dict()
    sources = {name: source_of(name, names) for name in wanted}
    missing = [source for source in sources.values() if source not in theirs]
    if missing:
        raise PapersError(f'the weights lack {_first(missing)} of {type(ours).__name__}')
    used = set(sources.values())
    surplus = [name for name in theirs if name not in used]
    if surplus:
        raise PapersError(f'{type(ours).__name__} has no place for {_first(surplus)}')
    for name, source in sources.items():
        found, expected = list(theirs[source].shape), list(wanted[name].shape)
        if found != expected:
            raise PapersError(f'{source} is {found}, expected {expected} as {name}')
    return {name: theirs[source] for name, source in sources.items()}


def source_of(name: str, names: Mapping[str, str]) -> str:
    """Their name of a tensor of ours: what is below a module of the map keeps its name."""
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
        PapersError: N does not divide the channels.
    """
    ours = net.fpm1.tasks
    theirs = in_order(ours)
    if ours == theirs:
        return
    place = [theirs.index(task) for task in ours]
    for scale in ('fpm1', 'fpm2', 'fpm3'):
        width = weights[f'{scale}.g.body.0.0.weight'].shape[0]
        if width % len(ours):
            raise PapersError(
                f'{scale} has {width} channels, no multiple of {len(ours)} tasks: with auxiliary '
                f'tasks between the others such weights cannot be imported'
            )
        for layer in ('f.0.body.0.0', 'f.0.shortcut.0', 'g.body.0.0', 'g.shortcut.0'):
            name = f'{scale}.{layer}.weight'
            weights[name] = weights[name].unflatten(1, (len(ours), -1))[:, place].flatten(1, 2)
        for name in (f'{scale}.f.2.weight', f'{scale}.f.2.bias'):
            weights[name] = weights[name].unflatten(0, (len(ours), -1))[place].flatten(0, 1)


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
        PapersError: a task that the data set does not have.
    """
    every = [*tasks, *auxiliary]
    task_set = task_set or ('nyud' if 'depth' in every else 'pascal')
    known = TASK_SETS[task_set](CLASS_SETS[task_set])
    unknown = [task for task in every if task not in known]
    if unknown:
        raise PapersError(f'{task_set} has no task {unknown[0]!r}; it has: {", ".join(known)}')
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
    save_checkpoint(args.out, tensors, describe_run(config, net, 0, {}))
    tasks = ', '.join(f'{n} ({task.channels})' for n, task in config_tasks(config).items())
    print(
        f'{args.out}: {args.system} on {args.backbone}, {tasks}; {len(weights)} tensors, all used'
    )
    return 0
