"""A bundle loads whole, or one sentence says which file and key is wrong and what it should be."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtl_perception.bundle import (
    SHIPPED_BUNDLES,
    BundleError,
    SemanticClass,
    default_bundle,
    load_bundle,
)


def refused(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    message = str(caught.value)
    assert '\n' not in message
    return message


def test_loads_what_the_description_says(tiny_bundle):
    bundle = load_bundle(tiny_bundle)
    assert (bundle.name, bundle.version, bundle.licence) == ('tiny', '1.0.0', 'Apache-2.0')
    assert (bundle.width, bundle.height) == (96, 64)
    assert bundle.metric
    assert bundle.canonical_focal == 100.0
    assert list(bundle.tasks) == ['semantic', 'depth', 'normals', 'edges', 'saliency']
    assert bundle.outputs == {
        'semantic': 'uint8',
        'semantic_confidence': 'uint8',
        'depth': 'float32',
        'depth_confidence': 'uint8',
        'normals': 'float32',
        'edges': 'uint8',
        'saliency': 'uint8',
    }
    assert bundle.classes[1] == SemanticClass(1, 'green thing', (30, 200, 30))
    assert bundle.tasks['depth'].range == (0.5, 10.0)
    assert bundle.models['fp32'].path.name == 'model.onnx'


def test_relative_depth_has_no_canonical_focal(make_bundle):
    def relative(d):
        d['metric'] = False
        del d['canonical_focal']
        d['tasks']['depth']['unit'] = 'relative'

    bundle = load_bundle(make_bundle(relative))
    assert not bundle.metric
    assert bundle.canonical_focal is None


def test_any_subset_of_tasks_is_a_bundle(make_bundle):
    bundle = load_bundle(make_bundle(lambda d: d.update(tasks={'edges': d['tasks']['edges']})))
    assert bundle.outputs == {'edges': 'uint8'}
    assert bundle.classes == ()


def semantic(d):
    return d['tasks']['semantic']


FAULTS = {
    'newer schema': (lambda d: d.update(schema=2), ['schema is 2', 'at most 1', 'newer']),
    'no schema': (lambda d: d.pop('schema'), ['schema is missing']),
    'schema is text': (lambda d: d.update(schema='1'), ["schema is '1'"]),
    'version is a number': (lambda d: d.update(version=1.0), ['version is 1.0', 'quotes']),
    'no licence': (lambda d: d.pop('licence'), ['licence is missing']),
    'bgr': (lambda d: d['input'].update(color='bgr'), ["input.color is 'bgr'", "'rgb'"]),
    'float input': (lambda d: d['input'].update(dtype='float32'), ['input.dtype', "'uint8'"]),
    'other tensor': (lambda d: d['input'].update(tensor='x'), ['input.tensor', "'image'"]),
    'odd size': (lambda d: d['input'].update(height=100), ['input.height is 100', 'of 32']),
    'zero size': (lambda d: d['input'].update(width=0), ['input.width is 0']),
    'bool size': (lambda d: d['input'].update(width=True), ['input.width is True']),
    'no focal': (lambda d: d.pop('canonical_focal'), ['canonical_focal is missing']),
    'NaN focal': (lambda d: d.update(canonical_focal=float('nan')), ['canonical_focal is nan']),
    'zero focal': (lambda d: d.update(canonical_focal=0), ['canonical_focal is 0', 'positive']),
    'focal but relative': (lambda d: d.update(metric=False), ['canonical_focal is given']),
    'metric is text': (lambda d: d.update(metric='yes'), ["metric is 'yes'", 'true or false']),
    'no tasks': (lambda d: d.update(tasks={}), ['tasks is empty']),
    'unknown kind': (
        lambda d: semantic(d).update(kind='panoptic'),
        ["tasks.semantic.kind is 'panoptic'", 'semantic, depth'],
    ),
    'unknown output': (
        lambda d: d['tasks']['edges'].update(outputs={'boundaries': 'uint8'}),
        ['tasks.edges.outputs.boundaries', 'expected edges'],
    ),
    'wrong dtype': (
        lambda d: d['tasks']['depth']['outputs'].update(depth='float16'),
        ["tasks.depth.outputs.depth is 'float16'", "'float32'"],
    ),
    'only the confidence': (
        lambda d: d['tasks']['depth']['outputs'].pop('depth'),
        ['tasks.depth.outputs.depth is missing'],
    ),
    'same tensor twice': (
        lambda d: d['tasks'].update(borders=d['tasks']['edges']),
        ['tasks.borders', "'edges'"],
    ),
    'depth in feet': (lambda d: d['tasks']['depth'].update(unit='ft'), ['tasks.depth.unit', "'m'"]),
    'range backwards': (
        lambda d: d['tasks']['depth'].update(range=[10, 1]),
        ['tasks.depth.range is [10, 1]', 'nearest, farthest'],
    ),
    'world normals': (
        lambda d: d['tasks']['normals'].update(frame='world'),
        ["tasks.normals.frame is 'world'", "'optical'"],
    ),
    'no classes': (lambda d: semantic(d).pop('classes'), ['tasks.semantic.classes is missing']),
    'class id 255': (
        lambda d: semantic(d)['classes'][2].update(id=255),
        ['tasks.semantic.classes[2].id is 255', '0 to 254'],
    ),
    'class id twice': (
        lambda d: semantic(d)['classes'][2].update(id=0),
        ['classes[2].id is 0', 'red thing'],
    ),
    'class colour': (
        lambda d: semantic(d)['classes'][0].update(color=[0, 0, 256]),
        ['classes[0].color is [0, 0, 256]'],
    ),
    'hash wrong': (lambda d: d['model'].update(sha256='0' * 64), ['model.onnx', 'sha256', '0000']),
    'hash malformed': (lambda d: d['model'].update(sha256='abc'), ['model.sha256', '64']),
    'model missing': (lambda d: d['model'].update(file='net.onnx'), ['net.onnx', 'no such file']),
    'model by absolute path': (
        lambda d: d['model'].update(file='/etc/passwd'),
        ["model.file is '/etc/passwd'", 'inside the folder'],
    ),
    'model above': (
        lambda d: d['model'].update(file='../tiny/model.onnx'),
        ['model.file', 'inside the folder'],
    ),
}


@pytest.fixture
def with_parts(make_bundle):
    """A function that gives a bundle with probes and an int8 variant, its description edited."""

    def make(edit=lambda description: None):
        content, probes = b'another model', b'not looked into'

        def describe(d):
            d['variants'] = {'int8': named('int8.onnx', content)}
            d['probes'] = named('probes.npz', probes)
            edit(d)

        folder = make_bundle(describe)
        (folder / 'int8.onnx').write_bytes(content)
        (folder / 'probes.npz').write_bytes(probes)
        return folder

    return make


def named(file, content):
    return {'file': file, 'sha256': hashlib.sha256(content).hexdigest()}


def test_variants_and_probes_are_found(with_parts, tiny_bundle):
    folder = with_parts()
    bundle = load_bundle(folder)
    assert list(bundle.models) == ['fp32', 'int8']
    assert bundle.models['fp32'].read() == (folder / 'model.onnx').read_bytes()
    assert bundle.models['int8'].read() == (folder / 'int8.onnx').read_bytes()
    assert bundle.sha256 == bundle.models['fp32'].sha256 != bundle.models['int8'].sha256
    assert bundle.probes.read() == b'not looked into'
    assert load_bundle(tiny_bundle).probes is None


def test_a_file_is_read_as_it_was_when_the_bundle_was_loaded(with_parts):
    folder = with_parts()
    bundle = load_bundle(folder)
    (folder / 'int8.onnx').write_bytes(b'another')
    (folder / 'probes.npz').unlink()
    with pytest.raises(BundleError, match=r'int8\.onnx: changed since the bundle was loaded'):
        bundle.models['int8'].read()
    with pytest.raises(BundleError, match=r'probes\.npz: cannot be read: No such file'):
        bundle.probes.read()


PART_FAULTS = {
    'unknown variant': (
        lambda d: d['variants'].update(int4=d['variants']['int8']),
        ['variants.int4 is unknown', 'expected fp16, int8, int8_u8s8'],
    ),
    'fp32 twice': (
        lambda d: d['variants'].update(fp32=d['variants']['int8']),
        ['variants.fp32 is unknown'],
    ),
    'variants is a list': (lambda d: d.update(variants=['int8']), ['variants is', 'a mapping']),
    'variant is a text': (
        lambda d: d.update(variants={'int8': 'int8.onnx'}),
        ["variants.int8 is 'int8.onnx'", 'a mapping'],
    ),
    'variant hash': (
        lambda d: d['variants']['int8'].update(sha256='0' * 64),
        ['int8.onnx: sha256 is', 'expected 0000', 'variants.int8.sha256'],
    ),
    'variant missing': (
        lambda d: d['variants']['int8'].update(file='int9.onnx'),
        ['int9.onnx: no such file', 'variants.int8.file'],
    ),
    'variant outside': (
        lambda d: d['variants']['int8'].update(file='../tiny/int8.onnx'),
        ["variants.int8.file is '../tiny/int8.onnx'", 'inside the folder'],
    ),
    'probes hash': (
        lambda d: d['probes'].update(sha256='0' * 64),
        ['probes.npz: sha256 is', 'probes.sha256'],
    ),
    'probes outside': (
        lambda d: d['probes'].update(file='/etc/passwd'),
        ["probes.file is '/etc/passwd'", 'inside the folder'],
    ),
    'no hash': (lambda d: d['probes'].pop('sha256'), ['probes.sha256 is missing']),
}


@pytest.mark.parametrize('fault', PART_FAULTS)
def test_says_what_is_wrong_with_a_part(with_parts, fault):
    edit, words = PART_FAULTS[fault]
    message = refused(with_parts(edit))
    for word in words:
        assert word in message


@pytest.mark.parametrize('fault', FAULTS)
def test_says_what_is_wrong(make_bundle, fault):
    edit, words = FAULTS[fault]
    folder = make_bundle(edit)
    message = refused(folder)
    assert str(folder) in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ('content', 'word'),
    [
        ('a: [1', 'not valid YAML'),
        ('- 1', 'expected a mapping'),
        ('', 'expected a mapping'),
        ('!!python/object/apply:os.system ["true"]', 'not valid YAML'),
    ],
)
def test_a_description_that_is_none(make_bundle, content, word):
    folder = make_bundle()
    (folder / 'bundle.yaml').write_text(content)
    assert word in refused(folder)


def test_missing_folder_and_missing_description(tmp_path):
    assert 'no such folder' in refused(tmp_path / 'nothing')
    assert 'bundle.yaml: no such file' in refused(tmp_path)


def test_a_link_out_of_the_folder_is_refused(make_bundle, tmp_path):
    folder = make_bundle()
    shutil.move(folder / 'model.onnx', tmp_path / 'elsewhere.onnx')
    (folder / 'model.onnx').symlink_to(tmp_path / 'elsewhere.onnx')
    assert 'inside the folder' in refused(folder)


def test_a_symlink_install_works(make_bundle, tmp_path):
    source, installed = make_bundle(), tmp_path / 'install'
    installed.mkdir()
    for path in source.iterdir():
        (installed / path.name).symlink_to(path)
    assert load_bundle(installed).name == 'tiny'


def test_weights_in_other_files_are_refused(make_bundle, tmp_path):
    onnx = pytest.importorskip('onnx')
    model = onnx.load(make_bundle(name='whole') / 'model.onnx')
    onnx.save_model(
        model,
        tmp_path / 'split.onnx',
        save_as_external_data=True,
        location='weights.bin',
        size_threshold=0,
    )
    split = (tmp_path / 'split.onnx').read_bytes()
    folder = make_bundle(model=split)
    shutil.copy(tmp_path / 'weights.bin', folder)
    message = refused(folder)
    assert 'model.onnx' in message
    assert 'weights' in message

    variants = {'int8': named('int8.onnx', split)}
    folder = make_bundle(lambda d: d.update(variants=variants), name='variant')
    (folder / 'int8.onnx').write_bytes(split)
    shutil.copy(tmp_path / 'weights.bin', folder)
    message = refused(folder)
    assert 'int8.onnx' in message
    assert 'weights' in message


@pytest.mark.parametrize('name', SHIPPED_BUNDLES)
def test_shipped_bundles_are_whole_and_known_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundle = load_bundle(name)
    assert bundle.name == name
    assert bundle.metric
    assert 16 <= len(bundle.classes) <= 20
    assert set(bundle.tasks) >= {'semantic', 'depth', 'normals', 'edges'}
    assert bundle.models['fp32'].path.stat().st_size < 20e6
    (tmp_path / name).mkdir()
    with pytest.raises(BundleError, match=r'bundle\.yaml'):  # a folder of one's own comes first
        load_bundle(name)


def test_the_default_bundle_is_the_first_that_is_shipped():
    assert default_bundle() == load_bundle(SHIPPED_BUNDLES[0]).folder


def test_loading_needs_neither_torch_nor_ros_nor_an_engine(tiny_bundle):
    root = Path(__file__).parents[1]
    code = (
        'import sys; from mtl_perception.bundle import load_bundle;'
        'import mtl_perception.pipeline, mtl_perception.clouds, mtl_perception.images;'
        f'import mtl_perception.colors; load_bundle({str(tiny_bundle)!r});'
        'print(sorted({"torch", "rclpy", "onnxruntime", "onnx"} & set(sys.modules)))'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=root)
    assert result.stdout.strip() == '[]', result.stderr
