"""An engine gives what the network means, checks the bundle, and fails in one sentence."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest
import yaml

from mtl_perception.bundle import BundleError, load_bundle
from mtl_perception.engines.engine import EngineError, EngineOptions
from mtl_perception.engines.opening import open_unchecked


@pytest.fixture
def backend(tiny_bundle):
    pytest.importorskip('onnxruntime')
    options = EngineOptions(threads=1, max_batch=2)
    backend = open_unchecked('onnxruntime', load_bundle(tiny_bundle), options)
    yield backend
    backend.close()


def test_computes_what_was_asked_for_and_nothing_else(backend):
    images = np.zeros((2, 64, 96, 3), np.uint8)
    images[0, ..., 0] = 100
    images[1, ..., 2] = 200
    arrays = backend.run(images, ['depth', 'semantic', 'normals'])
    assert list(arrays) == ['depth', 'semantic', 'normals']
    assert {name: (a.dtype.name, a.shape) for name, a in arrays.items()} == {
        'depth': ('float32', (2, 64, 96)),
        'semantic': ('uint8', (2, 64, 96)),
        'normals': ('float32', (2, 64, 96, 3)),
    }
    assert (arrays['depth'][0] == 5.0).all()
    assert (arrays['semantic'][0] == 0).all()
    assert (arrays['semantic'][1] == 2).all()
    assert (arrays['normals'] == [0, 0, -1]).all()
    assert backend.run(images, []) == {}


def test_says_who_it_is(backend):
    assert backend.name == 'onnxruntime'
    assert set(backend.identity) == {'engine', 'version', 'provider', 'device', 'precision'}
    assert all(backend.identity.values())
    assert backend.identity['provider'] == 'CPUExecutionProvider'


def test_a_failed_run_is_one_sentence_and_the_next_one_works(backend, capfd):
    with pytest.raises(EngineError, match=r'onnxruntime: .*heat') as caught:
        backend.run(np.zeros((1, 64, 96, 3), np.uint8), ['heat'])
    assert '\n' not in str(caught.value)
    with pytest.raises(EngineError, match=r'onnxruntime: images are uint8 \[3, .*N from 1 to 2'):
        backend.run(np.zeros((3, 64, 96, 3), np.uint8), ['depth'])
    assert capfd.readouterr().err == ''
    assert backend.run(np.zeros((1, 64, 96, 3), np.uint8), ['depth'])
    backend.close()
    with pytest.raises(EngineError, match='closed'):
        backend.run(np.zeros((1, 64, 96, 3), np.uint8), ['depth'])


def test_results_of_another_size_are_refused(cropping_bundle):
    pytest.importorskip('onnxruntime')
    backend = open_unchecked('onnxruntime', load_bundle(cropping_bundle), EngineOptions(threads=1))
    assert backend.run(np.full((1, 64, 96, 3), 64, np.uint8), ['edges'])
    with pytest.raises(EngineError, match=r'onnxruntime: output edges .* expected \[1, 64, 96\]'):
        backend.run(np.full((1, 64, 96, 3), 32, np.uint8), ['edges'])


def test_unknown_backend_names_the_known_ones(tiny_bundle):
    with pytest.raises(EngineError, match="'tensorflow', expected one of tensorrt, openv"):
        open_unchecked('tensorflow', load_bundle(tiny_bundle))


def test_options_out_of_range():
    with pytest.raises(EngineError, match='threads is -1, expected at least 0'):
        EngineOptions(threads=-1)
    with pytest.raises(EngineError, match='max_batch is 0, expected at least 1'):
        EngineOptions(max_batch=0)
    with pytest.raises(EngineError, match=r"precision is 'fp8', expected one of fp32, fp16"):
        EngineOptions(precision='fp8')
    with pytest.raises(EngineError, match=r"provider is 'rocm', expected one of cpu, cuda"):
        EngineOptions(provider='rocm')


def test_missing_engine_names_the_package(tiny_bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(EngineError, match='needs the Python package onnxruntime'):
        open_unchecked('onnxruntime', load_bundle(tiny_bundle))


@pytest.mark.parametrize('provider', ['cuda', 'tensorrt'])
def test_a_gpu_provider_is_used_or_refused(tiny_bundle, provider):
    """Whatever onnxruntime is installed: never silently the CPU."""
    onnxruntime = pytest.importorskip('onnxruntime')
    expected = {'cuda': 'CUDAExecutionProvider', 'tensorrt': 'TensorrtExecutionProvider'}[provider]
    try:
        backend = open_unchecked(
            'onnxruntime', load_bundle(tiny_bundle), EngineOptions(provider=provider)
        )
    except EngineError as error:
        message = str(error)
        assert '\n' not in message
        assert expected in message
        assert 'install onnxruntime-gpu' in message
        if expected not in onnxruntime.get_available_providers():
            assert f'has no {expected}, only ' in message
            assert 'CPUExecutionProvider' in message
    else:
        assert backend.identity['provider'] == expected
        assert backend.identity['device'] == 'GPU 0'


def test_a_provider_that_is_listed_but_does_not_start(tiny_bundle, monkeypatch):
    """As onnxruntime-gpu without the CUDA libraries: the session is made, on the CPU."""
    onnxruntime = pytest.importorskip('onnxruntime')
    listed = ['CUDAExecutionProvider', 'CPUExecutionProvider']
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: listed)
    monkeypatch.setattr(
        onnxruntime,
        'InferenceSession',
        lambda *args, providers, **kwargs: session(*args, providers=listed[1:], **kwargs),
    )
    with pytest.raises(EngineError, match='uses CPUExecutionProvider, expected CUDAExec'):
        open_unchecked('onnxruntime', load_bundle(tiny_bundle), EngineOptions(provider='cuda'))


def test_a_session_whose_nodes_stay_on_the_cpu_is_refused(tiny_bundle, monkeypatch):
    onnxruntime = pytest.importorskip('onnxruntime', minversion='1.24')
    listed = ['CUDAExecutionProvider', 'CPUExecutionProvider']
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: listed)
    monkeypatch.setattr(session, 'get_providers', lambda self: listed)
    monkeypatch.setattr(
        onnxruntime,
        'InferenceSession',
        lambda *args, providers, **kwargs: session(*args, providers=listed[1:], **kwargs),
    )
    with pytest.raises(EngineError, match=r'runs (\d+) of \1 nodes in CPUExecutionProvider'):
        open_unchecked('onnxruntime', load_bundle(tiny_bundle), EngineOptions(provider='cuda'))


@pytest.mark.parametrize('version', ['1.18.1', '1.25.1', '1.26.0', '1.32.0'])
def test_threads_never_spin_without_end(tiny_bundle, monkeypatch, version):
    """Versions that cannot limit it ignore the limit: they must not spin at all."""
    onnxruntime = pytest.importorskip('onnxruntime')
    seen = []
    session = onnxruntime.InferenceSession

    def spy(content, options, **kwargs):
        seen.append(options)
        return session(content, options, **kwargs)

    monkeypatch.setattr(onnxruntime, '__version__', version)
    monkeypatch.setattr(onnxruntime, 'InferenceSession', spy)
    open_unchecked('onnxruntime', load_bundle(tiny_bundle), EngineOptions()).close()
    spins = seen[0].get_session_config_entry('session.intra_op.allow_spinning')
    assert spins == ('0' if version < '1.26' else '1')
    if spins == '1':
        limit = seen[0].get_session_config_entry('session.intra_op.spin_duration_us')
        assert 0 < int(limit) <= 100


def with_variant(make_bundle, variant):
    """A tiny bundle whose model is given for a second precision."""
    folder = make_bundle()

    def add(d):
        d['variants'] = {variant: {'file': f'{variant}.onnx', 'sha256': d['model']['sha256']}}

    edited(folder, add)
    (folder / f'{variant}.onnx').write_bytes((folder / 'model.onnx').read_bytes())
    return folder


def edited(folder, edit):
    path = folder / 'bundle.yaml'
    description = yaml.safe_load(path.read_text())
    edit(description)
    path.write_text(yaml.safe_dump(description, sort_keys=False))


@pytest.mark.parametrize(('precision', 'variant'), [('fp16', 'fp16'), ('int8', 'int8_u8s8')])
def test_a_precision_is_a_file_of_the_bundle(make_bundle, precision, variant):
    pytest.importorskip('onnxruntime')
    folder = with_variant(make_bundle, variant)
    options = EngineOptions(threads=1, precision=precision)
    backend = open_unchecked('onnxruntime', load_bundle(folder), options)
    assert backend.identity['precision'] == precision
    assert backend.run(np.zeros((1, 64, 96, 3), np.uint8), ['depth'])
    edited(folder, lambda d: d.pop('variants'))
    with pytest.raises(BundleError) as caught:
        open_unchecked('onnxruntime', load_bundle(folder), options)
    assert str(caught.value) == (
        f'{folder}/bundle.yaml: has no {variant} model, expected one for {precision} on '
        f'onnxruntime; make it with: mtl_training quantize {folder} --precision {precision} '
        '--data DATA'
    )


def test_a_variant_must_be_the_same_model(make_bundle, tiny_bundle):
    """The tensors of the file that is opened are compared, not those of model.onnx."""
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    folder = with_variant(make_bundle, 'fp16')
    model = onnx.load(folder / 'fp16.onnx')
    del model.graph.output[0]
    content = model.SerializeToString()
    (folder / 'fp16.onnx').write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    edited(folder, lambda d: d['variants']['fp16'].update(sha256=sha256))
    with pytest.raises(BundleError, match=r"fp16\.onnx: output 'semantic' is missing"):
        open_unchecked('onnxruntime', load_bundle(folder), EngineOptions(precision='fp16'))


def test_a_precision_that_the_engine_has_not(tiny_bundle):
    pytest.importorskip('onnxruntime')
    with pytest.raises(EngineError, match="precision is 'bf16', expected one of fp32, fp16, int8"):
        open_unchecked('onnxruntime', load_bundle(tiny_bundle), EngineOptions(precision='bf16'))


def test_a_file_that_is_no_model(make_bundle):
    bundle = load_bundle(make_bundle(model=b'not a network'))
    with pytest.raises(EngineError, match=r'model\.onnx: onnxruntime .* cannot open it') as caught:
        open_unchecked('onnxruntime', bundle)
    assert '\n' not in str(caught.value)


def test_a_file_that_changed_after_loading(make_bundle):
    folder = make_bundle()
    bundle = load_bundle(folder)
    (folder / 'model.onnx').write_bytes(b'something else')
    with pytest.raises(BundleError, match='changed since'):
        open_unchecked('onnxruntime', bundle)


def described_otherwise(make_bundle, edit):
    with pytest.raises(BundleError) as caught:
        open_unchecked('onnxruntime', load_bundle(make_bundle(edit)))
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_output_missing_in_the_model(make_bundle):
    parts = {'kind': 'human_parts', 'outputs': {'human_parts': 'uint8'}}
    message = described_otherwise(make_bundle, lambda d: d['tasks'].update(parts=parts))
    assert "model.onnx: output 'human_parts' is missing" in message


def test_size_other_than_the_models(make_bundle):
    message = described_otherwise(make_bundle, lambda d: d['input'].update(width=128))
    assert "input 'image' has the shape [N, 64, 96, 3], expected [N, 64, 128, 3]" in message


def change(tiny_bundle, make_bundle, edit):
    onnx = pytest.importorskip('onnx')
    model = onnx.load(tiny_bundle / 'model.onnx')
    edit(model.graph, onnx)
    with pytest.raises(BundleError) as caught:
        open_unchecked('onnxruntime', load_bundle(make_bundle(model=model.SerializeToString())))
    return str(caught.value)


def test_output_of_another_dtype(tiny_bundle, make_bundle):
    def edit(graph, onnx):
        node = next(node for node in graph.node if 'semantic' in node.output)
        node.attribute[0].i = onnx.TensorProto.INT32
        output = next(value for value in graph.output if value.name == 'semantic')
        output.type.tensor_type.elem_type = onnx.TensorProto.INT32

    message = change(tiny_bundle, make_bundle, edit)
    assert "output 'semantic' is tensor(int32), expected uint8" in message


def test_input_of_another_name(tiny_bundle, make_bundle):
    def edit(graph, onnx):
        graph.input[0].name = 'x'
        for node in graph.node:
            node.input[:] = ['x' if name == 'image' else name for name in node.input]

    assert "inputs are [x], expected the one input 'image'" in change(
        tiny_bundle, make_bundle, edit
    )


def test_batch_must_be_free(tiny_bundle, make_bundle):
    def edit(graph, onnx):
        for value in (*graph.input, *graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1

    assert 'with N free' in change(tiny_bundle, make_bundle, edit)
