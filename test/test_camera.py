"""Intrinsics follow the pixels through binning, cropping and letterboxing; bad ones are named."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mtl_perception.camera import IDENTITY, CameraError, CameraModel, Letterbox

K = [500.0, 0, 319.5, 0, 510.0, 239.5, 0, 0, 1]


def test_a_centred_camera_looks_straight_ahead():
    rays = CameraModel.from_calibration(640, 480, K).rays()
    assert rays.shape == (480, 640, 3)
    assert rays.dtype == np.float32
    assert (rays[..., 2] == 1).all()
    np.testing.assert_allclose(rays[239:241, 319:321].mean((0, 1)), [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(rays[0, 0], [-319.5 / 500, -239.5 / 510, 1], rtol=1e-6)


def test_rays_are_computed_once_and_protected():
    first = CameraModel.from_calibration(640, 480, K).rays()
    assert CameraModel.from_calibration(640, 480, K).rays() is first
    with pytest.raises(ValueError, match='read-only'):
        first[0, 0, 0] = 1


def test_scaling_keeps_the_rays_of_the_same_scene_points():
    """A pixel of the half-size image covers 2x2 pixels: its ray is their mean."""
    full = CameraModel.from_calibration(640, 480, K)
    half = full.scaled(0.5, 0.5, width=320, height=240)
    blocks = full.rays().reshape(240, 2, 320, 2, 3).mean((1, 3))
    np.testing.assert_allclose(half.rays(), blocks, atol=1e-6)


def test_binning_and_region_of_interest():
    """REP 104: K is for the full resolution, the image is cut out, then binned."""
    full = CameraModel.from_calibration(640, 480, K)
    part = CameraModel.from_calibration(640, 480, K, roi=(100, 60, 200, 160), binning=(2, 2))
    assert (part.width, part.height) == (100, 80)
    assert part.fx == 250
    expected = full.rays()[60:220, 100:300].reshape(80, 2, 100, 2, 3).mean((1, 3))
    np.testing.assert_allclose(part.rays(), expected, atol=1e-6)
    assert CameraModel.from_calibration(640, 480, K, binning=(0, 0)) == full
    assert CameraModel.from_calibration(640, 480, K, roi=(0, 0, 640, 480)) == full


def test_the_rectified_camera_follows_the_pixels():
    """P goes through region of interest, binning and scaling as K does; Tx scales with fx."""
    p = [400.0, 0, 320.5, -40.0, 0, 410.0, 240.5, 0, 0, 0, 1, 0]
    k = [p[0], 0, p[2], 0, p[5], p[6], 0, 0, 1]
    camera = CameraModel.from_calibration(
        640, 480, k, roi=(100, 60, 200, 160), binning=(2, 2), projection=p
    ).scaled(3, 3, 5, 7, width=300, height=240)
    assert camera.projection == pytest.approx(
        (camera.fx, 0, camera.cx, -60.0, 0, camera.fy, camera.cy, 0, 0, 0, 1, 0)
    )


@pytest.mark.parametrize('p', [[0.0] * 12, [float('nan')] * 12, [400.0] * 9])
def test_a_projection_without_focal_length_is_none(p):
    assert CameraModel.from_calibration(640, 480, K, projection=p).projection == ()


@pytest.mark.parametrize(
    ('index', 'value', 'words'),
    [
        (0, 0.0, r'uncalibrated: fx = K\[0\] is 0'),
        (0, -5.0, r'fx = K\[0\] is -5'),
        (0, float('nan'), r'fx = K\[0\] is nan'),
        (4, 0.0, r'fy = K\[4\] is 0'),
        (2, float('nan'), r'cx = K\[2\] is nan'),
        (5, float('inf'), r'cy = K\[5\] is inf'),
    ],
)
def test_uncalibrated_is_said(index, value, words):
    k = list(K)
    k[index] = value
    with pytest.raises(CameraError, match=words):
        CameraModel.from_calibration(640, 480, k)


GOOD = {'width': 640, 'height': 480, 'k': K}


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'width': 0}, 'size is 0x480'),
        ({'k': K[:4]}, 'K has 4 values'),
        ({'roi': (600, 0, 100, 100)}, 'region of interest'),
        ({'binning': (1, 512)}, 'leaves no pixel'),
        ({'d': [0.1] * 5, 'distortion_model': 'magic'}, "is 'magic'"),
        ({'d': [0.1] * 8, 'distortion_model': 'plumb_bob'}, 'D has 8 .* at most 5 for plumb_bob'),
        ({'d': [0.1] * 5, 'distortion_model': 'fisheye'}, 'D has 5 .* at most 4 for equidistant'),
        ({'d': [float('nan')] * 5, 'distortion_model': 'plumb_bob'}, 'D is'),
    ],
)
def test_impossible_calibrations_are_named(change, words):
    with pytest.raises(CameraError, match=words):
        CameraModel.from_calibration(**{**GOOD, **change})


def test_zero_distortion_is_rectified_whatever_the_model_is_called():
    camera = CameraModel.from_calibration(640, 480, K, [0.0] * 5, 'anything')
    assert not camera.distortion
    assert camera == CameraModel.from_calibration(640, 480, K)


FIVE = (-0.28, 0.07, 0.002, 0.001, 0.01)
EIGHT = (*FIVE, 0.9, -0.2, 0.02)
FOUR = (-0.02, 0.01, -0.004, 0.001)


@pytest.mark.parametrize(
    ('name', 'd', 'model', 'coefficients'),
    [
        ('Plumb Bob', FIVE, 'plumb_bob', FIVE),
        ('radtan', FIVE[:4], 'plumb_bob', (*FIVE[:4], 0.0)),
        ('radial-tangential', FIVE, 'plumb_bob', FIVE),
        ('brown_conrady', FIVE, 'plumb_bob', FIVE),
        ('plumb_bob', FIVE[:2], 'plumb_bob', (*FIVE[:2], 0.0, 0.0, 0.0)),
        ('plumb_bob', (*FIVE, 0.0, 0.0, 0.0), 'plumb_bob', FIVE),
        ('', FIVE, 'plumb_bob', FIVE),
        ('', EIGHT, 'rational_polynomial', EIGHT),
        ('rational', EIGHT, 'rational_polynomial', EIGHT),
        ('rational_polynomial', FIVE, 'rational_polynomial', (*FIVE, 0.0, 0.0, 0.0)),
        ('rational_polynomial', (*EIGHT, *[0.0] * 6), 'rational_polynomial', EIGHT),
        ('fisheye', FOUR, 'equidistant', FOUR),
        ('Kannala-Brandt4', FOUR, 'equidistant', FOUR),
        ('equidistant', (*FOUR, 0.0), 'equidistant', FOUR),
        ('equidistant', FOUR[:1], 'equidistant', (FOUR[0], 0.0, 0.0, 0.0)),
        ('Fisheye', (0.0,) * 4, 'equidistant', (0.0,) * 4),  # no pinhole
        ('equidistant', (), 'equidistant', (0.0,) * 4),
    ],
)
def test_lens_models_as_drivers_write_them(name, d, model, coefficients):
    camera = CameraModel.from_calibration(640, 480, K, d, name)
    assert (camera.distortion_model, camera.distortion) == (model, coefficients)


@pytest.mark.parametrize('r', [[0.0] * 9, [float('nan')] * 9, [2.0, 0, 0, 0, 2, 0, 0, 0, 2], []])
def test_what_is_no_rotation_is_left_out(r):
    assert CameraModel.from_calibration(640, 480, K, rectification=r).rectification == IDENTITY
    turned = [0.0, -1, 0, 1, 0, 0, 0, 0, 1]
    camera = CameraModel.from_calibration(640, 480, K, rectification=turned)
    assert camera.rectification == tuple(turned)


def test_how_far_pixels_are_off_for_who_reads_a_pinhole():
    """By OpenCV's own model: from the pixel of a ray in the pinhole image to that in this one."""
    assert CameraModel.from_calibration(640, 480, K).pinhole_error() == pytest.approx(0, abs=1e-3)
    camera = CameraModel.from_calibration(640, 480, K, [-0.1, 0, 0, 0, 0], 'plumb_bob')
    corner = camera.rays()[0, 0]
    ideal = 500 * corner[0] + 319.5, 510 * corner[1] + 239.5
    assert camera.pinhole_error() == pytest.approx(np.hypot(*ideal), rel=0.1)
    p = [400.0, 0, 319.5, 0, 0, 510, 239.5, 0, 0, 0, 1, 0]
    camera = CameraModel.from_calibration(640, 480, K, projection=p)
    assert camera.pinhole_error() == pytest.approx(0.2 * 319.5, rel=0.05)


