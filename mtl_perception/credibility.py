"""Whether a calibration can be that of the camera: what looks wrong in numbers that are valid."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from .camera import CameraModel, compute_rays

# Fields of view outside of these are no camera's, degrees; a fisheye may look backwards.
_NARROWEST, _WIDEST, _WIDEST_FISHEYE = 5.0, 175.0, 360.0
# Principal points lie within this share of the size around the centre of the calibrated image;
# those of real cameras that are not cut out, within this one.
_OFF_CENTRE, _REAL = 0.25, 0.05
# Real lenses have tangential coefficients of up to about 0.01.
_TANGENTIAL = 0.05
# Pixels of cameras are square, but for so much.
_SQUARE = 0.1
# Lens models that fit have rays for all pixels but some in the corners.
_WITHOUT_RAYS = 0.1


@lru_cache(maxsize=32)
def doubts(
    full: CameraModel,
    binning: tuple[int, int] = (1, 1),
    image: tuple[int, int] | None = None,
    sent: tuple[int, int] | None = None,
) -> tuple[str, ...]:
    """What makes a calibration implausible, in words; empty if nothing does.

    Args:
        full: at its full resolution, before region of interest and binning.
        binning: of its CameraInfo; 0 means 1.
        image: width and height of the images that come with it, where known.
        sent: and those that its region of interest and binning leave, where it has these.
    """
    bins = (max(1, binning[0]), max(1, binning[1]))
    sent = sent or (full.width // bins[0], full.height // bins[1])
    found = (
        _principal_point(full, bins, sent),
        _field_of_view(full),
        _tangential(full),
        _fold(full),
        _square(full, bins),
        _size(full, bins, image, sent),
    )
    return tuple(doubt for doubt in found if doubt)


def _principal_point(full: CameraModel, bins: tuple[int, int], sent: tuple[int, int]) -> str:
    whole = (full.width, full.height)
    x, y = _off_centre(full, whole)
    off = max(abs(x), abs(y))
    already = off > _REAL and max(map(abs, _off_centre(full, sent))) < off / 2
    # Off in both directions alike: drivers fill in the size of the mode, and K of the file.
    scaled = min(abs(x), abs(y)) > 2 * _REAL and abs(x - y) < 2 * _REAL
    if off <= _OFF_CENTRE and not already and not scaled:
        return ''
    if already and bins != (1, 1):
        why = f': K looks binned already, and binning is {bins[0]}x{bins[1]}'
    elif already:
        why = f': K looks cut already, and the region of interest is {sent[0]}x{sent[1]}'
    else:
        why = f': K looks like that of images of {2 * full.cx:.0f}x{2 * full.cy:.0f}'
        why = why if scaled and min(full.cx, full.cy) > 0 else ''
    return (
        f'the principal point is at ({full.cx:.0f}, {full.cy:.0f}), far from the centre of '
        f'{whole[0]}x{whole[1]}{why}'
    )


def _off_centre(full: CameraModel, size: tuple[int, int]) -> tuple[float, float]:
    """How far the principal point is from the centre of images of a size, as shares of that."""
    return full.cx / size[0] - 0.5, full.cy / size[1] - 0.5


def _field_of_view(full: CameraModel) -> str:
    fisheye = full.distortion_model == 'equidistant'
    widest = _WIDEST_FISHEYE if fisheye else _WIDEST
    for size, focal, name in (
        (full.width, full.fx, 'horizontal'),
        (full.height, full.fy, 'vertical'),
    ):
        angle = math.degrees(size / focal if fisheye else 2 * math.atan(size / 2 / focal))
        if not _NARROWEST <= angle <= widest:
            return f'the {name} field of view is {angle:.1f} degrees (focal length {focal:g} px)'
    return ''


def _square(full: CameraModel, bins: tuple[int, int]) -> str:
    """Depth follows fx alone, and the network has seen nothing squeezed."""
    ratio = (full.fx / bins[0]) / (full.fy / bins[1])
    if abs(ratio - 1) <= _SQUARE:
        return ''
    binned = f' with binning {bins[0]}x{bins[1]}' if bins != (1, 1) else ''
    return f'the pixels are not square: fx / fy is {ratio:.2f}{binned}'


def _size(
    full: CameraModel,
    bins: tuple[int, int],
    image: tuple[int, int] | None,
    sent: tuple[int, int],
) -> str:
    """Images are not what region of interest and binning leave."""
    whole = (full.width, full.height)
    if image is None or sent == whole:
        return ''
    if max(abs(image[0] - sent[0]), abs(image[1] - sent[1])) < max(*bins, 2):  # rounded otherwise
        return ''
    if image == whole:
        cause = f'binning is {bins[0]}x{bins[1]}' if bins != (1, 1) else ''
        cause = cause or f'the region of interest is {sent[0]}x{sent[1]}'
        return f'{cause}, and yet the images have the full size, {whole[0]}x{whole[1]}'
    return (
        f'the images are {image[0]}x{image[1]}, and region of interest and binning leave '
        f'{sent[0]}x{sent[1]} of {whole[0]}x{whole[1]}'
    )


def _tangential(full: CameraModel) -> str:
    if not full.distortion or full.distortion_model == 'equidistant':
        return ''
    largest = max(map(abs, full.distortion[2:4]))
    if largest <= _TANGENTIAL:
        return ''
    return (
        f'D has a tangential coefficient of {largest:g}: '
        f'it looks like that of another lens model than {full.distortion_model}'
    )


def _fold(full: CameraModel) -> str:
    """The lens model turns back on itself inside of the image."""
    if not full.distortion or (full.distortion_model == 'equidistant' and _reaches_sideways(full)):
        return ''
    without = float(np.isnan(compute_rays(full.small())).any(-1).mean())
    if without <= _WITHOUT_RAYS:
        return ''
    return (
        f'{full.distortion_model} with this D has no ray for {without:.0%} of the image: '
        'it looks like that of another lens model'
    )


def _reaches_sideways(full: CameraModel) -> bool:
    """Whether a fisheye's polynomial grows up to 90 degrees: pixels beyond have no ray of z > 0."""
    theta = np.linspace(0.0, np.pi / 2, 91)
    k1, k2, k3, k4 = full.distortion
    radius = theta * (1 + k1 * theta**2 + k2 * theta**4 + k3 * theta**6 + k4 * theta**8)
    return bool((np.diff(radius) > 0).all())
