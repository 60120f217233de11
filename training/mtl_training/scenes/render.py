"""Ray-cast a scene: a photograph-like image and the exact labels of every pixel.

Labels come from one ray through each pixel's centre, so they are exact. Colour is anti-aliased with
two more rays, lit by area lights with soft shadows and one bounce of indirect light; an edge-aware
wavelet filter (Dammertz et al., HPG 2010) smooths the light only, never the texture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtl_training.labels import NYUD_ID
from mtl_training.scenes.light import irradiance
from mtl_training.scenes.scene import EPSILON, Float, Hits, Int, Scene, dot, unit
from mtl_training.scenes.textures import GAMMA

FAR = 50.0  # metres, stands for "nothing hit"
CREASE_COSINE = np.cos(np.radians(30))
BACKGROUND = tuple(
    NYUD_ID[name]
    for name in (
        'void', 'wall', 'floor', 'ceiling', 'floor mat', 'otherstructure', 'window', 'door',
        'curtain', 'blinds', 'shower curtain', 'mirror', 'picture', 'whiteboard',
    )
)  # fmt: skip


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in the room; rows of ``rotation`` are its right, down and forward axes."""

    width: int
    height: int
    focal: float  # pixels, square
    rotation: Float  # [3, 3] world -> camera (REP 103 optical frame)
    eye: Float  # [3] metres, world

    @property
    def center(self) -> tuple[float, float]:
        """(cx, cy), with pixel centres at integer coordinates."""
        return (self.width - 1) / 2, (self.height - 1) / 2

    def directions(self, du: float = 0.0, dv: float = 0.0) -> Float:
        """World directions [H*W, 3] of the pixel centres shifted by (du, dv); camera z == 1."""
        cx, cy = self.center
        u = (np.arange(self.width, dtype=np.float32) + np.float32(du - cx)) / np.float32(self.focal)
        v = (np.arange(self.height, dtype=np.float32) + np.float32(dv - cy)) / np.float32(
            self.focal
        )
        rays = np.ones((self.height, self.width, 3), np.float32)
        rays[..., 0], rays[..., 1] = u[None, :], v[:, None]
        return np.asarray(rays.reshape(-1, 3) @ self.rotation, np.float32)


@dataclass(frozen=True)
class Rendering:
    """One frame: the image and its labels, all [H, W]; the camera's optical frame."""

    rgb: NDArray[np.uint8]  # [H, W, 3]
    depth: Float  # metres along Z, 0 = nothing
    semantic: NDArray[np.uint8]  # NYUD-40 ids, 0 = void
    instance: NDArray[np.uint16]
    normals: Float  # [H, W, 3] unit, n . ray < 0
    edges: NDArray[np.bool_]
    saliency: NDArray[np.bool_]


@dataclass(frozen=True)
class Exposure:
    """How the camera turns light into pixels."""

    key: float  # brightness of the geometric mean
    balance: Float  # [3] white balance
    vignette: float  # darkening in the corners
    noise: float  # standard deviation, display-referred

    @classmethod
    def random(cls, rng: np.random.Generator, odd: float = 0.3) -> Exposure:
        """As a camera chooses it; a share ``odd`` too dark, with more noise, or too bright."""
        key, noise = rng.uniform(0.1, 0.22), rng.uniform(0.002, 0.014)
        if rng.random() < odd:
            dark = rng.random() < 0.5
            key = np.exp(rng.uniform(*np.log([0.025, 0.1] if dark else [0.22, 0.5])))
            noise *= 2 if dark else 1
        balance = rng.uniform(0.92, 1.08, 3).astype(np.float32)
        return cls(float(key), balance, rng.uniform(0, 0.12), float(noise))


@dataclass(frozen=True)
class Quality:
    """Rays spent per pixel."""

    shadow: int = 2  # per light
    bounce: int = 4  # per 2 x 2 pixels
    subpixels: tuple[tuple[float, float], ...] = ((-0.27, -0.2), (0.27, 0.2))


def _cast_through(scene: Scene, eye: Float, directions: Float) -> Hits:
    """Nearest opaque hits: rays step through cut-out texels (leaves, lace)."""
    origins = np.repeat(eye[None], len(directions), 0)
    hits = scene.cast(origins, directions)
    triangle, distance, u, v = hits.triangle, hits.distance, hits.u, hits.v
    for _ in range(3):
        texture = scene.texture[scene.triangle_material[triangle]]
        rows = np.flatnonzero((triangle >= 0) & (texture >= 0))
        if not len(rows):
            break
        i = triangle[rows] * 3
        a, b = u[rows, None], v[rows, None]
        uv = scene.uv[i] * (1 - a - b) + scene.uv[i + 1] * a + scene.uv[i + 2] * b
        rows = rows[scene.textures.alpha(texture[rows], uv) < 0.4]
        if not len(rows):
            break
        ahead = distance[rows] + np.float32(1e-3)
        again = scene.cast(eye + directions[rows] * ahead[:, None], directions[rows])
        triangle[rows], distance[rows] = again.triangle, ahead + again.distance
        u[rows], v[rows] = again.u, again.v
    return Hits(triangle, distance, u, v)


