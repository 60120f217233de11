"""A tiny ONNX bundle whose outputs are simple functions of the pixels, for tests of the plumbing.

What it says about a pixel (r, g, b):

- ``semantic``: 0, 1 or 2, the strongest of r, g, b; ``semantic_confidence``: max(r, g, b);
- ``depth``: r / 20 metres at ``canonical_focal`` 100 (range 0.5 to 10); ``depth_confidence``: g;
- ``normals``: (0, 0, -1); ``edges``: b; ``saliency``: 255 - b.
"""

from __future__ import annotations

import copy
import hashlib
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
