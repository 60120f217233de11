"""The multi-task baseline: the survey's figures, one encoder for all, a head for each."""

from __future__ import annotations

import pytest
import torch
from mtl_training.models import build
from mtl_training.papers.describe import describe

NYUD = {'semantic': 40, 'depth': 1}
PASCAL = {'semantic': 21, 'human_parts': 7, 'saliency': 1, 'normals': 3, 'edges': 1}


@pytest.mark.parametrize(
    ('backbone', 'tasks', 'size', 'parameters', 'macs'),
    [
        ('resnet50_d8', NYUD, (480, 640), 55_769_449, 266_587_979_776),
        ('hrnet_w18_small_v2', NYUD, (480, 640), 4_019_251, 12_772_060_800),
        ('resnet18_d8', PASCAL, (512, 512), 34_795_873, 142_117_306_368),
        ('hrnet_w18_small_v2', PASCAL, (512, 512), 4_238_213, 14_446_616_576),
    ],
)
def test_figures_are_those_of_the_authors_code(
    backbone: str, tasks: dict[str, int], size: tuple[int, int], parameters: int, macs: int
) -> None:
    """Survey Table V prints 56 M, 133 G and 4, 6; 35, 71 and 4, 7: G are MACs / 2."""
    with torch.device('meta'):
        whole = describe(build('mtl_baseline', backbone, tasks), size)[0]
    assert whole.parameters == parameters
    assert whole.written.total == whole.executed.total == macs


def test_tasks_share_the_encoder_and_nothing_else() -> None:
    torch.manual_seed(0)
    net = build('mtl_baseline', 'hrnet_w18_small_v2', NYUD).train()
    logits = net.predictions(torch.randn(2, 3, 64, 96)).final
    assert {t: tuple(x.shape) for t, x in logits.items()} == {
        'semantic': (2, 40, 16, 24),
        'depth': (2, 1, 16, 24),
    }
    logits['depth'].square().mean().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == name.startswith('heads.semantic'), name


def test_with_one_task_it_is_the_single_task_network() -> None:
    torch.manual_seed(0)
    shared = build('mtl_baseline', 'hrnet_w18_small_v2', {'depth': 1}).eval()
    single = build('single_task', 'hrnet_w18_small_v2', {'depth': 1}).eval()
    weights = shared.state_dict()
    single.load_state_dict(
        {name: weights[name.replace('backbones.depth', 'backbone')] for name in single.state_dict()}
    )
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(single(image)['depth'], shared(image)['depth'])
