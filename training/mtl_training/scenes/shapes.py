"""Solids beside boxes: bars and solids of revolution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl_training.scenes.scene import Float, Scene


def beam(
    scene: Scene,
    start: Sequence[float],
    end: Sequence[float],
    side: float,
    material: int,
    instance: int,
) -> None:
    """A bar with a square section between two points that are not above one another."""
    a, b = np.array(start), np.array(end)
    way = (b - a) / np.linalg.norm(b - a)
    right = np.cross(way, (0, 0, 1))
    right *= side / 2 / np.linalg.norm(right)
    up = np.cross(right, way)
    ring = [right + up, up - right, -right - up, right - up]
    for i in range(4):
        p, q = ring[i], ring[(i + 1) % 4]
        scene.quad(a + q, b + q, a + p, material, instance)
    for middle, turn in ((a, 1), (b, -1)):
        scene.quad(middle + ring[0], middle + ring[turn], middle + ring[-turn], material, instance)


def lathe(
    scene: Scene,
    base: Sequence[float],
    profile: Sequence[tuple[float, float]],
    material: int,
    instance: int,
) -> None:
    """A solid of revolution on ``base``; ``profile``: (radius, height) from below to above."""
    around = np.linspace(0, 2 * np.pi, 17)
    points = np.array(profile, np.float64)
    rise = np.diff(points, axis=0)
    flat = np.stack([rise[:, 1], -rise[:, 0]], 1) / np.linalg.norm(rise, axis=1, keepdims=True)
    # Normals at both ends of every stretch: round where the next one bends by less than 40 degrees.
    middle = flat[:-1] + flat[1:]
    middle /= np.maximum(np.linalg.norm(middle, axis=1, keepdims=True), 1e-9)
    bends_little = ((flat[:-1] * flat[1:]).sum(1) > np.cos(np.radians(40)))[:, None]
    ends = np.repeat(flat[:, None], 2, 1)
    ends[:-1, 1] = np.where(bends_little, middle, flat[:-1])
    ends[1:, 0] = np.where(bends_little, middle, flat[1:])

    def grid(radius: Float, height: Float) -> Float:
        turned = np.stack([np.cos(around), np.sin(around)], -1)
        around_it = radius[:, None, None] * turned
        return np.concatenate([around_it, np.repeat(height[:, None, None], 17, 1)], -1)

    def soup(low: Float, high: Float) -> Float:
        corners = (low[:, :-1], low[:, 1:], high[:, 1:], low[:, :-1], high[:, 1:], high[:, :-1])
        return np.stack(corners, 2).reshape(-1, low.shape[-1])

    surface = grid(*points.T) + np.array(base)
    corners = soup(surface[:-1], surface[1:])
    normals = soup(grid(*ends[:, 0].T), grid(*ends[:, 1].T))
    u, v = np.meshgrid(around / 2 / np.pi, points[:, 1] / points[:, 1].max())
    uv = np.stack([u, v], -1)
    area = np.cross(corners[1::3] - corners[0::3], corners[2::3] - corners[0::3])
    real = np.repeat(np.linalg.norm(area, axis=1) > 1e-10, 3)
    scene.add(corners[real], normals[real], soup(uv[:-1], uv[1:])[real], material, instance)