def _mask_missing(hits: Hits) -> tuple[NDArray[np.bool_], Hits]:
    found = hits.triangle >= 0
    triangle = np.where(found, hits.triangle, 0)
    return found, Hits(triangle, np.where(found, hits.distance, np.float32(FAR)), hits.u, hits.v)


def render(
    scene: Scene,
    camera: Camera,
    rng: np.random.Generator,
    quality: Quality = Quality(),
    exposure: Exposure | None = None,
) -> Rendering:
    """Render one frame of a finished scene; a random exposure unless one is given."""
    shape = (camera.height, camera.width)
    directions = camera.directions()
    found, hits = _mask_missing(_cast_through(scene, camera.eye, directions))
    normals, faces, uv = scene.surface(hits, directions)
    points = camera.eye + directions * hits.distance[:, None]
    instance = np.where(found, scene.triangle_instance[hits.triangle], 0)

    light = irradiance(scene, points, normals, instance, shape, rng, quality.shadow, quality.bounce)
    shaded = _shade(scene, camera, directions, hits, found, uv, faces, instance, light, instance)
    for du, dv in quality.subpixels:
        d = camera.directions(du, dv)
        ok, sub = _mask_missing(_cast_through(scene, camera.eye, d))
        _, face, sub_uv = scene.surface(sub, d)
        owner = np.where(ok, scene.triangle_instance[sub.triangle], 0)
        shaded += _shade(scene, camera, d, sub, ok, sub_uv, face, owner, light, instance)
    shaded /= 1 + len(quality.subpixels)
    _reflect(scene, camera, shaded, directions, hits, found, normals, points, light, rng)
    semantic = np.where(found, scene.labels[instance], 0).astype(np.uint8).reshape(shape)
    depth = np.where(found, hits.distance, 0).astype(np.float32).reshape(shape)
    turned = np.asarray(camera.rotation.T, np.float32)
    optical = (normals @ turned).reshape(*shape, 3).astype(np.float32)
    flat = (faces @ turned).reshape(*shape, 3).astype(np.float32)
    rgb = _expose(shaded.reshape(*shape, 3), exposure or Exposure.random(rng), rng)
    ids = instance.reshape(shape)
    return Rendering(
        rgb=rgb,
        depth=depth,
        semantic=semantic,
        instance=ids.astype(np.uint16),
        normals=optical,
        edges=edges(ids, semantic, depth, flat),
        saliency=salient(ids, semantic, depth, rgb),
    )


def _shade(
    scene: Scene,
    camera: Camera,
    directions: Float,
    hits: Hits,
    found: NDArray[np.bool_],
    uv: Float,
    faces: Float,
    owner: Int,
    light: Float,
    instance: Int,
) -> Float:
    """Radiance [H*W, 3] of diffuse surfaces: albedo x light of that instance's nearest pixel."""
    tilt = np.abs(dot(faces, directions)) / np.sqrt(dot(directions, directions))
    footprint = hits.distance / np.float32(camera.focal) / np.sqrt(np.maximum(tilt, 0.05))
    albedo = scene.albedo(hits.triangle, uv, footprint)
    stray = np.flatnonzero((owner != instance) & found)
    if len(stray):  # a sub-pixel on another object takes the light of a neighbour that shows it
        light = light.copy()
        y, x = np.divmod(stray, camera.width)
        open_ = np.ones(len(stray), bool)
        source = light.copy()
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)):
            near = np.clip(y + dy, 0, camera.height - 1) * camera.width
            near = near + np.clip(x + dx, 0, camera.width - 1)
            hit = open_ & (instance[near] == owner[stray])
            light[stray[hit]] = source[near[hit]]
            open_ &= ~hit
    material = scene.triangle_material[hits.triangle]
    radiance = albedo * light / np.float32(np.pi) + scene.emission[material, None]
    return np.where(found[:, None], radiance, scene.sky).astype(np.float32)


