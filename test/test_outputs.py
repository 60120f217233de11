"""The table of outputs: what each needs, gives and is called, and that the docs say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtl_perception import colors
from mtl_perception.bundle import load_bundle
from mtl_perception.camera import CameraModel
from mtl_perception.clouds import Cloud
from mtl_perception.engines.engine import EngineOptions
from mtl_perception.engines.opening import open_unchecked
from mtl_perception.images import LAYOUTS
from mtl_perception.outputs import (
    CAMERA_INFO,
    CLOUD,
    COMPRESSED,
    IMAGE,
    OUTPUTS,
    outputs_of,
    topics_markdown,
)
from mtl_perception.pipeline import Frame, Options, Pipeline

ROOT = Path(__file__).resolve().parents[1]
CAMERA = CameraModel(192, 96, 200.0, 200.0, 95.5, 47.5)


@pytest.fixture
def pipeline(tiny_bundle):
    bundle = load_bundle(tiny_bundle)
    return Pipeline(bundle, open_unchecked('onnxruntime', bundle, EngineOptions(threads=1)))


def predict(pipeline, wanted, camera=CAMERA):
    image = np.full((96, 192, 3), (100, 255, 0), np.uint8)
    return pipeline([Frame(image, camera)], wanted)[0]


def test_every_output_needs_no_more_than_it_says_and_is_what_it_says(pipeline):
    outputs = outputs_of(pipeline.bundle)
    for output in outputs:
        content = output.maker(pipeline.bundle)(
            predict(pipeline, output.tensors(pipeline.bundle)),
        )
        if output.type == IMAGE:
            dtype, channels = LAYOUTS[output.encoding]
            assert content.dtype == dtype
            assert content.shape == (48, 96, 3)[: 2 + (channels == 3)]
        elif output.type == CLOUD:
            assert isinstance(content, Cloud)
            assert (content.height, content.width) == (48, 96)
            labels = np.frombuffer(content.data, np.uint32).reshape(48, 96, 8)[..., 4]
            assert (labels == 1).all(), 'what it uses it has got'
        elif output.type == COMPRESSED:
            assert isinstance(content, bytes)
        else:
            assert output.type == CAMERA_INFO
            assert (content.width, content.height, content.fx) == (96, 48, 100.0)
    assert {output.name for output in OUTPUTS} - {output.name for output in outputs} == {
        'human_parts',
        'human_parts/compressed',
    }


def test_pictures_show_what_the_network_says(pipeline):
    prediction = predict(pipeline, pipeline.bundle.outputs)
    content = {o.name: o.maker(pipeline.bundle)(prediction) for o in outputs_of(pipeline.bundle)}
    assert content['semantic_color'][0, 0].tolist() == [30, 200, 30]
    assert content['normals_color'][0, 0].tolist() == [128, 128, 255]
    near, far = content['depth_color'][0, 0].astype(int)[[0, 2]]
    assert far > near, '5 m of a range from 0.5 to 10 m'


def test_the_mask_shows_the_chosen_classes_and_no_other(pipeline):
    (mask,) = [output for output in OUTPUTS if output.name == 'mask']
    make = mask.maker(pipeline.bundle)
    for classes, expected in (((), 0), (['red thing'], 0), (['red thing', 'green thing'], 255)):
        pipeline.options = Options(mask_classes=classes)
        assert (make(predict(pipeline, mask.tensors(pipeline.bundle))) == expected).all()


def test_depth_in_millimetres_is_that_in_metres_where_it_is_known(pipeline):
    (output,) = [output for output in OUTPUTS if output.name == 'depth_mm']
    prediction = predict(pipeline, ['depth'])
    depth = prediction.arrays['depth']
    depth[:] = 2.0004
    depth[0, :6] = [np.nan, np.inf, -0.5, 0.0, 65.536, 65.534]
    content = output.maker(pipeline.bundle)(prediction)
    assert content[0, :7].tolist() == [0, 0, 0, 0, 0, 65534, 2000]
    assert (content[1:] == 2000).all()


def test_contents_are_bit_by_bit_what_their_formulas_say(pipeline):
    """They are computed in fewer passes than the formulas have."""
    prediction = predict(pipeline, ['depth', 'semantic'])
    arrays, rng = prediction.arrays, np.random.default_rng(0)
    depth = np.exp(rng.normal(0, 3, arrays['depth'].shape)).astype(np.float32)
    depth[::5] = 1e-3 * rng.integers(0, 70000, depth[::5].shape) + 5e-4  # ties, and the last one
    for place, value in enumerate([np.nan, np.inf, -np.inf, 0.0, -1.0, 65.535]):
        depth[rng.integers(0, 9, depth.shape) == place] = value
    labels = rng.integers(0, 256, depth.shape, np.uint8)
    arrays |= {'depth': depth, 'semantic': labels}
    contents = {
        output.name: output.maker(pipeline.bundle)(prediction)
        for output in outputs_of(pipeline.bundle)
        if not {*output.needs} - {*arrays} and not output.of
    }
    known = (depth > 0) & (depth < 65.535)
    millimetres = np.rint(np.float32(1e3) * np.where(known, depth, 0)).astype(np.uint16)
    np.testing.assert_array_equal(contents['depth_mm'], millimetres)
    shown = np.zeros(256, np.uint8)
    ids = {item.name: item.id for item in pipeline.bundle.classes}
    shown[[ids[name] for name in prediction.options.mask_classes]] = 255
    np.testing.assert_array_equal(contents['mask'], shown[labels])
    finite = np.where(np.isfinite(depth), depth, np.float32(np.nan))
    cloud = np.frombuffer(contents['points'].data, np.float32).reshape(*depth.shape, 8)
    assert cloud[..., 2].tobytes() == finite.tobytes(), 'also every NaN is the same'
    rays = prediction.calibration.rays()
    assert cloud[..., 0].tobytes() == (rays[..., 0] * finite).tobytes()
    near, far = colors.depth_range(pipeline.bundle)
    log_far = np.log(far)
    slope = 253 / (np.log(near) - log_far)
    levels = np.full(depth.shape, 255, np.uint8)
    levels[~(depth > 0)] = 0
    inside = (depth > 0) & (depth < np.inf)
    level = np.log(depth[inside]) * np.float32(slope) + np.float32(1.5 - log_far * slope)
    levels[inside] = np.clip(level, 1, 254).astype(np.uint8)
    # The logarithm of another library may be another bit, and a level with it.
    differs = (contents['depth_color'] != colors.look_up(levels, colors._depth_lut())).any(-1)
    assert differs.mean() < 1e-3
    assert not differs[~inside].any()


def test_nothing_is_made_of_tensors_that_were_not_computed(pipeline):
    empty = predict(pipeline, [])
    for output in outputs_of(pipeline.bundle):
        made = output.maker(pipeline.bundle)(empty) is not None
        assert made == (not output.needs), output.name


def test_without_calibration_everything_comes_that_does_not_depend_on_it(pipeline):
    prediction = predict(pipeline, pipeline.bundle.outputs, camera=None)
    for output in outputs_of(pipeline.bundle):
        missing = output.maker(pipeline.bundle)(prediction) is None
        assert missing == output.calibrated, output.name


def test_outputs_follow_the_bundle(make_bundle):
    everything = load_bundle(make_bundle(name='everything'))
    less = load_bundle(make_bundle(lambda d: [d['tasks'].pop(t) for t in ('depth', 'normals')]))
    assert set(outputs_of(less)) < set(outputs_of(everything))
    gone = set(outputs_of(everything)) - set(outputs_of(less))
    assert {output.name for output in gone} == {
        'depth', 'depth_mm', 'depth_confidence', 'depth_color', 'points', 'normals',
        'normals_color', 'depth/compressedDepth', 'depth_confidence/compressed',
        'depth_color/compressed', 'normals_color/compressed',
    }  # fmt: skip
    (points,) = [output for output in OUTPUTS if output.name == 'points']
    without = load_bundle(make_bundle(lambda d: d['tasks'].pop('normals'), name='no normals'))
    assert points.tensors(without) == {'depth', 'semantic'}


@pytest.mark.parametrize('name', ['README.md', 'docs/topics.md'])
def test_the_docs_show_the_table(name):
    text = (ROOT / name).read_text()
    begin, end = '<!-- ./run exec mtl_perception topics --markdown -->\n', '<!-- end of topics -->'
    assert text.partition(begin)[2].partition(end)[0] == topics_markdown(), 'renew it'
