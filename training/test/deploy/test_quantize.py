"""Quantisation: what is in the files, that they still compute the network, and bad input."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from mtl_training.checkpoints.bundles import BundleError, open_model, read_bundle, write_bundle
from mtl_training.checkpoints.weights import round_to_half, store_narrow
from mtl_training.cli import main
from mtl_training.deploy import DeployError
from mtl_training.deploy.deployable import Deployable
from mtl_training.deploy.export import export
from mtl_training.deploy.fp16 import to_fp16
from mtl_training.deploy.graph import to_onnx
from mtl_training.deploy.int8 import to_int8, trunk
from mtl_training.deploy.pictures import read_pictures, smooth_noise
from mtl_training.deploy.probes import PROBE_BYTES, make_probes
from mtl_training.deploy.rewriting import fold_constants
from mtl_training.deploy.variants import add_variants, compare_with_fp32
from mtl_training.labels import NYUD40, ROBOT_GROUPS, LabelClass, as_table
from mtl_training.models import Network, Predictions, build
from mtl_training.models.backbones import BACKBONES
from mtl_training.models.pyramids import ResNetPyramid
from mtl_training.tasks import SemanticTask, choose, grouped
from mtl_training.tasks import rooms as rooms_tasks
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = (64, 96)
THINGS = tuple(LabelClass(f'thing {i}', (i, 0, 255 - i)) for i in range(5))
TASKS = choose(rooms_tasks(THINGS), ['semantic', 'depth', 'normals', 'edges'])
CHANNELS = {name: task.channels for name, task in TASKS.items()}
META: dict[str, Any] = {
    'tasks': CHANNELS,
    'height': SIZE[0],
    'width': SIZE[1],
    'mean': [0.5, 0.5, 0.5],
    'std': [0.5, 0.5, 0.5],
    'canonical_focal': 277.0,
    'classes': as_table(THINGS),
    'commit': 'abc',
    'step': 7,
    'config': {'name': 'small'},
}


class SmallNet(Network):
    """All that quantisation distinguishes: stem, residual, two scales, attention, predictions."""

    def __init__(self) -> None:
        super().__init__(CHANNELS, mean=META['mean'], std=META['std'])
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.begin = nn.Conv2d(16, 16, 1)
        self.expand = nn.Conv2d(16, 32, 1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.project = nn.Conv2d(32, 16, 1)
        self.down = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(16)
        self.value = nn.Linear(16, 16)
        self.fuse = nn.Conv2d(16, 16, 1)
        self.decoders = nn.ModuleDict({t: nn.Conv2d(16, c, 1) for t, c in CHANNELS.items()})

    def predictions(self, image: Tensor) -> Predictions:
        x = self.begin(F.relu(self.stem(image)))
        x = x + self.project(F.relu6(self.depthwise(F.relu6(self.expand(x)))))
        small = F.relu(self.down(x))
        tokens = self.norm(small.flatten(2).transpose(1, 2))
        tokens = (tokens @ tokens.transpose(1, 2) / 4).softmax(dim=-1) @ self.value(tokens)
        small = small + tokens.transpose(1, 2).reshape(small.shape)
        x = F.relu(x + F.interpolate(self.fuse(small), scale_factor=2, mode='bilinear'))
        return Predictions({task: self.decoders[task](x) for task in self.kept})


def pictures(count: int, seed: int) -> np.ndarray:
    """Coloured clouds, uint8 [count, 64, 96, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 4, 6, 3), np.uint8)
    return np.stack([cv2.resize(s, SIZE[::-1], interpolation=cv2.INTER_CUBIC) for s in small])


@pytest.fixture(scope='module')
def net() -> SmallNet:
    """Taught for a moment to sort pixels by their brightness, so that its labels mean something."""
    torch.manual_seed(0)
    net = SmallNet()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    images = torch.from_numpy(pictures(8, 0)).permute(0, 3, 1, 2) / 127.5 - 1
    brightness = images.mean(dim=1)
    labels = torch.bucketize(brightness, torch.tensor([-0.5, -0.1, 0.1, 0.5]))
    for _ in range(60):
        logits = net(images)
        loss = F.cross_entropy(logits['semantic'], labels)
        loss = loss + F.mse_loss(logits['depth'][:, 0], brightness)
        loss = loss + F.mse_loss(logits['normals'], images - 1.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope='module')
