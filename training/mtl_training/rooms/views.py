"""Where a robot's camera may be in a room, and paths it may take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtl_training.scenes.render import Camera
from mtl_training.scenes.scene import Float, Scene

CLEARANCE = 0.3  # metres to the nearest thing in view


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
    """What cameras of robots look like: horizontal field of view in degrees, height in metres."""

    field_of_view: tuple[float, float] = (50.0, 100.0)
    height: tuple[float, float] = (0.2, 1.75)


def random_view(
    scene: Scene, rng: np.random.Generator, width: int, height: int, view: ViewRange = ViewRange()
) -> Camera | None:
    """The most interesting of a few random unobstructed views, or None when the room has none."""
    w, d, h = scene.size
    best: tuple[float, Camera] | None = None
    found = 0
    for _ in range(80):
        focal = width / 2 / np.tan(np.radians(rng.uniform(*view.field_of_view)) / 2)
        eye = np.array(
            [rng.uniform(0.25, w - 0.25), rng.uniform(0.25, d - 0.25), rng.uniform(*view.height)]
        )
        target = np.array(
            [
                rng.uniform(0.15, 0.85) * w,
                rng.uniform(0.15, 0.85) * d,
                np.clip(eye[2] + rng.normal(-0.15, 0.4), 0.1, h - 0.2),
            ]
        )
        if np.linalg.norm(target - eye) < 1.0:
            continue
        camera = Camera(
            width,
            height,
            float(focal),
            look_at(eye, target, rng.normal(0, 0.03)),
            eye.astype(np.float32),
        )
        score = interest(scene, camera)
        if score is None:
            continue
        if best is None or score > best[0]:
            best = (score, camera)
        found += 1
        if found >= 5:
            break
    return best[1] if best else None


def interest(scene: Scene, camera: Camera) -> float | None:
    """Classes and objects in view minus dominance of one; None when obstructed."""
    coarse = Camera(24, 18, camera.focal * 24 / camera.width, camera.rotation, camera.eye)
    directions = coarse.directions()
    hits = scene.cast(np.repeat(camera.eye[None], len(directions), 0), directions)
    if (
        (hits.triangle < 0).any()
        or hits.distance.min() < CLEARANCE
        or np.median(hits.distance) < 1.0
    ):
        return None
    instance = scene.triangle_instance[hits.triangle]
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
