"""Furnish a random room: shell, openings, furniture where people put it, things on top, lights."""

from __future__ import annotations

import numpy as np

from mtl_training.rooms.catalogue import Library
from mtl_training.rooms.furniture import furnish
from mtl_training.rooms.hung import hang
from mtl_training.rooms.openings import door, window
from mtl_training.rooms.room import Room
from mtl_training.rooms.shell import ceiling_lights, shell
from mtl_training.rooms.things import floor_mat, pillows, things_on_surfaces
from mtl_training.scenes.scene import Scene


def random_room(library: Library, rng: np.random.Generator) -> Scene:
    """A furnished room, ready to render."""
    room = Room(library, rng)
    s = room.scene
    shell(room)
    door(room)
    for _ in range(rng.integers(1, 3)):
        window(room)
    furnish(room)
    if rng.random() < 0.55:
        floor_mat(room)
    for _ in range(rng.integers(0, 4)):
        hang(room, 'picture')
    if rng.random() < (0.8 if room.kind in ('bathroom', 'bedroom') else 0.2):
        hang(room, 'mirror')
    room.probe()
    pillows(room)
    things_on_surfaces(room)
    ceiling_lights(room)
    s.ambient = np.array([0.5, 0.5, 0.52], np.float32) * np.float32(rng.uniform(0.6, 1.4))
    s.size, s.kind = (room.width, room.depth, room.height), room.kind
    s.finish()
    return s
