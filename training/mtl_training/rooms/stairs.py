"""Stairs: flights, landings and railings; a hall with a gallery, stairwells behind doors.

NYUD's 894 classes have stairs, railings and banisters; its 40 gather them in otherstructure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtl_training.labels import NYUD_ID
from mtl_training.rooms.room import Rectangle, Room
from mtl_training.rooms.shell import FLOOR_TEXTURES, wall_material
from mtl_training.scenes.shapes import beam
from mtl_training.scenes.textures import muted_color

SLAB = 0.25  # metres, of a floor between two storeys
STRUCTURE = NYUD_ID['otherstructure']


@dataclass(frozen=True)
class Flight:
    """A straight flight: so many risers, and one tread fewer."""

    steps: int
    rise: float
    run: float
    width: float

    @classmethod
    def random(cls, rng: np.random.Generator, fewest: int, most: int, width: float) -> Flight:
        steps = int(rng.integers(fewest, most + 1))
        return cls(steps, rng.uniform(0.155, 0.19), rng.uniform(0.24, 0.31), width)

    @property
    def height(self) -> float:
        return self.steps * self.rise

    @property
    def length(self) -> float:
        return (self.steps - 1) * self.run


@dataclass(frozen=True)
class Looks:
    """What all stairs of one place are made of: materials."""

    body: int
    tread: int
    floor: int
    rail: int
    nosing: float  # metres by which a tread stands out

    @classmethod
    def random(cls, room: Room) -> Looks:
        s, rng = room.scene, room.rng

        def covering() -> int:
            color = np.clip(rng.uniform(0.4, 1.0) + rng.normal(0, 0.06, 3), 0.1, 1)
            return s.material(
                color, room.texture(FLOOR_TEXTURES, ('wood', 'plain', 'tiles', 'noise'))
            )

        body = covering() if rng.random() < 0.5 else wall_material(room)
        boards = rng.random() < 0.6
        tread = covering() if boards else body
        floor = tread if rng.random() < 0.5 else covering()
        rail = s.material(muted_color(rng, 0.05, 0.9), specular=float(rng.choice([0.02, 0.1])))
        return cls(body, tread, floor, rail, rng.uniform(0, 0.03) if boards else 0.0)


def build_flight(
    room: Room, shape: Flight, foot: tuple[float, float, float], heading: int, looks: Looks
) -> None:
    """Solid steps from ``foot``, the middle of the lowest riser's lower edge, along +y or -y.

    The last riser is the side of what the flight leads to.
    """
    s, (x, y, z) = room.scene, foot
    instance = s.instance('stairs', STRUCTURE)
    board = 0.03 if looks.nosing else 0.0
    for step in range(shape.steps - 1):
        middle = y + heading * (step + 0.5) * shape.run
        top = (step + 1) * shape.rise
        s.box((x, middle, z), (shape.width, shape.run, top - board), 0.0, looks.body, instance)
        if board:
            s.box(
                (x, middle - heading * looks.nosing / 2, z + top - board),
                (shape.width, shape.run + looks.nosing, board), 0.0, looks.tread, instance,
            )  # fmt: skip


def landing(room: Room, area: Rectangle, top: float, thick: float, looks: Looks) -> None:
    """A floor at the height ``top``, with sides that belong to the stairs and an underside."""
    s = room.scene
    (x0, y0, x1, y1), low = (area.x0, area.y0, area.x1, area.y1), top - thick
    floor = s.instance('floor', NYUD_ID['floor'])
    s.quad((x0, y0, top), (x1, y0, top), (x0, y1, top), looks.floor, floor, tile=1.2)
    sides = s.instance('stairs', STRUCTURE)
    ring = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    for (ax, ay), (bx, by) in zip(ring, (*ring[1:], ring[0]), strict=True):
        s.quad((ax, ay, low), (bx, by, low), (ax, ay, top), looks.body, sides, tile=0.5)
    under = s.instance('ceiling', NYUD_ID['ceiling'])
    s.quad((x0, y0, low), (x0, y1, low), (x1, y0, low), s.material((0.85, 0.85, 0.85)), under)


def railing(
    room: Room, start: tuple[float, float, float], end: tuple[float, float, float], looks: Looks
) -> None:
    """Balusters and a handrail above a line, level or climbing."""
    s, rng = room.scene, room.rng
    a, b = np.array(start), np.array(end)
    instance = s.instance('railing', STRUCTURE)
    tall, thin = rng.uniform(0.85, 1.05), rng.uniform(0.014, 0.03)
    count = max(2, round(float(np.linalg.norm((b - a)[:2])) / rng.uniform(0.11, 0.3)) + 1)
    for share in np.linspace(0, 1, count):
        x, y, z = a + (b - a) * share
        s.box((x, y, z - 0.02), (thin, thin, tall + 0.02), 0.0, looks.rail, instance)
    lift = np.array([0, 0, tall])
    beam(s, a + lift, b + lift, rng.uniform(0.035, 0.06), looks.rail, instance)


@dataclass(frozen=True)
class Hall:
    """A hall of two storeys: a flight along a side wall up to a gallery, maybe another one down.

    Attributes:
        side: the wall of the flight up, -1 at x = 0 or 1 at x = width; the way down is opposite.
        landing: depth of the gallery, metres.
        down: the flight down, or None.
    """

    size: tuple[float, float, float]
    up: Flight
    side: int
    landing: float
    down: Flight | None

    @classmethod
    def random(cls, rng: np.random.Generator) -> Hall:
        up = Flight.random(rng, 13, 16, rng.uniform(0.85, 1.2))
        deep = rng.uniform(1.0, 1.5)
        down = Flight.random(rng, 6, 10, rng.uniform(0.85, 1.1)) if rng.random() < 0.6 else None
        width = up.width + rng.uniform(1.2, 2.4) + (down.width if down else 0)
        size = (width, rng.uniform(1.4, 2.6) + up.length + deep, up.height + rng.uniform(2.2, 2.5))
        return cls(size, up, int(rng.choice([-1, 1])), deep, down)

    def reserve(self, room: Room) -> None:
        """Keep floor and walls free for the stairs, and cut the hole for the flight down."""
        w, d, _ = self.size
        front = d - self.landing
        room.taken.append(Rectangle(0, front - 0.3, w, d))  # under the gallery
        foot = front - self.up.length
        room.taken.append(self._along(room, self.up, self.side, foot - 0.7, front))
        room.on_walls[2].append((w / 2, w))
        flight_wall, other = (3, 1) if self.side < 0 else (1, 3)
        room.on_walls[flight_wall].append(((foot + d) / 2, d - foot))
        room.on_walls[other].append((d - self.landing / 2, self.landing))
        room.scene.sights.append(np.array([w / 2, (foot + front) / 2, 1.0]))
        if self.down is not None:
            pit = self._pit(room, self.down)
            room.pits.append(pit)
            room.taken.append(Rectangle(pit.x0, pit.y0 - 0.7, pit.x1, pit.y1))
            room.on_walls[other].append(((pit.y0 + pit.y1) / 2, pit.y1 - pit.y0 + 0.4))
            room.scene.sights.append(np.array([(pit.x0 + pit.x1) / 2, (pit.y0 + pit.y1) / 2, -0.3]))

    def build(self, room: Room) -> None:
        looks = Looks.random(room)
        w, d, _ = self.size
        front, top = d - self.landing, self.up.height
        x = self.up.width / 2 if self.side < 0 else w - self.up.width / 2
        foot = front - self.up.length
        build_flight(room, self.up, (x, foot, 0.0), 1, looks)
        landing(room, Rectangle(0, front, w, d), top, SLAB, looks)
        free = x - self.side * (self.up.width / 2 - 0.03)
        railing(
            room, (free, foot + self.up.run / 2, self.up.rise),
            (free, front - self.up.run / 2, top - self.up.rise), looks,
        )  # fmt: skip
        railing(
            room,
            (free, front + 0.04, top),
            (0.03 if self.side > 0 else w - 0.03, front + 0.04, top),
            looks,
        )
        if self.down is not None:
            self._way_down(room, self.down, looks)

    def _along(self, room: Room, flight: Flight, side: int, y0: float, y1: float) -> Rectangle:
        low = 0.0 if side < 0 else room.width - flight.width
        return Rectangle(low, y0, low + flight.width, y1)

    def _pit(self, room: Room, down: Flight) -> Rectangle:
        return self._along(room, down, -self.side, 1.0, 1.0 + down.length + 0.3)

    def _way_down(self, room: Room, down: Flight, looks: Looks) -> None:
        """Shaft, steps, and a passage below the floor; railings where one might fall."""
        s, pit = room.scene, self._pit(room, down)
        x0, y0, x1, low, end = pit.x0, pit.y0, pit.x1, -down.height, pit.y1 + 1.2
        build_flight(room, down, ((x0 + x1) / 2, y0 + down.length, low), -1, looks)
        riser = s.instance('stairs', STRUCTURE)
        s.quad((x0, y0, low), (x1, y0, low), (x0, y0, 0), looks.body, riser, tile=0.5)
        floor = s.instance('floor', NYUD_ID['floor'])
        s.quad((x0, y0, low), (x1, y0, low), (x0, end, low), looks.floor, floor, tile=1.2)
        plaster = wall_material(room)
        for (ax, ay), (bx, by) in (
            ((x0, y0), (x0, end)), ((x1, y0), (x1, end)), ((x0, end), (x1, end)),
        ):  # fmt: skip
            wall = s.instance('wall', NYUD_ID['wall'])
            s.quad((ax, ay, low), (bx, by, low), (ax, ay, 0), plaster, wall, tile=1.5)
        lip = s.instance('wall', NYUD_ID['wall'])
        s.quad((x0, pit.y1, -SLAB), (x1, pit.y1, -SLAB), (x0, pit.y1, 0), plaster, lip)
        under = s.instance('ceiling', NYUD_ID['ceiling'])
        s.quad(
            (x0, pit.y1, -SLAB), (x0, end, -SLAB), (x1, pit.y1, -SLAB),
            s.material((0.85, 0.85, 0.85)), under,
        )  # fmt: skip
        free, fixed = (x0 - 0.03, x1) if self.side < 0 else (x1 + 0.03, x0)
        railing(room, (free, y0, 0), (free, pit.y1 + 0.03, 0), looks)
        railing(room, (free, pit.y1 + 0.03, 0), (fixed, pit.y1 + 0.03, 0), looks)