def project(points, camera):
    """Pixels of points by OpenCV's own forward model."""
    k = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    d = np.array(camera.distortion)
    points = points.reshape(-1, 1, 3).astype(np.float64)
    if camera.distortion_model == 'equidistant':
        pixels = cv2.fisheye.projectPoints(points, np.zeros(3), np.zeros(3), k, d)[0]
    else:
        pixels = cv2.projectPoints(points, np.zeros(3), np.zeros(3), k, d)[0]
    return pixels.reshape(-1, 2)


@pytest.mark.parametrize(
    ('model', 'd'),
    [
        ('plumb_bob', [-0.28, 0.07, 0.0002, 0.00002, 0.0]),
        ('plumb_bob', [-0.1, 0.02, 0.001, -0.001]),
        ('rational_polynomial', [0.6, -0.3, 0.0003, 0.0002, 0.01, 0.95, -0.25, 0.02]),
        ('equidistant', [-0.02, 0.01, -0.004, 0.001]),
    ],
)
def test_distorted_rays_land_on_their_pixels(model, d):
    full = CameraModel.from_calibration(640, 480, K, d, model)
    assert full.distortion
    camera = full.scaled(0.25, 0.25, width=160, height=120)
    rays = camera.rays()
    assert np.isfinite(rays).mean() > 0.99
    assert (rays[np.isfinite(rays).all(-1)][:, 2] == 1).all()
    v, u = np.nonzero(np.isfinite(rays).all(-1))
    error = project(rays[v, u], camera) - np.stack([u, v], -1)
    assert np.abs(error).max() < 0.05
    straight = CameraModel.from_calibration(640, 480, K).scaled(0.25, 0.25, width=160, height=120)
    assert np.nanmax(np.abs(rays - straight.rays())) > 0.01


