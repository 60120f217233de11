"""Doorways: where a wall is open, the frame, and a leaf that stands ajar or is shut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtl_training.labels import NYUD_ID
from mtl_training.rooms.room import WALL_NORMAL, WALL_TANGENT, WALL_YAW, Opening, Room
from mtl_training.scenes.textures import muted_color

PROUD = 0.012  # metres by which a frame stands out of its wall
LEAF = 0.04  # thickness
MARGIN = 0.15  # of wall beside the opening: the frame, and the swing of a handle


@dataclass(frozen=True)
class Doorway:
    """A door in a wall.

    Attributes:
        thickness: of the wall, metres; 0: nothing is behind it, and the door is shut.
        angle: how far the leaf stands open, radians; None: there is no leaf.
        inward: the leaf opens into the room.
        hinge: at which end of the place it hangs, -1 or 1 along the wall.
        casing: width of the frame, metres; 0: the opening has none.
    """

    place: Opening
    thickness: float
    angle: float | None
    inward: bool
    hinge: int
    casing: float


def plan_doorway(room: Room, *, outward: bool) -> Doorway | None:
    """Reserve an open doorway and cut its hole; only where ``outward`` its leaf may open so."""
    rng = room.rng
    width, height = rng.uniform(0.75, 1.05), rng.uniform(1.96, 2.15)
    long = (1, 3) if room.kind == 'corridor' and rng.random() < 0.8 else range(4)
    found = room.opening(width + 2 * MARGIN, height + 0.1, 0.0, long)
    if found is None:
        return None
    place = Opening(found.wall, found.along, width, height, 0.0)
    angle = np.radians(rng.uniform(12, 90)) if rng.random() < 0.8 else None
    inward = angle is not None and (not outward or rng.random() < 0.5)
    casing = rng.uniform(0.04, 0.09) if angle is not None or rng.random() < 0.6 else 0.0
    room.doorways.append(place)
    room.taken.append(room.strip(place, 0, width + 0.1 if inward else 0.7, 0.08))
    x, y = room.at_wall(place.wall, place.along, 0)
    room.scene.sights.append(np.array([x, y, 1.0]))
    return Doorway(place, rng.uniform(0.09, 0.25), angle, inward, int(rng.choice([-1, 1])), casing)


def shut_door(room: Room) -> None:
    """A door that is shut: frame and leaf on a wall that is whole."""
    rng = room.rng
    width, height = rng.uniform(0.75, 1.0), rng.uniform(1.96, 2.12)
    found = room.opening(width + 2 * MARGIN, height + 0.1, 0.0)
    if found is None:
        return
    place = Opening(found.wall, found.along, width, height, 0.0)
    room.taken.append(room.strip(place, 0, 0.8))
    hang_door(room, Doorway(place, 0.0, 0.0, True, int(rng.choice([-1, 1])), 0.07))


def hang_door(room: Room, door: Doorway) -> None:
    """Frame, threshold, leaf and handles of a doorway."""
    s, rng, place = room.scene, room.rng, door.place
    paint = s.material(
        muted_color(rng, 0.3, 0.95),
        room.texture(('light-wood', 'dark-wood', 'red-wood'), ('wood', 'plain', 'plain'), 0.3),
        specular=float(rng.choice([0.02, 0.05])),
    )
    yaw, deep = WALL_YAW[place.wall], door.thickness
    label = 'door' if door.casing else 'wall'
    frame = s.instance('door frame', NYUD_ID[label])
    # Without a frame the reveal is plastered: boards that end with both walls, and leave no gap.
    board, out = (door.casing, PROUD) if door.casing else (0.02, 0.0005)
    middle = -deep / 2
    for side in (-1, 1):
        x, y = room.at_wall(place.wall, place.along + side * (place.width + board) / 2, middle)
        s.box((x, y, 0), (board, deep + 2 * out, place.height), yaw, paint, frame)
    x, y = room.at_wall(place.wall, place.along, middle)
    s.box((x, y, place.height), (place.width + 2 * board, deep + 2 * out, board), yaw, paint, frame)
    if deep:
        _threshold(room, door)
    else:  # what one sees in the gap around the leaf
        dark = s.material(np.full(3, 0.03))
        s.box((x, y, 0), (place.width, 0.004, place.height), yaw, dark, frame)
    if door.angle is not None:
        _leaf(room, door, door.angle, paint if rng.random() < 0.7 else s.material(muted_color(rng)))


def _threshold(room: Room, door: Doorway) -> None:
    """The floor inside the wall."""
    s, place = room.scene, door.place
    tangent = np.array(WALL_TANGENT[place.wall]) * place.width / 2
    into = np.array(WALL_NORMAL[place.wall]) * door.thickness
    near = np.array([*room.at_wall(place.wall, place.along, 0), 0])
    s.quad(
        near - tangent, near + tangent, near - tangent - into,
        s.material(muted_color(room.rng, 0.15, 0.7)), s.instance('threshold', NYUD_ID['floor']),
    )  # fmt: skip


def _leaf(room: Room, door: Doorway, angle: float, paint: int) -> None:
    """The leaf, with panels and a handle on both faces."""
    s, rng, place = room.scene, room.rng, door.place
    swing = np.array(WALL_NORMAL[place.wall][:2]) * (1 if door.inward else -1)
    shut = -door.hinge * np.array(WALL_TANGENT[place.wall][:2])
    along = place.along + door.hinge * (place.width / 2 - 0.004)
    face = (0.006 if not door.thickness else 0.0) if door.inward else -door.thickness
    pivot = np.asarray(room.at_wall(place.wall, along, face), np.float64)
    way = np.cos(angle) * shut + np.sin(angle) * swing
    inside = np.sin(angle) * shut - np.cos(angle) * swing  # from the outer face into the leaf
    yaw = float(np.arctan2(way[1], way[0]))
    width, height = place.width - 0.008, place.height - 0.02
    instance = s.instance('door', NYUD_ID['door'])

    def part(
        reach: float, across: float, z: float, size: tuple[float, float, float], material: int
    ) -> None:
        x, y = pivot + way * reach + inside * (LEAF / 2 + across)
        s.box((x, y, z), size, yaw, material, instance)

    part(width / 2, 0, 0.015, (width, LEAF, height), paint)
    rows, columns = int(rng.integers(0, 4)), int(rng.integers(1, 3))
    for row in range(rows):
        for column in range(columns):
            panel = (width / columns - 0.16, LEAF + 0.012, height / rows - 0.2)
            part((column + 0.5) * width / columns, 0, row * height / rows + 0.115, panel, paint)
    metal = s.material(np.full(3, rng.uniform(0.1, 0.6)), specular=0.15)
    lever = rng.random() < 0.7
    for side in (-1, 1) if door.thickness else (-1,):  # a wall without a hole has no other side
        part(width - 0.06, side * (LEAF / 2 + 0.005), 0.94, (0.04, 0.01, 0.2), metal)
        if lever:  # on its stem
            part(width - 0.06, side * (LEAF / 2 + 0.025), 1.045, (0.018, 0.05, 0.018), metal)
            part(width - 0.11, side * (LEAF / 2 + 0.05), 1.045, (0.12, 0.016, 0.018), metal)
        else:
            part(width - 0.06, side * (LEAF / 2 + 0.03), 1.02, (0.055, 0.06, 0.055), metal)
