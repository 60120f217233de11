"""What hangs flat on walls: pictures, mirrors, screens, towels."""

from __future__ import annotations

import numpy as np

from mtl_training.labels import NYUD_ID
from mtl_training.rooms.openings import folds
from mtl_training.rooms.room import WALL_YAW, Opening, Room
from mtl_training.scenes.textures import muted_color, pattern


def hang(room: Room, label: str) -> None:
    """Hang something flat: picture, mirror, whiteboard, screen, towel, shower curtain."""
    rng, s = room.rng, room.scene
    sizes = {
        'picture': (rng.uniform(0.25, 1.1), rng.uniform(0.25, 0.9), rng.uniform(1.1, 1.5)),
        'mirror': (rng.uniform(0.4, 1.1), rng.uniform(0.5, 1.2), rng.uniform(0.6, 1.1)),
        'whiteboard': (rng.uniform(0.9, 2.2), rng.uniform(0.7, 1.2), rng.uniform(0.7, 1.0)),
        'television': (rng.uniform(0.7, 1.6), 0.0, rng.uniform(0.8, 1.3)),
        'towel': (rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.9), rng.uniform(0.6, 1.0)),
        'shower curtain': (rng.uniform(0.9, 1.6), rng.uniform(1.7, 1.95), 0.1),
    }
    width, height, base = sizes[label]
    if label == 'television':
        height = width * 0.57
    place = room.opening(width, height, base)
    if place is None:
        return
    instance = s.instance(label, NYUD_ID[label])
    thick = {'television': 0.06, 'picture': 0.025}.get(label, 0.02)
    frame, face = _facing(room, label)
    if label == 'shower curtain':
        folds(room, place, -1, width, base, base + height, face, instance)
        return
    x, y = room.at_wall(place.wall, place.along, 0.004 + thick / 2)
    s.box((x, y, base), (width, thick, height), WALL_YAW[place.wall], frame, instance)
    rim = {'picture': 0.03, 'television': 0.02, 'whiteboard': 0.015}.get(label, 0.0)
    inner = Opening(place.wall, place.along, width - 2 * rim, height - 2 * rim, base + rim)
    room.panel(inner, 0.006 + thick, face, instance)


def _facing(room: Room, label: str) -> tuple[int, int]:
    """Materials of the rim and of the face of something flat."""
    rng, s = room.rng, room.scene
    dark = s.material(np.full(3, rng.uniform(0.01, 0.08)))
    if label == 'mirror':
        mirror = s.material((0.04, 0.04, 0.04), specular=0.9)
        return dark, mirror
    if label == 'whiteboard':
        return s.material(muted_color(rng)), s.material(
            np.full(3, rng.uniform(0.75, 0.92)), specular=0.1
        )
    if label == 'television':
        return dark, room.screen_material()
    if label == 'picture':
        art = s.textures.add(pattern(rng, 'art'))
        return s.material(muted_color(rng, 0.05, 0.7)), s.material((1, 1, 1), art)
    cloth = s.material(muted_color(rng), room.texture((), ('plain', 'stripes', 'checks')))
    return cloth, cloth
