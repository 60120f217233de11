"""What TensorRT's parser and compiler say to our models: the real ones, which need no GPU.

``tensorrt-rtx`` has the parser and the type checker of TensorRT 11, and a compiler of its own that
works on the CPU. Its engines do not run on a Jetson and it knows no DLA: what these tests show is
that a model is understood, not how fast it is. (Licence: NVIDIA's; ``./run test`` installs it.)
"""

from __future__ import annotations

import numpy as np
import pytest

from mtl_perception.bundle import default_bundle, load_bundle
from mtl_perception.engines.engine import EngineError, EngineOptions
from mtl_perception.engines.quantized import unsigned_node
from mtl_perception.engines.tensorrt_build import build_plan

trt = pytest.importorskip('tensorrt_rtx', reason='the compiler that needs no GPU; x86_64 only')
onnx = pytest.importorskip('onnx')
helper, proto = onnx.helper, onnx.TensorProto

BUNDLE = load_bundle(default_bundle())


def model_of(nodes, constants=(), image=('N', 32, 48, 3), out=proto.UINT8):
    """An ONNX file: ``image`` uint8 -> ``out``."""
    graph = helper.make_graph(
        nodes,
        'test',
        [helper.make_tensor_value_info('image', proto.UINT8, image)],
        [helper.make_tensor_value_info('out', out, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)
    return model.SerializeToString()


node = helper.make_node
TO_FLOAT = node('Cast', ['image'], ['x'], to=proto.FLOAT, name='to_float')
TO_BYTES = node('Cast', ['y'], ['out'], to=proto.UINT8, name='to_bytes')
HALF = ('half', np.float32(0.5))
HALVE = node('Mul', ['x', 'half'], ['y'], name='halve')
TINY = model_of([TO_FLOAT, HALVE, TO_BYTES], [HALF])


def refused(model, **options):
    with pytest.raises(EngineError) as caught:
        build_plan(trt, model, EngineOptions(**options))
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize('max_batch', [1, 4])
def test_a_tiny_model_compiles(max_batch, capfd):
    told = []
    plan = build_plan(
        trt, TINY, EngineOptions(max_batch=max_batch), progress=lambda *what: told.append(what)
    )
    assert len(plan) > 1000
    shares = [share for activity, share in told if activity == 'building the engine']
    assert shares
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    assert capfd.readouterr() == ('', '')


@pytest.mark.timeout(1200)
@pytest.mark.parametrize('max_batch', [1, 4])
@pytest.mark.parametrize('variant', [v for v in BUNDLE.models if v != 'int8_u8s8'])
def test_the_shipped_bundle_compiles(variant, max_batch):
    model = BUNDLE.models[variant].read()
    options = EngineOptions(precision=variant, max_batch=max_batch)
    plan = build_plan(trt, model, options)
    # The weights are in it.
    assert len(plan) > len(model) / 4


@pytest.mark.skipif('int8_u8s8' not in BUNDLE.models, reason='the bundle has no such variant')
def test_the_bundles_int8_for_cpus_is_refused():
    message = refused(BUNDLE.models['int8_u8s8'].read(), precision='int8')
    assert 'quantises to uint8' in message


def test_a_refused_operator_is_named():
    nodes = [
        TO_FLOAT,
        node('Reshape', ['x', 'square'], ['squares']),
        node('Det', ['squares'], ['y'], name='area'),
        TO_BYTES,
    ]
    message = refused(model_of(nodes, [('square', np.array([-1, 3, 3]))]))
    assert 'operator Det' in message
    assert "node 'area'" in message


def test_bytes_may_only_be_cast():
    """What an export that transposes before it casts would get."""
    nodes = [
        node('Transpose', ['image'], ['turned'], perm=[0, 3, 1, 2], name='turn'),
        node('Cast', ['turned'], ['x'], to=proto.FLOAT),
        HALVE,
        TO_BYTES,
    ]
    message = refused(model_of(nodes, [HALF]))
    assert 'operator Transpose' in message
    assert "node 'turn'" in message


def quantised(dtype, *, zero=True, fields=1):
    """A model that quantises x and back."""
    points = ['zero'][: int(zero)]
    nodes = [
        TO_FLOAT,
        node('QuantizeLinear', ['x', 'scale', *points], ['q'], name='squeeze'),
        node('DequantizeLinear', ['q', 'scale', *points], ['x2'], name='stretch'),
        node('Mul', ['x2', 'half'], ['y']),
        TO_BYTES,
    ]
    constants = [HALF, ('scale', np.float32(2)), ('zero', np.zeros((), dtype))]
    return model_of(nodes, constants[: 2 + fields])


def test_symmetric_int8_compiles():
    model = quantised(np.int8)
    assert unsigned_node(model) == ''
    assert build_plan(trt, model, EngineOptions(precision='int8'))


@pytest.mark.parametrize('model', [quantised(np.uint8), quantised(np.int8, zero=False, fields=0)])
def test_uint8_quantisation_is_refused(model):
    """TensorRT would take it for int8 with a warning; without a zero point it is uint8, too."""
    message = refused(model, precision='int8')
    assert "node 'squeeze' quantises to uint8" in message
    assert 'expected symmetric int8' in message


@pytest.mark.parametrize(
    ('activations', 'reason'),
    [
        ('QUInt8', 'quantises to uint8'),
        # The bias is quantised too, to int32: the sentence is TensorRT's.
        ('QInt8', "operator DequantizeLinear (node 'bias_DequantizeLinear')"),
    ],
)
def test_onnxruntimes_own_quantisation_is_refused(tmp_path, activations, reason):
    """What its tools make unless told otherwise, for CPUs."""
    quantization = pytest.importorskip('onnxruntime.quantization')
    nodes = [
        TO_FLOAT,
        node('Transpose', ['x'], ['planes'], perm=[0, 3, 1, 2]),
        node('Conv', ['planes', 'weights', 'bias'], ['y'], name='conv'),
        TO_BYTES,
    ]
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    constants = [('weights', weights), ('bias', np.ones(4, np.float32))]

    class Frames(quantization.CalibrationDataReader):
        frames = iter([{'image': rng.integers(0, 256, (1, 32, 48, 3), np.uint8)}])

        def get_next(self):
            return next(self.frames, None)

    quantization.quantize_static(
        onnx.load_from_string(model_of(nodes, constants)),
        tmp_path / 'quantised.onnx',
        Frames(),
        activation_type=quantization.QuantType[activations],
        op_types_to_quantize=['Conv'],
    )
    assert reason in refused((tmp_path / 'quantised.onnx').read_bytes(), precision='int8')


@pytest.mark.parametrize('image', [(2, 32, 48, 3), ('N', 'H', 48, 3)])
def test_only_the_batch_is_open(image):
    message = refused(model_of([TO_FLOAT, HALVE, TO_BYTES], [HALF], image=image), max_batch=2)
    assert "input 'image' has the shape" in message
    assert 'expected an open batch' in message


@pytest.mark.parametrize('content', [b'', b'not a network', TINY[: len(TINY) // 2]])
def test_what_is_no_model_is_refused(content):
    assert refused(content).startswith('model.onnx: ')


def test_what_progress_raises_ends_the_build():
    class StopError(Exception):
        pass

    calls = []

    def progress(activity, share):
        calls.append(share)
        if share > 0.1:
            raise StopError

    with pytest.raises(StopError):
        build_plan(trt, TINY, EngineOptions(), progress=progress)
    assert calls[-1] < 0.6  # and not asked again


def test_no_dla_here():
    assert 'dla_core is 0, but TensorRT finds 0' in refused(TINY, precision='fp16', dla_core=0)


def test_a_workspace_that_is_enough_compiles():
    assert build_plan(trt, TINY, EngineOptions(workspace_mb=64))
