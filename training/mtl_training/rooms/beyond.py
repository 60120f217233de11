"""What one sees through a doorway: another room, a corridor, or stairs that go up or down."""

from __future__ import annotations

import numpy as np

from mtl_training.rooms.doors import Doorway, shut_door
from mtl_training.rooms.furniture import furnish
from mtl_training.rooms.openings import window
from mtl_training.rooms.room import WALL_YAW, Opening, Rectangle, Room
from mtl_training.rooms.shell import ceiling_lights, shell
from mtl_training.rooms.stairs import Flight, Looks, build_flight, landing

KINDS = ('room', 'corridor', 'up', 'down')
# Behind doors of a corridor are rooms, rarely another corridor.
SHARES = {'corridor': (0.66, 0.04, 0.15, 0.15)}
OTHER_SHARES = (0.44, 0.32, 0.12, 0.12)
# Which walls meet the beginning and the end of a wall.
BEFORE, AFTER = (3, 0, 3, 0), (1, 2, 1, 2)
BESIDE = 0.14  # metres of wall on both sides of a doorway, at least
APART = 0.1  # between two spaces side by side
FURNITURE = 5  # pieces; most of a further space is hidden


def draw_kind(room: Room) -> str:
    return str(room.rng.choice(KINDS, p=SHARES.get(room.kind, OTHER_SHARES)))


def build_beyond(room: Room, door: Doorway, kind: str) -> None:
    """Build the space behind a doorway of ``room``, in the same scene."""
    rng, place = room.rng, door.place
    low, high = _limits(room, place)
    least = place.width / 2 + BESIDE
    reach = {
        'room': (0.8, 3.0), 'corridor': (1.5, 5.0), 'up': (least, least + 0.2),
        'down': (least, least + 0.2),
    }[kind]  # fmt: skip
    before, after = (
        min(max(least, rng.uniform(*reach)), max(least, space))
        for space in (place.along - low, high - place.along)
    )
    width = before + after
    along = before if place.wall in (2, 3) else after  # seen from inside, walls run the other way
    shape = Flight.random(rng, 4, 15, width)
    front, back = rng.uniform(0.3, 1.1), rng.uniform(0.9, 1.3)
    bottom, depth, height = 0.0, rng.uniform(2.2, 5.0), rng.uniform(2.35, 2.8)
    if kind == 'corridor':
        depth = rng.uniform(1.1, 2.0)
    elif kind in ('up', 'down'):
        depth = front + shape.length + back
        if kind == 'up':
            height = shape.height + rng.uniform(2.1, 2.5)
        else:
            bottom = -shape.height
    programme = str(rng.choice(['bedroom', 'living', 'office', 'kitchen']))
    inner = Room(
        room.library, rng, programme if kind == 'room' else 'corridor', (width, depth, height),
        daylight=room.daylight, floor=bottom, scene=room.scene,
    )  # fmt: skip
    inner.doorways.append(Opening(0, along, place.width, place.height, 0.0))
    inner.on_walls[0].append((along, place.width + 2 * BESIDE))
    inner.taken.append(inner.strip(inner.doorways[0], 0, 1.0, 0.1))
    yaw = WALL_YAW[place.wall]
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    corner = room.at_wall(place.wall, place.along, -door.thickness) - turn @ np.array([along, 0])
    with room.scene.placed(yaw, (*corner, 0.0)):
        shell(inner)
        if kind == 'up':
            _stairs_up(inner, shape, front)
        elif kind == 'down':
            _stairs_down(inner, shape, front)
        else:
            _furnish(inner)
        if rng.random() < 0.75:
            ceiling_lights(inner, 1)


def _limits(room: Room, place: Opening) -> tuple[float, float]:
    """How far along the wall the space may reach without meeting that of another doorway."""
    length = room.wall_length(place.wall)
    taken = {doorway.wall for doorway in room.doorways}
    low = 0.0 if BEFORE[place.wall] in taken else -4.0
    high = length if AFTER[place.wall] in taken else length + 4.0
    for other in room.doorways:
        if other.wall == place.wall and other is not place:
            middle = (other.along + place.along) / 2
            if middle < place.along:
                low = max(low, middle + APART / 2)
            else:
                high = min(high, middle - APART / 2)
    return low, high


def _furnish(inner: Room) -> None:
    rng = inner.rng
    if inner.kind == 'corridor':
        for _ in range(rng.integers(1, 4)):
            shut_door(inner)
    elif inner.daylight and rng.random() < 0.5:
        window(inner)
    furnish(inner, FURNITURE)


def _stairs_up(inner: Room, shape: Flight, front: float) -> None:
    looks = Looks.random(inner)
    build_flight(inner, shape, (inner.width / 2, front, 0.0), 1, looks)
    upper = Rectangle(0, front + shape.length, inner.width, inner.depth)
    landing(inner, upper, shape.height, shape.height, looks)


def _stairs_down(inner: Room, shape: Flight, front: float) -> None:
    looks = Looks.random(inner)
    foot = (inner.width / 2, front + shape.length, inner.floor)
    build_flight(inner, shape, foot, -1, looks)
    landing(inner, Rectangle(0, 0, inner.width, front), 0.0, shape.height, looks)
