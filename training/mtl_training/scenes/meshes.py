"""Read Wavefront OBJ furniture into flat triangle soups with materials, in metres."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_perception.files import beside
from mtl_training import TrainingError

Float = NDArray[np.floating[Any]]

# Diffuse colours of the material names that Java 3D's OBJ loader knows and the core catalogue uses
# without a material file (approximate).
BUILT_IN_COLORS: dict[str, tuple[float, float, float]] = {
    'amber': (0.78, 0.55, 0.10),
    'charcoal': (0.15, 0.15, 0.15),
    'white': (0.95, 0.95, 0.95),
    'bone': (0.90, 0.87, 0.78),
    'black': (0.05, 0.05, 0.05),
    'redwood': (0.50, 0.25, 0.15),
    'brown': (0.40, 0.25, 0.12),
    'gold': (0.80, 0.60, 0.20),
    'brass': (0.70, 0.55, 0.25),
    'bronze': (0.55, 0.40, 0.20),
    'silver': (0.75, 0.75, 0.75),
    'chrome': (0.70, 0.70, 0.72),
    'copper': (0.72, 0.45, 0.20),
    'pewter': (0.50, 0.50, 0.55),
    'iron': (0.30, 0.30, 0.32),
    'smoked_glass': (0.25, 0.25, 0.25),
    'bluetint': (0.60, 0.70, 0.85),
    'navy_blue': (0.10, 0.10, 0.45),
    'pale_green': (0.60, 0.85, 0.60),
    'pale_pink': (0.95, 0.75, 0.75),
    'pale_yellow': (0.95, 0.95, 0.65),
    'peach': (0.98, 0.78, 0.60),
    'green': (0.10, 0.70, 0.10),
    'ruby': (0.60, 0.10, 0.15),
    'emerald': (0.10, 0.60, 0.30),
    'sapphire': (0.10, 0.20, 0.60),
    'polished_silver': (0.80, 0.80, 0.80),
}
DEFAULT_COLOR = (0.8, 0.8, 0.8)


class MeshError(TrainingError):
    """A furniture file without usable triangles."""


@dataclass
class Material:
    """What the renderer uses of an MTL material."""

    color: tuple[float, float, float] = DEFAULT_COLOR
    opacity: float = 1.0
    specular: float = 0.0
    texture: str = ''


@dataclass(frozen=True)
class Mesh:
    """Triangle soup: three consecutive rows are one triangle; parts share a material.

    Frame: x right, y up, z towards the front of the piece; metres; origin: centre of the base.
    """

    size: Float  # [3] width, height, depth
    vertices: Float  # [3T, 3]
    normals: Float  # [3T, 3]
    uv: Float  # [3T, 2]
    counts: NDArray[np.int64]  # rows per part
    color: Float  # [P, 3], display-referred 0..1
    opacity: Float  # [P]
    specular: Float  # [P]
    texture: NDArray[np.str_]  # [P], path or ''

    def save(self, path: Path) -> None:
        """Write as .npz, whole or not at all."""
        with beside(path) as partial:
            np.savez(partial, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Mesh:
        with np.load(path) as data:
            return cls(**{key: data[key] for key in data.files})


def read_mtl(path: Path) -> dict[str, Material]:
    """Materials by name; unreadable numbers keep their default."""
    materials: dict[str, Material] = {}
    current = Material()
    for line in path.read_text(encoding='latin-1').splitlines():
        words = line.split('#')[0].split()
        if not words:
            continue
        key, values = words[0].lower(), words[1:]
        try:
            if key == 'newmtl':
                current = materials[' '.join(values)] = Material()
            elif key == 'kd':
                r, g, b = (float(v) for v in values[:3])
                current.color = (r, g, b)
            elif key == 'ks':
                current.specular = sum(float(v) for v in values[:3]) / 3
            elif key == 'd':
                current.opacity = float(values[-1])
            elif key == 'map_kd':
                current.texture = ' '.join(values).replace('\\', '/').split('/')[-1]
        except (ValueError, IndexError):
            continue
    return materials


def _index(word: str, count: int) -> int:
    """OBJ index (1-based, negative = from the end) to 0-based; '' becomes -1."""
    if not word:
        return -1
    value = int(word)
    return value - 1 if value > 0 else count + value


def _unit(v: NDArray[np.float64]) -> NDArray[np.float64]:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)


def read_obj(
    path: Path, size: tuple[float, float, float], rotation: NDArray[np.float64] | None = None
) -> Mesh:
    """Read an OBJ file, turn it by ``rotation`` and scale it to ``size`` (width, height, depth).

    Raises:
        MeshError: the file has no triangle of non-zero area.
    """
    beside = {entry.name.lower(): entry for entry in path.parent.iterdir()}
    vertices: list[list[float]] = []
    coordinates: list[list[float]] = []
    normals: list[list[float]] = []
    materials: dict[str, Material] = {}
    groups: dict[str, list[tuple[int, int, int]]] = {}
    group: list[tuple[int, int, int]] = groups.setdefault('', [])
    for line in path.read_text(encoding='latin-1').replace('\\\n', ' ').splitlines():
        words = line.split()
        if not words:
            continue
        key = words[0]
        if key == 'v':
            vertices.append([float(x) for x in words[1:4]])
        elif key == 'vt':
            coordinates.append([float(words[1]), float(words[2]) if len(words) > 2 else 0.0])
        elif key == 'vn':
            normals.append([float(x) for x in words[1:4]])
        elif key == 'usemtl':
            group = groups.setdefault(' '.join(words[1:]), [])
        elif key == 'mtllib':
            for name in (' '.join(words[1:]), *words[1:]):
                found = beside.get(name.replace('\\', '/').split('/')[-1].lower())
                if found:
                    materials.update(read_mtl(found))
                    break
        elif key in ('f', 'fo'):
            corners = []
            for word in words[1:]:
                point, texel, normal = [*word.split('/'), '', ''][:3]
                corners.append(
                    (
                        _index(point, len(vertices)),
                        _index(texel, len(coordinates)),
                        _index(normal, len(normals)),
                    )
                )
            for i in range(1, len(corners) - 1):  # fan
                group += (corners[0], corners[i], corners[i + 1])

    v = np.array(vertices, np.float64).reshape(-1, 3)
    vt = np.array(coordinates, np.float64).reshape(-1, 2)
    vn = np.array(normals, np.float64).reshape(-1, 3)
    if rotation is not None:
        v, vn = v @ rotation.T, vn @ rotation.T
    soups: list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], Material]] = []
    for name, rows in groups.items():
        index = np.array(rows, np.int64).reshape(-1, 3)
        if not len(index):
            continue
        p = v[index[:, 0]]
        face = np.cross(p[1::3] - p[0::3], p[2::3] - p[0::3])
        keep = np.repeat(np.linalg.norm(face, axis=1) > 1e-12, 3)
        flat = np.repeat(_unit(face), 3, axis=0)
        n = np.where(index[:, 2:] >= 0, vn[index[:, 2]], flat) if len(vn) else flat
        n = np.where(np.linalg.norm(n, axis=1, keepdims=True) > 1e-6, n, flat)
        uv = (
            np.where(index[:, 1:2] >= 0, vt[index[:, 1]], 0.0) if len(vt) else np.zeros((len(p), 2))
        )
        if keep.any():
            material = materials.get(name) or _built_in(name)
            soups.append((p[keep], n[keep], uv[keep], material))
    if not soups:
        raise MeshError(f'{path.name}: no triangles')

    points = np.concatenate([soup[0] for soup in soups])
    low, high = points.min(0), points.max(0)
    scale = np.array(size) / np.maximum(high - low, 1e-9)
    origin = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    chosen = [soup[3] for soup in soups]
    textures = [beside.get(m.texture.lower()) if m.texture else None for m in chosen]
    return Mesh(
        size=np.array(size, np.float32),
        vertices=((points - origin) * scale).astype(np.float32),
        normals=_unit(np.concatenate([soup[1] for soup in soups]) / scale).astype(np.float32),
        uv=np.concatenate([soup[2] for soup in soups]).astype(np.float32),
        counts=np.array([len(soup[0]) for soup in soups]),
        color=np.clip(np.array([m.color for m in chosen], np.float32), 0, 1),
        opacity=np.array([m.opacity for m in chosen], np.float32),
        specular=np.array([m.specular for m in chosen], np.float32),
        texture=np.array([str(texture or '') for texture in textures]),
    )


def _built_in(name: str) -> Material:
    lower = name.lower()
    color = BUILT_IN_COLORS.get(lower) or BUILT_IN_COLORS.get(
        lower.removeprefix('fl'), DEFAULT_COLOR
    )
    transparent = 'glass' in lower or 'trans' in lower
    return Material(color=color, opacity=0.4 if transparent else 1.0)
