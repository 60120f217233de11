"""Outputs are compared as they should be; an engine that gives other numbers is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from mtl_perception.bundle import KINDS, BundleError, default_bundle, load_bundle
from mtl_perception.engines.agreement import LIMITS, SelfCheckError, compare, self_check
from mtl_perception.engines.engine import PRECISIONS, EngineError, EngineOptions
from mtl_perception.engines.opening import open_unchecked

pytest.importorskip('onnxruntime')


class Engine:
    """An engine whose inputs and outputs are changed on the way; equal runs are computed once."""

    name = 'onnxruntime'

    def __init__(self, backend, before=lambda images: images, after=lambda arrays: arrays):
        self.identity, self.variant = backend.identity, backend.variant
        self.runs = 0
        self._backend, self._before, self._after = backend, before, after
        self._known = {}

    def run(self, images, outputs):
        self.runs += 1
        key = images.tobytes()
        if key not in self._known:
            arrays = self._backend.run(np.ascontiguousarray(self._before(images)), outputs)
            self._known[key] = self._after(arrays)
        return self._known[key]

    def close(self):
        self._backend.close()


def onnxruntime_of(bundle):
    return open_unchecked('onnxruntime', bundle, EngineOptions(threads=1, max_batch=2))


@pytest.fixture(scope='module')
def tiny(probed_bundle):
    bundle = load_bundle(probed_bundle)
    return bundle, onnxruntime_of(bundle)


@pytest.fixture(scope='module')
def shipped(probed_default_bundle):
    bundle = load_bundle(probed_default_bundle)
    return bundle, onnxruntime_of(bundle)


# --- how outputs are compared --------------------------------------------------------------------


def image(values, dtype=np.float32):
    """A single image of one row."""
    return np.array([[values]], dtype)


def test_labels_are_compared_by_the_share_that_is_equal():
    found = compare('semantic', image([1, 2, 3, 9], 'u1'), image([1, 2, 3, 4], 'u1'), 'engine int8')
    assert (found.measure, found.value, found.limit, found.ok) == ('labels', 0.75, 0.69, True)
    assert not compare(
        'semantic', image([1, 2, 3, 9], 'u1'), image([1, 2, 3, 4], 'u1'), 'engine fp16'
    ).ok


def test_depth_is_compared_relative_to_the_models_and_to_no_less_than_the_floor():
    found, expected = image([1.1, 4.2, 2.0, 0.3]), image([1.0, 4.0, 2.0, 0.1])
    # 0.1, 0.05, 0 and, of 0.1 m, 0.2 / 0.5
    agreement = compare('depth', found, expected, 'engine fp32', floor=0.5)
    assert agreement.measure == 'relative'
    assert agreement.value == pytest.approx(0.075)
    assert str(agreement) == 'depth relative 0.075 > 0.014'
    assert compare('depth', found, expected, 'export').value == pytest.approx(2.0)


def test_normals_are_compared_by_their_angle():
    tilted = [0.0, np.sin(np.radians(4)), -np.cos(np.radians(4))]
    found, expected = image([tilted, [0, 0, -1]]), image([[0, 0, -1], [0, 0, -1]])
    agreement = compare('normals', found, expected, 'engine fp32')
    assert agreement.measure == 'degrees'
    assert agreement.value == pytest.approx(2.0, abs=1e-4)
    assert compare('normals', -expected, expected, 'engine fp32').value == pytest.approx(180)
    assert compare('normals', 2 * expected, expected, 'engine fp32').value > 50  # not unit length


def test_levels_are_compared_by_their_difference_whichever_is_larger():
    found, expected = image([10, 0, 7, 255], 'u1'), image([0, 10, 7, 255], 'u1')
    agreement = compare('edges', found, expected, 'quantize fp16')
    assert (agreement.measure, agreement.value, agreement.ok) == ('levels', 5.0, False)


def test_a_graph_is_compared_where_it_differs_most():
    found, expected = np.zeros((1, 20, 20), 'u1'), np.zeros((1, 20, 20), 'u1')
    found[0, 3, 4] = 2
    agreement = compare('edges', found, expected, 'export')
    assert (agreement.measure, agreement.value, agreement.ok) == ('largest levels', 2.0, False)
    assert compare('edges', found, expected, 'quantize fp16').ok


def test_only_the_sampled_pixels_are_compared():
    found = np.zeros((1, 8, 8), 'u1')
    found[0, 2, 6] = 200
    expected = np.zeros((1, 2, 2), 'u1')
    expected[0, 0, 1] = 200
    assert compare('edges', found, expected, 'engine fp32', stride=4).value == 0


def test_what_cannot_be_compared_is_said():
    expected = image([1.0, 2.0])
    other = compare('depth', expected.astype(np.float64), expected, 'export')
    assert not other.ok
    assert str(other) == 'depth is float64 [1, 1, 2], expected float32 [1, 1, 2]'
    for value in (np.nan, np.inf):
        other = compare('depth', image([1.0, value]), expected, 'export')
        assert not other.ok
        assert str(other) == 'depth has values that are not finite'
    nothing = image([np.nan, np.inf])
    assert compare('depth', expected, nothing, 'engine fp32').value == 0


def test_every_purpose_has_a_limit_for_every_output():
    outputs = {name for kind in KINDS.values() for name in kind}
    for limits in LIMITS.values():
        assert set(limits.of) == outputs
    assert {f'engine {precision}' for precision in PRECISIONS} <= set(LIMITS)


# --- the engine is right ------------------------------------------------------------------------


def test_the_model_agrees_with_itself(shipped):
    bundle, backend = shipped
    agreements = self_check(backend, bundle, 'fp32', max_batch=2)
    assert {a.output: a.measure for a in agreements} == {
        'semantic': 'labels',
        'semantic_confidence': 'levels',
        'depth': 'relative',
        'depth_confidence': 'levels',
        'normals': 'degrees',
        'edges': 'levels',
    }
    for agreement in agreements:
        assert agreement.ok
        assert agreement.limit == LIMITS['engine fp32'].of[agreement.output]
        assert agreement.value == pytest.approx(float(agreement.measure == 'labels'), abs=1e-3)
    assert 'semantic labels 1 (limit 0.97)' in map(str, agreements)


@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'bf16'])
def test_openvino_in_its_number_formats_is_accepted(shipped, precision):
    openvino = pytest.importorskip('openvino')
    able = openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    if precision.upper() not in able:
        pytest.skip(f'this CPU has no {precision}')
    bundle, _ = shipped
    backend = open_unchecked('openvino', bundle, EngineOptions(precision=precision, threads=1))
    assert len(self_check(backend, bundle, precision)) == len(bundle.outputs)
    backend.close()


def test_a_bundle_without_probes_cannot_be_checked(tiny_bundle):
    bundle = load_bundle(tiny_bundle)
    engine = Engine(onnxruntime_of(bundle))
    assert self_check(engine, bundle, 'fp32') == []
    assert engine.runs == 0


def test_values_that_the_model_has_not_finite_are_not_compared(make_bundle, add_probes):
    folder = make_bundle()
    add_probes(folder, np.zeros((1, 64, 96, 3), np.uint8))
    edit_probes(folder, lambda a: a['depth'].__setitem__((0, 0, 0), np.inf))
    bundle = load_bundle(folder)
    spoil = lambda arrays: {**arrays, 'depth': np.full_like(arrays['depth'], np.nan)}  # noqa: E731
    assert self_check(Engine(onnxruntime_of(bundle)), bundle, 'fp32')
    with pytest.raises(SelfCheckError, match='depth has values that are not finite'):
        self_check(Engine(onnxruntime_of(bundle), after=spoil), bundle, 'fp32')


# --- the engine is wrong ------------------------------------------------------------------------


def shifted(arrays, pixels):
    return {name: np.roll(array, pixels, axis=2) for name, array in arrays.items()}


FAULTS = {
    'BGR instead of RGB': {'before': lambda images: images[..., ::-1]},
    'half the contrast': {'before': lambda images: images // 2 + 64},
    'upside down': {'before': lambda images: images[:, ::-1]},
    'a grid that is off by four pixels': {'after': lambda arrays: shifted(arrays, 4)},
    'depth in other units': {'after': lambda arrays: {**arrays, 'depth': arrays['depth'] * 1.1}},
    'normals towards the back': {'after': lambda a: {**a, 'normals': -a['normals']}},
    'two outputs swapped': {
        'after': lambda a: {**a, 'edges': a['depth_confidence'], 'depth_confidence': a['edges']}
    },
}


@pytest.fixture(scope='module', params=FAULTS)
def faulty(request, shipped):
    return Engine(shipped[1], **FAULTS[request.param])


@pytest.mark.parametrize('precision', PRECISIONS)
def test_a_wrong_engine_is_refused_at_every_precision(shipped, faulty, precision):
    with pytest.raises(SelfCheckError) as caught:
        self_check(faulty, shipped[0], precision)
    assert '\n' not in str(caught.value)


def scaled(factor):
    """The 8th convolution of the backbone has other weights."""

    def edit(weights, name):
        return weights * factor if name.endswith('blocks.2.0.conv_dw.weight') else weights

    return edit


def imagenet(values, name):
    """The mean and standard deviation of ImageNet instead of 0.5."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    new = {'scale': 1 / (255 * std), 'offset': -mean / std}
    return new[name].reshape(1, 3, 1, 1).astype(np.float32) if name in new else values


