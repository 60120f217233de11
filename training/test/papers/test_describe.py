"""`mtl_training describe`: the paper's multiply-accumulates, and the command line."""

from __future__ import annotations

import json

import pytest
import torch
from mtl_training.cli import main
from mtl_training.models import build
from mtl_training.models.tif import WIDTHS
from mtl_training.papers.describe import by_kind, describe

TASKS = {'semantic': 40, 'depth': 1, 'normals': 3, 'edges': 1}


@pytest.mark.parametrize(
    ('backbone', 'reference', 'paper'),
    [
        ('hrnet_w18_small_v2', 16.56, 16.6),
        ('swin_tiny', 76.85, 76.33),
        ('swin_large', 275.4, 274.27),
    ],
)
def test_macs_are_the_papers(backbone: str, reference: float, paper: float) -> None:
    """Tables 3 and 4, at 425x560, products of attention not counted.

    The reference count books the linear maps of Eq. 6, 7 and 12, which make Q, K and V, with
    attention (0.16 G at D=72); the description books them as linear layers.
    """
    with torch.device('meta'):
        parts = describe(build('tif', backbone, TASKS), (425, 560))
    whole, modules = parts[0], {part.name: part for part in parts}
    d = WIDTHS[backbone].width
    tokens = 27 * 35, 14 * 18  # scales 2 and 3
    projections = len(TASKS) * d * d * (5 * sum(tokens) + 2 * tokens[0])
    total = whole.written.total
    assert (total - projections) / 1e9 == pytest.approx(reference, rel=0.001)
    assert total / 1e9 == pytest.approx(paper, rel=0.011)
    assert whole.executed.total < total
    kinds = by_kind(parts)
    assert sum(kind.parameters for kind in kinds) == whole.parameters
    assert sum(kind.written.total for kind in kinds) == total
    assert modules['decoders.depth.sfd3'].written.attention == 2 * tokens[1] ** 2 * d


def test_description_leaves_the_network_as_it_was() -> None:
    net = build('tif', 'tf_efficientnet_lite0', {'depth': 2})
    describe(net, (64, 64))
    assert net.training
    assert not any(getattr(m, 'as_written', False) for m in net.modules())


def test_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = 'describe tif --backbone tf_efficientnet_lite0 --size 256x320 --json --tasks'
    assert main([*arguments.split(), 'semantic:18', 'depth']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['tasks'] == {'semantic': 18, 'depth': 1}
    assert report['size'] == [256, 320]
    assert report['whole']['parameters'] == sum(m['parameters'] for m in report['modules'])
    assert {kind['kind'] for kind in report['kinds']} == {
        'EfficientNetPyramid',
        'SAFF',
        'SFD',
        'LTHD',
        'SlimFusion',
    }


def test_command_counts_auxiliary_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    words = 'describe pad_net --backbone hrnet_w18_small_v2 --size 480x640 --tasks semantic depth'
    auxiliary = ['--auxiliary', 'normals', 'edges']
    assert main([*words.split(), *auxiliary, '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['auxiliary'] == {'normals': 3, 'edges': 1}
    # survey, Table V (NYUD-v2): 12 M, and 82 G, which are multiply-accumulates halved
    assert report['whole']['parameters'] / 1e6 == pytest.approx(12.16, abs=0.01)
    assert report['whole']['macs']['total'] / 1e9 == pytest.approx(168.9, abs=0.1)
    assert main([*words.split(), *auxiliary]) == 0
    assert 'semantic, depth, normals (auxiliary), edges (auxiliary)' in capsys.readouterr().out


def test_command_takes_a_systems_options(capsys: pytest.CaptureFixture[str]) -> None:
    """TIF, Table 8: cross-distillation has 0.22 M less than self-distillation."""
    counts = []
    for option in (['lthd=false'], ['lthd=false', 'cross=true']):
        words = ['describe', 'tif', '--backbone', 'swin_tiny', '--option', *option, '--json']
        assert main(words) == 0
        counts.append(json.loads(capsys.readouterr().out))
    assert counts[1]['options'] == {'lthd': False, 'cross': True}
    difference = counts[0]['whole']['parameters'] - counts[1]['whole']['parameters']
    assert difference == 24 * (96 * 96 + 3 * 96)
    words = ['describe', 'pap_net', '--backbone', 'resnet18_d8', '--size', '64x96']
    assert main([*words, '--option', 'affinity_stride=16']) == 0
    assert 'edges, affinity_stride=16' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'complaint'),
    [
        ('nope --backbone swin_tiny', "unknown system 'nope'"),
        ('tif --backbone nope', "unknown backbone 'nope'"),
        ('tif --backbone swin_tiny --option lthd', "option 'lthd'; expected NAME=VALUE"),
        ('tif --backbone swin_tiny --option width=[', "option 'width=['; expected a value"),
        ('tif --backbone swin_tiny --option width=wide', "option width: 'wide'; expected int"),
        ('tif --backbone swin_tiny --option width=true', 'option width: True; expected int'),
        ('tif --backbone swin_tiny --option width=0', 'option width: 0; expected 1 or more'),
        ('sluice --backbone resnet50_d8 --option own=1.5', 'option own: 1.5; expected 0 to 1'),
        ('tif --backbone swin_tiny --option lthd=1', 'option lthd: 1; expected bool'),
        ('tif --backbone swin_tiny --option wide=3', "tif has no option 'wide'; it has: width"),
        ('tif --backbone swin_tiny --tasks taste', "unknown task 'taste'"),
        ('tif --backbone swin_tiny --tasks depth:x', "task 'depth:x'; expected NAME"),
        ('tif --backbone swin_tiny --auxiliary taste', "unknown task 'taste'"),
        ('tif --backbone swin_tiny --tasks depth --auxiliary edges', 'tif has no auxiliary tasks'),
    ],
)
def test_mistakes_are_one_line(
    arguments: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['describe', *arguments.split()]) == 1
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count('\n') == 1