def exported(net: SmallNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('bundles') / 'small'
    export(net, TASKS, META, out, name='small')
    return out


@pytest.fixture(scope='module')
def model(exported: Path) -> ModelProto:
    return onnx.load(exported / 'model.onnx')


@pytest.fixture(scope='module')
def calibration() -> list[np.ndarray]:
    return [picture[None] for picture in pictures(6, 1)]


@pytest.fixture(scope='module')
def variants(model: ModelProto, calibration: list[np.ndarray]) -> dict[str, ModelProto]:
    return {
        'fp16': to_fp16(model),
        'int8': to_int8(model, calibration, unsigned=False),
        'int8_u8s8': to_int8(model, calibration, unsigned=True),
    }


def tensor(graph: onnx.GraphProto, name: str) -> np.ndarray:
    (found,) = (t for t in graph.initializer if t.name == name)
    return numpy_helper.to_array(found)


def elements(session: onnxruntime.InferenceSession) -> list[tuple[str, str, list[Any]]]:
    return [(t.name, t.type, t.shape) for t in (*session.get_inputs(), *session.get_outputs())]


@pytest.mark.parametrize('variant', ['fp16', 'int8', 'int8_u8s8'])
def test_a_variant_is_the_same_network(
    variants: dict[str, ModelProto], model: ModelProto, variant: str
) -> None:
    """Opens, keeps names, dtypes and shapes for any batch, and gives nearly the same, but smaller.

    Of pictures that it was not calibrated on 99 % of the labels agree in fp16 and 93 % in int8.
    """
    reference, content = model.SerializeToString(), variants[variant].SerializeToString()
    assert elements(onnxruntime.InferenceSession(content)) == elements(
        onnxruntime.InferenceSession(reference)
    )
    near = compare_with_fp32(reference, content, variant, pictures(3, 2))
    found = {agreement.output: agreement.value for agreement in near}
    narrow = variant == 'fp16'
    assert found['semantic'] >= (0.99 if narrow else 0.93)
    assert found['depth'] <= (0.002 if narrow else 0.03)
    assert found['normals'] <= (0.1 if narrow else 3)
    assert found['edges'] <= (0.2 if narrow else 5)
    assert {entry.domain for entry in variants[variant].opset_import} == {''}


def test_weights_are_in_the_format_and_the_file_is_smaller(
    variants: dict[str, ModelProto], model: ModelProto
) -> None:
    sizes = {}
    for name, graph in {'fp32': model, **variants}.items():
        convs = [node for node in graph.graph.node if node.op_type == 'Conv']
        made = {output: node for node in graph.graph.node for output in node.output}
        dtypes = []
        for conv in convs:
            weights = conv.input[1]
            if weights in made:  # behind a DequantizeLinear
                assert made[weights].op_type == 'DequantizeLinear'
                weights = made[weights].input[0]
            dtypes.append(tensor(graph.graph, weights).dtype)
        expected = {'fp32': [np.float32] * 11, 'fp16': [np.float16] * 11}
        assert dtypes == expected.get(name, [np.float32, *[np.int8] * 10])  # the first one in float
        sizes[name] = sum(len(tensor.raw_data) for tensor in graph.graph.initializer)
    assert all(sizes[name] < 0.75 * sizes['fp32'] for name in variants)


def test_the_symmetric_file_is_what_tensorrt_takes(variants: dict[str, ModelProto]) -> None:
    """int8 with zero point 0 everywhere, biases in float, one scale per channel of weights."""
    graph = variants['int8'].graph
    steps = [n for n in graph.node if n.op_type in ('QuantizeLinear', 'DequantizeLinear')]
    assert steps
    for node in steps:
        zero_point = tensor(graph, node.input[2])
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
    made = {output: node for node in graph.node for output in node.output}
    quantised = [n for n in graph.node if n.op_type == 'Conv' and made.get(n.input[1]) is not None]
    assert len(quantised) == 10
    for conv in quantised:
        weights = made[conv.input[1]]
        assert tensor(graph, weights.input[1]).size == tensor(graph, weights.input[0]).shape[0]
        assert tensor(graph, conv.input[2]).dtype == np.float32
    assert not {t.data_type for t in graph.initializer} & {TensorProto.INT32, TensorProto.UINT8}


@pytest.mark.parametrize(
    ('system', 'settings'),
    [('tif', {'width': 16, 'fuse_width': 16, 'slim': True}), ('mti_net', {})],
)
def test_tensorrt_compiles_every_format_of_real_systems(
    system: str,
    settings: dict[str, Any],
    calibration: list[np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NVIDIA's compiler that needs no GPU, with an open batch; 40 classes come out in groups."""
    trt = pytest.importorskip('tensorrt_rtx', reason='the compiler that needs no GPU; x86_64 only')
    tensorrt = pytest.importorskip('mtl_perception.engines.tensorrt_build')
    backends = pytest.importorskip('mtl_perception.engines.engine')
    small = {'layers': (1, 1, 1, 1), 'channels': (8, 16, 24, 32), 'out_indices': (1, 2, 3, 4)}
    tasks = choose(rooms_tasks(NYUD40), ['semantic', 'normals'])
    semantic = tasks['semantic']
    assert isinstance(semantic, SemanticTask)
    tasks['semantic'] = grouped(semantic, ROBOT_GROUPS)
    monkeypatch.setitem(BACKBONES, 'small', (ResNetPyramid, 'resnet18', small))
    torch.manual_seed(0)
    channels = {name: task.channels for name, task in tasks.items()}
    net = build(system, 'small', channels, **settings).eval()
    round_to_half(net)
    model = to_onnx(Deployable(net, tasks, mean=net.mean, std=net.std), SIZE)
    store_narrow(model)
    formats = {
        'fp32': model,
        'fp16': to_fp16(model),
        'int8': to_int8(model, calibration, unsigned=False),
    }
    for precision, graph in formats.items():
        options = backends.EngineOptions(precision=precision, max_batch=2)
        plan = tensorrt.build_plan(trt, graph.SerializeToString(), options)
        assert len(plan) > 1000, precision


def test_the_cpu_file_has_unsigned_activations_and_whole_biases(
    variants: dict[str, ModelProto],
) -> None:
    graph = variants['int8_u8s8'].graph
    found = {
        tensor(graph, node.input[2]).dtype.name
        for node in graph.node
        if node.op_type == 'QuantizeLinear'
    }
    assert found == {'uint8'}
    assert TensorProto.INT32 in {t.data_type for t in graph.initializer}


def test_on_cpus_no_pair_of_products_overflows_16_bits(variants: dict[str, ModelProto]) -> None:
    """Processors without VNNI add them up in 16 bits and saturate: depth was off by a tenth."""
    weights = [
        numpy_helper.to_array(tensor)
        for tensor in variants['int8_u8s8'].graph.initializer
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 4
    ]
    assert len(weights) == 10
    largest = max(int(abs(values.astype(int)).max()) for values in weights)
    assert largest > 60
    assert 2 * 255 * largest < 2**15


def test_what_tensorrt_gets_is_judged_by_exact_sums() -> None:
    """Opened as a variant, products of full range are not saturated, whatever the processor."""
    one, step = np.float32(1), np.ones((), np.float32)
    channels = 64
    full = np.full((1, channels, 1, 1), 127, np.int8)
    zero = np.zeros((), np.int8)
    constants = {'step': step, 'zero': zero, 'full': full}
    graph = helper.make_graph(
        [
            helper.make_node('QuantizeLinear', ['x', 'step', 'zero'], ['q']),
            helper.make_node('DequantizeLinear', ['q', 'step', 'zero'], ['d']),
            helper.make_node('DequantizeLinear', ['full', 'step', 'zero'], ['w']),
            helper.make_node('Conv', ['d', 'w'], ['y']),
            helper.make_node('QuantizeLinear', ['y', 'wide', 'zero'], ['small']),
            helper.make_node('DequantizeLinear', ['small', 'wide', 'zero'], ['out']),
        ],
        'sum',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, channels, 8, 8])],
        [helper.make_tensor_value_info('out', TensorProto.FLOAT, [1, 1, 8, 8])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()]
        + [numpy_helper.from_array(one * 127 * channels, 'wide')],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)
    session = open_model(model.SerializeToString(), threads=1, variant='int8')
    (out,) = session.run(None, {'x': np.full((1, channels, 8, 8), 127, np.float32)})
    assert out == pytest.approx(127 * 127 * channels, rel=0.01)


