"""`mtl_training cards`: a card of every system, made from its docstrings and its counts.

Nothing that a docstring says is written twice: a card quotes the module, the system's class and
the classes it is made of. Only what to count it on and when to choose it stand here.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from mtl_perception.files import write_beside
from mtl_training.labels import NYUD40, PASCAL21
from mtl_training.models import BACKBONES, SYSTEMS, ModelError, Network, build
from mtl_training.models.pretrained import SOURCES, WEIGHTS
from mtl_training.papers import PapersError
from mtl_training.papers.describe import Part, describe
from mtl_training.papers.survey_names import MAPS
from mtl_training.tasks import nyud, pascal


@dataclass(frozen=True)
class Card:
    """What the docstrings of a system do not say: what to count it on, and when to choose it."""

    backbone: str = 'hrnet_w18_small_v2'
    choose: str = ''


# One row per system. The usual backbone is the paper's, or the one that the survey compares on.
CARDS: dict[str, Card] = {
    'tif': Card(choose='you deploy: it is what is shipped, and the best for its size by its paper'),
    'mt_cp': Card(
        'swin_small', 'accuracy counts and cost does not: expensive decoders on a large backbone'
    ),
    'single_task': Card('resnet50_d8', 'you need the figures that all others are measured by'),
    'mtl_baseline': Card(
        choose='you begin: the cheapest system, and the second row of every comparison'
    ),
    'mti_net': Card(choose='tasks help each other and a small backbone has to do'),
    'pad_net': Card(choose='you want the simplest network in which tasks help each other'),
    'pap_net': Card('resnet50_d8', 'you study affinities; their products cost much at high scales'),
    'psd': Card(choose='you study local structures; the formulas are ours'),
    'jtrl': Card('resnet50', 'there are two tasks and you study taking turns'),
    'cross_stitch': Card(
        'resnet18_d8', 'trained single-task networks are there and sharing should be learned'
    ),
    'sluice': Card(
        'resnet18_d8',
        'cross-stitch would do, but what to share should be learned by subspace and by layer',
    ),
    'nddr': Card('resnet18_d8', 'cross-stitch would do, but all channels should mix'),
    'mtan': Card('resnet18_d8', 'one encoder should be shared and each task select from it'),
    'asp_mtl': Card(
        'resnet18_d8',
        'data sets have labels of some tasks each, and a backbone for each task can be paid',
    ),
    'astmt': Card(
        'seresnet50_d16', 'tasks are wanted one at a time, or hinder each other; one pass for each'
    ),
    'modulated': Card(
        'resnet18', 'tasks hinder each other, and a pass of the encoder for each can be paid'
    ),
    'branched': Card(
        'resnet18', 'tasks differ so much that they should share the first stages only'
    ),
    'bmtas': Card('resnet18', 'you search for a tree within a budget of multiply-accumulates'),
    'ltb': Card('resnet18', 'you search for a tree, cheaper than with BMTAS'),
}
NYUD, PASCAL = nyud(NYUD40), pascal(PASCAL21)
# What is counted: the two tasks of the survey, all of NYUD-v2, all of PASCAL-Context.
COUNTS = (
    ('NYUD-v2', tuple(NYUD)[:2], NYUD, (480, 640)),
    ('NYUD-v2', tuple(NYUD), NYUD, (480, 640)),
    ('PASCAL-Context', tuple(PASCAL), PASCAL, (512, 512)),
)


@dataclass(frozen=True)
class Row:
    """A row of the survey's Table V: what it prints, and why this cannot be reproduced."""

    data: str
    system: str
    backbone: str
    mega: float  # parameters
    giga: float  # "FLOPS"
    auxiliary: tuple[str, ...] = ()
    why: str = ''