@pytest.fixture(
    scope='module',
    params=[scaled(0), scaled(1.5), imagenet],
    ids=['a layer zeroed', 'a layer scaled', 'another normalisation'],
)
def other_model(request, shipped, tmp_path_factory):
    """The shipped model with other weights, in onnxruntime."""
    onnx = pytest.importorskip('onnx')
    bundle, _ = shipped
    model = onnx.load_from_string(bundle.models['fp32'].read())
    changed = 0
    for tensor in model.graph.initializer:
        before = onnx.numpy_helper.to_array(tensor)
        after = request.param(before, tensor.name)
        if after is not before:
            tensor.CopyFrom(onnx.numpy_helper.from_array(after, tensor.name))
            changed += 1
    assert changed
    folder = tmp_path_factory.mktemp('other') / 'bundle'
    shutil.copytree(bundle.folder, folder)
    rewrite(folder, 'model', model.SerializeToString())
    return Engine(onnxruntime_of(load_bundle(folder)))


@pytest.mark.parametrize('precision', PRECISIONS)
def test_another_model_is_refused_at_every_precision(shipped, other_model, precision):
    with pytest.raises(SelfCheckError):
        self_check(other_model, shipped[0], precision)


@pytest.mark.parametrize('precision', PRECISIONS)
def test_swapped_entries_of_a_batch_are_seen_only_in_a_batch(shipped, precision):
    bundle, backend = shipped
    swapped = Engine(backend, after=lambda a: {name: array[::-1] for name, array in a.items()})
    assert self_check(swapped, bundle, precision)
    with pytest.raises(SelfCheckError, match='semantic labels 0'):
        self_check(swapped, bundle, precision, max_batch=2)