def test_fp16_keeps_the_picture_and_the_meaning_of_logits_in_fp32(
    variants: dict[str, ModelProto],
) -> None:
    graph = variants['fp16'].graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    seen = {}
    for node in graph.node:
        seen.setdefault(node.op_type, set()).add(types[node.output[0]])
    assert seen['Conv'] == {TensorProto.FLOAT16}
    assert seen['MatMul'] == {TensorProto.FLOAT16}
    for operator in ('LayerNormalization', 'Softmax', 'Exp', 'Sigmoid'):
        assert seen[operator] == {TensorProto.FLOAT}


def test_only_what_lies_between_convolutions_is_int8(model: ModelProto) -> None:
    graph = fold_constants(model).graph
    chosen = trunk(graph)
    kinds = [node.op_type for node in graph.node if node.name in chosen]
    assert kinds.count('Conv') == 10
    # The residual; the sum of two scales; not that with the attention, nor the biases of layers.
    assert kinds.count('Add') == 2
    assert kinds.count('Resize') == 1  # not those of the predictions
    assert not set(kinds) & {'MatMul', 'LayerNormalization', 'Softmax', 'Exp', 'Mul'}


def test_the_sum_of_a_groups_probabilities_is_meaning_not_network(net: SmallNet) -> None:
    """The product with zeros and ones behind the soft max is no layer: all around it stays fp32."""
    semantic = TASKS['semantic']
    assert isinstance(semantic, SemanticTask)
    names = [thing.name for thing in THINGS]
    pairs = [LabelClass(two[0], (0, 0, 0), tuple(two)) for two in (names[:2], names[2:])]
    tasks = {'semantic': grouped(semantic, pairs)}
    graph = to_onnx(Deployable(net, tasks, mean=net.mean, std=net.std), SIZE)
    narrow = to_fp16(graph).graph
    types = {value.name: value.type.tensor_type.elem_type for value in narrow.value_info}
    *_, product = (types[n.output[0]] for n in narrow.node if n.op_type == 'MatMul')
    *_, resize = (types[n.output[0]] for n in narrow.node if n.op_type == 'Resize')
    assert (product, resize) == (TensorProto.FLOAT, TensorProto.FLOAT)
    folded = fold_constants(graph).graph
    chosen = trunk(folded)
    assert [n.op_type for n in folded.node if n.name in chosen].count('Resize') == 1