OF_NO_CONFIGURATION = 'no configuration of the released code has these figures'
OF_A_PAPER = "the authors' own network, not trained again for the survey"
TABLE_V: tuple[Row, ...] = (
    Row('NYUD-v2', 'single_task', 'resnet50_d8', 80, 192),
    Row('NYUD-v2', 'mtl_baseline', 'resnet50_d8', 56, 133),
    Row('NYUD-v2', 'mtan', 'resnet50_d8', 72, 197),
    Row('NYUD-v2', 'cross_stitch', 'resnet50_d8', 80, 192),
    Row(
        'NYUD-v2', 'nddr', 'resnet50_d8', 102, 207, why='207 must be a slip for 247: all else fits'
    ),
    Row('NYUD-v2', 'jtrl', 'resnet50', 295, 660, why=f'{OF_A_PAPER}; here it is our reading'),
    Row('NYUD-v2', 'pap_net', 'resnet50_d8', 52, 4800, why=f'{OF_A_PAPER}; here it is our reading'),
    Row('NYUD-v2', 'pad_net', 'resnet50_d8', 52, 256, why=OF_NO_CONFIGURATION),
    Row('NYUD-v2', 'single_task', 'hrnet_w18_small_v2', 8, 11),
    Row('NYUD-v2', 'mtl_baseline', 'hrnet_w18_small_v2', 4, 6),
    Row('NYUD-v2', 'pad_net', 'hrnet_w18_small_v2', 12, 82, ('normals', 'edges')),
    Row(
        'NYUD-v2',
        'mti_net',
        'hrnet_w18_small_v2',
        27,
        16,
        ('normals', 'edges'),
        f'{OF_NO_CONFIGURATION}: 2 tasks have 9 M and 9 G, all 4 have 18 M and 14 G',
    ),
    Row('PASCAL-Context', 'single_task', 'resnet18_d8', 80, 167),
    Row('PASCAL-Context', 'mtl_baseline', 'resnet18_d8', 35, 71),
    Row('PASCAL-Context', 'mtan', 'resnet18_d8', 37, 80),
    Row('PASCAL-Context', 'cross_stitch', 'resnet18_d8', 80, 167),
    Row('PASCAL-Context', 'nddr', 'resnet18_d8', 88, 187),
    Row('PASCAL-Context', 'pad_net', 'resnet18_d8', 32, 36, why=OF_NO_CONFIGURATION),
    Row('PASCAL-Context', 'single_task', 'hrnet_w18_small_v2', 20, 24),
    Row('PASCAL-Context', 'mtl_baseline', 'hrnet_w18_small_v2', 4, 7),
    Row('PASCAL-Context', 'pad_net', 'hrnet_w18_small_v2', 29, 212),
    Row('PASCAL-Context', 'mti_net', 'hrnet_w18_small_v2', 24, 15),
)

RELEASED = (
    "- Weights of the survey's code: [imported](training.md#weights-of-the-surveys-code), with the "
    'same outputs.'
)

BACKBONES_TEXT = """## Backbones

`model.pretrained` of a configuration takes the name of weights, or `true` for the first of a row.
Published figures depend on them: the survey's are of `tv_in1k`, and of `ms_in1k` for HRNet."""
TABLE_V_TEXT = """## Table V of the survey

Its two tasks of NYUD-v2 at 480x640 and five of PASCAL-Context at 512x512. What it calls FLOPS are
multiply-accumulates, halved. Rows with a reason cannot be reproduced. Systems that the survey's
code has (all but JTRL and PAP-Net) have its parameters to the unit and its multiply-accumulates
to 0.2 %, by test."""
HEADER = """# Models

Written by `mtl_training cards --out docs/models.md`; the sources are the docstrings of
`training/mtl_training/models/`. Equations, figures and tables are those of the paper that a card
names; "survey" is Vandenhende et al., "Multi-Task Learning for Dense Prediction Tasks: A Survey",
TPAMI 2021. MACs are multiply-accumulates of convolutions and linear layers of one image as the
equations write them; "attention" are products of two activations as they run, which papers leave
out. `mtl_training describe` counts any other backbone, set of tasks and size. What the survey's
Table V prints, and what of it cannot be reproduced, is [at the end](#table-v-of-the-survey).
"""


def cards() -> str:
    """All cards, as Markdown."""
    figures = {name: count(name) for name in SYSTEMS}
    rows = [
        f'| [{name}](#{name}) | {card(name).backbone} | {_figures(figures[name][0][1])} '
        f'| {_exportable(figures[name][0][0])} | {card(name).choose} |'
        for name in SYSTEMS
    ]
    overview = [
        f'The systems with the two tasks {" and ".join(COUNTS[0][1])} at 480x640:',
        '',
        '| system | backbone | parameters | MACs | attention | to a bundle | choose it when |',
        '|---|---|---|---|---|---|---|',
        *rows,
    ]
    texts = [write_card(name, figures[name]) for name in SYSTEMS]
    return '\n'.join([HEADER, *overview, '', '\n'.join(texts), backbones(), table_v()])


def card(name: str) -> Card:
    """The row of a system; an empty one where there is none."""
    return CARDS.get(name, Card())


def count(name: str) -> list[tuple[Network, Part | str]]:
    """The network and its count for each of ``COUNTS``, or why there is none.

    Raises:
        PapersError: it cannot be built with two tasks.
    """
    found: list[tuple[Network, Part | str]] = []
    for number in range(len(COUNTS)):
        try:
            found.append(described(name, card(name).backbone, number))
        except ModelError as error:
            if not found:
                raise PapersError(f'{name} on {card(name).backbone}: {error}') from error
            found.append((found[0][0], str(error)))
    return found


@functools.cache
def described(
    system: str, backbone: str, number: int, auxiliary: tuple[str, ...] = ()
) -> tuple[Network, Part]:
    """The network with the tasks of a row of ``COUNTS``, and its count."""
    _, names, tasks, size = COUNTS[number]
    channels = {name: task.channels for name, task in tasks.items()}
    with torch.device('meta'):
        net = build(
            system,
            backbone,
            {name: channels[name] for name in names},
            auxiliary={name: channels[name] for name in auxiliary},
        )
    return net, describe(net, size)[0]