def test_the_message_has_every_output_that_is_off_with_value_and_limit(tiny):
    bundle, backend = tiny
    change = lambda a: {**a, 'depth': a['depth'] * 1.31, 'edges': a['saliency']}  # noqa: E731
    with pytest.raises(SelfCheckError, match=r'^depth relative 0\.31 > 0\.014, edges levels \d+'):
        self_check(Engine(backend, after=change), bundle, 'fp32')


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_single_value_that_is_not_finite_is_refused(tiny, value):
    bundle, backend = tiny

    def spoil(arrays):
        depth = arrays['depth'].copy()
        depth[0, 5, 7] = value  # between the sampled pixels
        return {**arrays, 'depth': depth}

    with pytest.raises(SelfCheckError, match=r'^depth has values that are not finite$'):
        self_check(Engine(backend, after=spoil), bundle, 'int8')


@pytest.mark.parametrize('probe', [0, 1])
def test_one_probe_that_gives_no_numbers_is_enough(tiny, probe):
    bundle, backend = tiny
    spoilt = []

    def spoil(arrays):
        spoilt.append(len(spoilt) == probe)
        return {**arrays, 'depth': np.full_like(arrays['depth'], np.nan)} if spoilt[-1] else arrays

    engine = Engine(backend, after=spoil)
    with pytest.raises(SelfCheckError, match=r'^depth has values that are not finite$'):
        self_check(engine, bundle, 'fp32')
    assert spoilt == [probe == 0, probe == 1]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda a: a.astype(np.float16), r'depth is float16 \[1, 64, 96\], expected float32'),
        (lambda a: a[:, :32], r'depth is float32 \[1, 32, 96\], expected float32 \[1, 64, 96\]'),
    ],
)
def test_another_dtype_or_shape_is_refused(tiny, change, message):
    bundle, backend = tiny
    engine = Engine(backend, after=lambda a: {**a, 'depth': change(a['depth'])})
    with pytest.raises(SelfCheckError, match=message):
        self_check(engine, bundle, 'fp32')


