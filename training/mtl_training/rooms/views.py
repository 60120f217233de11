"""Where a robot's camera may be in a room, and paths it may take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from mtl_training.labels import NYUD_ID
from mtl_training.scenes.render import Camera
from mtl_training.scenes.scene import Float, Scene

CLEARANCE = 0.3  # metres to the nearest thing in view
CLOSE_CLEARANCE = 0.15  # of close-ups
FLOOR = [NYUD_ID[name] for name in ('floor', 'floor mat')]  # however near it may be
SHELL = [NYUD_ID[name] for name in ('wall', 'floor', 'ceiling')]  # what is no thing


def look_at(eye: Float, target: Float, roll: float = 0.0) -> Float:
    """Rotation [3, 3] whose rows are right, down, forward of a camera; z is up in the world."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(forward, right), forward])
    c, s = np.cos(roll), np.sin(roll)
    return np.asarray(np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ axes, np.float32)


@dataclass(frozen=True)
class ViewRange:
    """What cameras of robots look like: horizontal field of view in degrees, height in metres.

    Attributes:
        low: heights of cameras of small robots; ``low_share``: how many of the cameras are there.
        sight_share: how many look at an open door or at stairs, where there are any.
    """

    field_of_view: tuple[float, float] = (50.0, 100.0)
    height: tuple[float, float] = (0.2, 1.75)
    low: tuple[float, float] = (0.05, 0.4)
    low_share: float = 0.25
    sight_share: float = 0.45


def random_view(
    scene: Scene, rng: np.random.Generator, width: int, height: int, view: ViewRange = ViewRange()
) -> Camera | None:
    """The most interesting of a few random unobstructed views, or None when the room has none."""
    cameras = (_anywhere(scene, rng, width, height, view) for _ in range(80))
    return _best(cameras, partial(interest, scene), 5)


def _anywhere(
    scene: Scene, rng: np.random.Generator, width: int, height: int, view: ViewRange
) -> Camera | None:
    w, d, h = scene.size
    focal = width / 2 / np.tan(np.radians(rng.uniform(*view.field_of_view)) / 2)
    low = rng.random() < view.low_share
    z = rng.uniform(*(view.low if low else view.height))
    eye = np.array([rng.uniform(0.25, w - 0.25), rng.uniform(0.25, d - 0.25), z])
    target = np.array([rng.uniform(0.15, 0.85) * w, rng.uniform(0.15, 0.85) * d, z])
    target[2] = np.clip(z + rng.normal(-0.15, 0.4), 0.1, h - 0.2)
    if scene.sights and rng.random() < view.sight_share:
        sight = scene.sights[rng.integers(len(scene.sights))]
        target = sight + rng.normal(0, 0.3, 3)
        if not low:  # else a robot looks up to everything
            target[2] = (target[2] + z) / 2
    if np.linalg.norm(target - eye) < 1.0:
        return None
    axes = look_at(eye, target, rng.normal(0, 0.03))
    return Camera(width, height, float(focal), axes, eye.astype(np.float32))


def _best(
    cameras: Iterable[Camera | None], score: Callable[[Camera], float | None], enough: int
) -> Camera | None:
    """The one with the highest score of the first so many that have any; None without such."""
    scored = ((score(camera), camera) for camera in cameras if camera is not None)
    found = ((value, camera) for value, camera in scored if value is not None)
    best = max(islice(found, enough), key=lambda pair: pair[0], default=None)
    return None if best is None else best[1]


@dataclass(frozen=True)
class CloseRange:
    """Views of one thing: horizontal field of view in degrees, metres to a point of its surface.

    Attributes:
        low: heights of cameras near the floor.
        low_share: how many of the cameras are there; the others look from anywhere above the point.
    """

    field_of_view: tuple[float, float] = (50.0, 110.0)
    distance: tuple[float, float] = (0.3, 1.5)
    low: tuple[float, float] = (0.05, 0.4)
    low_share: float = 0.35


def close_view(
    scene: Scene, rng: np.random.Generator, width: int, height: int, view: CloseRange = CloseRange()
) -> Camera | None:
    """The most interesting of a few random close-ups of things, or None when there is no room.

    A thing is drawn, then a point of it; the camera is as far from the point as ``view`` has it,
    and looks at it or a bit past it.
    """
    things = np.flatnonzero(~np.isin(scene.labels, [0, *SHELL]))
    things = np.intersect1d(things, scene.triangle_instance)
    cameras = (
        _near_by(scene, rng.choice(things), rng, width, height, view)
        for _ in range(200 if len(things) else 0)
    )
    score = partial(interest, scene, clearance=CLOSE_CLEARANCE, median=(0.3, 1.8))
    return _best(cameras, score, 4)


