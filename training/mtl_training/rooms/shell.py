"""What encloses a room, and the lamps on its ceiling."""

from __future__ import annotations

import numpy as np

from mtl_training.labels import NYUD_ID
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
    """Floor, ceiling, four walls with their doorways, skirting."""
    s, rng, w, d, h = room.scene, room.rng, room.width, room.depth, room.height
    low = room.floor
    floor = s.material(
        np.clip(rng.uniform(0.5, 1.0) + rng.normal(0, 0.05, 3), 0.2, 1),
        room.texture(FLOOR_TEXTURES, ('wood', 'tiles', 'checks', 'plain', 'plain')),
        specular=float(rng.choice([0.02, 0.04, 0.08])),
    )
    s.sheet(
        (0, 0, low), (w, 0, low), (0, d, low), [(p.x0, p.y0, p.x1, p.y1) for p in room.pits],
        floor, s.instance('floor', NYUD_ID['floor']), tile=rng.uniform(0.7, 2.0),
    )  # fmt: skip
    ceiling = s.material((0.9, 0.9, 0.9), room.texture(('white-plaster',), ('plain', 'tiles')))
    s.quad(
        (0, 0, h),
        (0, d, h),
        (w, 0, h),
        ceiling,
        s.instance('ceiling', NYUD_ID['ceiling']),
        tile=2.0,
    )
    common = wall_material(room)
    corners = ((0, 0), (w, 0), (w, d), (0, d))
    skirting = s.material(muted_color(rng, 0.3, 0.95)) if rng.random() < 0.5 else None
    for wall in range(4):
        (ax, ay), (bx, by) = corners[wall], corners[(wall + 1) % 4]
        material = common if rng.random() < 0.8 else wall_material(room)
        length, instance = room.wall_length(wall), s.instance('wall', NYUD_ID['wall'])
        gaps = sorted(
            (o.along - o.width / 2, o.along + o.width / 2, o.height)
            for o in room.doorways
            if o.wall == wall
        )
        holes = [(*((length - b, length - a) if wall < 2 else (a, b)), top) for a, b, top in gaps]
        s.sheet(
            (bx, by, low), (ax, ay, low), (bx, by, h),
            [(a, -low, b, top - low) for a, b, top in holes],
            material, instance, tile=rng.uniform(1, 2.5),
        )  # fmt: skip
        if skirting is None:
            continue
        ends = [0.0, *(end for a, b, _ in gaps for end in (a, b)), length]
        for start, end in zip(ends[::2], ends[1::2], strict=True):
            x, y = room.at_wall(wall, (start + end) / 2, 0.006)
            s.box((x, y, low), (end - start, 0.012, 0.08), WALL_YAW[wall], skirting, instance)


def wall_material(room: Room) -> int:
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


def ceiling_lights(room: Room, count: int, strength: float = 1.0) -> None:
    """Lamps on the ceiling; with a ``strength`` of 0 they are switched off."""
    rng, s = room.rng, room.scene
    for _ in range(count):
        x, y = rng.uniform(0.25, 0.75) * room.width, rng.uniform(0.25, 0.75) * room.depth
        a = rng.uniform(0.12, 0.6)
        b = a * rng.uniform(0.4, 1)
        warmth = np.array([1.0, 0.92, 0.8]) * rng.uniform(0.9, 1.1, 3)
        power = (
            warmth
            * rng.uniform(2.5, 6)
            * (0.6 if room.daylight else 1)
            * (room.width * room.depth / 14) ** 0.5
            * strength
        )
        corner = np.array([x - a / 2, y - b / 2, room.height - 0.06])
        if strength:
            s.shine(corner, np.array([a, 0, 0]), np.array([0, b, 0]), power)
        lamp = s.material((0.9, 0.9, 0.9), emission=2.5 * strength)
        s.box(
            (x, y, room.height - 0.05),
            (a, b, 0.05),
            0,
            lamp,
            s.instance('ceiling lamp', NYUD_ID['lamp']),
        )
