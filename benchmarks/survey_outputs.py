"""What the survey's released networks say with weights made up from the names of their tensors.

    ./run exec python benchmarks/survey_outputs.py CODE training/test/papers/survey_outputs.json

CODE is a copy of github.com/SimonVandenhende/Multi-Task-Learning-PyTorch. It is CC BY-NC 4.0, and
nothing of it is here: only numbers that it computes, which tests of `mtl_training import` compare.
As every tensor's numbers follow from its name, one that is imported into another's place shows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import types
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SIZE = (96, 128)
CHANNELS = {'semseg': 40, 'human_parts': 7, 'sal': 1, 'normals': 3, 'edge': 1, 'depth': 1}
STAGES = ['layer1', 'layer2', 'layer3', 'layer4']
NDDR_STAGES = ['conv', 'layer1_without_conv', *STAGES[1:]]
WIDTHS = {'conv': 64, 'layer1_without_conv': 64, **dict(zip(STAGES, (64, 128, 256, 512)))}


@dataclass(frozen=True)
class Case:
    """A network: our names of system and backbone, their names of tasks."""

    system: str
    backbone: str
    tasks: Sequence[str]
    auxiliary: Sequence[str] = ()

    @property
    def channels(self) -> dict[str, int]:
        """Of outputs: NYUD-v2 has 40 classes, PASCAL-Context, without depth, 21."""
        return CHANNELS if 'depth' in self.tasks else {**CHANNELS, 'semseg': 21}


HRNET = 'hrnet_w18_small_v2_bilinear'
PAIR = ('semseg', 'depth')
FIVE = ('semseg', 'human_parts', 'sal', 'normals', 'edge')
CASES = {
    'single_task': Case('single_task', 'resnet18_d8', ['depth']),
    'single_task on HRNet': Case('single_task', HRNET, ['normals']),
    'mtl_baseline': Case('mtl_baseline', 'resnet18_d8', PAIR),
    'mtl_baseline on HRNet': Case('mtl_baseline', HRNET, PAIR),
    'cross_stitch': Case('cross_stitch', 'resnet18_d8', PAIR),
    'nddr': Case('nddr', 'resnet18_d8', PAIR),
    'mtan': Case('mtan', 'resnet18_d8', PAIR),
    'pad_net': Case('pad_net', HRNET, PAIR, ['normals', 'edge']),
    'mti_net': Case('mti_net', HRNET, PAIR, ['normals', 'edge']),
    'mti_net, five tasks': Case('mti_net', HRNET, FIVE),
}


def filled(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Numbers for tensors, which follow from their names: as large as keeps activations so."""
    weights = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith('num_batches_tracked'):
            weights[name] = torch.zeros((), dtype=torch.long)
            continue
        if len(shape) > 1:
            values = rng.normal(0, np.prod(shape[1:]) ** -0.5, shape)
        elif name.endswith(('weight', 'param', 'running_var')):
            values = rng.uniform(0.5, 1.5, shape)
        else:
            values = rng.normal(0, 0.1, shape)
        weights[name] = torch.from_numpy(values.astype(np.float32))
    return weights


def image() -> Tensor:
    """The normalised image [1, 3, H, W] that they see."""
    return torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, *SIZE)).astype(np.float32))


def sampled(logits: Tensor) -> list[float]:
    """Some numbers of an output [1, C, H, W], from every corner of it."""
    flat = logits.flatten()
    places = np.random.default_rng(1).integers(0, len(flat), 12)
    return [float(x) for x in flat[places]]


def digest(shapes: Mapping[str, Sequence[int]]) -> str:
    """What names and shapes there are, in a word."""
    text = json.dumps({name: list(shapes[name]) for name in sorted(shapes)})
    return hashlib.sha256(text.encode()).hexdigest()


def their_network(case: Case) -> nn.Module:
    """The network of their code, as their configuration makes it."""
    from mti_net import their_module

    six = types.ModuleType('torch._six')  # is no more
    vars(six).update(string_classes=str, int_classes=int)
    sys.modules['torch._six'] = six
    common, hrnet = their_module('utils.common_config'), case.backbone == HRNET
    options: Any = Options(
        backbone='hrnet_w18' if hrnet else 'resnet18',
        backbone_kwargs={
            'pretrained': False, 'dilated': not hrnet,
            'fuse_hrnet': hrnet and case.system == 'pad_net',
        },
        head='hrnet' if hrnet else 'deeplab',
        setup='single_task' if case.system == 'single_task' else 'multi_task',
        model='baseline' if case.system == 'mtl_baseline' else case.system,
        model_kwargs={
            'mtan_kwargs': {
                'stages': STAGES, 'channels': WIDTHS,
                'downsample': {stage: stage == 'layer1' for stage in STAGES},
            }
        },
    )  # fmt: skip
    initial = [task for task in CHANNELS if task in (*case.tasks, *case.auxiliary)]
    options.TASKS = types.SimpleNamespace(NAMES=list(case.tasks), NUM_OUTPUT=case.channels)
    options.AUXILARY_TASKS = types.SimpleNamespace(NAMES=initial, NUM_OUTPUT=case.channels)
    if case.system not in ('cross_stitch', 'nddr'):
        return common.get_model(options)
    parts = {task: common.get_backbone(options) for task in case.tasks}
    backbones = nn.ModuleDict({task: backbone for task, (backbone, _) in parts.items()})
    heads = nn.ModuleDict({t: common.get_head(options, c, t) for t, (_, c) in parts.items()})
    if case.system == 'cross_stitch':
        kind = their_module('models.cross_stitch').CrossStitchNetwork
        return kind(options, backbones, heads, STAGES, WIDTHS, 0.9, 0.1)
    kind = their_module('models.nddr_cnn').NDDRCNN
    return kind(options, backbones, heads, NDDR_STAGES, NDDR_STAGES, WIDTHS, 0.9, 0.1)


class Options(dict[str, Any]):
    """What their configuration is: keys and attributes."""


def main() -> int:
    """Write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('code', type=Path)
    parser.add_argument('out', type=Path)
    args = parser.parse_args()
    out = args.out.absolute()
    sys.path.insert(0, str(args.code.absolute()))
    os.chdir(args.code)  # their paths begin there
    found = {}
    for name, case in CASES.items():
        net = their_network(case).eval()
        shapes = {key: tensor.shape for key, tensor in net.state_dict().items()}
        net.load_state_dict(filled(shapes))
        with torch.no_grad():
            outputs = net(image())
        found[name] = {
            'tensors': digest(shapes),
            'parameters': sum(p.numel() for p in net.parameters()),
            'outputs': {task: sampled(outputs[task]) for task in case.tasks},
        }
        print(name, found[name]['parameters'], flush=True)
    out.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
