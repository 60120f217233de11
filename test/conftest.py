"""A tiny ONNX bundle whose outputs are simple functions of the pixels, for tests of what uses one.

What it says about a pixel (r, g, b):

- ``semantic``: 0, 1 or 2, the strongest of r, g, b; ``semantic_confidence``: max(r, g, b);
- ``depth``: r / 20 metres at ``canonical_focal`` 100 (range 0.5 to 10); ``depth_confidence``: g;
- ``normals``: (0, 0, -1); ``edges``: b; ``saliency``: 255 - b.
"""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

WIDTH, HEIGHT = 96, 64

TINY_TASKS: dict[str, Any] = {
    'semantic': {
        'kind': 'semantic',
        'outputs': {'semantic': 'uint8', 'semantic_confidence': 'uint8'},
        'classes': [
            {'id': 0, 'name': 'red thing', 'color': [200, 30, 30]},
            {'id': 1, 'name': 'green thing', 'color': [30, 200, 30]},
            {'id': 2, 'name': 'blue thing', 'color': [30, 30, 200]},
        ],
    },
    'depth': {
        'kind': 'depth',
        'outputs': {'depth': 'float32', 'depth_confidence': 'uint8'},
        'unit': 'm',
        'range': [0.5, 10.0],
    },
    'normals': {'kind': 'normals', 'outputs': {'normals': 'float32'}, 'frame': 'optical'},
    'edges': {'kind': 'edges', 'outputs': {'edges': 'uint8'}},
    'saliency': {'kind': 'saliency', 'outputs': {'saliency': 'uint8'}},
}


def tiny_model(width: int = WIDTH, height: int = HEIGHT, batch: Any = 'N') -> bytes:
    """The ONNX file of the tiny network (opset 18)."""
    onnx = pytest.importorskip('onnx', reason='makes the tiny network of the tests')
    helper, proto = onnx.helper, onnx.TensorProto

    def constant(name: str, value: Any, dtype: Any) -> Any:
        return onnx.numpy_helper.from_array(np.array(value, dtype), name)

    constants = [
        constant('axis', [3], np.int64),
        constant('metres', 0.05, np.float32),
        constant('zero', 0.0, np.float32),
        constant('towards', [0.0, 0.0, -1.0], np.float32),
        constant('full', 255, np.uint8),
    ]
    node = helper.make_node
    nodes = [
        node('Split', ['image'], ['r4', 'g4', 'b4'], axis=3, num_outputs=3),
        node('Squeeze', ['r4', 'axis'], ['r']),
        node('Squeeze', ['g4', 'axis'], ['depth_confidence']),
        node('Squeeze', ['b4', 'axis'], ['edges']),
        node('Cast', ['image'], ['floats'], to=proto.FLOAT),
        node('ArgMax', ['floats'], ['strongest'], axis=3, keepdims=0),
        node('Cast', ['strongest'], ['semantic'], to=proto.UINT8),
        node('ReduceMax', ['image', 'axis'], ['semantic_confidence'], keepdims=0),
        node('Cast', ['r'], ['red'], to=proto.FLOAT),
        node('Mul', ['red', 'metres'], ['depth']),
        node('Mul', ['floats', 'zero'], ['nothing']),
        node('Add', ['nothing', 'towards'], ['normals']),
        node('Sub', ['full', 'edges'], ['saliency']),
    ]
    grid = [batch, height, width]

    def value(name: str, dtype: str) -> Any:
        kind = proto.FLOAT if dtype == 'float32' else proto.UINT8
        shape = [*grid, 3] if name == 'normals' else grid
        return helper.make_tensor_value_info(name, kind, shape)

    outputs = [value(*item) for task in TINY_TASKS.values() for item in task['outputs'].items()]
    image = helper.make_tensor_value_info('image', proto.UINT8, [*grid, 3])
    graph = helper.make_graph(nodes, 'tiny', [image], outputs, constants)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8, producer_name='test'
    )
    return bytes(model.SerializeToString())