def test_no_ray_where_the_lens_has_none():
    """A barrel too strong for its corners: the polynomial folds back and has no inverse there."""
    k = [300.0, 0, 319.5, 0, 300.0, 239.5, 0, 0, 1]
    rays = CameraModel.from_calibration(640, 480, k, [-0.5, 0, 0, 0, 0], 'plumb_bob').rays()
    assert np.isnan(rays[0, 0]).all()
    assert np.isfinite(rays[200:280, 280:360]).all()
    some = np.isnan(rays)
    assert (some.all(-1) == some.any(-1)).all()


def test_a_fisheye_gives_no_ray_beyond_ninety_degrees():
    k = [180.0, 0, 319.5, 0, 180.0, 239.5, 0, 0, 1]
    rays = CameraModel.from_calibration(640, 480, k, [1e-6, 0, 0, 0], 'equidistant').rays()
    assert np.isnan(rays[0, 0]).all()
    assert np.isfinite(rays[240, 320]).all()
    ahead = np.isfinite(rays).all(-1)
    u, v = np.meshgrid(np.arange(640) - 319.5, np.arange(480) - 239.5)
    theta = np.hypot(u, v) / 180
    assert not ahead[theta > np.pi / 2].any()
    assert ahead[theta < 1.4].all()


def test_camera_info_of_another_size_is_scaled_if_the_shape_agrees():
    camera = CameraModel.from_calibration(1280, 960, [k * 2 for k in K[:8]] + [1])
    assert camera.for_image(640, 480).fx == pytest.approx(500)
    assert camera.for_image(1280, 960) is camera
    with pytest.raises(CameraError, match=r'1280x960 but the image is 640x360'):
        camera.for_image(640, 360)
    with pytest.raises(CameraError, match='0x480'):
        camera.for_image(0, 480)


