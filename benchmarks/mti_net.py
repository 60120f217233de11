"""MTI-Net's training step beside that of the code its authors released, with the same weights.

    ./run exec python benchmarks/mti_net.py CODE [--tasks pascal] [--size 96x128]

CODE is a copy of github.com/SimonVandenhende/Multi-Task-Learning-PyTorch. It is CC BY-NC 4.0, and
nothing of it is here. Its weights go through the map of ``mtl_training import``; outputs are
compared first. A step is predictions, losses of all scales, gradients and Adam, on images at hand;
the two alternate and take turns in being the first. Each is as its own training loop has it: theirs
with contiguous tensors, ours with channels last. Their loop also reads every loss and judges every
batch, which is left out here. Processor time is what others on the machine do not lengthen.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from mtl_training.bounds import image_size
from mtl_training.checkpoints.config import OptimConfig
from mtl_training.labels import CLASS_SETS
from mtl_training.loop.optimizer import make_optimizer
from mtl_training.models import Network
from mtl_training.papers.importing import TASKS, configure, import_weights
from mtl_training.tasks import TASK_SETS, Task, multi_task_loss, weighted_sum
from torch import Tensor, nn

from mtl_perception.engines.timing import Rounds, time_runs

# Their configurations for HRNet-18: what is predicted, and what is auxiliary.
CONFIGURATIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'nyud': (('semantic', 'depth'), ('normals', 'edges')),
    'pascal': (('semantic', 'human_parts', 'saliency', 'normals', 'edges'), ()),
}
WARM_UP = 3  # steps that do not count
BACKBONE = 'hrnet_w18_small_v2_bilinear'
Step = Callable[[], object]


def their_module(name: str) -> Any:
    """A module of their code, which is given what newer packages no longer have."""
    vars(np)['int'] = int
    old = types.ModuleType('torchvision.models.utils')
    vars(old)['load_state_dict_from_url'] = torch.hub.load_state_dict_from_url
    coloured = types.ModuleType('termcolor')
    vars(coloured)['colored'] = str
    sys.modules |= {'torchvision.models.utils': old, 'termcolor': coloured}
    return importlib.import_module(name)


def their_network(code: Path, tasks: Mapping[str, Task], initial: Mapping[str, Task]) -> nn.Module:
    """Their MTI-Net on their HRNet-18."""
    hrnet = their_module('models.seg_hrnet')
    description = yaml.safe_load((code / 'models/model_info/hrnet_w18.yml').read_text())
    channels = [18, 36, 72, 144]
    heads = {TASKS[t]: hrnet.HighResolutionHead(channels, x.channels) for t, x in tasks.items()}
    outputs = {TASKS[t]: x.channels for t, x in initial.items()}
    options = types.SimpleNamespace(
        TASKS=types.SimpleNamespace(NAMES=list(heads)),
        AUXILARY_TASKS=types.SimpleNamespace(NAMES=list(outputs), NUM_OUTPUT=outputs),
    )
    backbone = hrnet.HighResolutionNet(description)
    mti_net = their_module('models.mti_net')
    return mti_net.MTINet(options, backbone, channels, nn.ModuleDict(heads))


def their_loss(tasks: Mapping[str, Task], initial: Mapping[str, Task]) -> nn.Module:
    """Their sum of losses, final and of all scales."""
    functions = their_module('losses.loss_functions')
    kinds: dict[str, Callable[[], nn.Module]] = {
        'semantic': lambda: functions.SoftMaxwithLoss(),
        'human_parts': lambda: functions.SoftMaxwithLoss(),
        'depth': lambda: functions.DepthLoss('l1'),
        'normals': lambda: functions.NormalsLoss(normalize=True, size_average=True, norm=1),
        'edges': lambda: functions.BalancedCrossEntropyLoss(pos_weight=0.95),
        'saliency': lambda: functions.BalancedCrossEntropyLoss(),
    }
    return their_module('losses.loss_schemes').MTINetLoss(
        [TASKS[t] for t in tasks],
        [TASKS[t] for t in initial],
        nn.ModuleDict({TASKS[t]: kinds[t]() for t in initial}),
        {TASKS[t]: task.weight for t, task in initial.items()},
    )


def labels(tasks: Mapping[str, Task], batch: int, size: tuple[int, int]) -> dict[str, Tensor]:
    """Random labels of every pixel, as our losses take them."""
    kinds: dict[str, Callable[[Task], Tensor]] = {
        'semantic': lambda task: torch.randint(task.channels, (batch, *size)),
        'human_parts': lambda task: torch.randint(task.channels, (batch, *size)),
        'depth': lambda task: torch.rand(batch, 1, *size) + 0.5,
        'normals': lambda task: nn.functional.normalize(torch.randn(batch, 3, *size)),
        'edges': lambda task: (torch.rand(batch, 1, *size) > 0.9).float(),
        'saliency': lambda task: (torch.rand(batch, 1, *size) > 0.7).float(),
    }
    return {name: kinds[name](task) for name, task in tasks.items()}


def their_step(
    net: nn.Module, criterion: nn.Module, image: Tensor, truth: dict[str, Tensor]
) -> Step:
    """As their training loop steps."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, weight_decay=1e-4)
    targets = {TASKS[t]: x[:, None].float() if x.ndim == 3 else x for t, x in truth.items()}

    def step() -> None:
        loss = criterion(net(image), targets)['total']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def our_step(
    net: Network,
    tasks: Mapping[str, Task],
    initial: Mapping[str, Task],
    image: Tensor,
    truth: dict[str, Tensor],
) -> Step:
    """As our training loop steps."""
    net = net.to(memory_format=torch.channels_last)
    image = image.contiguous(memory_format=torch.channels_last)
    optimizer = make_optimizer(net, OptimConfig(lr=1e-4, max_steps=1))

    def step() -> None:
        predictions = net.predictions(image)
        loss = weighted_sum(multi_task_loss(predictions.final, truth, tasks), tasks)
        for auxiliary in predictions.auxiliary:
            losses = multi_task_loss(auxiliary.logits, truth, initial)
            loss = loss + auxiliary.weight * weighted_sum(losses, initial)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    """Compare the outputs, then the steps."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('code', type=Path, help='folder with their code')
    parser.add_argument('--tasks', choices=list(CONFIGURATIONS), default='nyud')
    parser.add_argument(
        '--size', type=image_size, default='96x128', help='multiples of 32 (default: %(default)s)'
    )
    parser.add_argument('--batch', type=int, default=4, help='(default: %(default)s)')
    parser.add_argument('--threads', type=int, default=2, help='(default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=15, help='(default: %(default)s)')
    options = parser.parse_args()
    sys.path.insert(0, str(options.code))
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)

    names, auxiliary = CONFIGURATIONS[options.tasks]
    config = configure('mti_net', BACKBONE, names, auxiliary=auxiliary, task_set=options.tasks)
    known = TASK_SETS[options.tasks](CLASS_SETS[options.tasks])
    tasks = {name: known[name] for name in config.tasks}
    initial = {name: known[name] for name in TASKS if name in (*names, *auxiliary)}
    theirs = their_network(options.code, tasks, initial)
    ours = import_weights(theirs.state_dict(), config)
    size = options.size
    image, truth = torch.randn(options.batch, 3, *size), labels(initial, options.batch, size)
    with torch.no_grad():
        expected, found = theirs.eval()(image), ours(image)
    apart = max(float((expected[TASKS[t]] - found[t]).abs().max()) for t in tasks)
    print(f'outputs of the same weights differ by {apart:.1e} at most')

    steps = {
        'theirs': their_step(theirs.train(), their_loss(tasks, initial), image, truth),
        'ours': our_step(ours.train(), tasks, initial, image, truth),
    }
    timings = time_runs(steps, Rounds(warm_up=WARM_UP, least=options.rounds))
    print(
        f'{options.tasks}, {size[0]}x{size[1]}, batch {options.batch}, {options.threads} threads, '
        f'medians of {options.rounds} steps:'
    )
    times = {name: (timing.ms, timing.cpu_ms) for name, timing in timings.items()}
    for index, clock in enumerate(('time', 'processor time')):
        their, our = (float(np.median(times[name][index])) for name in ('theirs', 'ours'))
        print(f'{clock}: theirs {their:.0f} ms, ours {our:.0f} ms: {our / their:.2f}')


if __name__ == '__main__':
    main()
