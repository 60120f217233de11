"""Export: what the deployable graph computes, and bundles that are whole or not there."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from mtl_training.checkpoints.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimConfig,
    to_mapping,
)
from mtl_training.cli import main
from mtl_training.deploy import DeployError
from mtl_training.deploy.comparison import compare_with_torch
from mtl_training.deploy.deployable import Deployable
from mtl_training.deploy.export import export
from mtl_training.deploy.graph import to_onnx
from mtl_training.labels import NYUD40, ROBOT_GROUPS, LabelClass, as_table
from mtl_training.models import Network, Predictions
from mtl_training.models.layers import resize
from mtl_training.models.pyramids import Pyramid
from mtl_training.models.tif import TIF
from mtl_training.tasks import L1Depth, LaplaceDepth, NormalsTask, choose, rooms
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_perception.engines.agreement import Agreement

THINGS = tuple(LabelClass(f'thing {i}', (i, 0, 255 - i)) for i in range(5))
TASKS = rooms(THINGS)
CHANNELS = {name: task.channels for name, task in TASKS.items()}
SIZE = (64, 96)
CONFIG = Config(
    name='run',
    model=ModelConfig('b'),
    data=DataConfig(*SIZE, 277.0),
    optim=OptimConfig(lr=1.0, max_steps=1),
    tasks=tuple(TASKS),
)
META: dict[str, Any] = {
    'config': to_mapping(CONFIG),
    'tasks': CHANNELS,
    'height': SIZE[0],
    'width': SIZE[1],
    'mean': [0.5, 0.4, 0.3],
    'std': [0.2, 0.3, 0.4],
    'canonical_focal': 277.0,
    'classes': as_table(THINGS),
    'commit': 'abc',
    'step': 7,
}


class TinyBackbone(Pyramid):
    """Four strided convolutions with the shape of a pyramid."""

    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    channels = (4, 6, 8, 10)

    def __init__(self) -> None:
        super().__init__()
        widths = (3, *self.channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 3, stride=2 if i else 4, padding=1)
            for i in range(4)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        features = []
        for conv in self.convs:
            image = F.relu(conv(image))
            features.append(image)
        return features


class PlainNet(Network):
    """One convolution per task: a network whose graph is small."""

    def __init__(self) -> None:
        super().__init__(CHANNELS, mean=META['mean'], std=META['std'])
        self.decoders = nn.ModuleDict(
            {t: nn.Conv2d(3, c, 4, stride=4) for t, c in CHANNELS.items()}
        )

    def predictions(self, image: Tensor) -> Predictions:
        return Predictions({task: self.decoders[task](image) for task in self.kept})


@pytest.fixture(scope='module')
def net() -> PlainNet:
    torch.manual_seed(0)
    return PlainNet().eval()


@pytest.fixture(scope='module')
def tif() -> TIF:
    torch.manual_seed(0)
    net = TIF(TinyBackbone(), {'semantic': 5, 'depth': 2}, width=8, fuse_width=8, slim=True).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics that engines have to respect
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    for decoder in net.decoders.values():
        nn.init.normal_(decoder.fusion.predict.weight)
    return net


@pytest.fixture(scope='module')
def tif_graph(tif: TIF) -> tuple[Deployable, bytes]:
    module = Deployable(tif, choose(TASKS, ['depth']), mean=META['mean'], std=META['std'])
    return module, to_onnx(module, SIZE).SerializeToString()


@pytest.fixture(scope='module')
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('photographs')
    rng = np.random.default_rng(0)
    for index in range(3):
        small = rng.integers(0, 256, (6, 8, 3), np.uint8)
        cv2.imwrite(str(folder / f'{index}.jpg'), cv2.resize(small, (160, 120)))
    return folder


@pytest.fixture(scope='module')
def bundle(net: PlainNet, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('bundles') / 'tiny'
    found = export(net, TASKS, META, out, name='tiny', check_images=photographs)
    confident = ('semantic_confidence', 'depth_confidence')
    assert {agreement.output for agreement in found} == {*TASKS, *confident}
    assert all(agreement.ok for agreement in found)
    return out


def test_bundle_says_what_the_graph_is(bundle: Path) -> None:
    description = yaml.safe_load((bundle / 'bundle.yaml').read_text())
    content = (bundle / 'model.onnx').read_bytes()
    assert description['schema'] == 1
    assert description['model']['sha256'] == hashlib.sha256(content).hexdigest()
    assert (description['input']['height'], description['input']['width']) == SIZE
    assert description['metric'] is True
    assert description['canonical_focal'] == 277.0
    assert description['tasks']['semantic']['classes'] == META['classes']
    assert description['tasks']['depth']['unit'] == 'm'
    assert description['provenance']['commit'] == 'abc'
    session = onnxruntime.InferenceSession(content)
    dtypes = {'tensor(uint8)': 'uint8', 'tensor(float)': 'float32'}
    assert {o.name: dtypes[o.type] for o in session.get_outputs()} == {
        name: dtype
        for task in description['tasks'].values()
        for name, dtype in task['outputs'].items()
    }


def test_tif_comes_out_as_it_went_in(tif_graph: tuple[Deployable, bytes]) -> None:
    """Round trip of a tiny TIF: opset 18, any batch, every known shape written down."""
    module, content = tif_graph
    model = onnx.load_from_string(content)
    assert {entry.domain: entry.version for entry in model.opset_import} == {'': 18}
    (image,) = model.graph.input
    dims = image.type.tensor_type.shape.dim
    assert dims[0].dim_param
    assert [dim.dim_value for dim in dims[1:]] == [*SIZE, 3]
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {'Shape', 'Split', 'Loop', 'If'}
    images = np.random.default_rng(1).integers(0, 256, (2, *SIZE, 3), np.uint8)
    found = compare_with_torch(content, module, images)  # as a batch of two, and one by one
    assert len(found) == 2
    assert all(agreement.ok for agreement in found), found


def test_bytes_are_only_cast(bundle: Path) -> None:
    """TensorRT takes no other operator on uint8 tensors."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(bundle / 'model.onnx')).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    levels = {v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
    assert {'image', 'semantic', 'edges'} <= levels
    touched = {n.op_type for n in graph.node if levels & {*n.input, *n.output}}
    assert touched == {'Cast'}