def backbones() -> str:
    """The backbones and the weights they can begin with, as Markdown."""
    lines = [BACKBONES_TEXT, '', '| backbone | weights |', '|---|---|']
    for name, (_, architecture, _) in BACKBONES.items():
        tags = ', '.join(f'`{tag}`' for tag in WEIGHTS[architecture])
        lines.append(f'| {name} | {tags} |')
    lines += ['', *(f'- `{tag}`: {source}.' for tag, source in SOURCES.items()), '']
    return '\n'.join(lines)


def table_v() -> str:
    """The survey's Table V beside our counts, as Markdown."""
    lines = [
        TABLE_V_TEXT,
        '',
        '| data set | system | backbone | parameters: survey | here | FLOPS: survey | here | why |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for row in TABLE_V:
        number = {'NYUD-v2': 0, 'PASCAL-Context': 2}[row.data]
        _, whole = described(row.system, row.backbone, number, row.auxiliary)
        name = ' + '.join([row.system, *row.auxiliary])
        lines.append(
            f'| {row.data} | {name} | {row.backbone} | {row.mega} M '
            f'| {whole.parameters / 1e6:.1f} M | {row.giga} G '
            f'| {whole.written.total / 2e9:.1f} G | {row.why} |'
        )
    return '\n'.join([*lines, ''])


def write_card(name: str, figures: list[tuple[Network, Part | str]]) -> str:
    """The card of one system, as Markdown."""
    net = figures[0][0]
    module = sys.modules[type(net).__module__]
    lines = [f'## {name}', '']
    for paragraph in [*paragraphs(module), *paragraphs(type(net))]:
        lines += [paragraph, '']
    parts = [(kind, paragraphs(kind)) for kind in _classes(module, net)]
    if parts:
        lines += ['Made of:', '']
        for kind, (first, *rest) in parts:
            lines.append(f'- `{kind.__name__}`: {first}')
            lines += [f'  {text}' for text in rest if re.match('Differs|Our reading', text)]
        lines.append('')
    lines += [
        f'Counts on `{card(name).backbone}`:',
        '',
        '| data set | tasks | size | parameters | MACs | attention |',
        '|---|---|---|---|---|---|',
    ]
    for (data, tasks, _, size), (_, figure) in zip(COUNTS, figures, strict=True):
        lines.append(f'| {data} | {len(tasks)} | {size[0]}x{size[1]} | {_figures(figure)} |')
    options = ', '.join(f'`{option}`' for option in _options(name))
    lines += [
        '',
        f'- Options: {options or "none"}.',
        f'- Auxiliary tasks: {"yes" if net.takes_auxiliary else "no"}.',
        f'- Becomes a bundle: {_exportable(net)}.',
        *([RELEASED] if name in MAPS else []),
        *([f'- Choose it when {card(name).choose}.'] if card(name).choose else []),
        '',
    ]
    return '\n'.join(lines)


def paragraphs(thing: ModuleType | type) -> list[str]:
    """The paragraphs of a docstring before its arguments, as Markdown."""
    text = re.split(r'\n\n(?:Args|Attributes|Raises|Returns):\n', inspect.getdoc(thing) or '')[0]
    return [_markdown(paragraph) for paragraph in text.split('\n\n') if paragraph.strip()]


def _markdown(text: str) -> str:
    """Formulas become blocks of code, prose one line without accidental mark-up."""
    first = text.partition('\n')[0]
    if '   ' in text or ('=' in first[:30] and not text.endswith('.')):
        return f'```\n{text}\n```'
    words = re.split(r'(``[^`]+``)', ' '.join(text.split()))
    return ''.join(
        f'`{word[2:-2]}`' if word.startswith('``') else re.sub(r'([\\*<_|])', r'\\\1', word)
        for word in words
    )


def _classes(module: ModuleType, net: Network) -> Iterator[type]:
    """The classes of the system's file that have a docstring, but for the system's own."""
    for kind in vars(module).values():
        if (
            inspect.isclass(kind)
            and issubclass(kind, nn.Module)
            and kind.__module__ == module.__name__
            and kind is not type(net)
            and not kind.__name__.startswith('_')
            and kind.__doc__
        ):
            yield kind


def _options(name: str) -> Iterator[str]:
    for option in SYSTEMS[name].options().values():
        by_backbone = option.default is inspect.Parameter.empty
        yield f'{option.name} (by backbone)' if by_backbone else f'{option.name}={option.default!r}'


def _figures(figure: Part | str) -> str:
    if isinstance(figure, str):
        return f'{figure} | | '
    macs, attention = figure.written.total / 1e9, figure.executed.attention / 1e9
    return f'{figure.parameters / 1e6:.2f} M | {macs:.2f} G | {attention:.2f} G'


def _exportable(net: Network) -> str:
    return f'no: {net.not_exportable}' if net.not_exportable else 'yes'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mtl_training cards`."""
    parser.add_argument(
        '--out', type=Path, metavar='FILE', help='Markdown file (default: print it)'
    )


def run(args: argparse.Namespace) -> int:
    """Write or print the cards."""
    text = cards()
    if args.out is None:
        print(text, end='')
        return 0
    try:
        write_beside(args.out, text.encode())
    except OSError as error:
        raise PapersError(f'{args.out} cannot be written: {error.strerror}') from error
    return 0