def test_a_missing_output_is_refused(tiny):
    bundle, backend = tiny
    engine = Engine(backend, after=lambda a: {k: v for k, v in a.items() if k != 'edges'})
    with pytest.raises(SelfCheckError, match='edges is missing'):
        self_check(engine, bundle, 'fp32')


def test_an_engine_that_fails_is_no_wrong_engine(tiny):
    bundle, _ = tiny
    backend = onnxruntime_of(bundle)
    backend.close()
    with pytest.raises(EngineError, match='closed') as caught:
        self_check(backend, bundle, 'fp32')
    assert not isinstance(caught.value, SelfCheckError)


# --- the probes are wrong -----------------------------------------------------------------------


def rewrite(folder, section, content):
    """Replace a file of a bundle, and its hash."""
    import hashlib

    import yaml

    path = folder / 'bundle.yaml'
    description = yaml.safe_load(path.read_text())
    (folder / description[section]['file']).write_bytes(content)
    description[section]['sha256'] = hashlib.sha256(content).hexdigest()
    path.write_text(yaml.safe_dump(description, sort_keys=False))


def edit_probes(folder, edit):
    import io

    arrays = dict(np.load(folder / 'probes.npz'))
    edit(arrays)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    rewrite(folder, 'probes', stream.getvalue())


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (lambda a: a.pop('stride'), 'stride is .*, expected a whole number'),
        (lambda a: a.update(stride=np.int64(0)), 'stride is 0'),
        (lambda a: a.pop('images'), 'images are'),
        (lambda a: a.update(images=a['images'][:0]), 'images are'),
        (lambda a: a.update(images=a['images'][:, :50]), r'expected uint8 \[P, 64, 96, 3\]'),
        (lambda a: a.update(images=a['images'].astype(np.float32)), 'images are float32'),
        (lambda a: a.pop('depth'), r'depth is missing, expected float32 \[2, 8, 12\]'),
        (lambda a: a.update(normals=a['normals'][:, :4]), r'normals is float32 \[2, 4, 12, 3\]'),
        (lambda a: a.update(edges=np.array([{}], object)), 'is not an archive of NumPy arrays'),
    ],
)
def test_probes_that_are_not_what_they_should_be(probed_bundle, tmp_path, edit, message):
    folder = tmp_path / 'bundle'
    shutil.copytree(probed_bundle, folder)
    edit_probes(folder, edit)
    bundle = load_bundle(folder)
    with pytest.raises(BundleError, match=rf'probes\.npz: .*{message}'):
        self_check(onnxruntime_of(bundle), bundle, 'fp32')


def test_probes_that_are_no_archive(probed_bundle, tmp_path):
    folder = tmp_path / 'bundle'
    shutil.copytree(probed_bundle, folder)
    rewrite(folder, 'probes', b'no archive')
    bundle = load_bundle(folder)
    with pytest.raises(BundleError, match=r'probes\.npz: is not an archive'):
        self_check(onnxruntime_of(bundle), bundle, 'fp32')


# --- the shipped bundle -------------------------------------------------------------------------


@pytest.mark.parametrize('precision', ['fp32', 'int8'])
def test_the_shipped_probes_know_the_model_and_refuse_swapped_channels(precision):
    """An int8 engine is compared with the int8 model: far closer than fp32 is to it."""
    bundle = load_bundle(default_bundle())
    backend = open_unchecked('onnxruntime', bundle, EngineOptions(threads=1, precision=precision))
    purpose = 'engine int8 to itself' if precision == 'int8' else 'engine fp32'
    for agreement in self_check(backend, bundle, precision):
        assert agreement.limit == LIMITS[purpose].of[agreement.output]
    swapped = Engine(backend, before=lambda images: images[..., ::-1])
    with pytest.raises(SelfCheckError, match=r'semantic labels .* normals degrees'):
        self_check(swapped, bundle, precision)
    backend.close()


def test_another_engine_on_the_shipped_int8_model_is_accepted():
    pytest.importorskip('openvino')
    bundle = load_bundle(default_bundle())
    backend = open_unchecked('openvino', bundle, EngineOptions(threads=1, precision='int8'))
    assert len(self_check(backend, bundle, 'int8')) == len(bundle.outputs)
    backend.close()