def test_slices_of_weights_are_computed_once() -> None:
    weights = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), 'w')
    ends = [numpy_helper.from_array(np.array([v], np.int64), n) for n, v in (('a', 1), ('b', 3))]
    nodes = [
        helper.make_node('Slice', ['w', 'a', 'b'], ['rows']),
        helper.make_node('MatMul', ['rows', 'x'], ['y']),
    ]
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (('x', [3, 1]), ('y', [2, 1]))
    ]
    opset = [helper.make_opsetid('', 18)]
    model = helper.make_model(
        helper.make_graph(nodes, 'slice', *ports, [weights, *ends]), opset_imports=opset
    )
    folded = fold_constants(model).graph
    assert [node.op_type for node in folded.node] == ['MatMul']
    assert tensor(folded, 'rows').tolist() == [[3, 4, 5], [6, 7, 8]]
    assert len(folded.initializer) == 1
    assert len(model.graph.node) == 2  # a copy


def test_the_command_twice_gives_the_same_bytes(
    exported: Path, rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And every file of the bundle is what bundle.yaml says, with figures before and after."""
    written = []
    for name in ('one', 'two'):
        folder = tmp_path / name / 'small'
        shutil.copytree(exported, folder)
        arguments = ['quantize', str(folder), '--precision', 'fp16', 'int8']
        arguments += ['--data', str(rooms), '--frames', '5', '--split', 'val', '--threads', '1']
        assert main(arguments) == 0
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert [path.name for path in folder.parent.iterdir()] == ['small']
    assert written[0] == written[1]
    assert '| | fp32 | fp16 | int8 | int8_u8s8 |' in capsys.readouterr().out
    assert sorted(written[0]) == [
        'bundle.yaml', 'model.onnx', 'model_fp16.onnx', 'model_int8.onnx', 'model_int8_u8s8.onnx',
        'probes.npz',
    ]  # fmt: skip
    description = yaml.safe_load(written[0]['bundle.yaml'])
    for entry in (*description['variants'].values(), description['probes']):
        assert entry['sha256'] == hashlib.sha256(written[0][entry['file']]).hexdigest()
    notes = description['provenance']['variants']['int8_u8s8']
    assert notes['calibration_frames'] == 5
    assert notes['accuracy']['frames'] == 4
    judged = {*TASKS} - {'semantic'}  # whose classes are not those of the rooms
    assert notes['accuracy']['before'].keys() == notes['accuracy']['after'].keys() == judged
    for name, content in written[0].items():
        assert str(tmp_path).encode() not in content, name
        assert b'/tmp' not in content, name


def test_export_makes_variants_too(net: SmallNet, rooms: Path, tmp_path: Path) -> None:
    export(
        net, TASKS, META, tmp_path / 'b', name='b', precisions=['fp16', 'int8'], calibration=rooms
    )
    assert set(read_bundle(tmp_path / 'b').description['variants']) == {'fp16', 'int8', 'int8_u8s8'}
    with pytest.raises(DeployError, match='int8 needs pictures to calibrate on'):
        export(net, TASKS, META, tmp_path / 'c', name='c', precisions=['int8'])
    assert not (tmp_path / 'c').exists()


def test_probes_round_trip(exported: Path, model: ModelProto) -> None:
    """Fed back, the pictures give the outputs that are stored; the same bytes every time."""
    content = read_bundle(exported).files['probes.npz']
    assert content == make_probes(model.SerializeToString(), smooth_noise(SIZE))
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        probes = dict(file)
    assert probes['images'].shape == (2, SIZE[0] // 2, SIZE[1] // 2, 3)
    assert probes['stride'].shape == ()
    stride = int(probes['stride'])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    image = probes['images'].repeat(2, axis=1).repeat(2, axis=2)
    for name, array in zip(names, session.run(names, {'image': image}), strict=True):
        expected = array[:, stride // 2 :: stride, stride // 2 :: stride]
        assert probes[name].dtype == expected.dtype
        np.testing.assert_allclose(probes[name], expected, rtol=1e-5, atol=1e-5)


def test_probes_of_a_large_picture_are_small() -> None:
    """Pictures that do not compress lose levels until they do."""
    nodes = [
        helper.make_node('Cast', ['image'], ['numbers'], to=TensorProto.FLOAT),
        helper.make_node('Neg', ['numbers'], ['normals']),
    ]
    grid = ['n', 256, 320, 3]
    graph = helper.make_graph(
        nodes,
        'stand_in',
        [helper.make_tensor_value_info('image', TensorProto.UINT8, grid)],
        [helper.make_tensor_value_info('normals', TensorProto.FLOAT, grid)],
    )
    opset = [helper.make_opsetid('', 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    noise = np.random.default_rng(0).integers(0, 256, (5, 256, 320, 3), np.uint8)
    content = make_probes(model.SerializeToString(), noise)
    assert len(content) <= PROBE_BYTES
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        assert file['images'].shape == (2, 128, 160, 3)
        assert file['images'].std() > 10
        # The model saw what is stored.
        assert set(np.unique(-file['normals'])) <= set(np.unique(file['images']))


def test_probes_are_added_to_a_bundle_without(exported: Path, rooms: Path, tmp_path: Path) -> None:
    bundle = read_bundle(exported)
    del bundle.description['probes'], bundle.files['probes.npz']
    for name, data in (('noise', []), ('rooms', ['--data', str(rooms)])):
        write_bundle(tmp_path / name, bundle)
        assert main(['quantize', str(tmp_path / name), *data]) == 0
    noise, frames = (read_bundle(tmp_path / n).files['probes.npz'] for n in ('noise', 'rooms'))
    assert noise == make_probes(bundle.model, smooth_noise(SIZE, 2))
    assert frames != noise
    before = frames
    assert main(['quantize', str(tmp_path / 'rooms'), '--precision', 'fp16']) == 0
    assert read_bundle(tmp_path / 'rooms').files['probes.npz'] == before  # kept


def test_a_failure_leaves_the_bundle_as_it_was(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / 'small'
    shutil.copytree(exported, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    calls = []
    rename = os.rename

    def fails_once(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:  # the old bundle is out of the way, the new one not yet there
            raise OSError(28, 'No space left on device')
        rename(source, target)

    monkeypatch.setattr(os, 'rename', fails_once)
    assert main(['quantize', str(folder), '--precision', 'fp16']) == 1
    assert 'No space left on device' in capsys.readouterr().err
    assert len(calls) == 3
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ['small']


def test_a_variant_that_came_out_wrong_is_refused(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: ModelProto) -> ModelProto:
        graph = to_fp16(model)
        for tensor in graph.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT16:
                values = -numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return graph

    monkeypatch.setattr('mtl_training.deploy.variants.to_fp16', broken)
    bundle = read_bundle(exported)
    with pytest.raises(DeployError, match='fp16 is too far from fp32 on the probes: semantic'):
        add_variants(bundle, ['fp16'], [])
    assert 'variants' not in bundle.description


def test_mistakes_are_one_line_on_stderr(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'small'
    shutil.copytree(exported, folder)
    missing = tmp_path / 'none'
    cases = {
        'int8 needs pictures to calibrate on, expected --data': [folder, '--precision', 'int8'],
        f'{missing} is not a data set that can be read': [
            folder, '--precision', 'int8', '--data', missing,
        ],
        f'{missing} cannot be read as a bundle': [missing, '--precision', 'fp16'],
    }  # fmt: skip
    for message, arguments in cases.items():
        assert main(['quantize', *map(str, arguments)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_files_outside_of_the_bundle_are_not_read(exported: Path, tmp_path: Path) -> None:
    """As the runtime: no path of bundle.yaml leads out of the folder."""
    folder = tmp_path / 'small'
    shutil.copytree(exported, folder)
    shutil.move(folder / 'model.onnx', tmp_path / 'model.onnx')
    text = (folder / 'bundle.yaml').read_text()
    for name in ('../model.onnx', str(tmp_path / 'model.onnx')):
        (folder / 'bundle.yaml').write_text(text.replace('file: model.onnx', f'file: {name}'))
        with pytest.raises(BundleError, match='expected a file inside the folder of the bundle'):
            read_bundle(folder)


def test_pictures_are_frames_at_the_networks_size(rooms: Path) -> None:
    found = read_pictures(rooms, 'train', 4, (32, 64))
    assert [picture.shape for picture in found] == [(1, 32, 64, 3)] * 4
    assert found[0].dtype == np.uint8