def test_graph_tells_nothing_of_the_machine(bundle: Path) -> None:
    content = (bundle / 'model.onnx').read_bytes()
    assert b'.py' not in content
    assert str(Path(__file__).parents[3]).encode() not in content


def test_every_batch_size_gives_the_same(bundle: Path) -> None:
    session = onnxruntime.InferenceSession((bundle / 'model.onnx').read_bytes())
    images = np.random.default_rng(1).integers(0, 256, (3, *SIZE, 3), np.uint8)
    three = session.run(['depth', 'normals', 'semantic'], {'image': images})
    for n in (1, 2):
        some = session.run(['depth', 'normals', 'semantic'], {'image': images[:n]})
        for a, b in zip(some, three, strict=True):
            np.testing.assert_allclose(a, b[:n], rtol=1e-4, atol=1e-5)
    depth, normals, semantic = three
    assert depth.shape == semantic.shape == (3, *SIZE)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)
    assert semantic.max() < 5


def test_deployable_is_the_trained_network(tif: TIF) -> None:
    """Normalisation, norms, up-sampling: the logits of training come out as labels."""
    module = Deployable(
        tif, choose(TASKS, ['semantic', 'depth']), mean=META['mean'], std=META['std']
    )
    image = torch.randint(0, 256, (2, *SIZE, 3), dtype=torch.uint8)
    with torch.no_grad():
        found = module(image)
        pixels = image.permute(0, 3, 1, 2) / 255
        mean, std = (torch.tensor(META[key]).view(3, 1, 1) for key in ('mean', 'std'))
        logits = tif((pixels - mean) / std)
    assert list(found) == ['semantic', 'semantic_confidence', 'depth', 'depth_confidence']
    assert (found['semantic'] == logits['semantic'].argmax(1)).float().mean() > 0.999
    softmax = logits['semantic'].softmax(1).amax(1) * 255
    assert (found['semantic_confidence'] - softmax).abs().max() < 0.51
    torch.testing.assert_close(found['depth'], logits['depth'][:, 0].exp(), rtol=1e-4, atol=1e-5)


def test_depth_confidence_is_the_probability_of_delta1() -> None:
    """Half of all depths are within 1.25 if b = log 1.25 / log 2; counted on Laplace samples."""
    b = math.log(1.25) / math.log(2)
    outputs = LaplaceDepth().head(torch.tensor([0.7, math.log(b)]).view(1, 2, 1, 1))
    assert outputs['depth'].item() == pytest.approx(math.exp(0.7))
    assert outputs['depth_confidence'].item() == 128  # 127.5, rounded to even
    log_depth = np.random.default_rng(0).laplace(0.7, b, 100_000)
    within = np.abs(log_depth - 0.7) < math.log(1.25)
    assert within.mean() == pytest.approx(128 / 255, abs=0.01)


def test_depth_without_confidence_is_metres() -> None:
    outputs = L1Depth().head(torch.tensor([[[[2.5, -1.0]]]]))
    assert list(outputs) == ['depth']
    assert outputs['depth'].tolist() == [[[2.5, 0.0]]]


