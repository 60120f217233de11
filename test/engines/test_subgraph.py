"""A part of a model holds what its outputs need, no more and no less, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_perception.bundle import default_bundle, load_bundle
from mtl_perception.engines.engine import EngineError
from mtl_perception.engines.subgraph import cut

onnx = pytest.importorskip('onnx', reason='makes models, and cuts them in its own way')


def names(part):
    return [value.name for value in part.graph.output]


@pytest.mark.parametrize('which', ['tiny', 'shipped'])
def test_a_part_is_what_onnx_itself_would_cut(tiny_bundle, which):
    bundle = load_bundle(tiny_bundle if which == 'tiny' else default_bundle())
    content = bundle.models['fp32'].read()
    model = onnx.load_from_string(content)
    extractor = onnx.utils.Extractor(onnx.load_from_string(content))
    for outputs in (['semantic'], ['depth', 'edges'], list(bundle.outputs)):
        part = onnx.load_from_string(cut(content, outputs))
        onnx.checker.check_model(part, full_check=True)
        expected = extractor.extract_model(['image'], outputs)
        assert set(names(part)) == set(outputs)
        assert list(part.graph.node) == list(expected.graph.node)
        kept = {tensor.name: tensor for tensor in part.graph.initializer}
        assert kept == {tensor.name: tensor for tensor in expected.graph.initializer}
        assert part.opset_import == model.opset_import
        assert part.ir_version == model.ir_version


def test_a_part_computes_the_same_bits(tiny_bundle):
    ort = pytest.importorskip('onnxruntime')
    content = load_bundle(tiny_bundle).models['fp32'].read()
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    providers = ['CPUExecutionProvider']
    whole = ort.InferenceSession(content, providers=providers)
    part = ort.InferenceSession(cut(content, ['depth', 'saliency']), providers=providers)
    for name in ('depth', 'saliency'):
        expected, found = (s.run([name], {'image': images})[0] for s in (whole, part))
        np.testing.assert_array_equal(found, expected)


def test_what_a_branch_reads_from_outside_is_kept():
    node, helper = onnx.helper.make_node, onnx.helper
    kind = onnx.TensorProto.FLOAT

    def branch(name, op):
        value = helper.make_tensor_value_info(name, kind, None)
        return helper.make_graph([node(op, ['outside'], [name])], name, [], [value])

    choose = node('If', ['condition'], ['y'])
    choose.attribute.extend(
        [
            helper.make_attribute('then_branch', branch('a', 'Abs')),
            helper.make_attribute('else_branch', branch('b', 'Neg')),
        ]
    )
    x, y, z = (helper.make_tensor_value_info(name, kind, [1]) for name in 'xyz')
    yes = onnx.numpy_helper.from_array(np.array(True), 'condition')
    nodes = [node('Exp', ['x'], ['outside']), choose, node('Sin', ['x'], ['z'])]
    model = helper.make_model(helper.make_graph(nodes, 'branches', [x], [y, z], [yes]))
    part = onnx.load_from_string(cut(model.SerializeToString(), ['y']))
    assert [n.op_type for n in part.graph.node] == ['Exp', 'If']
    assert [tensor.name for tensor in part.graph.initializer] == ['condition']
    part = onnx.load_from_string(cut(model.SerializeToString(), ['z']))
    assert [n.op_type for n in part.graph.node] == ['Sin']
    assert not part.graph.initializer


def test_an_output_that_the_model_has_not(tiny_bundle):
    content = load_bundle(tiny_bundle).models['fp32'].read()
    with pytest.raises(EngineError, match=r'no output heat, only .*depth, .*edges'):
        cut(content, ['heat', 'depth'])


@pytest.mark.parametrize('content', [b'not a network', b'\x3a\xff', b'\x3a\x05ab', b'\x0f'])
def test_bytes_that_are_no_model(content):
    with pytest.raises(EngineError, match='not an ONNX file'):
        cut(content, ['depth'])
