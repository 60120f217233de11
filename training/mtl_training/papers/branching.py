"""`mtl_training branch`: a tree of tasks from a checkpoint, as a configuration of ``branched``.

The super-nets ``bmtas`` and ``ltb`` have learned the tree. Two ways measure first, with the
``representations`` of single-task networks or with the losses of the multi-task baseline; see
``trees``. All end with a tree that ``models.branched.Branched`` takes. To measure needs the extra
``branching``.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from mtl_perception.files import write_beside
from mtl_training.bounds import Amount, Count, Positive, bounded
from mtl_training.checkpoints.checkpoint import config_tasks, load_checkpoint
from mtl_training.checkpoints.config import Config, from_mapping
from mtl_training.datasets import open_data
from mtl_training.datasets.batches import Batch, Examples, loader
from mtl_training.datasets.dataset import thin_out
from mtl_training.evaluation.predictors import normalise
from mtl_training.models.backbones import pyramid
from mtl_training.models.baseline import MTLBaseline
from mtl_training.models.branched import Tree, block_macs, levels_of, tree_macs
from mtl_training.models.pyramids import Pyramid, TimmPyramid
from mtl_training.models.single_task import SingleTask
from mtl_training.models.super_net import SuperNet
from mtl_training.papers import PapersError
from mtl_training.papers.trees import (
    Array,
    affinity,
    agreement,
    difficulty,
    dissimilarity,
    search,
    widen,
)
from mtl_training.tasks import multi_task_loss


@torch.no_grad()
def representations(backbone: nn.Module, batches: Iterable[Tensor]) -> list[Array]:
    """What a single-task backbone makes of images, at every branching point.

    Args:
        backbone: image -> features of all stages.
        batches: normalised images [B,3,H,W], all of one size.

    Returns:
        One [images, features] per stage.
    """
    seen = [[x.flatten(1).cpu() for x in backbone(batch)] for batch in batches]
    return [torch.cat(stage).double().numpy() for stage in zip(*seen, strict=True)]


@dataclass(frozen=True)
class Measuring:
    """What a tree is measured with.

    Attributes:
        data: folder whose validation frames are looked at.
        frames: how many of them.
        budget: multiply-accumulates of the tree, those of one encoder being 1.
        weight: alpha of ``widen``.
    """

    data: Path | None = None
    frames: int = 100
    budget: float = 1.5
    weight: float = 1.0

    def batches(self, config: Config) -> Iterator[Batch]:
        """Validation frames, one by one, at the size of a configuration.

        Raises:
            PapersError: there is no folder.
        """
        if self.data is None:
            raise PapersError(f'{config.model.system} is measured on images; expected --data')
        data, tasks = config.data, config_tasks(config)
        examples = Examples(
            thin_out(open_data(self.data, 'val', config.label_classes), self.frames),
            tasks,
            height=data.height,
            width=data.width,
            canonical_focal=data.canonical_focal,
        )
        yield from loader(examples, 0, batch_size=1)


def learned(net: SuperNet, config: Config, measuring: Measuring) -> Tree:
    """What a super-net has found."""
    return net.tree()


def by_representations(net: SingleTask, config: Config, measuring: Measuring) -> Tree:
    """The best tree within the budget, by what single-task networks make of images."""
    images = [normalise(b['image'], net.mean, net.std) for b in measuring.batches(config)]
    stages = {
        task: [dissimilarity(stage) for stage in representations(backbone, images)]
        for task, backbone in net.backbones.items()
    }
    first = net.backbones[config.tasks[0]]
    assert isinstance(first, Pyramid)
    stages_of = first.blocks()
    macs = iter(block_macs(stages_of, (config.data.height, config.data.width)))
    costs = [float(sum(itertools.islice(macs, len(stage)))) for stage in stages_of]
    return search(affinity(stages), config.tasks, costs, measuring.budget * sum(costs))


@torch.no_grad()
def by_difficulty(net: MTLBaseline, config: Config, measuring: Measuring) -> Tree:
    """FAFS from a network that shares its encoder: its thin network, trained.

    c_l = 2^p / 10, p the halvings of the grid after stage l. Our reading: the tenth, beside which
    ``weight`` is counted.
    """
    tasks, losses = config_tasks(config), []
    for batch in measuring.batches(config):
        predictions = net.predictions(normalise(batch['image'], net.mean, net.std))
        of_image = multi_task_loss(predictions.final, batch, tasks)
        losses.append([of_image[task].item() for task in tasks])
    assert isinstance(net.backbone, TimmPyramid)
    strides = net.backbone.net.feature_info.reduction()
    costs = [strides[-1] / stride / 10 for stride in strides]
    agreed = agreement(difficulty(np.array(losses)))
    return widen(agreed, config.tasks, costs, weight=measuring.weight)


# The system of a checkpoint -> how a tree is found in it.
WAYS: dict[str, Callable[..., Tree]] = {
    'bmtas': learned,
    'ltb': learned,
    'single_task': by_representations,
    'mtl_baseline': by_difficulty,
}


def branched(config: Mapping[str, Any], tree: Tree) -> dict[str, Any]:
    """The configuration of a run, as plain data, with a branched network in place of its own."""
    model = {**config['model'], 'system': 'branched', 'options': {'tree': tree}}
    return {**config, 'name': f'{config["name"]}_branched', 'model': model}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mtl_training branch`."""
    usual = Measuring()
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', type=Path, help=f'of one of: {", ".join(WAYS)}'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='YAML')
    parser.add_argument('--data', type=Path, help='for single_task and mtl_baseline: the rooms')
    parser.add_argument(
        '--frames',
        type=bounded(Count),
        default=usual.frames,
        help='of data to look at (default: %(default)s)',
    )
    parser.add_argument(
        '--budget',
        type=bounded(Positive),
        default=usual.budget,
        help='for single_task: cost of the tree in encoders (default: %(default)s)',
    )
    parser.add_argument(
        '--weight',
        type=bounded(Amount),
        default=usual.weight,
        help='for mtl_baseline: alpha, what parting unlike tasks is worth (default: %(default)s)',
    )


def run(args: argparse.Namespace) -> int:
    """Find the tree, write the configuration and say what the tree is and costs.

    Raises:
        PapersError: a system in which no tree can be found, or an output that cannot be written.
    """
    net, meta = load_checkpoint(args.checkpoint)
    config = from_mapping(Config, meta['config'])
    if config.model.system not in WAYS:
        raise PapersError(
            f'{args.checkpoint} is of {config.model.system}; expected one of {", ".join(WAYS)}'
        )
    stages = pyramid(config.model.backbone).blocks()
    measuring = Measuring(args.data, args.frames, args.budget, args.weight)
    tree = WAYS[config.model.system](net, config, measuring)
    macs = block_macs(stages, (config.data.height, config.data.width))
    levels = levels_of(tree, config.tasks, [len(stage) for stage in stages])
    text = yaml.safe_dump(branched(meta['config'], tree), sort_keys=False, default_flow_style=None)
    try:
        write_beside(args.out, text.encode())
    except OSError as error:
        raise PapersError(f'{args.out} cannot be written: {error.strerror}') from error
    for number, groups in enumerate(tree):
        print(f'level {number}: ' + ' | '.join(' '.join(group) for group in groups))
    print(
        f'{args.out}: the tree costs {tree_macs(levels, macs) / sum(macs):.2f} encoders, '
        f'{len(config.tasks)} apart'
    )
    return 0
