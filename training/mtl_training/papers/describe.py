"""`mtl_training describe`: parameters and multiply-accumulates, whole and per module."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import yaml
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mtl_training.bounds import image_size
from mtl_training.labels import NYUD40, PASCAL21
from mtl_training.models import BACKBONES, SYSTEMS, build
from mtl_training.models.layers import MultiScaleConv
from mtl_training.papers import PapersError
from mtl_training.tasks import nyud, pascal

# What the papers count is convolutions and linear layers; products of two activations are apart.
OPERATIONS = {
    'convolution': 'convolution',
    '_convolution': 'convolution',
    'mm': 'linear',
    'addmm': 'linear',
    'bmm': 'attention',
    'baddbmm': 'attention',
}
NYUD, PASCAL = nyud(NYUD40), pascal(PASCAL21)
CHANNELS = {name: task.channels for name, task in {**PASCAL, **NYUD}.items()}


@dataclass
class Macs:
    """Multiply-accumulates of one image."""

    convolution: int = 0
    linear: int = 0
    attention: int = 0

    @property
    def total(self) -> int:
        """As the papers count: without the products of attention."""
        return self.convolution + self.linear


@dataclass
class Part:
    """A module, or all modules of one kind: parameters, MACs as written and as executed."""

    name: str
    kind: str
    parameters: int = 0
    written: Macs = field(default_factory=Macs)
    executed: Macs = field(default_factory=Macs)


def describe(net: nn.Module, size: tuple[int, int]) -> list[Part]:
    """Count a network and its modules; the first part is the whole.

    Args:
        net: from ``build``; on the meta device nothing is computed, which makes it cheap.
        size: height and width of the image.

    Returns:
        Parts. ``written`` counts layers as the equations write them, ``executed`` as they run
        (``MultiScaleConv`` runs on smaller grids).
    """
    parts = [Part('', type(net).__name__), *(Part(n, type(m).__name__) for n, m in modules(net))]
    for part in parts:
        part.parameters = sum(p.numel() for p in net.get_submodule(part.name).parameters())
    written = _count(net, size, as_written=True)
    twice = any(isinstance(module, MultiScaleConv) for module in net.modules())
    executed = _count(net, size, as_written=False) if twice else written
    for form, counts in (('written', written), ('executed', executed)):
        for part in parts:
            path = f'{type(net).__name__}.{part.name}'.rstrip('.')
            setattr(part, form, _macs(_counted(counts, path, net.get_submodule(part.name))))
    return parts


def modules(net: nn.Module, prefix: str = '') -> Iterator[tuple[str, nn.Module]]:
    """The modules that a paper names: through containers and through modules made of our own."""
    for name, child in net.named_children():
        inner = list(child.children())
        container = isinstance(child, (nn.ModuleList, nn.ModuleDict))
        if container or (inner and all(_ours(module) for module in inner)):
            yield from modules(child, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', child


def by_kind(parts: Sequence[Part]) -> list[Part]:
    """Sum the modules of a description that are of one class, as the papers' tables do."""
    sums: dict[str, Part] = {}
    counts: dict[str, int] = {}
    for part in parts[1:]:
        total = sums.setdefault(part.kind, Part('', part.kind))
        counts[part.kind] = counts.get(part.kind, 0) + 1
        total.parameters += part.parameters
        for mine, theirs in ((total.written, part.written), (total.executed, part.executed)):
            for key, value in asdict(theirs).items():
                setattr(mine, key, getattr(mine, key) + value)
    for kind, total in sums.items():
        total.name = f'{kind} x{counts[kind]}'
    return list(sums.values())


def _ours(module: nn.Module) -> bool:
    return type(module).__module__.startswith('mtl_training.')


def _count(net: nn.Module, size: tuple[int, int], *, as_written: bool) -> dict[str, dict[str, int]]:
    switched = [m for m in net.modules() if isinstance(m, MultiScaleConv)]
    before, training = [m.as_written for m in switched], net.training
    device = next(net.parameters()).device
    try:
        for module in switched:
            module.as_written = as_written
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net.eval()(torch.zeros(1, 3, *size, device=device))
    finally:
        net.train(training)
        for module, state in zip(switched, before, strict=True):
            module.as_written = state
    return {
        path: {str(op).rpartition('.')[2]: flops for op, flops in operations.items()}
        for path, operations in counter.get_flop_counts().items()
    }