def _reflect(
    scene: Scene,
    camera: Camera,
    shaded: Float,
    directions: Float,
    hits: Hits,
    found: NDArray[np.bool_],
    normals: Float,
    points: Float,
    light: Float,
    rng: np.random.Generator,
) -> None:
    """Add glass (one layer) and mirror reflections to ``shaded`` in place, one ray each.

    Things seen in a mirror or through glass are lit with the frame's median light: no noise.
    """
    median = np.median(light, 0)
    material = scene.triangle_material[hits.triangle]

    def seen(origins: Float, way: Float) -> Float:
        ok, behind = _mask_missing(scene.cast(origins, way))
        m = scene.triangle_material[behind.triangle]
        _, _, uv = scene.surface(behind, way)
        albedo = scene.albedo(behind.triangle, uv, behind.distance / np.float32(camera.focal) * 2)
        color = albedo * median / np.float32(np.pi) + scene.emission[m, None]
        return np.where(ok[:, None], np.minimum(color, 3), scene.sky)

    glass = np.flatnonzero(found & (scene.opacity[material] < 0.9))
    if len(glass):
        opacity = scene.opacity[material[glass]][:, None]
        through = seen(points[glass] + directions[glass] * EPSILON, directions[glass])
        shaded[glass] = shaded[glass] * opacity + through * (1 - opacity)
    shiny = np.flatnonzero(found & (scene.specular[material] > 0.045))
    if len(shiny):
        way = unit(directions[shiny])
        cosine = -dot(way, normals[shiny])
        mirrored = way + 2 * cosine[:, None] * normals[shiny]
        strength = scene.specular[material[shiny]]
        rough = rng.normal(0, 0.03, mirrored.shape).astype(np.float32)
        mirrored = mirrored + rough * (strength < 0.5)[:, None]
        grazing = np.minimum(1, strength * 4 + 0.25)
        fresnel = strength + (grazing - strength) * np.clip(1 - cosine, 0, 1) ** 5  # Schlick
        reflected = seen(points[shiny] + normals[shiny] * EPSILON, mirrored.astype(np.float32))
        shaded[shiny] = shaded[shiny] * (1 - fresnel)[:, None] + reflected * fresnel[:, None]


def _expose(linear: Float, exposure: Exposure, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Exposure, white balance, filmic curve (Narkowicz's ACES fit), vignetting, sensor noise."""
    height, width = linear.shape[:2]
    key = np.exp(np.log(linear.mean(-1) + 1e-3).mean())
    image = linear * (np.float32(exposure.key / key) * exposure.balance)
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    image *= (1 - np.float32(exposure.vignette) * (x * x + y * y).astype(np.float32))[..., None]
    image = image * (2.51 * image + 0.03) / (image * (2.43 * image + 0.59) + 0.14)
    image = np.clip(image, 0, 1) ** np.float32(1 / GAMMA)
    image += rng.standard_normal(image.shape, np.float32) * np.float32(exposure.noise)
    return np.asarray(np.clip(image, 0, 1) * 255, np.uint8)


def edges(
    instance: Int, semantic: NDArray[np.uint8], depth: Float, faces: Float
) -> NDArray[np.bool_]:
    """Boundaries [H, W]: instance changes, depth jumps off the plane, creases above 30 degrees.

    Two coplanar things of one class (panes, tiles of a front) have no boundary between them.
    """
    result = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        a, b = (
            tuple(s if k == axis else slice(None) for k in (0, 1))
            for s in (slice(None, -1), slice(1, None))
        )
        near, jump = np.minimum(depth[a], depth[b]), np.abs(depth[a] - depth[b])
        cosine = dot(faces[a], faces[b])
        # On a plane, depth changes by about z * tan(tilt) / focal; face-on planes change little.
        facing = np.abs(faces[a][..., 2]) > 0.35
        step = (jump > 0.04 * near) & (cosine > 0.9) & facing
        flush = (jump < 0.02) & (cosine > 0.95) & (semantic[a] == semantic[b])
        change = (instance[a] != instance[b]) & ~flush
        result[a] |= change | step | (cosine < CREASE_COSINE)
    return result


def salient(
    instance: Int, semantic: NDArray[np.uint8], depth: Float, rgb: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """The foreground object a viewer would pick: central, near, of middling size, unlike the rest.

    A formula, not human fixations.
    """
    height, width = instance.shape
    y, x = np.mgrid[0:height, 0:width]
    central = np.exp(
        -(((x - width / 2) / (width * 0.3)) ** 2) - ((y - height / 2) / (height * 0.3)) ** 2
    )
    colors = rgb.reshape(-1, 3).astype(np.float64) / 255
    flat = instance.reshape(-1)
    count = np.bincount(flat)
    sums = np.stack([np.bincount(flat, colors[:, c]) for c in range(3)], 1)
    with np.errstate(divide='ignore', invalid='ignore'):
        inside = sums / count[:, None]
        outside = (sums.sum(0) - sums) / (len(flat) - count)[:, None]
        contrast = np.abs(inside - outside).sum(1)
        middle = np.bincount(flat, central.reshape(-1)) / count
        distance = np.bincount(flat, depth.reshape(-1)) / count
        share = count / len(flat)
        score = middle * np.sqrt(share) * (0.3 + contrast) / (0.5 + distance)
    label = np.zeros(len(count), np.int64)
    label[flat] = semantic.reshape(-1)
    usable = (share > 0.015) & (share < 0.4) & ~np.isin(label, BACKGROUND)
    if not usable.any():
        return np.zeros(instance.shape, bool)
    return np.asarray(instance == np.argmax(np.where(usable, score, -1)))
