"""Augmentation keeps labels true: geometry moves them along, photometry leaves them alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from mtl_training.datasets.augment import AugmentConfig, Sample, augment, crop, distort, fit, flip
from mtl_training.datasets.batches import to_tensors
from mtl_training.labels import ROBOT_GROUPS
from mtl_training.tasks import rooms

from mtl_perception.camera import Letterbox

TASKS = rooms(ROBOT_GROUPS)
EVERYTHING = AugmentConfig(
    photometric_p=1.0,
    balance=0.1,
    exposure=1.0,
    vignette_p=0.5,
    motion_p=0.5,
    gamma=(0.7, 1.4),
    gray_p=0.5,
    blur_p=1.0,
    noise_p=1.0,
    jpeg_p=1.0,
)


def make_sample(height: int = 64, width: int = 80) -> Sample:
    """Every pixel knows its own column: image, label, depth and normals all tell it."""
    column = np.broadcast_to(np.arange(width), (height, width))
    normals = np.stack([column + 20, np.full_like(column, 128), np.full_like(column, 17)], axis=-1)
    return Sample(
        {
            'image': np.repeat(column[..., None], 3, axis=-1).astype(np.uint8),
            'semantic': (column // 8).astype(np.uint8),
            'depth': (1000 + 10 * column).astype(np.uint16),
            'normals': normals.astype(np.uint8),
            'edges': (column % 8 == 0).astype(np.uint8),
            'saliency': (column > 40).astype(np.uint8),
        },
        fx=100.0,
    )


def test_flip_mirrors_and_negates_the_x_of_normals() -> None:
    sample = make_sample()
    sample.arrays['normals'][0] = 0  # no measurement
    before = to_tensors(sample, TASKS, 100.0)['normals']
    after = to_tensors(flip(sample, TASKS), TASKS, 100.0)['normals'].flip(-1)
    np.testing.assert_allclose(after[0], -before[0], atol=1e-6)
    np.testing.assert_allclose(after[1:], before[1:], atol=1e-6)
    assert (after[:, 0] == 0).all()
    np.testing.assert_array_equal(
        flip(sample, TASKS).arrays['semantic'], sample.arrays['semantic'][:, ::-1]
    )


@pytest.mark.parametrize('scale', [0.5, 0.8, 1.6, 2.0])
def test_scale_keeps_metres_and_shrinks_canonical_depth(scale: float) -> None:
    sample = make_sample()
    scaled = crop(sample, TASKS, scale, 0, 0, round(64 * scale), round(80 * scale))
    assert scaled.fx == pytest.approx(100 * scale)
    metres = scaled.arrays['depth'].astype(float) / 1000
    assert metres.max() == pytest.approx(1.79, abs=0.02)
    assert metres[metres > 0].min() == pytest.approx(1.0, abs=0.02)
    canonical = to_tensors(scaled, TASKS, 277.0)['depth'][0].numpy()
    np.testing.assert_allclose(canonical * scaled.fx / 277, metres, rtol=1e-5)  # what a user undoes
    np.testing.assert_allclose(canonical, metres * 277 / (100 * scale), rtol=1e-5)


@pytest.mark.parametrize('scale', [0.6, 1.0, 1.7])
def test_labels_stay_on_their_pixels(scale: float) -> None:
    window = crop(make_sample(), TASKS, scale, 7, 5, 30, 40).arrays
    column = window['image'][..., 0].astype(int)
    np.testing.assert_allclose((window['depth'].astype(int) - 1000) / 10, column, atol=1)
    assert (np.abs(window['semantic'] * 8 + 3.5 - column) <= 5).all()


def test_a_small_frame_is_padded_without_labels() -> None:
    window = crop(make_sample(), TASKS, 0.5, -10, -4, 64, 80).arrays
    outside = np.ones((64, 80), bool)
    outside[4:36, 10:50] = False
    for name, padding in {'semantic': 255, 'depth': 0, 'edges': 255, 'saliency': 255}.items():
        assert (window[name][outside] == padding).all()
        assert (window[name][~outside] != 255).all()
    assert (window['normals'][outside] == 0).all()
    np.testing.assert_array_equal(
        window['image'][20, :10], window['image'][20, 10:11].repeat(10, 0)
    )


def test_fit_is_the_frame_itself_at_the_right_size() -> None:
    sample = make_sample()
    assert fit(sample, TASKS, 64, 80) is sample
    half = fit(sample, TASKS, 32, 48)
    assert half.fx == 50
    assert (half.arrays['semantic'][:, 4:44] != 255).all()
    assert (half.arrays['semantic'][:, [0, 1, 2, 3, 44, 45, 46, 47]] == 255).all()


@pytest.mark.parametrize(('height', 'width'), [(425, 560), (480, 640), (600, 400), (100, 140)])
def test_fit_puts_a_picture_where_the_node_does(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 3)
    fitted = fit(Sample({'image': image}, 500.0), {}, 256, 320).arrays['image'].astype(int)
    there = Letterbox.fit(width, height, 320, 256).forward(image)
    # The node stretches by the rounding of the size.
    assert np.abs(fitted - there).mean() < 0.5


def test_photometric_distortion_changes_the_picture_only() -> None:
    config = AugmentConfig(**{**vars(EVERYTHING), 'scale': (1.0, 1.0), 'flip_p': 0.0})
    sample = make_sample()
    done = augment(sample, TASKS, config, 64, 80, np.random.default_rng(0))
    assert (done.arrays['image'] != sample.arrays['image']).any()
    for name in sample.arrays.keys() - {'image'}:
        np.testing.assert_array_equal(done.arrays[name], sample.arrays[name])


def test_no_distortion_is_the_identity() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 8, 3), np.uint8)
    np.testing.assert_array_equal(distort(image, AugmentConfig(photometric_p=0.0), rng), image)


OFF: dict[str, object] = {
    'brightness': 0.0,
    'contrast': (1.0, 1.0),
    'saturation': (1.0, 1.0),
    'hue': 0.0,
    'photometric_p': 1.0,
}


def test_brightness_adds_and_contrast_multiplies() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)  # gray: saturation and hue have no part in it
    doubled = AugmentConfig(**{**OFF, 'contrast': (1.5, 1.5)})  # type: ignore[arg-type]
    assert (distort(image, doubled, np.random.default_rng(0)) == 150).all()
    brighter = AugmentConfig(**{**OFF, 'brightness': 32.0})  # type: ignore[arg-type]
    seen = [int(distort(image, brighter, np.random.default_rng(s))[0, 0, 0]) for s in range(50)]
    assert 68 <= min(seen) < 80
    assert 120 < max(seen) <= 132


def test_exposure_is_in_stops_of_light() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    config = AugmentConfig(**{**OFF, 'exposure': 1.0})  # type: ignore[arg-type]
    seen = [int(distort(image, config, np.random.default_rng(s))[0, 0, 0]) for s in range(60)]
    # Half and double the light are 73 and 137 of 255, as sRGB has it.
    assert 73 <= min(seen) < 77
    assert 132 < max(seen) <= 137


def test_corners_lose_light_and_the_middle_does_not() -> None:
    image = np.full((101, 201, 3), 200, np.uint8)
    config = AugmentConfig(photometric_p=0.0, vignette_p=1.0, vignette=(0.5, 0.5))
    done = distort(image, config, np.random.default_rng(0))
    assert (done[50, 100] == 200).all()
    corner = 200 * 0.5 ** (1 / 2.2)
    for y, x in ((0, 0), (0, 200), (100, 0), (100, 200)):
        np.testing.assert_allclose(done[y, x], corner, atol=2)
    half = 200 * 0.75 ** (1 / 2.2)  # the middle of a side is half as far, squared
    np.testing.assert_allclose([done[0, 100, 0], done[50, 0, 0]], half, atol=2)


def test_motion_smears_a_point_into_a_line_that_is_as_bright() -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    config = AugmentConfig(photometric_p=0.0, motion_p=1.0, motion_length=(9.0, 9.0))
    angles = set()
    for seed in range(8):
        done = distort(image, config, np.random.default_rng(seed))[..., 0].astype(float)
        assert done.sum() == pytest.approx(255, rel=0.1)
        y, x = np.nonzero(done)
        spread = np.cov(np.stack([x, y]), aweights=done[y, x])
        short, long = np.linalg.eigvalsh(spread)
        assert short < 0.12 * long
        assert long**0.5 * 12**0.5 == pytest.approx(9, abs=1.5)  # a uniform line of 9 px
        angles.add(round(float(np.arctan2(*np.linalg.eigh(spread)[1][:, 1])), 1))
    assert len(angles) > 4


def test_saturation_and_hue_are_drawn_apart() -> None:
    image = np.full((4, 4, 3), (200, 100, 100), np.uint8)  # hue 0, half saturated
    config = AugmentConfig(
        **{**OFF, 'saturation': (1.5, 1.5), 'hue': 18.0, 'photometric_p': 0.5}  # type: ignore[arg-type]
    )
    seen = set()
    for seed in range(60):
        pixel = distort(image, config, np.random.default_rng(seed))[:1, :1]
        hue, saturation, value = cv2.cvtColor(pixel, cv2.COLOR_RGB2HSV)[0, 0]
        assert value == 200
        seen.add((bool(saturation > 150), bool(hue not in (0, 179))))
    assert seen == {(False, False), (True, False), (False, True), (True, True)}


def test_same_seed_same_bytes() -> None:
    runs = [
        augment(make_sample(), TASKS, EVERYTHING, 48, 64, np.random.default_rng(seed)).arrays
        for seed in (3, 3, 4)
    ]
    for name in runs[0]:
        np.testing.assert_array_equal(runs[0][name], runs[1][name])
    assert (runs[0]['image'] != runs[2]['image']).any()


def test_crops_of_one_class_are_drawn_again() -> None:
    sample = make_sample(64, 160)
    sample.arrays['semantic'][:, :120] = 0  # three quarters are wall
    config = AugmentConfig(scale=(2.0, 2.0), cat_max_ratio=0.75)
    generators = [np.random.default_rng(seed) for seed in range(40)]
    crops = [augment(sample, TASKS, config, 64, 80, rng).arrays for rng in generators]
    shares = [(window['semantic'] == 0).mean() for window in crops]
    assert np.mean(np.array(shares) >= 0.8) < 0.3  # without another draw: about 0.7
