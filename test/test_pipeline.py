"""Predictions mean what the topics promise: aligned, honest about depth, only what is wanted."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_perception.bundle import BundleError, load_bundle
from mtl_perception.camera import CameraError, CameraModel, Letterbox
from mtl_perception.engines.engine import EngineOptions
from mtl_perception.engines.opening import open_unchecked
from mtl_perception.pipeline import Frame, Options, Pipeline

CAMERA = CameraModel(192, 96, 400.0, 400.0, 95.5, 47.5)  # half of it on the grid: fx 200


class Recorder:
    """An engine that notes what it was asked for."""

    def __init__(self, engine):
        self.engine, self.calls = engine, []

    def run(self, images, outputs):
        self.calls.append((images.shape, list(outputs)))
        return self.engine.run(images, outputs)


@pytest.fixture
def pipeline(tiny_bundle):
    pytest.importorskip('onnxruntime')
    bundle = load_bundle(tiny_bundle)
    engine = open_unchecked('onnxruntime', bundle, EngineOptions(threads=1, max_batch=3))
    return Pipeline(bundle, Recorder(engine))


def picture(width=192, height=96, color=(100, 255, 0)):
    return np.full((height, width, 3), color, np.uint8)


def test_one_grid_for_everything(pipeline):
    wanted = list(pipeline.bundle.outputs)
    (prediction,) = pipeline([Frame(picture(), CAMERA)], wanted)
    assert list(prediction.arrays) == wanted
    assert {array.shape[:2] for array in prediction.arrays.values()} == {(48, 96)}
    assert prediction.image.shape == (48, 96, 3)
    assert (prediction.calibration.width, prediction.calibration.height) == (96, 48)
    assert (prediction.image == (100, 255, 0)).all()
    assert (prediction.arrays['semantic'] == 1).all()
    assert (prediction.arrays['edges'] == 0).all()


def test_depth_is_in_metres_of_this_camera(pipeline):
    """The network says 5 m for focal length 100; this camera has 200 on the grid: 10 m."""
    (prediction,) = pipeline([Frame(picture(), CAMERA)], ['depth'])
    np.testing.assert_allclose(prediction.arrays['depth'], 10.0, rtol=1e-6)
    assert prediction.metric
    wide = CameraModel(192, 96, 100.0, 100.0, 95.5, 47.5)
    (prediction,) = pipeline([Frame(picture(), wide)], ['depth'])
    np.testing.assert_allclose(prediction.arrays['depth'], 2.5, rtol=1e-6)


def test_depth_of_the_same_view_does_not_depend_on_resolution(pipeline):
    big = CAMERA.scaled(4, 4, width=768, height=384)
    results = pipeline([Frame(picture(), CAMERA), Frame(picture(768, 384), big)], ['depth'])
    np.testing.assert_allclose(results[0].arrays['depth'], results[1].arrays['depth'], rtol=1e-6)


def test_beyond_the_range_is_infinite_and_near_is_kept(pipeline):
    """The range is in canonical metres; the far end is never clipped to, the near end is kept."""
    image = picture()
    image[:, :64] = (220, 255, 0)  # 11 m > 10 m
    image[:, 64:128] = (200, 255, 0)  # 10 m: the last that is in range
    image[:, 128:] = (2, 255, 0)  # 0.1 m < 0.5 m
    (prediction,) = pipeline([Frame(image, CAMERA)], ['depth'])
    depth = prediction.arrays['depth']
    assert np.isposinf(depth[:, :32]).all()
    np.testing.assert_allclose(depth[:, 32:64], 20.0, rtol=1e-6)
    np.testing.assert_allclose(depth[:, 64:], 0.2, rtol=1e-6)


def test_unsure_depth_is_nan(pipeline):
    image = picture()
    image[:, :96, 1] = 99
    image[:, 96:, 1] = 100
    image[:48, :96, 0] = 255  # beyond the range and unsure: unknown, not far
    pipeline.options = Options(min_depth_confidence=100)
    (prediction,) = pipeline([Frame(image, CAMERA)], ['depth'])
    assert np.isnan(prediction.arrays['depth'][:, :48]).all()
    assert np.isfinite(prediction.arrays['depth'][:, 48:]).all()
    assert list(prediction.arrays) == ['depth']
    assert pipeline.engine.calls[-1][1] == ['depth', 'depth_confidence']


def test_no_depth_without_calibration_unless_allowed(pipeline):
    (prediction,) = pipeline([Frame(picture())], ['depth', 'depth_confidence', 'edges'])
    assert set(prediction.arrays) == {'depth_confidence', 'edges'}
    assert 'depth' not in pipeline.engine.calls[-1][1]
    assert prediction.calibration is None
    assert not prediction.metric
    pipeline.options = Options(allow_uncalibrated=True)
    (prediction,) = pipeline([Frame(picture())], ['depth'])
    np.testing.assert_allclose(prediction.arrays['depth'], 5.0)
    assert not prediction.metric


def test_relative_depth_is_never_called_metric(make_bundle):
    def relative(d):
        d['metric'] = False
        del d['canonical_focal']

    bundle = load_bundle(make_bundle(relative))
    pipeline = Pipeline(bundle, open_unchecked('onnxruntime', bundle, EngineOptions(threads=1)))
    assert 'depth' not in pipeline([Frame(picture(), CAMERA)], ['depth'])[0].arrays
    pipeline.options = Options(allow_uncalibrated=True)
    (prediction,) = pipeline([Frame(picture(), CAMERA)], ['depth'])
    np.testing.assert_allclose(prediction.arrays['depth'], 5.0)
    assert not prediction.metric


def test_only_the_wanted_is_asked_of_the_engine(pipeline):
    pipeline([Frame(picture(), CAMERA)], ['edges'])
    assert pipeline.engine.calls == [((1, 64, 96, 3), ['edges'])]
    (prediction,) = pipeline([Frame(picture(), CAMERA)], [])
    assert prediction.arrays == {}
    assert pipeline([], ['edges']) == []
    with pytest.raises(ValueError, match='no output sky'):
        pipeline([Frame(picture())], ['sky'])


def test_cameras_of_one_batch_keep_their_own_size_and_calibration(pipeline):
    frames = [
        Frame(picture(color=(100, 0, 0)), CAMERA),
        Frame(picture(48, 96, color=(0, 0, 50))),
    ]
    first, second = pipeline(frames, ['depth', 'semantic', 'edges'])
    assert pipeline.engine.calls == [((2, 64, 96, 3), ['semantic', 'depth', 'edges'])]
    assert first.arrays['semantic'].shape == (48, 96)
    assert (first.arrays['semantic'] == 0).all()
    assert 'depth' in first.arrays
    assert second.arrays['semantic'].shape == (64, 32)
    assert (second.arrays['edges'] == 50).all()
    assert 'depth' not in second.arrays


def test_a_batch_gives_what_single_frames_give(pipeline):
    rng = np.random.default_rng(0)
    frames = [Frame(rng.integers(0, 256, (96, 192, 3), np.uint8), CAMERA) for _ in range(3)]
    wanted = list(pipeline.bundle.outputs)
    for frame, together in zip(frames, pipeline(frames, wanted), strict=True):
        (alone,) = pipeline([frame], wanted)
        for name in wanted:
            np.testing.assert_array_equal(alone.arrays[name], together.arrays[name])


def test_predictions_outlive_the_next_call(pipeline):
    (first,) = pipeline([Frame(picture(color=(10, 20, 30)), CAMERA)], ['edges', 'depth'])
    pipeline([Frame(picture(color=(90, 90, 90)), CAMERA)], ['edges', 'depth'])
    assert (first.image == (10, 20, 30)).all()
    assert (first.arrays['edges'] == 30).all()


def test_camera_info_for_another_view_is_refused(pipeline):
    with pytest.raises(CameraError, match='192x96 but the image is 192x192'):
        pipeline([Frame(picture(192, 192), CAMERA)], ['depth'])


def test_a_threshold_needs_a_confidence(make_bundle):
    bundle = load_bundle(
        make_bundle(lambda d: d['tasks']['depth'].update(outputs={'depth': 'float32'}))
    )
    with pytest.raises(BundleError, match='no depth_confidence'):
        Pipeline(bundle, open_unchecked('onnxruntime', bundle), Options(min_depth_confidence=1))


def test_unsure_labels_are_unlabelled(pipeline):
    image = picture()
    image[:, :96] = (0, 99, 0)  # the confidence is the strongest colour
    image[:, 96:] = (0, 100, 0)
    pipeline.options = Options(min_semantic_confidence=100)
    (prediction,) = pipeline([Frame(image, CAMERA)], ['semantic'])
    assert (prediction.arrays['semantic'][:, :48] == 255).all()
    assert (prediction.arrays['semantic'][:, 48:] == 1).all()
    assert list(prediction.arrays) == ['semantic']


def test_depth_beyond_the_largest_range_is_infinite(pipeline):
    image = picture()
    image[:, :96, 0] = 80  # 8 m of this camera
    for limit, far in ((8.0, np.inf), (12.0, 10.0)):
        pipeline.options = Options(max_range=limit)
        (prediction,) = pipeline([Frame(image, CAMERA)], ['depth'])
        np.testing.assert_allclose(prediction.arrays['depth'][:, :48], 8.0, rtol=1e-6)
        np.testing.assert_allclose(prediction.arrays['depth'][:, 48:], far, rtol=1e-6)


def test_only_chosen_tasks_are_computed(pipeline):
    pipeline.options = Options(tasks=['semantic', 'edges'])
    (prediction,) = pipeline([Frame(picture(), CAMERA)], ['depth', 'semantic', 'normals'])
    assert list(prediction.arrays) == ['semantic']
    assert pipeline.engine.calls[-1][1] == ['semantic']
    assert prediction.options.tasks == ['semantic', 'edges']


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'tasks': ['depth', 'sky']}, "tasks has 'sky', expected of semantic, depth, normals"),
        ({'mask_classes': ['person']}, "mask_classes has 'person', expected of red thing, green"),
    ],
)
def test_options_that_the_bundle_does_not_know(pipeline, options, words):
    with pytest.raises(BundleError, match=words):
        pipeline.options = Options(**options)


def test_warming_up_runs_everything_once(pipeline):
    pipeline.warm_up()
    assert pipeline.engine.calls == [((1, 64, 96, 3), list(pipeline.bundle.outputs))]


def test_a_prediction_knows_its_frame_its_grid_and_what_it_took(pipeline):
    front = Frame(picture(), CAMERA, camera='front', frame_id='front_optical', stamp=7)
    rear = Frame(picture(48, 96), camera='rear', stamp=8)
    predictions = pipeline([front, rear], ['depth', 'edges'])
    assert [prediction.frame for prediction in predictions] == [front, rear]
    assert [prediction.frame.stamp for prediction in predictions] == [7, 8]
    for prediction in predictions:
        height, width = prediction.frame.image.shape[:2]
        assert prediction.grid == Letterbox.fit(width, height, 96, 64)
        assert prediction.arrays['edges'].shape == (
            prediction.grid.content_height,
            prediction.grid.content_width,
        )
        assert list(prediction.timings_ms) == ['resize', 'engine', 'post']
        assert all(ms > 0 for ms in prediction.timings_ms.values())