def cropping_model() -> bytes:
    """The tiny network, but ``edges`` has as many rows as the brightest pixel says."""
    onnx = pytest.importorskip('onnx', reason='makes the tiny network of the tests')
    model = onnx.load_from_string(tiny_model())
    graph, node, numpy_helper = model.graph, onnx.helper.make_node, onnx.numpy_helper
    squeeze = next(n for n in graph.node if 'edges' in n.output)
    squeeze.output[0] = 'all_edges'
    subtract = next(n for n in graph.node if 'edges' in n.input)
    subtract.input[1] = 'all_edges'
    graph.initializer.extend(
        numpy_helper.from_array(np.array([value], np.int64), name)
        for name, value in (('first', 0), ('rows', 1), ('one', 1))
    )
    graph.node.extend(
        [
            node('Cast', ['image'], ['integers'], to=onnx.TensorProto.INT64),
            node('ReduceMax', ['integers'], ['brightest'], keepdims=0),
            node('Reshape', ['brightest', 'one'], ['last']),
            node('Slice', ['all_edges', 'first', 'last', 'rows'], ['edges']),
        ]
    )
    edges = next(value for value in graph.output if value.name == 'edges')
    edges.type.tensor_type.shape.dim[1].dim_param = 'rows'
    return bytes(model.SerializeToString())


def tiny_description(model: bytes, width: int = WIDTH, height: int = HEIGHT) -> dict[str, Any]:
    """The content of ``bundle.yaml`` for the tiny network."""
    return {
        'schema': 1,
        'name': 'tiny',
        'version': '1.0.0',
        'licence': 'Apache-2.0',
        'model': {'file': 'model.onnx', 'sha256': hashlib.sha256(model).hexdigest()},
        'input': {
            'tensor': 'image',
            'height': height,
            'width': width,
            'color': 'rgb',
            'dtype': 'uint8',
        },
        'canonical_focal': 100.0,
        'metric': True,
        'tasks': copy.deepcopy(TINY_TASKS),
        'provenance': {'data': 'none', 'accuracy': {}},
    }


