"""Weights in bundles: in 16 bits where that loses nothing, and back into a checkpoint."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from mtl_training.checkpoints.checkpoint import (
    build_network,
    describe_run,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from mtl_training.checkpoints.config import load_config
from mtl_training.checkpoints.weights import store_narrow
from mtl_training.cli import main
from mtl_training.deploy.folding import fold_layers
from mtl_training.models.backbones import BACKBONES
from mtl_training.models.pyramids import ResNetPyramid
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from mtl_perception.engines.subgraph import cut

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'
SMALL = [
    'model.system=mtl_baseline',
    'model.backbone=small',
    'tasks=[semantic, depth]',
    'model.options={}',
]
IMAGE = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)


def outputs(model: bytes) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model).run(None, {'image': IMAGE})


@pytest.fixture(scope='module', autouse=True)
def _small_backbone() -> Iterator[None]:
    """A backbone of ten convolutions: exporting takes a second for about fifteen nodes."""
    layers = {'layers': [1, 1, 1, 1], 'channels': (8, 16, 32, 64), 'out_indices': (1, 2, 3, 4)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, 'small', (ResNetPyramid, 'resnet18', layers))
        yield


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was never trained, with norms that have seen something, in 32 bits."""
    path = tmp_path_factory.mktemp('run') / 'last.safetensors'
    config = load_config(TINY, SMALL)
    torch.manual_seed(0)
    net = build_network(config, pretrained=False)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    tensors = {f'net.{name}': tensor for name, tensor in net.state_dict().items()}
    save_checkpoint(path, tensors, describe_run(config, net, 7, {}))
    return path


