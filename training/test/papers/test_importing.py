"""Weights with the names of the survey's code become networks of ours, or are refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from mtl_training.checkpoints.checkpoint import load_checkpoint
from mtl_training.cli import main
from mtl_training.labels import NYUD40
from mtl_training.models import Network, build
from mtl_training.models.backbones import BACKBONES
from mtl_training.models.pyramids import ResNetPyramid, SurveyHRNetPyramid
from mtl_training.papers import PapersError
from mtl_training.papers.importing import (
    FOCAL,
    configure,
    import_weights,
    read_weights,
)
from mtl_training.tasks import nyud
from torch import Tensor

SMALL = {'layers': (2, 2, 2, 2), 'channels': (16, 32, 48, 64), 'out_indices': (1, 2, 3, 4)}
CHANNELS = {name: task.channels for name, task in nyud(NYUD40).items()}
DEEPLAB = {
    '0.branches.0.0': '0.convs.0.0', '0.branches.0.1': '0.convs.0.1',
    '0.branches.1.0': '0.convs.1.0', '0.branches.1.1': '0.convs.1.1',
    '0.branches.2.0': '0.convs.2.0', '0.branches.2.1': '0.convs.2.1',
    '0.branches.3.0': '0.convs.3.0', '0.branches.3.1': '0.convs.3.1',
    '0.pool.0': '0.convs.4.1', '0.pool.1': '0.convs.4.2',
    '0.project.0.0': '0.project.0', '0.project.0.1': '0.project.1',
    '1.0': '1', '1.1': '2', '2': '4',
}  # fmt: skip
BASIC = {
    'body.0.0': 'conv1', 'body.0.1': 'bn1', 'body.1': 'conv2', 'body.2': 'bn2',
    'shortcut.0': 'downsample.0', 'shortcut.1': 'downsample.1',
}  # fmt: skip


@pytest.fixture(autouse=True)
def _small_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {**SMALL, 'output_stride': 8}
    monkeypatch.setitem(BACKBONES, 'small_d8', (ResNetPyramid, 'resnet18', small))
    monkeypatch.setitem(BACKBONES, 'small', (ResNetPyramid, 'resnet18', SMALL))


def network(system: str, backbone: str, tasks: list[str], **options: object) -> Network:
    """A network with weights and statistics that are not those of the start."""
    torch.manual_seed(0)
    net = build(system, backbone, {task: CHANNELS[task] for task in tasks}, **options)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.ndim == 1 or 'stitch' in name:
                tensor.uniform_(0.5, 1.5)
    return net.eval()


def same(ours: Network, imported: Network) -> None:
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected, found = ours(image), imported(image)
    assert set(expected) == set(found)
    for task in expected:
        torch.testing.assert_close(found[task], expected[task], rtol=0, atol=1e-5)


def with_names(
    net: Network, modules: dict[str, str], unmapped: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """A state dict under other names; ``modules`` has every one of its modules, or a parent."""
    weights = {}
    for name, tensor in net.state_dict().items():
        if name.startswith(unmapped or ('?',)):
            continue
        fits = [module for module in modules if name.startswith(f'{module}.')]
        longest = max(fits, key=len)
        weights[f'module.{modules[longest]}{name[len(longest) :]}'] = tensor.clone()
    return weights


def baseline_weights() -> tuple[Network, dict[str, Tensor]]:
    net = network('mtl_baseline', 'small_d8', ['semantic', 'depth'])
    modules = {'backbone.net': 'backbone'}
    for task, name in (('semantic', 'semseg'), ('depth', 'depth')):
        modules |= {f'heads.{task}.{a}': f'decoders.{name}.{b}' for a, b in DEEPLAB.items()}
    return net, with_names(net, modules)


def test_the_command_makes_a_checkpoint_that_is_read_like_any_other(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, weights = baseline_weights()
    torch.save(weights, tmp_path / 'best_model.pth.tar')
    out = tmp_path / 'imported.safetensors'
    words = ['import', 'mtl_baseline', str(tmp_path / 'best_model.pth.tar'), '--out', str(out)]
    assert main([*words, '--backbone', 'small_d8', '--tasks', 'depth', 'semantic']) == 0
    assert f'{len(weights)} tensors, all used' in capsys.readouterr().out
    imported, meta = load_checkpoint(out)
    same(net, imported)
    assert meta['tasks'] == {'semantic': 40, 'depth': 1}
    assert (meta['height'], meta['width'], meta['canonical_focal']) == (480, 640, FOCAL)
    assert [entry['name'] for entry in meta['classes'][:3]] == ['wall', 'floor', 'cabinet']
    assert main(['evaluate', '--checkpoint', str(out), '--data', str(rooms), '--limit', '1']) == 0
    assert '| mIoU, % |' in capsys.readouterr().out


def test_cross_stitch_units_are_gathered() -> None:
    net = network('cross_stitch', 'small_d8', ['semantic', 'normals'])
    modules = {}
    for task, name in (('semantic', 'semseg'), ('normals', 'normals')):
        modules[f'backbones.{task}.net'] = f'backbone.{name}'
        modules |= {f'heads.{task}.{a}': f'heads.{name}.{b}' for a, b in DEEPLAB.items()}
    weights = with_names(net, modules, unmapped=('stitch.',))
    for stage in range(4):
        unit = f'module.cross_stitch.layer{stage + 1}.cross_stitch_unit'
        alpha = net.state_dict()[f'stitch.{stage}.alpha']
        weights[f'{unit}.semseg.semseg.param'] = alpha[0, 0]
        weights[f'{unit}.semseg.normals.param'] = alpha[0, 1]
        weights[f'{unit}.normals.semseg.param'] = alpha[1, 0]
        weights[f'{unit}.normals.normals.param'] = alpha[1, 1]
    config = configure('cross_stitch', 'small_d8', ['semantic', 'normals'], task_set='nyud')
    plain = {name.removeprefix('module.'): tensor for name, tensor in weights.items()}
    same(net, import_weights(plain, config))
    del plain['cross_stitch.layer2.cross_stitch_unit.semseg.normals.param']
    missing = 'lack cross_stitch.layer2.cross_stitch_unit.semseg.normals.param of CrossStitch'
    with pytest.raises(PapersError, match=missing):
        import_weights(plain, config)


def mti_weights() -> tuple[Network, dict[str, Tensor]]:
    """Theirs stack semantic, normals, edges, depth: auxiliary tasks lie between the others."""
    ours = ['semantic', 'depth', 'normals', 'edges']
    names = {'semantic': 'semseg', 'depth': 'depth', 'normals': 'normals', 'edges': 'edge'}
    auxiliary = {'normals': 3, 'edges': 1}
    net = network('mti_net', 'small', ours[:2], auxiliary=auxiliary, softmax='released')
    modules = {'backbone.net': 'backbone'}

    def block(a: str, b: str) -> None:
        modules.update({f'{a}.{mine}': f'{b}.{other}' for mine, other in BASIC.items()})

    for s in range(4):
        for task in ours:
            name = names[task]
            block(f'initial{s}.refine.{task}.0', f'scale_{s}.refinement.{name}.0')
            block(f'initial{s}.refine.{task}.1', f'scale_{s}.refinement.{name}.1')
            modules[f'initial{s}.predict.{task}'] = f'scale_{s}.decoders.{name}'
        for task in ours[:2]:
            for other in ours:
                mine = f'distillation.{s}.messages.{task}.{other}'
                unit = f'distillation_scale_{s}.self_attention.{names[task]}.{names[other]}'
                modules |= {f'{mine}.gate': f'{unit}.attention.0', f'{mine}.value': f'{unit}.conv'}
    for s in (1, 2, 3):
        block(f'fpm{s}.f.0', f'fpm_scale_{s}.non_linear.0')
        block(f'fpm{s}.f.1', f'fpm_scale_{s}.non_linear.1')
        modules[f'fpm{s}.f.2'] = f'fpm_scale_{s}.non_linear.2'
        block(f'fpm{s}.g', f'fpm_scale_{s}.dimensionality_reduction')
        for task in ours:
            unit = f'fpm_scale_{s}.se.{names[task]}.squeeze'
            modules |= {f'fpm{s}.excite.{task}.gate.{i}': f'{unit}.{i}' for i in (0, 2)}
    for task in ours[:2]:
        modules[f'heads.{task}.mix'] = f'heads.{names[task]}.last_layer'
        modules[f'heads.{task}.predict'] = f'heads.{names[task]}.last_layer.3'
    weights = with_names(net, modules)
    for s, c in ((1, 32), (2, 48), (3, 64)):
        fpm = f'module.fpm_scale_{s}'

        def stacked(tensor: Tensor, c: int = c) -> Tensor:  # ours to theirs, along the last axis
            semantic, depth, normals, edges = tensor.split(c, dim=-1)
            return torch.cat([semantic, normals, edges, depth], dim=-1)

        for layer in ('non_linear.0', 'dimensionality_reduction'):
            for conv in ('conv1', 'downsample.0'):
                key = f'{fpm}.{layer}.{conv}.weight'
                weights[key] = stacked(weights[key].movedim(1, -1)).movedim(-1, 1)
        weights[f'{fpm}.non_linear.2.weight'] = stacked(
            weights[f'{fpm}.non_linear.2.weight'].movedim(0, -1)
        ).movedim(-1, 0)
        weights[f'{fpm}.non_linear.2.bias'] = stacked(weights[f'{fpm}.non_linear.2.bias'])
    return net, {name.removeprefix('module.'): tensor for name, tensor in weights.items()}


def test_mti_net_stacks_auxiliary_tasks_in_our_order() -> None:
    net, weights = mti_weights()
    auxiliary = ['edges', 'normals']
    config = configure('mti_net', 'small', ['semantic', 'depth'], auxiliary=auxiliary)
    same(net, import_weights(weights, config))


def test_every_tensor_is_used_and_every_place_filled() -> None:
    _, weights = baseline_weights()
    weights = {name.removeprefix('module.'): tensor for name, tensor in weights.items()}
    config = configure('mtl_baseline', 'small_d8', ['semantic', 'depth'])
    surplus = {**weights, 'backbone.fc.weight': torch.zeros(1)}
    with pytest.raises(PapersError, match=r'^MTLBaseline has no place for backbone.fc.weight$'):
        import_weights(surplus, config)
    fewer = {n: t for n, t in weights.items() if not n.startswith('decoders.depth.0.convs.0')}
    with pytest.raises(PapersError, match=r'lack decoders.depth.0.convs.0.0.weight, .* 3 more'):
        import_weights(fewer, config)
    other = {**weights, 'decoders.semseg.4.bias': torch.zeros(21)}
    with pytest.raises(PapersError, match=r'decoders.semseg.4.bias is \[21\], expected \[40\]'):
        import_weights(other, config)


class Surprise:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ('it ran',)


def test_what_is_no_state_dict_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / name for name in ('code', 'list', 'numbers', 'text', 'missing')]
    torch.save({'weight': Surprise()}, paths[0])
    torch.save([torch.zeros(1)], paths[1])
    torch.save({'epoch': 3}, paths[2])
    paths[3].write_bytes(pickle.dumps('no weights'))
    for path in paths:
        words = ['import', 'mtan', str(path), '--backbone', 'small_d8', '--tasks', 'depth']
        assert main([*words, '--out', str(tmp_path / 'out')]) == 1
        said = capsys.readouterr()
        assert str(path) in said.err
        assert said.err.count('\n') == 1
        assert 'it ran' not in said.out + said.err
    assert not (tmp_path / 'out').exists()
    torch.save({'model': {'module.a': torch.ones(2)}, 'epoch': 3}, paths[2])
    assert list(read_weights(paths[2])) == ['a']


def test_what_cannot_be_imported_says_why() -> None:
    with pytest.raises(PapersError, match="pascal has no task 'depth'"):
        configure('mtan', 'small_d8', ['depth'], task_set='pascal')
    with pytest.raises(PapersError, match="no weights are known for 'tif'"):
        import_weights({}, configure('tif', 'small', ['depth']))
    with pytest.raises(PapersError, match='expected hrnet_w18_small_v2_bilinear'):
        import_weights({}, configure('mti_net', 'hrnet_w18_small_v2', ['depth']))
    with pytest.raises(PapersError, match='has 1 task, not 2'):
        import_weights({}, configure('single_task', 'small_d8', ['depth', 'semantic']))


def test_the_survey_hrnet_interpolates_between_pixels() -> None:
    kind, name, arguments = BACKBONES['hrnet_w18_small_v2_bilinear']
    assert kind is SurveyHRNetPyramid
    unit = kind(name, arguments, pretrained=False).net.stage2[0]
    coarse = torch.tensor([[[[0.0, 4.0]]]])
    assert unit.fit(coarse, torch.zeros(1, 1, 1, 4)).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]
    assert not any(isinstance(module, torch.nn.Upsample) for module in unit.modules())
