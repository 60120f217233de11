"""Light that arrives at the pixels of a picture: area lights with soft shadows, and one bounce."""

from __future__ import annotations

import numpy as np

from mtl_training.scenes.scene import EPSILON, Float, Int, Scene, dot, unit

SPARSE = 13  # coprime to the widths of pictures, so that these points are spread over them


def direct(
    scene: Scene, points: Float, normals: Float, rng: np.random.Generator, rays: int
) -> Float:
    """Irradiance [N, 3] of all lights, ``rays`` stratified shadow rays for each.

    A light that reaches none of one in ``SPARSE`` points is another room's: it is left out.
    """
    total = np.zeros_like(points)
    start = points + normals * EPSILON
    count = len(points)
    few = np.s_[::SPARSE]
    for light in scene.lights:
        facing = unit(np.cross(light.u, light.v)[None])
        a, b = rng.random((2, len(start[few]), 1), np.float32)
        target = light.corner + light.u * a + light.v * b
        if not _from_light(scene, start[few], normals[few], target, facing, light.power).any():
            continue
        for stratum in range(rays):
            a = (stratum + rng.random((count, 1), np.float32)) / np.float32(rays)
            b = rng.random((count, 1), np.float32)
            total += _from_light(
                scene, start, normals, light.corner + light.u * a + light.v * b, facing, light.power
            ) / np.float32(rays)
    return total


def _from_light(
    scene: Scene, start: Float, normals: Float, target: Float, facing: Float, power: Float
) -> Float:
    step = target - start
    squared = dot(step, step)
    inverse = 1 / np.sqrt(squared)
    cosine = np.maximum(dot(normals, step) * inverse, 0)
    shine = cosine * np.abs(dot(np.broadcast_to(facing, step.shape), step) * inverse)
    lit = np.flatnonzero(shine > 0)
    visible = np.zeros(len(start), bool)
    visible[lit] = scene.visible(start[lit], step[lit])
    return power * (shine * visible / np.maximum(squared, np.float32(0.02)))[:, None]


def _one_light(scene: Scene, points: Float, normals: Float, rng: np.random.Generator) -> Float:
    """Irradiance [N, 3] estimated from one random light per point."""
    count = len(scene.lights)
    chosen = rng.integers(0, count, len(points))
    corner, u, v, power = (
        np.stack([getattr(light, name) for light in scene.lights])[chosen]
        for name in ('corner', 'u', 'v', 'power')
    )
    a, b = rng.random((2, len(points), 1), np.float32)
    facing = unit(np.cross(u, v))
    start = points + normals * EPSILON
    return _from_light(scene, start, normals, corner + u * a + v * b, facing, power * count)


def _bounce(
    scene: Scene, points: Float, normals: Float, rng: np.random.Generator, rays: int
) -> Float:
    """Irradiance [N, 3] that arrives over one diffuse bounce, cosine-distributed rays."""
    index = np.repeat(np.arange(len(points)), rays)
    n = normals[index]
    r1, r2 = rng.random((2, len(index)), np.float32)
    # Orthonormal basis around n (Duff et al., JCGT 2017).
    sign = np.where(n[:, 2] >= 0, np.float32(1), np.float32(-1))
    a = -1 / (sign + n[:, 2])
    b = n[:, 0] * n[:, 1] * a
    tangent = np.stack([1 + sign * n[:, 0] ** 2 * a, sign * b, -sign * n[:, 0]], 1)
    bitangent = np.stack([b, sign + n[:, 1] ** 2 * a, -n[:, 1]], 1)
    radius, angle = np.sqrt(r1), np.float32(2 * np.pi) * r2
    way = (
        tangent * (radius * np.cos(angle))[:, None] + bitangent * (radius * np.sin(angle))[:, None]
    )
    way = (way + n * np.sqrt(1 - r1)[:, None]).astype(np.float32)
    start = points[index] + n * EPSILON
    hits = scene.cast(start, way)
    found = hits.triangle >= 0
    triangle = np.where(found, hits.triangle, 0)
    face = scene.face_normals[triangle]
    face = np.where((dot(face, way) > 0)[:, None], -face, face)
    light = _one_light(scene, start + way * np.where(found, hits.distance, 0)[:, None], face, rng)
    material = scene.triangle_material[triangle]
    out = scene.mean_color[material] * (light + scene.ambient) / np.float32(np.pi)
    out = np.where(found[:, None], out + scene.emission[material, None], scene.sky)
    return np.minimum(out, 12).reshape(-1, rays, 3).mean(1) * np.float32(np.pi)


def _wavelet(
    light: Float,
    weight: Float,
    normals: Float,
    points: Float,
    instance: Int,
    rounds: int,
    soft: float,
) -> Float:
    """Edge-avoiding a-trous filter of [H, W, 3] light with validity ``weight`` [H, W]."""
    height, width = instance.shape
    plane = dot(normals, points)
    for level in range(rounds):
        step = 2**level
        total = light * weight[..., None]
        norm = weight.copy()
        for dy in (-step, 0, step):
            for dx in (-step, 0, step):
                if dx == dy == 0:
                    continue
                here = np.s_[max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
                there = np.s_[max(0, dy) : height + min(0, dy), max(0, dx) : width + min(0, dx)]
                share = np.float32(1.0 if dx == 0 or dy == 0 else 0.5) * weight[there]
                share = share * (instance[here] == instance[there])
                cosine = np.maximum(dot(normals[here], normals[there]), 0)
                for _ in range(3):
                    cosine *= cosine
                share *= cosine
                offset = np.abs(dot(normals[here], points[there]) - plane[here])
                share *= np.maximum(1 - offset * np.float32(1 / soft), 0)
                total[here] += light[there] * share[..., None]
                norm[here] += share
        light = total / np.maximum(norm, np.float32(1e-6))[..., None]
        weight = np.minimum(norm, 1)
    return light


def irradiance(
    scene: Scene,
    points: Float,
    normals: Float,
    instance: Int,
    shape: tuple[int, int],
    rng: np.random.Generator,
    shadow: int,
    bounce: int,
) -> Float:
    """Filtered irradiance [H*W, 3]: direct at every pixel, one bounce at every second.

    Args:
        shadow: rays for each light.
        bounce: rays per 2 x 2 pixels.
    """
    n3, p3 = normals.reshape(*shape, 3), points.reshape(*shape, 3)
    ids = instance.reshape(shape)
    ones = np.ones(shape, np.float32)
    near = direct(scene, points, normals, rng, shadow).reshape(*shape, 3)
    total = _wavelet(near, ones, n3, p3, ids, 3, 0.05)
    half = np.s_[::2, ::2]
    coarse = _bounce(scene, p3[half].reshape(-1, 3), n3[half].reshape(-1, 3), rng, bounce).reshape(
        *ids[half].shape, 3
    )
    coarse = _wavelet(coarse, ones[half], n3[half], p3[half], ids[half], 3, 0.1)
    spread = [
        np.repeat(np.repeat(a, 2, 0), 2, 1)[: shape[0], : shape[1]] for a in (coarse, ids[half])
    ]
    same = (spread[1] == ids).astype(np.float32)
    indirect = _wavelet(spread[0], same, n3, p3, ids, 2, 0.1)
    missing = np.asarray(indirect.sum(-1) <= 0)
    indirect[missing] = np.median(coarse.reshape(-1, 3), 0)
    return np.asarray((total + indirect).reshape(-1, 3), np.float32)
