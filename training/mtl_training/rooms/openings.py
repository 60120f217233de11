"""Doors and windows, with what hangs before them."""

from __future__ import annotations

import numpy as np

from mtl_training.labels import NYUD_ID
from mtl_training.rooms.room import WALL_NORMAL, WALL_TANGENT, WALL_YAW, Opening, Room
from mtl_training.scenes.scene import Float
from mtl_training.scenes.textures import muted_color, pattern


def door(room: Room) -> None:
    piece = room.choose('door')
    if piece is None:
        return
    mesh = room.library.mesh(piece)
    place = room.opening(piece.width, piece.height, 0.0)
    if place is None:
        return
    depth = min(piece.depth, 0.09)
    x, y = room.at_wall(place.wall, place.along, 0.004 + depth / 2)
    room.scene.piece(
        mesh, (x, y, 0.0), WALL_YAW[place.wall], room.scene.instance('door', NYUD_ID['door']),
        scale=(1, 1, depth / max(piece.depth, 1e-6)), tint=room.tint(0.5),
    )  # fmt: skip
    middle = room.at_wall(place.wall, place.along, 0.4)
    room.taken.append(room.footprint(middle[0], middle[1], piece.width, 0.8, WALL_YAW[place.wall]))


def window(room: Room) -> None:
    """A window with bright sky behind it, daylight in front of it, maybe curtains or blinds."""
    piece, rng, s = room.choose('window'), room.rng, room.scene
    if piece is None:
        return
    mesh = room.library.mesh(piece)
    base = 0.05 if piece.height > 1.8 else rng.uniform(0.75, 1.05)
    place = room.opening(piece.width, piece.height, base)
    if place is None:
        return
    normal, tangent = np.array(WALL_NORMAL[place.wall]), np.array(WALL_TANGENT[place.wall])
    instance = s.instance('window', NYUD_ID['window'])
    depth = min(piece.depth, 0.09)
    x, y = room.at_wall(place.wall, place.along, 0.006 + depth / 2)
    s.piece(
        mesh, (x, y, base), WALL_YAW[place.wall], instance,
        scale=(1, 1, depth / max(piece.depth, 1e-6)), tint=room.tint(0.2),
    )  # fmt: skip
    outside = s.material(
        (0.5, 0.5, 0.55), s.textures.add(pattern(rng, 'art')) if rng.random() < 0.4 else -1,
        specular=0.0, emission=rng.uniform(0.25, 0.9) if room.daylight else 0.02,
    )  # fmt: skip
    room.panel(place, 0.004, outside, instance)
    if room.daylight:
        x, y = room.at_wall(place.wall, place.along, 0.25)
        corner = np.array([x, y, base]) - tangent * place.width / 2
        sky = np.array([0.75, 0.88, 1.0]) if rng.random() < 0.6 else np.array([1.0, 0.9, 0.75])
        power = sky * rng.uniform(1.2, 3.5) * place.width * place.height
        s.shine(corner, tangent * place.width, np.array([0, 0, place.height]), power)
    if rng.random() < 0.5:
        _dress_window(room, place, normal)
    if base < 0.9:
        middle = room.at_wall(place.wall, place.along, 0.2)
        room.taken.append(
            room.footprint(middle[0], middle[1], place.width + 0.2, 0.4, WALL_YAW[place.wall])
        )


def _dress_window(room: Room, place: Opening, normal: Float) -> None:
    """Curtains to both sides (procedural folds) or a catalogue curtain or blind."""
    rng, s = room.rng, room.scene
    top = min(place.base + place.height + 0.15, room.height - 0.03)
    label = str(rng.choice(['curtain', 'curtain', 'folds', 'folds', 'blinds']))
    piece = None if label == 'folds' else room.choose(label)
    x, y = room.at_wall(place.wall, place.along, 0.16)
    if piece is None:
        low = 0.03 if rng.random() < 0.6 else max(place.base - 0.2, 0.03)
        material = s.material(
            muted_color(rng, 0.15, 0.9), room.texture((), ('plain', 'stripes', 'noise'))
        )
        instance = s.instance('curtain', NYUD_ID['curtain'])
        share = rng.uniform(0.15, 0.45)
        for side in (-1, 1):
            folds(room, place, side, share * place.width, low, top, material, instance)
        return
    height = (
        place.height * rng.uniform(0.5, 1)
        if label == 'blinds'
        else top - max(place.base - 0.2, 0.02)
    )
    free = 2 * min(place.along, room.wall_length(place.wall) - place.along)
    width = min(place.width * 1.15, free)
    scale = (width / piece.width, height / piece.height, 1.0)
    room.scene.piece(
        room.library.mesh(piece), (x, y, max(0.0, top - height)), WALL_YAW[place.wall],
        s.instance(label, NYUD_ID[label]), scale=scale, tint=room.tint(0.8),
    )  # fmt: skip


def folds(
    room: Room,
    place: Opening,
    side: int,
    width: float,
    low: float,
    top: float,
    material: int,
    instance: int,
) -> None:
    """One hanging curtain with sinusoidal folds."""
    steps = 40
    t = np.linspace(0, 1, steps + 1)
    outer = place.along + side * (place.width / 2 + 0.12)
    along = outer - side * t * width
    away = 0.12 + 0.035 * np.sin(2 * np.pi * t * max(2, round(width / 0.11)))
    length = room.wall_length(place.wall)
    for i in range(steps):
        a = room.at_wall(place.wall, float(np.clip(along[i], 0.01, length - 0.01)), float(away[i]))
        b = room.at_wall(
            place.wall, float(np.clip(along[i + 1], 0.01, length - 0.01)), float(away[i + 1])
        )
        room.scene.quad((*a, low), (*b, low), (*a, top), material, instance, tile=0.8)
