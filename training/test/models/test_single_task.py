"""Single-task networks: the survey's figures, and that tasks share nothing."""

from __future__ import annotations

import pytest
import torch
from mtl_training.models import build
from mtl_training.models.heads import DeepLabHead, HRNetHead
from mtl_training.papers.describe import describe
from torch import Tensor

NYUD = {'semantic': 40, 'depth': 1}
PASCAL = {'semantic': 21, 'human_parts': 7, 'saliency': 1, 'normals': 3, 'edges': 1}


@pytest.mark.parametrize(
    ('backbone', 'tasks', 'size', 'parameters', 'macs'),
    [
        ('resnet50_d8', NYUD, (480, 640), 79_277_481, 383_387_877_376),
        ('hrnet_w18_small_v2', NYUD, (480, 640), 7_879_971, 22_532_217_600),
        ('resnet18_d8', PASCAL, (512, 512), 79_501_921, 334_635_859_968),
        ('hrnet_w18_small_v2', PASCAL, (512, 512), 19_681_093, 47_761_285_120),
    ],
)
def test_figures_are_those_of_the_authors_code(
    backbone: str, tasks: dict[str, int], size: tuple[int, int], parameters: int, macs: int
) -> None:
    """Survey Table V prints 80 M, 192 G and 8, 11; 80, 167 and 20, 24: G are MACs / 2."""
    with torch.device('meta'):
        whole = describe(build('single_task', backbone, tasks), size)[0]
    assert whole.parameters == parameters
    assert whole.written.total == whole.executed.total == macs


def test_the_head_is_that_of_the_backbone() -> None:
    with torch.device('meta'):
        for backbone, head in (
            ('resnet18_d8', DeepLabHead),
            ('resnet18', HRNetHead),
            ('hrnet_w18_small_v2', HRNetHead),
        ):
            net = build('single_task', backbone, NYUD)
            assert all(isinstance(module, head) for module in net.heads.values()), backbone


@pytest.fixture(scope='module')
def image() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_a_task_trains_its_own_network_whole_and_no_other(image: Tensor) -> None:
    torch.manual_seed(0)
    net = build('single_task', 'hrnet_w18_small_v2', NYUD).train()
    logits = net.predictions(image).final
    assert {t: tuple(x.shape) for t, x in logits.items()} == {
        'semantic': (2, 40, 16, 24),
        'depth': (2, 1, 16, 24),
    }
    logits['depth'].square().mean().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == (name.split('.')[1] == 'depth'), name


def test_each_equals_the_network_of_its_task_alone(image: Tensor) -> None:
    torch.manual_seed(0)
    both = build('single_task', 'hrnet_w18_small_v2', NYUD).eval()
    weights = both.state_dict()
    for task, channels in NYUD.items():
        alone = build('single_task', 'hrnet_w18_small_v2', {task: channels}).eval()
        alone.load_state_dict({name: weights[name] for name in alone.state_dict()})
        with torch.no_grad():
            assert torch.equal(alone(image)[task], both(image)[task])
