"""What encloses a room, and the lamps on its ceiling."""

from __future__ import annotations

import numpy as np

from mtl_training.datasets.classes import NYUD_ID
from mtl_training.rooms.room import WALL_YAW, Room
from mtl_training.scenes.textures import muted_color

FLOOR_TEXTURES = (
    'wood-tiles', 'light-gray-floor-tile', 'wood-varnished-panels', 'gray-felt', 'red-wood',
    'light-wood', 'dark-wood', 'gray-woodgrain', 'ceramic',
)  # fmt: skip
WALL_TEXTURES = (
    'cream-plaster', 'white-plaster', 'pink-plaster', 'yellow-plaster', 'gray-plaster',
    'light-gray-plaster', 'white-bricks', 'clay',
)  # fmt: skip


def shell(room: Room) -> None:
    """Floor, ceiling, four walls, skirting."""
    s, rng, w, d, h = room.scene, room.rng, room.width, room.depth, room.height
    floor = s.material(
        np.clip(rng.uniform(0.5, 1.0) + rng.normal(0, 0.05, 3), 0.2, 1),
        room.texture(FLOOR_TEXTURES, ('wood', 'tiles', 'checks', 'plain', 'plain')),
        specular=float(rng.choice([0.02, 0.04, 0.08])),
    )
    tile = rng.uniform(0.7, 2.0)
    s.quad((0, 0, 0), (w, 0, 0), (0, d, 0), floor, s.instance('floor', NYUD_ID['floor']), tile=tile)
    ceiling = s.material((0.9, 0.9, 0.9), room.texture(('white-plaster',), ('plain', 'tiles')))
    s.quad(
        (0, 0, h),
        (0, d, h),
        (w, 0, h),
        ceiling,
        s.instance('ceiling', NYUD_ID['ceiling']),
        tile=2.0,
    )
    common = _wall_material(room)
    corners = ((0, 0), (w, 0), (w, d), (0, d))
    skirting = s.material(muted_color(rng, 0.3, 0.95)) if rng.random() < 0.5 else None
    for wall in range(4):
        (ax, ay), (bx, by) = corners[wall], corners[(wall + 1) % 4]
        material = common if rng.random() < 0.8 else _wall_material(room)
        s.quad(
            (bx, by, 0), (ax, ay, 0), (bx, by, h), material,
            s.instance('wall', NYUD_ID['wall']), tile=rng.uniform(1, 2.5),
        )  # fmt: skip
        if skirting is not None:
            x, y = room.at_wall(wall, room.wall_length(wall) / 2, 0.006)
            s.box(
                (x, y, 0), (room.wall_length(wall), 0.012, 0.08), WALL_YAW[wall], skirting,
                len(s.instances) - 1,
            )  # fmt: skip


def _wall_material(room: Room) -> int:
    rng = room.rng
    return room.scene.material(
        np.clip(
            rng.uniform(0.55, 1.0) + rng.normal(0, rng.choice([0.03, 0.12], p=[0.75, 0.25]), 3),
            0.15,
            1,
        ),
        room.texture(WALL_TEXTURES, ('plain', 'plain', 'plain', 'stripes', 'noise')),
        specular=0.0,
    )


def ceiling_lights(room: Room) -> None:
    rng, s = room.rng, room.scene
    for _ in range(rng.integers(1, 3)):
        x, y = rng.uniform(0.25, 0.75) * room.width, rng.uniform(0.25, 0.75) * room.depth
        a = rng.uniform(0.12, 0.6)
        b = a * rng.uniform(0.4, 1)
        warmth = np.array([1.0, 0.92, 0.8]) * rng.uniform(0.9, 1.1, 3)
        power = (
            warmth
            * rng.uniform(2.5, 6)
            * (0.6 if room.daylight else 1)
            * (room.width * room.depth / 14) ** 0.5
        )
        corner = np.array([x - a / 2, y - b / 2, room.height - 0.06])
        room.shine(corner, np.array([a, 0, 0]), (0, b, 0), power)
        lamp = s.material((0.9, 0.9, 0.9), emission=2.5)
        s.box(
            (x, y, room.height - 0.05),
            (a, b, 0.05),
            0,
            lamp,
            s.instance('ceiling lamp', NYUD_ID['lamp']),
        )