def test_normals_are_of_length_one_and_keep_their_direction() -> None:
    """Also where they look slightly away from the optical axis; zero logits are no NaN."""
    logits = torch.tensor([[3.0, 0.0, 4.0], [0.0, 0.0, -2.0], [0.0, 0.0, 0.0]]).T.view(1, 3, 1, 3)
    normals = NormalsTask().head(logits)['normals'][0, 0]
    expected = torch.tensor([[0.6, 0.0, 0.8], [0.0, 0.0, -1.0], [0.0, 0.0, -1.0]])
    torch.testing.assert_close(normals, expected)


def test_a_graph_that_differs_is_refused(
    net: PlainNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check sees a depth that is 1 % off, and then leaves nothing behind."""

    def off(content: bytes, module: Deployable, images: np.ndarray) -> list[Agreement]:
        with torch.no_grad():
            module.net.decoders['depth'].bias += 0.01
        return compare_with_torch(content, module, images)

    monkeypatch.setattr('mtl_training.deploy.export.compare_with_torch', off)
    with pytest.raises(DeployError, match=r'too much: depth largest relative 0\.00995 > 0\.001$'):
        export(net, choose(TASKS, ['depth']), META, tmp_path / 'out', name='x')
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_told_and_nothing_is_written(
    net: PlainNet, tmp_path: Path
) -> None:
    with pytest.raises(DeployError, match='size is 60x96, expected multiples of 32'):
        export(net, TASKS, META, tmp_path / 'out', name='x', size=(60, 96))
    with pytest.raises(DeployError, match='depth is 5 to 2 m, expected 0 <= near < far'):
        export(net, TASKS, META, tmp_path / 'out', name='x', depth_range=(5, 2))
    with pytest.raises(DeployError, match=r'no \.jpg or \.png'):
        export(net, TASKS, META, tmp_path / 'out', name='x', check_images=tmp_path)
    (tmp_path / 'mine').mkdir()
    with pytest.raises(DeployError, match='exists and is not a bundle'):
        export(net, TASKS, META, tmp_path / 'mine', name='x')
    assert [path.name for path in tmp_path.iterdir()] == ['mine']


def test_command_tells_a_missing_checkpoint_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, out = str(tmp_path / 'none.safetensors'), str(tmp_path / 'out')
    assert main(['export', '--checkpoint', missing, '--out', out]) == 1
    error = capsys.readouterr().err
    assert error.startswith('mtl_training export:')
    assert error.count('\n') == 1


class Forty(Network):
    """One convolution to NYUD's 40 classes."""

    def __init__(self) -> None:
        super().__init__({'semantic': 40}, mean=META['mean'], std=META['std'])
        self.decoder = nn.Conv2d(3, 40, 4, stride=4)

    def predictions(self, image: Tensor) -> Predictions:
        return Predictions({'semantic': self.decoder(image)})


def test_forty_classes_are_exported_as_forty_or_as_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = Forty().eval()
    nn.init.normal_(net.decoder.weight)
    config = replace(CONFIG, tasks=('semantic',), task_set='indoor')
    meta = {**META, 'config': to_mapping(config), 'classes': as_table(NYUD40)}
    meta['metrics'] = {'semantic': {'miou': 0.3}}
    monkeypatch.setattr('mtl_training.deploy.export.load_checkpoint', lambda _: (net, meta))
    words = ['export', '--checkpoint', 'x', '--out']
    forty, groups = tmp_path / 'forty', tmp_path / 'groups'
    assert main([*words, str(forty)]) == 0
    assert main([*words, str(groups), '--classes', 'rooms']) == 0
    described = {p: yaml.safe_load((p / 'bundle.yaml').read_text()) for p in (forty, groups)}
    classes = {p: d['tasks']['semantic']['classes'] for p, d in described.items()}
    assert classes == {forty: as_table(NYUD40), groups: as_table(ROBOT_GROUPS)}
    accuracy = {p: d['provenance']['accuracy'] for p, d in described.items()}
    assert accuracy == {forty: meta['metrics'], groups: {}}  # that of 40 classes says nothing

    image = np.random.default_rng(1).integers(0, 256, (1, *SIZE, 3), np.uint8)
    session = onnxruntime.InferenceSession((groups / 'model.onnx').read_bytes())
    ids, confidence = session.run(['semantic', 'semantic_confidence'], {'image': image})
    with torch.no_grad():
        pixels = torch.from_numpy(image).permute(0, 3, 1, 2) / 255
        mean, std = (torch.tensor(META[key]).view(3, 1, 1) for key in ('mean', 'std'))
        coarse = net.predictions((pixels - mean) / std).final['semantic'].softmax(1)
    names = [label.name for label in NYUD40]
    sums = torch.stack(
        [sum(coarse[:, names.index(m)] for m in group.members) for group in ROBOT_GROUPS], dim=1
    )
    assert sums.shape[-2:] != SIZE
    probability = resize(sums.log(), SIZE).softmax(1).numpy()
    assert (ids == probability.argmax(1)).mean() > 0.999
    assert np.abs(confidence - 255 * probability.max(1)).max() < 0.6


def test_command_replaces_a_bundle(
    net: PlainNet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    meta = {**META, 'metrics': {'edges': {'f': 0.5}}}
    monkeypatch.setattr('mtl_training.deploy.export.load_checkpoint', lambda _: (net, meta))
    out = tmp_path / 'bundle'
    out.mkdir()
    (out / 'bundle.yaml').write_text('name: old')
    words = ['export', '--checkpoint', 'x', '--out', str(out), '--tasks']
    assert main([*words, 'smell']) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "unknown task 'smell', expected one of semantic, depth" in line
    assert main([*words, 'edges']) == 0
    description = yaml.safe_load((out / 'bundle.yaml').read_text())
    assert description['name'] == 'bundle'
    assert list(description['tasks']) == ['edges']
    assert description['metric'] is False
    assert 'canonical_focal' not in description
    assert description['provenance']['accuracy'] == {'edges': {'f': 0.5}}
    assert 'edges largest levels 0 (limit 1)' in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ['bundle']
    files = ['bundle.yaml', 'model.onnx', 'probes.npz']
    assert sorted(path.name for path in out.iterdir()) == files


class Unsure(Network):
    """Knows nothing: its confidences mean nothing, either."""

    def __init__(self) -> None:
        super().__init__({'semantic': 40, 'depth': 2}, mean=META['mean'], std=META['std'])
        self.heads = nn.ModuleDict({t: nn.Conv2d(3, c, 4, stride=4) for t, c in self.tasks.items()})

    def predictions(self, image: Tensor) -> Predictions:
        return Predictions({task: self.heads[task](image) for task in self.kept})


def test_confidences_suit_the_frames_that_they_are_fitted_on(
    rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The graph divides by the temperature that bundle.yaml names; depth stays as it was."""
    torch.manual_seed(0)
    net = Unsure().eval()
    config = replace(CONFIG, tasks=('semantic', 'depth'), task_set='indoor')
    meta = {**META, 'config': to_mapping(config), 'classes': as_table(NYUD40), 'metrics': {}}
    monkeypatch.setattr('mtl_training.deploy.export.load_checkpoint', lambda _: (net, meta))
    words = ['export', '--checkpoint', 'x', '--out']
    plain, fitted = tmp_path / 'plain', tmp_path / 'fitted'
    assert main([*words, str(plain)]) == 0
    fitting = ['--temperature', str(rooms), '--temperature-split', 'train']
    assert main([*words, str(fitted), *fitting, '--temperature-frames', '6']) == 0
    printed = capsys.readouterr().out
    said = yaml.safe_load((fitted / 'bundle.yaml').read_text())['provenance']['temperature']
    assert {key: said[key] for key in ('data', 'split', 'frames')} == {
        'data': rooms.name, 'split': 'train', 'frames': 6,
    }  # fmt: skip
    for task in ('semantic', 'depth'):
        assert said[task]['temperature'] != 1
        assert all(0 < value < 1 for value in said[task]['ece'])
        assert f'{task}: temperature {said[task]["temperature"]}, ECE' in printed
    image = np.random.default_rng(1).integers(0, 256, (1, *SIZE, 3), np.uint8)
    names = ['semantic', 'semantic_confidence', 'depth', 'depth_confidence']
    before, after = (
        dict(zip(names, onnxruntime.InferenceSession(
            (bundle / 'model.onnx').read_bytes()).run(names, {'image': image}), strict=True))
        for bundle in (plain, fitted)
    )  # fmt: skip
    for name in ('semantic', 'depth'):
        np.testing.assert_array_equal(before[name], after[name])
    with torch.no_grad():
        pixels = torch.from_numpy(image).permute(0, 3, 1, 2) / 255
        mean, std = (torch.tensor(META[key]).view(3, 1, 1) for key in ('mean', 'std'))
        logits = net((pixels - mean) / std)
    softmax = (logits['semantic'] / said['semantic']['temperature']).softmax(1).amax(1) * 255
    assert np.abs(after['semantic_confidence'] - softmax.numpy()).max() < 0.6
    scale = logits['depth'][:, 1].exp() * said['depth']['temperature']
    within = 255 * (1 - torch.exp(-math.log(1.25) / scale))
    assert np.abs(after['depth_confidence'] - within.numpy()).max() < 0.6
