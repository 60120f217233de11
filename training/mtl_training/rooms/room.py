"""A room while it is furnished: its measures, what is taken, and how things are placed in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtl_training.rooms.catalogue import Library, Piece
from mtl_training.scenes.scene import Float, Scene, caster
from mtl_training.scenes.textures import pattern

# Walls: 0 at y = 0, 1 at x = W, 2 at y = D, 3 at x = 0. Yaw of a piece that stands against each.
WALL_YAW = (np.pi, -np.pi / 2, 0.0, np.pi / 2)
WALL_TANGENT = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
WALL_NORMAL = ((0.0, 1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (1.0, 0.0, 0.0))


@dataclass(frozen=True)
class Rectangle:
    """Axis-aligned floor area."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Rectangle, margin: float = 0.03) -> bool:
        return (
            self.x0 < other.x1 + margin
            and self.x1 > other.x0 - margin
            and self.y0 < other.y1 + margin
            and self.y1 > other.y0 - margin
        )


@dataclass(frozen=True)
class Surface:
    """The top of a piece where things can lie."""

    x: float
    y: float
    top: float
    width: float
    depth: float
    yaw: float


@dataclass(frozen=True)
class Opening:
    """A place on a wall: wall index, position along it, size, height of its lower edge."""

    wall: int
    along: float
    width: float
    height: float
    base: float


class Room:
    """What has been placed in a room so far; every decision is drawn from ``rng``."""

    def __init__(
        self,
        library: Library,
        rng: np.random.Generator,
        kind: str,
        size: tuple[float, float, float],
        *,
        daylight: bool,
        floor: float = 0.0,
        scene: Scene | None = None,
    ) -> None:
        """Begin an empty room: width, depth, and height of its ceiling; ``floor`` is its lowest."""
        self.library, self.rng, self.kind, self.daylight = library, rng, kind, daylight
        self.scene = Scene() if scene is None else scene
        self.width, self.depth, self.height = size
        self.floor = floor
        self.taken: list[Rectangle] = []
        self.doorways: list[Opening] = []  # holes in the walls
        self.pits: list[Rectangle] = []  # holes in the floor
        self.on_walls: list[list[tuple[float, float]]] = [[], [], [], []]
        self.surfaces: list[Surface] = []
        self.cushioned: list[int] = []

    def wall_length(self, wall: int) -> float:
        return self.depth if wall % 2 else self.width

    def strip(self, place: Opening, away: float, reach: float, margin: float = 0.0) -> Rectangle:
        """The floor before a place on a wall, from ``away`` to ``reach`` metres from the wall."""
        half = place.width / 2 + margin
        a = self.at_wall(place.wall, place.along - half, away)
        b = self.at_wall(place.wall, place.along + half, reach)
        (x0, x1), (y0, y1) = sorted((a[0], b[0])), sorted((a[1], b[1]))
        return Rectangle(float(x0), float(y0), float(x1), float(y1))

    def at_wall(self, wall: int, along: float, away: float) -> Float:
        """Floor point [2] at ``along`` metres on a wall, ``away`` metres from it."""
        points = (
            (along, away),
            (self.width - away, along),
            (along, self.depth - away),
            (away, along),
        )
        return np.array(points[wall], np.float32)

    def footprint(self, x: float, y: float, width: float, depth: float, yaw: float) -> Rectangle:
        c, s = abs(np.cos(yaw)), abs(np.sin(yaw))
        half_x, half_y = (width * c + depth * s) / 2, (width * s + depth * c) / 2
        return Rectangle(x - half_x, y - half_y, x + half_x, y + half_y)

    def inside(self, area: Rectangle) -> bool:
        """Whether nothing of an area is in a wall, but for a hair's breadth."""
        return (
            area.x0 > -0.02
            and area.y0 > -0.02
            and area.x1 < self.width + 0.02
            and area.y1 < self.depth + 0.02
        )

    def fits(self, area: Rectangle) -> bool:
        return self.inside(area) and not any(area.overlaps(other) for other in self.taken)

    def texture(self, names: Sequence[str], patterns: Sequence[str], share: float = 0.55) -> int:
        """A photographed texture from ``names`` with probability ``share``, else a pattern."""
        if names and self.rng.random() < share:
            path = self.library.texture(str(self.rng.choice(names)))
            if path:
                return self.scene.textures.file(path)
        return self.scene.textures.add(pattern(self.rng, str(self.rng.choice(patterns))))

    def tint(self, share: float = 0.35) -> Float | None:
        """A recolouring for a piece, or None to keep its own colours."""
        if self.rng.random() >= share:
            return None
        return np.asarray(
            self.rng.uniform(0.45, 1.1) + self.rng.normal(0, 0.12, 3), np.float32
        ).clip(0.15, 1.2)

    def opening(
        self, width: float, height: float, base: float, walls: Sequence[int] = range(4)
    ) -> Opening | None:
        """Reserve a free stretch of one of the walls, or None when there is none."""
        for _ in range(12):
            wall = int(self.rng.choice(walls))
            length = self.wall_length(wall)
            if width > length - 0.2 or base + height > self.height - 0.04:
                continue
            along = self.rng.uniform(width / 2 + 0.05, length - width / 2 - 0.05)
            if all(
                abs(along - other) > (width + size) / 2 + 0.05
                for other, size in self.on_walls[wall]
            ):
                self.on_walls[wall].append((along, width))
                return Opening(wall, along, width, height, base)
        return None

    def panel(self, place: Opening, away: float, material: int, instance: int) -> None:
        """A flat rectangle on the wall, facing the room, texture upright."""
        x, y = self.at_wall(place.wall, place.along, 0)
        tangent, normal = np.array(WALL_TANGENT[place.wall]), np.array(WALL_NORMAL[place.wall])
        start = np.array([x, y, place.base]) - tangent * place.width / 2 + normal * away
        end = start + tangent * place.width
        if np.dot(np.cross(end - start, (0, 0, 1)), normal) < 0:
            start, end = end, start
        up = start + np.array([0, 0, place.height])
        self.scene.quad(start, end, up, material, instance)

    def choose(self, label: str) -> Piece | None:
        pieces = self.library.pieces(label)
        return pieces[self.rng.integers(len(pieces))] if pieces else None

    def screen_material(self) -> int:
        """A dark screen, or one that shows something."""
        if self.rng.random() < 0.6:
            return self.scene.material(np.full(3, self.rng.uniform(0.01, 0.04)), specular=0.1)
        art = self.scene.textures.add(pattern(self.rng, 'art'))
        return self.scene.material((0.6, 0.6, 0.6), art, emission=0.08)

    def probe(self) -> None:
        """Take what stands so far as what :meth:`top_at` finds."""
        self._probe = caster(np.concatenate(self.scene._vertices))

    def top_at(self, x: float, y: float, ceiling: float) -> float:
        """Height of what lies under (x, y), looked up with a ray from just above ``ceiling``."""
        start = ceiling + 0.15
        found = self._probe.run(
            np.array([[x, y, start]], np.float32), np.array([[0, 0, -1]], np.float32), output=True
        )
        return start - float(found['tfar'][0]) if found['primID'][0] >= 0 else 0.0
