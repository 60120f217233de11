"""A scene: triangles with materials, area lights, and the ray queries the renderer needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_training import TrainingError
from mtl_training.scenes.meshes import Mesh
from mtl_training.scenes.textures import GAMMA, Textures

Float = NDArray[np.floating[Any]]
Int = NDArray[np.int64]
EPSILON = np.float32(2e-3)  # metres a ray starts above its surface


class SceneError(TrainingError):
    """The ray caster is missing or the scene cannot be built."""


def dot(a: Float, b: Float) -> Float:
    """Row-wise dot product over the last axis."""
    return np.asarray(np.einsum('...i,...i->...', a, b))


def unit(a: Float) -> Float:
    return a / (np.sqrt(dot(a, a)) + np.float32(1e-9))[..., None]


@dataclass(frozen=True)
class Light:
    """A parallelogram that shines to both sides; power = exitance x area / pi, linear RGB."""

    corner: Float
    u: Float
    v: Float
    power: Float


@dataclass(frozen=True)
class Instance:
    """One object: its name and NYUD-40 class id."""

    name: str
    label: int


@dataclass(frozen=True)
class Hits:
    """What rays hit: triangle (-1 = nothing), distance along the ray, barycentric u and v."""

    triangle: Int
    distance: Float
    u: Float
    v: Float


class Scene:
    """Collects geometry, then answers ray queries. World frame: z up, metres."""

    def __init__(self) -> None:
        self.textures = Textures()
        self.lights: list[Light] = []
        self.instances: list[Instance] = [Instance('none', 0)]
        self.ambient = np.full(3, 0.5, np.float32)
        self.sky = np.array([0.8, 0.9, 1.0], np.float32)
        self.size = (0.0, 0.0, 0.0)
        self.kind = ''
        self.sights: list[Float] = []  # [3] each: points that are worth a look
        self._pose: tuple[Float, Float] | None = None  # [3, 3] turn and [3] shift of what is added
        self._vertices: list[Float] = []
        self._normals: list[Float] = []
        self._uv: list[Float] = []
        self._owner: list[Int] = []  # [T, 2] material, instance
        # red, green, blue, texture (-1 = none), opacity, specular, emission
        self._materials: list[tuple[float, ...]] = []

    def material(
        self,
        color: Sequence[float] | Float = (1, 1, 1),
        texture: int = -1,
        *,
        opacity: float = 1.0,
        specular: float = 0.03,
        emission: float = 0.0,
    ) -> int:
        """Add a material (linear colour, multiplied with the texture); returns its index."""
        r, g, b = (float(c) for c in color)
        self._materials.append((r, g, b, texture, opacity, specular, emission))
        return len(self._materials) - 1

    @contextmanager
    def placed(self, yaw: float, at: Sequence[float] | Float) -> Iterator[None]:
        """Turn all that is added meanwhile by ``yaw`` about the vertical, and move it by ``at``."""
        c, s = np.cos(yaw), np.sin(yaw)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)
        self._pose = (turn, np.array(at, np.float32))
        try:
            yield
        finally:
            self._pose = None

    def _at_pose(self, points: Float) -> Float:
        if self._pose is None:
            return np.asarray(points, np.float32)
        return np.asarray(points, np.float32) @ self._pose[0].T + self._pose[1]

    def _turned(self, ways: Float) -> Float:
        turn = np.eye(3, dtype=np.float32) if self._pose is None else self._pose[0]
        return np.asarray(ways, np.float32) @ turn.T

    def shine(self, corner: Float, u: Float, v: Float, power: Float) -> None:
        """Add an area light."""
        self.lights.append(
            Light(self._at_pose(corner), self._turned(u), self._turned(v), np.float32(power))
        )

    def instance(self, name: str, label: int) -> int:
        self.instances.append(Instance(name, label))
        return len(self.instances) - 1

    def add(self, vertices: Float, normals: Float, uv: Float, material: int, instance: int) -> None:
        """Add a triangle soup [3T, 3] with normals [3T, 3] and texture coordinates [3T, 2]."""
        self._vertices.append(self._at_pose(vertices))
        self._normals.append(self._turned(normals))
        self._uv.append(np.asarray(uv, np.float32))
        self._owner.append(np.tile(np.array([[material, instance]]), (len(vertices) // 3, 1)))

    def quad(
        self,
        corner: Sequence[float] | Float,
        u_end: Sequence[float] | Float,
        v_end: Sequence[float] | Float,
        material: int,
        instance: int,
        *,
        tile: float = 0.0,
        start: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Parallelogram from a corner and the ends of its two edges.

        ``tile`` is the size of one texture repeat in metres; 0 stretches the texture over the quad.
        ``start`` is where in the texture the corner is, in repeats.
        """
        a, b, d = (np.array(p, np.float32) for p in (corner, u_end, v_end))
        points = np.array([a, b, b + d - a, d])
        repeat = (np.linalg.norm(b - a) / tile, np.linalg.norm(d - a) / tile) if tile else (1, 1)
        uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * np.array(repeat) + np.array(start)
        order = [0, 1, 2, 0, 2, 3]
        normal = unit(np.cross(b - a, d - a)[None])
        self.add(points[order], np.repeat(normal, 6, 0), uv[order], material, instance)

    def sheet(
        self,
        corner: Sequence[float],
        u_end: Sequence[float],
        v_end: Sequence[float],
        holes: Sequence[tuple[float, float, float, float]],
        material: int,
        instance: int,
        *,
        tile: float,
    ) -> None:
        """Parallelogram with rectangular holes: u and v of two corners of each, metres."""
        a = np.array(corner, np.float64)
        edges = [np.array(end) - a for end in (u_end, v_end)]
        lengths = [float(np.linalg.norm(edge)) for edge in edges]
        u, v = (edge / length for edge, length in zip(edges, lengths, strict=True))
        cuts = [
            sorted({0.0, length, *(hole[k + i] for hole in holes for i in (0, 2))})
            for k, length in enumerate(lengths)
        ]
        for u0, u1 in pairwise(cuts[0]):
            for v0, v1 in pairwise(cuts[1]):
                x, y = (u0 + u1) / 2, (v0 + v1) / 2
                if any(h[0] < x < h[2] and h[1] < y < h[3] for h in holes):
                    continue
                low = a + u * u0 + v * v0
                self.quad(
                    low, low + u * (u1 - u0), low + v * (v1 - v0), material, instance, tile=tile,
                    start=(u0 / tile, v0 / tile),
                )  # fmt: skip

    def box(
        self,
        base: Sequence[float],
        size: Sequence[float],
        yaw: float,
        material: int,
        instance: int,
        *,
        tile: float = 0.5,
    ) -> None:
        """Box of ``size`` (width, depth, height) standing on ``base`` (centre of its bottom)."""
        c, s = np.cos(yaw), np.sin(yaw)
        turn = np.array([[c, -s], [s, c]])
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.5 * np.array(size[:2])
        ring = corners @ turn.T + np.array(base[:2])
        low = [(*p, base[2]) for p in ring]
        high = [(*p, base[2] + size[2]) for p in ring]
        for i in range(4):
            self.quad(low[i], low[(i + 1) % 4], high[i], material, instance, tile=tile)
        self.quad(high[0], high[1], high[3], material, instance, tile=tile)
        self.quad(low[0], low[3], low[1], material, instance, tile=tile)

    def piece(
        self,
        mesh: Mesh,
        position: Sequence[float],
        yaw: float,
        instance: int,
        *,
        scale: Sequence[float] = (1, 1, 1),
        tint: Float | None = None,
    ) -> None:
        """Stand a mesh on ``position``; yaw 0 faces -y; ``tint`` recolours it."""
        c, s = np.cos(yaw), np.sin(yaw)
        to_world = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array(
            [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
        )
        turn = to_world.astype(np.float32).T
        points = (mesh.vertices * np.array(scale, np.float32)) @ turn + np.array(
            position, np.float32
        )
        normals = unit(np.divide(mesh.normals, np.array(scale, np.float32))) @ turn
        start = 0
        for part, count in enumerate(mesh.counts):
            rows = slice(start, start + int(count))
            start += int(count)
            path = str(mesh.texture[part])
            texture = self.textures.file(path) if path else -1
            color = (
                np.maximum(mesh.color[part] ** GAMMA, 0.02)
                if texture < 0
                else np.ones(3, np.float32)
            )
            if tint is not None:
                color = np.clip(color * tint, 0, 0.95)
            opacity = float(mesh.opacity[part])
            material = self.material(
                color,
                texture,
                opacity=1.0 if opacity > 0.9 else max(opacity, 0.35),
                specular=0.02 + 0.1 * min(float(mesh.specular[part]), 1.0),
            )
            self.add(points[rows], normals[rows], mesh.uv[rows], material, instance)

    def bounds(self, instance: int) -> tuple[Float, Float]:
        """Lowest and highest corner [3] of an instance's vertices, before :meth:`finish`."""
        points = np.concatenate(
            [v for v, o in zip(self._vertices, self._owner, strict=True) if o[0, 1] == instance]
        )
        return points.min(0), points.max(0)

    def finish(self) -> None:
        """Build the ray-casting structure; nothing is added afterwards.

        Raises:
            SceneError: embreex is not installed.
        """
        self.textures.finish()
        self.vertices = np.concatenate(self._vertices)
        self.normals = np.concatenate(self._normals)
        self.uv = np.concatenate(self._uv)
        owner = np.concatenate(self._owner)
        self.triangle_material, self.triangle_instance = owner[:, 0].copy(), owner[:, 1].copy()
        table = np.array(self._materials, np.float32)
        self.color, self.texture = table[:, :3].copy(), table[:, 3].astype(np.int64)
        self.opacity, self.specular, self.emission = table[:, 4], table[:, 5], table[:, 6]
        self.labels = np.array([instance.label for instance in self.instances], np.uint8)
        a, b, c = self.vertices[0::3], self.vertices[1::3], self.vertices[2::3]
        face = np.cross(b - a, c - a)
        area = np.linalg.norm(face, axis=1)
        self.face_normals = face / np.maximum(area, 1e-12)[:, None]
        # Texels per metre of every triangle, for the mip level.
        e, f = self.uv[1::3] - self.uv[0::3], self.uv[2::3] - self.uv[0::3]
        uv_area = np.abs(e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0])
        texture = self.texture[self.triangle_material]
        pixels = np.where(texture >= 0, self.textures.pixels[texture], 1)
        self.texel_density = np.sqrt(uv_area * pixels / np.maximum(area, 1e-12)).astype(np.float32)
        self.mean_color = self.color * np.where(
            self.texture[:, None] >= 0, self.textures.means[self.texture], 1
        )
        self.rays = caster(self.vertices)

    def cast(self, origins: Float, directions: Float) -> Hits:
        """Nearest hits of rays [N, 3]; distances in units of the directions' lengths."""
        found = self.rays.run(
            np.ascontiguousarray(origins, np.float32),
            np.ascontiguousarray(directions, np.float32),
            output=True,
        )
        return Hits(found['primID'].astype(np.int64), found['tfar'], found['u'], found['v'])

    def visible(self, origins: Float, steps: Float) -> NDArray[np.bool_]:
        """Whether nothing stands between ``origins`` and ``origins + steps`` [N, 3]."""
        limit = np.full(len(origins), 0.999, np.float32)
        blocked = self.rays.run(
            np.ascontiguousarray(origins, np.float32),
            np.ascontiguousarray(steps, np.float32),
            dists=limit,
            query='OCCLUDED',
        )
        return np.asarray(blocked < 0)

    def surface(self, hits: Hits, directions: Float) -> tuple[Float, Float, Float]:
        """Shading normals, face normals (both towards the ray's origin) and texture coordinates."""
        u, v = hits.u[:, None], hits.v[:, None]
        w = 1 - u - v
        i = hits.triangle * 3
        face = self.face_normals[hits.triangle]
        face = np.where((dot(face, directions) > 0)[:, None], -face, face)
        smooth = unit(self.normals[i] * w + self.normals[i + 1] * u + self.normals[i + 2] * v)
        smooth = np.where((dot(smooth, face) < 0)[:, None], -smooth, smooth)
        smooth = np.where((dot(smooth, directions) > 0)[:, None], face, smooth)
        return smooth, face, self.uv[i] * w + self.uv[i + 1] * u + self.uv[i + 2] * v

    def albedo(self, triangle: Int, uv: Float, footprint: Float) -> Float:
        """Linear albedo [N, 3] for a pixel ``footprint`` in metres [N]."""
        material = self.triangle_material[triangle]
        color = self.color[material]
        textured = np.flatnonzero(self.texture[material] >= 0)
        if len(textured):
            density = self.texel_density[triangle[textured]] * footprint[textured]
            sampled, _ = self.textures.sample(
                self.texture[material[textured]], uv[textured], np.log2(np.maximum(density, 1e-6))
            )
            color[textured] *= sampled
        return np.clip(color, 0, 0.95)


def caster(vertices: Float):  # type: ignore[no-untyped-def]  # embreex has no types
    """Embree scene over a triangle soup [3T, 3].

    Raises:
        SceneError: embreex is not installed.
    """
    try:
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh
    except ImportError as error:
        raise SceneError(
            'rendering rooms needs embreex (x86_64 only): pip install "mtl-training[synth]"'
        ) from error
    scene = rtcore_scene.EmbreeScene()
    index = np.arange(len(vertices), dtype=np.int32).reshape(-1, 3)
    TriangleMesh(scene, np.ascontiguousarray(vertices, np.float32), index)
    return scene