@pytest.fixture(scope='module')
def half(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle with weights in 16 bits."""
    out = tmp_path_factory.mktemp('bundles') / 'half'
    words = ['export', '--checkpoint', str(checkpoint), '--store', 'fp16', '--out', str(out)]
    assert main(words) == 0
    return out


def test_a_bundle_in_16_bits_computes_what_its_rounded_weights_do(
    checkpoint: Path, half: Path
) -> None:
    model = onnx.load(half / 'model.onnx')
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    net, _ = load_checkpoint(checkpoint)
    for name, tensor in net.state_dict().items():
        if tensor.dim() > 1 and tensor.numel() >= 1024:
            assert kinds[f'net.{name}'] == TensorProto.FLOAT16
    assert (half / 'model.onnx').stat().st_size < 0.6 * checkpoint.stat().st_size
    # The same graph with the same numbers in 32 bits: engines must see no difference.
    wide = onnx.load(half / 'model.onnx')
    casts = [n for n in wide.graph.node if n.output[0] == f'{n.input[0]}_fp32']
    assert casts
    for node in casts:
        (tensor,) = (t for t in wide.graph.initializer if t.name == node.input[0])
        values = numpy_helper.to_array(tensor).astype(np.float32)
        wide.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        wide.graph.node.remove(node)
    for a, b in zip(
        outputs(model.SerializeToString()), outputs(wide.SerializeToString()), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_part_of_such_a_bundle_has_its_own_weights_only(half: Path) -> None:
    content = (half / 'model.onnx').read_bytes()
    names = [output.name for output in onnx.load_from_string(content).graph.output]
    part = cut(content, ['depth'])
    stored = {t.name for t in onnx.load_from_string(part).graph.initializer}
    assert any('depth' in name for name in stored)
    assert not any('heads.semantic' in name for name in stored)
    np.testing.assert_array_equal(outputs(part)[0], outputs(content)[names.index('depth')])


def test_a_bundle_becomes_the_checkpoint_that_it_was_made_of(
    checkpoint: Path, half: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    back = tmp_path / 'back.safetensors'
    assert main(['checkpoint', str(half), '--out', str(back)]) == 0
    assert 'tiny at step 7, of half' in capsys.readouterr().out
    (before, was), (after, says) = (read_checkpoint(path) for path in (checkpoint, back))
    assert after.keys() == before.keys()
    assert {**says, 'config': 0} == {**was, 'config': 0}
    for name, tensor in before.items():
        rounded = tensor.half().float() if tensor.dim() > 1 else tensor
        torch.testing.assert_close(after[name].to(tensor.dtype), rounded, rtol=0, atol=0)
    # And exported anew, without rounding, it is the same bundle.
    again = tmp_path / 'half'
    assert main(['export', '--checkpoint', str(back), '--out', str(again)]) == 0
    assert (again / 'model.onnx').read_bytes() == (half / 'model.onnx').read_bytes()


def test_networks_are_averaged_by_their_shares(
    checkpoint: Path, half: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, meta = read_checkpoint(checkpoint)
    twice, out = tmp_path / 'twice.safetensors', tmp_path / 'mean.safetensors'
    changed = {n: 2 * t if t.is_floating_point() else t + 3 for n, t in tensors.items()}
    save_checkpoint(twice, changed, meta)
    words = ['checkpoint', str(checkpoint), str(twice), '--shares', '0.75', '0.25']
    assert main([*words, '--out', str(out)]) == 0
    assert 'of last.safetensors and twice.safetensors' in capsys.readouterr().out
    averaged, says = read_checkpoint(out)
    assert says['config'] == meta['config']
    assert says['metrics'] == {}
    for name, tensor in tensors.items():
        expected = 1.25 * tensor if tensor.is_floating_point() else tensor
        torch.testing.assert_close(averaged[name], expected)
    # A bundle is a checkpoint here, too, and equal shares are what is taken otherwise.
    assert main(['checkpoint', str(half), str(half), '--out', str(out)]) == 0
    network, _ = load_checkpoint(out)
    for name, weights in load_checkpoint(half)[0].state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], weights)


def test_what_cannot_be_averaged_is_told(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ['--out', str(tmp_path / 'x.safetensors')]
    less = load_config(TINY, [*SMALL, 'tasks=[semantic]'])
    other = tmp_path / 'other.safetensors'
    net = build_network(less, pretrained=False)
    save_checkpoint(other, net.state_dict(prefix='net.'), describe_run(less, net, 0, {}))
    for words, reason in (
        ([str(checkpoint), str(other)], 'is not the same network as'),
        ([str(checkpoint), str(checkpoint), '--shares', '0.5', '0.6'], 'add up to 1'),
        ([str(checkpoint), '--shares', '0.5', '0.5'], 'expected 1 that add up'),
    ):
        assert main(['checkpoint', *words, *out]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert reason in line
    assert not (tmp_path / 'x.safetensors').exists()


def test_training_goes_on_from_a_bundle(rooms: Path, half: Path, tmp_path: Path) -> None:
    quiet = ['run.validate_every=0', 'run.picture_every=0', 'optim.max_steps=1', 'optim.lr=1e-12']
    words = ['train', str(TINY), '--data', str(rooms), '--out', str(tmp_path), '--init', str(half)]
    for setting in [*SMALL, *quiet]:
        words += ['--set', setting]
    assert main(words) == 0
    begun, _ = load_checkpoint(half)
    tensors, _ = read_checkpoint(tmp_path / 'last.safetensors')
    for name, weights in begun.named_parameters():
        torch.testing.assert_close(tensors[f'net.{name}'], weights.data, rtol=1e-4, atol=1e-6)


def test_a_bundle_that_is_no_checkpoint_is_told(
    half: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the time when norms were folded; without a task that was trained; not a bundle."""
    out = ['--out', str(tmp_path / 'x.safetensors')]
    old, some = tmp_path / 'old', tmp_path / 'some'
    rewrite(half, old, lambda model: model.metadata_props.pop())
    rewrite(half, some, without_weights_of_depth)
    for bundle, reason in (
        (old, 'does not say of what network its weights are'),
        (some, 'has no heads.depth'),
        (tmp_path, 'cannot be read as a bundle'),
    ):
        assert main(['checkpoint', str(bundle), *out]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert reason in line
    assert not (tmp_path / 'x.safetensors').exists()


def rewrite(bundle: Path, out: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    """A copy of a bundle whose model was changed, for whoever reads it as files."""
    model = onnx.load(bundle / 'model.onnx')
    change(model)
    content = model.SerializeToString()
    shutil.copytree(bundle, out)
    (out / 'model.onnx').write_bytes(content)
    description = yaml.safe_load((bundle / 'bundle.yaml').read_text())
    description['model']['sha256'] = hashlib.sha256(content).hexdigest()
    (out / 'bundle.yaml').write_text(yaml.safe_dump(description))


def without_weights_of_depth(model: onnx.ModelProto) -> None:
    """As a bundle is that was exported without depth."""
    tensors = [t for t in model.graph.initializer if not t.name.startswith('net.heads.depth')]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)


def test_only_what_16_bits_hold_is_stored_in_them() -> None:
    values = np.arange(2048, dtype=np.float32).reshape(2, 1024) / 64  # 11 bits each
    arrays = {
        'exact': values,
        'fine': values + np.float32(1e-5),
        'large': values * 1e5,
        'few': values[:, :8],
        'flat': values.ravel(),
    }
    names = list(arrays)
    graph = helper.make_graph(
        [helper.make_node('Identity', [name], [f'{name}_out']) for name in names],
        'stored',
        [],
        [helper.make_tensor_value_info(f'{n}_out', TensorProto.FLOAT, arrays[n].shape)
         for n in names],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    store_narrow(model)
    narrow = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16}
    assert narrow == {'exact'}
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {})
    for name, array in zip(names, found, strict=True):
        np.testing.assert_array_equal(array, arrays[name])


def test_norms_are_folded_where_nobody_else_wants_what_they_see() -> None:
    """One behind a convolution, one behind a sum of two scales; one that shares its input stays."""
    rng = np.random.default_rng(0)
    node = helper.make_node
    scales = np.array([1, 1, 2, 2], np.float32)
    constants = {'scales': scales, 'bias_a': rng.normal(size=4)}
    constants |= {f'kernel_{c}': rng.normal(size=(4, 4, 1, 1)) for c in 'abcd'}
    for part in ('gamma', 'beta', 'mean', 'var'):
        constants |= {f'{part}_{n}': rng.uniform(0.5, 2, 4) for n in '123'}

    def norm(x: str, n: str) -> onnx.NodeProto:
        parts = [f'{part}_{n}' for part in ('gamma', 'beta', 'mean', 'var')]
        return node('BatchNormalization', [x, *parts], [f'normed_{n}'], epsilon=1e-3)

    nodes = [
        node('Conv', ['image', 'kernel_a', 'bias_a'], ['a']),
        node('AveragePool', ['image'], ['half'], kernel_shape=[2, 2], strides=[2, 2]),
        node('Conv', ['half', 'kernel_b'], ['small']),
        node('Resize', ['small', '', 'scales'], ['b'], mode='linear'),
        node('Add', ['a', 'b'], ['sum']),
        norm('sum', '1'),
        node('Conv', ['image', 'kernel_c'], ['c']),
        norm('c', '2'),
        node('Add', ['normed_1', 'normed_2'], ['x']),
        node('Conv', ['x', 'kernel_d'], ['d']),
        norm('d', '3'),
        node('Mul', ['normed_3', 'd'], ['out']),
    ]
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8])]
        for name in ('image', 'out')
    ]
    initializers = [
        numpy_helper.from_array(np.asarray(v, np.float32), n) for n, v in constants.items()
    ]
    model = helper.make_model(
        helper.make_graph(nodes, 'norms', *ports, initializers),
        opset_imports=[helper.make_opsetid('', 18)],
        ir_version=9,
    )
    folded = fold_layers(model)
    kinds = [node.op_type for node in folded.graph.node]
    assert (kinds.count('BatchNormalization'), kinds.count('Conv')) == (1, 4)
    image = rng.normal(size=(1, 4, 8, 8)).astype(np.float32)
    expected, found = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, {'image': image})[0]
        for m in (model, folded)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