def _near_by(
    scene: Scene, thing: int, rng: np.random.Generator, width: int, height: int, view: CloseRange
) -> Camera | None:
    triangle = rng.choice(np.flatnonzero(scene.triangle_instance == thing))
    point = scene.vertices[3 * triangle : 3 * triangle + 3].mean(0)
    distance, azimuth = rng.uniform(*view.distance), rng.uniform(0, 2 * np.pi)
    if rng.random() < view.low_share:
        rise = rng.uniform(*view.low) - point[2]
    else:
        rise = distance * np.sin(rng.uniform(0, np.radians(65)))
    away = distance * distance - rise * rise
    if away < 0.02:
        return None
    aside = np.sqrt(away) * np.array([np.cos(azimuth), np.sin(azimuth)])
    eye = point + np.array([*aside, rise])
    if not ((eye > 0.03) & (eye < np.array(scene.size) - 0.03)).all():
        return None
    focal = width / 2 / np.tan(np.radians(rng.uniform(*view.field_of_view)) / 2)
    target = point + rng.normal(0, 0.15 * distance, 3)
    axes = look_at(eye, target, rng.normal(0, 0.05))
    return Camera(width, height, float(focal), axes, eye.astype(np.float32))


def interest(
    scene: Scene,
    camera: Camera,
    clearance: float = CLEARANCE,
    median: tuple[float, float] = (1.0, np.inf),
) -> float | None:
    """Classes and objects in view minus dominance of one; None when obstructed.

    Args:
        clearance: metres along the ray to the nearest thing that is not the floor, at least.
        median: metres along the ray, at least and at most, in the middle of all.
    """
    coarse = Camera(24, 18, camera.focal * 24 / camera.width, camera.rotation, camera.eye)
    directions = coarse.directions()
    hits = scene.cast(np.repeat(camera.eye[None], len(directions), 0), directions)
    instance = scene.triangle_instance[hits.triangle]
    apart = hits.distance[~np.isin(scene.labels[instance], FLOOR)]
    if (
        (hits.triangle < 0).any()
        or apart.min(initial=np.inf) < clearance
        or not median[0] <= np.median(hits.distance) <= median[1]
    ):
        return None
    dominance = np.bincount(instance).max() / len(instance)
    return float(
        len(np.unique(scene.labels[instance])) + 0.3 * len(np.unique(instance)) - 6 * dominance
    )


def path(scene: Scene, rng: np.random.Generator, count: int, template: Camera) -> list[Camera]:
    """A smooth drive through the room: ``count`` cameras with the template's size and focal length.

    An arc around the middle of the room, eased in and out; the most varied of some random ones.
    """
    w, d, _ = scene.size
    best: list[Camera] = []
    best_score = -1e9
    for _ in range(60):
        start, sweep = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1]) * rng.uniform(0.8, 1.6)
        reach, eye_height = rng.uniform(0.12, 0.3), rng.uniform(0.7, 1.2)
        t = np.linspace(0, 1, count)
        ease = t * t * (3 - 2 * t)
        angle = start + sweep * ease
        eyes = np.stack(
            [w / 2 + reach * w * np.cos(angle), d / 2 + reach * d * np.sin(angle),
             eye_height + 0.08 * np.sin(2 * np.pi * t)], 1,
        )  # fmt: skip
        gaze = angle + np.pi + rng.uniform(-0.5, 0.5) + sweep * (ease - 0.5)
        targets = eyes + np.stack([np.cos(gaze), np.sin(gaze), np.full(count, -0.18)], 1)
        cameras = [
            Camera(
                template.width, template.height, template.focal, look_at(e, g), e.astype(np.float32)
            )
            for e, g in zip(eyes, targets, strict=True)
        ]
        scores = [interest(scene, camera) for camera in cameras[:: max(1, count // 8)]]
        if any(score is None for score in scores):
            continue
        total = min(score for score in scores if score is not None)
        if total > best_score:
            best, best_score = cameras, total
    return best