def _counted(counts: dict[str, dict[str, int]], path: str, module: nn.Module) -> dict[str, int]:
    """The operations of a module; of its children where a system calls those, not the module."""
    if path in counts:
        return counts[path]
    total: dict[str, int] = {}
    for name, child in module.named_children():
        for operation, flops in _counted(counts, f'{path}.{name}', child).items():
            total[operation] = total.get(operation, 0) + flops
    return total


def _macs(operations: dict[str, int]) -> Macs:
    macs = Macs()
    for operation, flops in operations.items():
        kind = OPERATIONS.get(operation, 'attention')
        setattr(macs, kind, getattr(macs, kind) + flops // 2)
    return macs


def parse_tasks(words: Sequence[str]) -> dict[str, int]:
    """['semantic:18', 'depth'] -> {'semantic': 18, 'depth': 1}."""
    tasks = {}
    for word in words:
        name, colon, channels = word.partition(':')
        if colon and not (channels.isdigit() and int(channels)):
            raise PapersError(f'task {word!r}; expected NAME or NAME:CHANNELS')
        if not colon and name not in CHANNELS:
            raise PapersError(f'unknown task {name!r}; known: {", ".join(CHANNELS)}')
        tasks[name] = int(channels) if colon else CHANNELS[name]
    return tasks


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """['lthd=false', 'saff=2'] -> {'lthd': False, 'saff': 2}, as a YAML file has them."""
    options = {}
    for word in words:
        name, equals, value = word.partition('=')
        if not equals:
            raise PapersError(f'option {word!r}; expected NAME=VALUE')
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise PapersError(f'option {word!r}; expected a value as in YAML') from error
    return options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mtl_training describe`."""
    parser.add_argument('model', metavar='MODEL', help=f'one of: {", ".join(SYSTEMS)}')
    parser.add_argument('--backbone', required=True, help=f'one of: {", ".join(BACKBONES)}')
    parser.add_argument(
        '--tasks',
        nargs='+',
        metavar='TASK',
        default=list(NYUD),
        help='names, or NAME:CHANNELS; channels left out are those of NYUD-v2 or PASCAL-Context '
        '(default: %(default)s)',
    )
    having = ', '.join(name for name, kind in SYSTEMS.items() if kind.takes_auxiliary)
    parser.add_argument(
        '--auxiliary',
        nargs='+',
        metavar='TASK',
        default=[],
        help=f"trained for the others' sake, as --tasks; in: {having}",
    )
    parser.add_argument(
        '--option',
        nargs='+',
        metavar='NAME=VALUE',
        default=[],
        help="the system's own, such as lthd=false of tif; see docs/models.md",
    )
    parser.add_argument(
        '--size',
        type=image_size,
        default='425x560',
        metavar='HxW',
        help='image size (default: %(default)s)',
    )
    parser.add_argument('--json', action='store_true', help='print JSON, with every module')


def run(args: argparse.Namespace) -> int:
    """Print the description."""
    size, tasks = args.size, parse_tasks(args.tasks)
    auxiliary, options = parse_tasks(args.auxiliary), parse_options(args.option)
    with torch.device('meta'):
        net = build(args.model, args.backbone, tasks, auxiliary=auxiliary, **options)
    parts = describe(net, size)
    if args.json:
        report = {
            'model': args.model,
            'backbone': args.backbone,
            'tasks': tasks,
            'auxiliary': auxiliary,
            'options': options,
            'size': list(size),
            'whole': _plain(parts[0]),
            'kinds': [_plain(part) for part in by_kind(parts)],
            'modules': [_plain(part) for part in parts[1:]],
        }
        print(json.dumps(report, indent=2))
        return 0
    names = [*args.tasks, *(f'{task} (auxiliary)' for task in args.auxiliary), *args.option]
    print(f'{args.model} on {args.backbone}, {size[0]}x{size[1]}, ' + ', '.join(names))
    print(f'{"":24}{"parameters":>14}{"MACs":>12}{"executed":>12}{"attention":>12}')
    for part in [*by_kind(parts), parts[0]]:
        print(
            f'{part.name or "whole":24}{part.parameters / 1e6:12.3f} M'
            f'{part.written.total / 1e9:10.3f} G{part.executed.total / 1e9:10.3f} G'
            f'{part.executed.attention / 1e9:10.3f} G'
        )
    print('MACs: convolutions and linear layers as the equations write them; executed: as they run')
    return 0


def _plain(part: Part) -> dict[str, object]:
    return {
        'name': part.name,
        'kind': part.kind,
        'parameters': part.parameters,
        'macs': {**asdict(part.written), 'total': part.written.total},
        'macs_executed': {**asdict(part.executed), 'total': part.executed.total},
    }
