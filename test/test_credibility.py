"""Calibrations that cannot be are doubted for what is wrong, and real ones are not."""

from __future__ import annotations

import pytest

from mtl_perception.camera import CameraModel
from mtl_perception.credibility import doubts


def camera(width=640, height=480, f=500.0, c=None, d=(), model='plumb_bob'):
    cx, cy = c or ((width - 1) / 2, (height - 1) / 2)
    return CameraModel.from_calibration(width, height, [f, 0, cx, 0, f, cy, 0, 0, 1], d, model)


@pytest.mark.parametrize(
    'real',
    [
        camera(),
        camera(c=(290, 270)),
        camera(1920, 1080, 1400.0),
        camera(640, 480, 3600.0),  # a long lens of 10 degrees
        camera(d=(-0.28, 0.07, 0.0002, 0.00002, 0.0)),
        camera(d=(0.6, -0.3, 0.0003, 0.0002, 0.01, 0.95, -0.25, 0.02), model='rational_polynomial'),
        camera(d=(-0.02, 0.01, -0.004, 0.001), model='equidistant'),
        camera(1280, 960, 280.0, d=(0.01, -0.005, 0.001, 0.0), model='equidistant'),  # 260 degrees
    ],
)
def test_real_cameras_are_believed(real):
    assert doubts(real) == ()


@pytest.mark.parametrize(
    ('wrong', 'words'),
    [
        (camera(c=(1919.5, 1079.5)), 'the principal point is at (1920, 1080), far from the centre'),
        (camera(c=(0.0, 0.0)), 'the principal point is at (0, 0)'),
        (camera(c=(319.5, 0.0)), 'the principal point is at (320, 0)'),
        (camera(f=0.8), 'the horizontal field of view is 179.7 degrees (focal length 0.8 px)'),
        (camera(f=8000.0), 'field of view is 4.6 degrees'),
        (camera(f=20.0, d=(0.01,), model='equidistant'), 'field of view is 1833'),
        (camera(d=(-0.02, 0.01, -0.08, 0.01)), 'tangential coefficient of 0.08'),
        (camera(f=300.0, d=(-1.5, 0, 0, 0, 0)), 'plumb_bob with this D has no ray for'),
        (camera(f=200.0, d=(-0.5, 0, 0, 0), model='equidistant'), 'equidistant with this D has no'),
    ],
)
def test_what_looks_wrong_is_said(wrong, words):
    (doubt,) = doubts(wrong)
    assert words in doubt


def test_binning_that_is_applied_twice_is_doubted():
    full = camera()
    assert doubts(full, (2, 2), (320, 240)) == ()
    assert doubts(full, (0, 0), (640, 480)) == ()
    (doubt,) = doubts(full, (2, 2), (640, 480))
    assert 'binning is 2x2, and yet the images have the full size' in doubt
    assert doubts(camera(641, 481), (2, 2), (321, 241)) == (), 'rounded up'
    binned = camera(c=(159.5, 119.5))
    (doubt,) = doubts(binned, (2, 2), (320, 240))
    assert doubt.endswith('K looks binned already, and binning is 2x2')


@pytest.mark.parametrize('off', [(0, 0), (12, 5), (-12, 9), (15, -15)])
def test_k_of_images_of_another_size_is_doubted(off):
    x, y = off
    (doubt,) = doubts(camera(1280, 960, c=(320 + x, 240 + y)))
    assert doubt.endswith(f': K looks like that of images of {640 + 2 * x}x{480 + 2 * y}')
    (doubt,) = doubts(camera(1280, 960, c=(320 + x, 240 + y)), (2, 2), (640, 480))
    assert doubt.endswith(': K looks binned already, and binning is 2x2')
    (doubt,) = doubts(camera(1280, 960, c=(480 + x, 360 + y)), sent=(960, 720))
    assert doubt.endswith(': K looks cut already, and the region of interest is 960x720')
    true = camera(1280, 960, c=(640 + 2 * x, 480 + 2 * y))
    for how in ({}, {'binning': (2, 2)}, {'sent': (960, 720)}, {'sent': (1200, 900)}):
        assert doubts(true, **how) == ()


def test_images_that_are_not_what_region_and_binning_leave_are_doubted():
    full = camera()
    assert doubts(full, image=(320, 240)) == (), 'resized'
    assert doubts(full, image=(320, 240), sent=(320, 240)) == ()
    (doubt,) = doubts(full, image=(640, 480), sent=(320, 240))
    assert doubt.startswith('the region of interest is 320x240, and yet the images have the full')
    (doubt,) = doubts(full, (2, 2), (160, 120), (320, 240))
    assert doubt == (
        'the images are 160x120, and region of interest and binning leave 320x240 of 640x480'
    )


def test_pixels_that_are_not_square_are_doubted():
    assert doubts(camera(1280, 960), (2, 2)) == ()
    (doubt,) = doubts(camera(), (2, 1), (320, 480))
    assert doubt == 'the pixels are not square: fx / fy is 0.50 with binning 2x1'
    stretched = CameraModel.from_calibration(640, 480, [500, 0, 319.5, 0, 600, 239.5, 0, 0, 1])
    assert doubts(stretched) == ('the pixels are not square: fx / fy is 0.83',)
