"""The table of outputs: what each needs, gives and is called, and that the docs say the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