@pytest.fixture(scope='session', autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Engines of tests, and of the processes that they start, stay out of the user's cache."""
    os.environ['MTL_PERCEPTION_CACHE'] = str(tmp_path_factory.mktemp('cache'))


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a tiny bundle and returns its folder.

    ``edit(description)`` changes the description in place before it is written; ``model`` replaces
    the bytes of the ONNX file (the hash in the description follows).
    """

    def make(
        edit: Callable[[dict[str, Any]], object] | None = None,
        model: bytes | None = None,
        name: str = 'tiny',
        width: int = WIDTH,
        height: int = HEIGHT,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        content = tiny_model(width, height) if model is None else model
        description = tiny_description(content, width, height)
        if edit is not None:
            edit(description)
        (folder / 'model.onnx').write_bytes(content)
        (folder / 'bundle.yaml').write_text(yaml.safe_dump(description, sort_keys=False))
        return folder

    return make


@pytest.fixture(scope='session')
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a good tiny bundle, 96x64; do not change it."""
    folder = tmp_path_factory.mktemp('bundles') / 'tiny'
    folder.mkdir()
    model = tiny_model()
    (folder / 'model.onnx').write_bytes(model)
    (folder / 'bundle.yaml').write_text(yaml.safe_dump(tiny_description(model), sort_keys=False))
    return folder


def write_probes(folder: Path, images: np.ndarray, stride: int = 8) -> Path:
    """Give a bundle probes, as ``mtl_training export`` does: what onnxruntime makes of ``images``.

    Args:
        images: [P, h, w, 3] uint8, a whole fraction of the network's size.
    """
    onnxruntime = pytest.importorskip('onnxruntime', reason='gives the numbers to compare with')
    description = yaml.safe_load((folder / 'bundle.yaml').read_text())
    factor = description['input']['height'] // images.shape[1]
    session = onnxruntime.InferenceSession(
        folder / description['model']['file'], providers=['CPUExecutionProvider']
    )
    names = [name for task in description['tasks'].values() for name in task['outputs']]
    full = images.repeat(factor, axis=1).repeat(factor, axis=2)
    outputs = [session.run(names, {'image': image[None]}) for image in full]
    pixels = slice(stride // 2, None, stride)
    samples = {
        name: np.concatenate([output[index][:, pixels, pixels] for output in outputs])
        for index, name in enumerate(names)
    }
    np.savez_compressed(folder / 'probes.npz', images=images, stride=np.int64(stride), **samples)
    content = (folder / 'probes.npz').read_bytes()
    description['probes'] = {
        'file': 'probes.npz',
        'sha256': hashlib.sha256(content).hexdigest(),
    }
    (folder / 'bundle.yaml').write_text(yaml.safe_dump(description, sort_keys=False))
    return folder


def probe_images(height: int, width: int) -> np.ndarray:
    """Two images [2, height, width, 3]: soft colours, and boxes with sharp edges in front."""
    noise = np.random.default_rng(0)
    coarse = noise.integers(0, 256, (2, height // 16 + 2, width // 16 + 2, 3)).astype(float)
    y, x = np.arange(height) / 16, np.arange(width) / 16
    (j, v), (i, u) = divmod(y, 1), divmod(x, 1)
    j, i, v, u = j.astype(int), i.astype(int), v[:, None, None], u[:, None]
    top = coarse[:, j][:, :, i] * (1 - u) + coarse[:, j][:, :, i + 1] * u
    bottom = coarse[:, j + 1][:, :, i] * (1 - u) + coarse[:, j + 1][:, :, i + 1] * u
    images = (top * (1 - v) + bottom * v).astype(np.uint8)
    for _ in range(12):
        row, column = noise.integers(0, height * 3 // 4), noise.integers(0, width * 3 // 4)
        color = noise.integers(0, 256, 3)
        images[1, row : row + height // 4, column : column + width // 4] = color
    return images


def fragile_model() -> bytes:
    """The tiny network, but ``edges`` fail where no pixel of an image has less blue than 255."""
    onnx = pytest.importorskip('onnx', reason='makes the tiny network of the tests')
    node, numpy_helper = onnx.helper.make_node, onnx.numpy_helper
    model = onnx.load_from_string(tiny_model())
    graph = model.graph
    producer = next(n for n in graph.node if 'edges' in n.output)
    producer.output[:] = ['blue']
    for other in graph.node:
        other.input[:] = ['blue' if name == 'edges' else name for name in other.input]
    graph.initializer.append(numpy_helper.from_array(np.zeros(255, np.uint8), 'zeros'))
    graph.node.extend(
        [
            node('Cast', ['blue'], ['integers'], to=onnx.TensorProto.INT64),
            node('ReduceMin', ['integers'], ['least'], keepdims=1),
            node('Gather', ['zeros', 'least'], ['nothing_']),
            node('Add', ['blue', 'nothing_'], ['edges']),
        ]
    )
    return bytes(model.SerializeToString())


@pytest.fixture
def fragile_bundle(make_bundle: Callable[..., Path]) -> Path:
    """The folder of a bundle whose model is ``fragile_model``."""
    return make_bundle(model=fragile_model(), name='fragile')


@pytest.fixture
def cropping_bundle(make_bundle: Callable[..., Path]) -> Path:
    """The folder of a bundle whose model is ``cropping_model``."""
    return make_bundle(model=cropping_model(), name='cropping')


@pytest.fixture(scope='session')
def add_probes() -> Callable[..., Path]:
    """``write_probes``."""
    return write_probes


@pytest.fixture(scope='session')
def probed_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny bundle that has probes; do not change it."""
    folder = tmp_path_factory.mktemp('bundles') / 'probed'
    shutil.copytree(tiny_bundle, folder)
    return write_probes(folder, probe_images(HEIGHT, WIDTH))


@pytest.fixture(scope='session')
def probed_default_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a copy of the shipped bundle, with probes made here; do not change it."""
    from mtl_perception.bundle import default_bundle, load_bundle

    folder = tmp_path_factory.mktemp('bundles') / 'shipped'
    shutil.copytree(default_bundle(), folder)
    bundle = load_bundle(folder)
    return write_probes(folder, probe_images(bundle.height // 2, bundle.width // 2))
