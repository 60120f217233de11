"""Furnish a random room: shell, openings, furniture where people put it, things on top, lights."""

from __future__ import annotations

import numpy as np

from mtl_training.rooms.beyond import build_beyond, draw_kind
from mtl_training.rooms.catalogue import Library
from mtl_training.rooms.doors import Doorway, hang_door, plan_doorway, shut_door
from mtl_training.rooms.furniture import furnish
from mtl_training.rooms.hung import hang
from mtl_training.rooms.openings import door, window
from mtl_training.rooms.room import Room
from mtl_training.rooms.shell import ceiling_lights, shell
from mtl_training.rooms.stairs import Hall
from mtl_training.rooms.things import floor_mat, pillows, things_on_floor, things_on_surfaces
from mtl_training.scenes.scene import Scene

KIND_SHARES = {
    'bedroom': 0.2, 'living': 0.22, 'office': 0.17, 'kitchen': 0.13, 'bathroom': 0.08,
    'corridor': 0.12, 'hall': 0.08,
}  # fmt: skip
# How many doors stand open, so many in so many rooms.
OPEN_DOORS = {'corridor': (0.05, 0.35, 0.35, 0.25), 'hall': (0.4, 0.5, 0.1, 0)}
OTHER_OPEN_DOORS = (0.4, 0.45, 0.15, 0)


def random_room(library: Library, rng: np.random.Generator, kind: str | None = None) -> Scene:
    """A furnished room, ready to render; of one of ``KIND_SHARES``, or of any."""
    kinds = list(KIND_SHARES)
    kind = kind or kinds[rng.choice(len(kinds), p=list(KIND_SHARES.values()))]
    hall = Hall.random(rng) if kind == 'hall' else None
    size = _size(kind, rng) if hall is None else hall.size
    room = Room(library, rng, kind, size, daylight=bool(rng.random() < 0.65))
    s = room.scene
    if hall is not None:
        hall.reserve(room)
    doorways = _plan_doorways(room)
    shell(room)
    if hall is not None:
        hall.build(room)
    for doorway, beyond in doorways:
        hang_door(room, doorway)
        build_beyond(room, doorway, beyond)
    for _ in range(rng.integers(1, 5) if kind == 'corridor' else rng.integers(0, 2)):
        (shut_door if rng.random() < 0.5 else door)(room)
    for _ in range(rng.integers(0 if kind == 'corridor' else 1, 3)):
        window(room)
    furnish(room)
    if hall is None and rng.random() < 0.55:
        floor_mat(room)
    for _ in range(rng.integers(0, 4)):
        hang(room, 'picture')
    if rng.random() < (0.8 if kind in ('bathroom', 'bedroom') else 0.2):
        hang(room, 'mirror')
    room.probe()
    pillows(room)
    things_on_surfaces(room)
    things_on_floor(room)
    _light(room)
    s.size, s.kind = size, kind
    s.finish()
    return s


def _size(kind: str, rng: np.random.Generator) -> tuple[float, float, float]:
    if kind == 'corridor':
        width, depth = rng.uniform(1.3, 2.5), rng.uniform(5.0, 12.0)
    elif kind == 'bathroom':
        width, depth = rng.uniform(2.2, 3.6), rng.uniform(2.2, 3.8)
    else:
        width, depth = rng.uniform(3.0, 6.5), rng.uniform(3.0, 7.0)
    return width, depth, rng.uniform(2.35, 3.1)


def _plan_doorways(room: Room) -> list[tuple[Doorway, str]]:
    """Doorways with what is behind them; a leaf does not swing over steps."""
    count = room.rng.choice(4, p=OPEN_DOORS.get(room.kind, OTHER_OPEN_DOORS))
    planned = []
    for _ in range(count):
        beyond = draw_kind(room)
        doorway = plan_doorway(room, outward=beyond in ('room', 'corridor'))
        if doorway is not None:
            planned.append((doorway, beyond))
    return planned


def _light(room: Room) -> None:
    """Lamps: all on, few and weak, or off where daylight or the light next door has to do."""
    s, rng = room.scene, room.rng
    count, mood = int(rng.integers(1, 3)), rng.random()
    if room.kind in ('corridor', 'hall'):
        count += 1
    if mood < 0.2 and s.lights:
        ceiling_lights(room, count, 0.0)
    elif mood < 0.35:
        ceiling_lights(room, 1, 0.35)
    else:
        ceiling_lights(room, count)
    strength = rng.uniform(0.6, 1.4) if mood >= 0.35 else rng.uniform(0.1, 0.6)
    s.ambient = np.array([0.5, 0.5, 0.52], np.float32) * np.float32(strength)
