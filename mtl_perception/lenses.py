"""Lens models: what CameraInfos and drivers call them, and what coefficients they have."""

from __future__ import annotations

import math

from . import PerceptionError

# Numbers of coefficients that each lens model of sensor_msgs/CameraInfo may have.
DISTORTION_MODELS: dict[str, tuple[int, ...]] = {
    'plumb_bob': (5,),
    'rational_polynomial': (8, 12, 14),
    'equidistant': (4,),
}
# What drivers and calibration tools call the same models; see ``_lens_model`` for spelling.
LENS_ALIASES = {
    'radtan': 'plumb_bob',
    'radial_tangential': 'plumb_bob',
    'brown_conrady': 'plumb_bob',
    'rational': 'rational_polynomial',
    'fisheye': 'equidistant',
    'opencv_fisheye': 'equidistant',
    'kannala_brandt': 'equidistant',
    'kannala_brandt4': 'equidistant',
    'kb4': 'equidistant',
}


class CameraError(PerceptionError):
    """A calibration that cannot be used; the message names the value and what was expected."""


def lens_of(model: str, d: tuple[float, ...]) -> tuple[str, tuple[float, ...]]:
    """The lens model and as many coefficients as it has; both empty for a pinhole.

    A fisheye whose coefficients are all zero is none: its radii are angles, not their tangents.

    Raises:
        CameraError: an unknown model, or coefficients that it cannot have.
    """
    if not all(math.isfinite(value) for value in d):
        raise CameraError(f'D is {list(d)}, expected finite coefficients')
    given = len(d)
    while given and d[given - 1] == 0:
        given -= 1
    if not given and not is_fisheye(model):
        return '', ()
    name = _lens_model(model, given)
    counts = DISTORTION_MODELS[name]
    if given > counts[-1]:
        raise CameraError(
            f'D has {given} coefficients, expected at most {counts[-1]} for {name}: '
            'it looks like that of another lens model'
        )
    count = next(count for count in counts if count >= given)
    return name, (*d, *[0.0] * count)[:count]


def is_fisheye(model: str) -> bool:
    """Whether a lens model, however it is spelled, is that of a fisheye."""
    spelled = _spelled(model)
    return LENS_ALIASES.get(spelled, spelled) == 'equidistant'


def _spelled(name: str) -> str:
    return name.strip().lower().replace(' ', '_').replace('-', '_')


def _lens_model(name: str, coefficients: int) -> str:
    """A key of ``DISTORTION_MODELS`` for a name however it is spelled."""
    spelled = _spelled(name)
    if not spelled:
        plumb_bob = coefficients <= DISTORTION_MODELS['plumb_bob'][-1]
        return 'plumb_bob' if plumb_bob else 'rational_polynomial'
    known = LENS_ALIASES.get(spelled, spelled)
    if known not in DISTORTION_MODELS:
        raise CameraError(
            f'the distortion model is {name!r}, '
            f'expected one of {", ".join((*DISTORTION_MODELS, *LENS_ALIASES))}'
        )
    return known