@pytest.mark.parametrize(
    ('size', 'content', 'corner'),
    [
        ((640, 480), (320, 240), (0, 8)),
        ((1280, 720), (320, 180), (0, 38)),
        ((480, 640), (192, 256), (64, 0)),
        ((320, 256), (320, 256), (0, 0)),
        ((160, 120), (320, 240), (0, 8)),
        ((641, 481), (320, 240), (0, 8)),
        ((4000, 1), (320, 1), (0, 127)),
    ],
)
def test_letterbox_fits_and_centres(size, content, corner):
    box = Letterbox.fit(*size, 320, 256)
    assert (box.content_width, box.content_height) == content
    assert (box.left, box.top) == corner
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    out = box.forward(image)
    assert out.shape == (256, 320, 3)
    assert box.crop(out).shape == (content[1], content[0], 3)


def test_letterbox_repeats_the_border():
    image = np.zeros((480, 640, 3), np.uint8)
    image[:240] = (10, 20, 30)
    image[240:] = (40, 50, 60)
    out = Letterbox.fit(640, 480, 320, 256).forward(image)
    assert (out[:128] == (10, 20, 30)).all()
    assert (out[128:] == (40, 50, 60)).all()
    tall = np.zeros((640, 480, 3), np.uint8)
    tall[:, :240] = 7
    out = Letterbox.fit(480, 640, 320, 256).forward(tall)
    assert (out[:, :160] == 7).all()
    assert (out[:, 160:] == 0).all()


def test_letterbox_writes_into_a_batch_and_reads_padded_rows():
    rows = np.arange(480 * 2000, dtype=np.uint32).astype(np.uint8).reshape(480, 2000)
    padded = np.ndarray((480, 640, 3), np.uint8, rows, strides=(2000, 3, 1))
    box = Letterbox.fit(640, 480, 320, 256)
    batch = np.zeros((2, 256, 320, 3), np.uint8)
    assert np.shares_memory(box.forward(padded, batch[1]), batch)
    assert (batch[0] == 0).all()
    np.testing.assert_array_equal(batch[1], box.forward(np.ascontiguousarray(padded)))


def test_shrinking_averages_the_pixels():
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, ::2] = 200
    out = Letterbox.fit(640, 480, 320, 256).forward(image)
    assert (out == 100).all()


def test_letterbox_refuses_other_images():
    with pytest.raises(CameraError, match='0x480'):
        Letterbox.fit(0, 480, 320, 256)
    with pytest.raises(CameraError, match='expected'):
        Letterbox.fit(640, 480, 320, 256).forward(np.zeros((240, 320, 3), np.uint8))


@pytest.mark.parametrize('size', [(640, 480), (641, 481), (1280, 720), (480, 640)])
def test_the_grids_camera_sees_a_marker_where_the_image_has_it(size):
    """A bright square moved through resize lands where the scaled camera says it is."""
    width, height = size
    camera = CameraModel(width, height, 500, 500, width / 2 - 20, height / 2 + 10)
    image = np.zeros((height, width, 3), np.uint8)
    image[height // 4 : height // 4 + 40, width // 3 : width // 3 + 40] = 255
    box = Letterbox.fit(width, height, 320, 256)
    grid_camera = box.camera(camera)
    small = box.crop(box.forward(image))[..., 0].astype(float)
    assert (grid_camera.height, grid_camera.width) == small.shape

    def centre_ray(picture, model):
        v, u = np.indices(picture.shape)
        total = picture.sum()
        cu, cv = (u * picture).sum() / total, (v * picture).sum() / total
        return (cu - model.cx) / model.fx, (cv - model.cy) / model.fy

    before = centre_ray(image[..., 0].astype(float), camera)
    np.testing.assert_allclose(centre_ray(small, grid_camera), before, atol=1e-4)


def test_the_grids_camera_follows_a_camera_info_of_another_size():
    camera = CameraModel.from_calibration(1280, 960, [k * 2 for k in K[:8]] + [1])
    grid = Letterbox.fit(640, 480, 320, 256).camera(camera)
    assert (grid.width, grid.height, grid.fx) == (320, 240, pytest.approx(250))
