"""Small things: on the floor, on beds and sofas, on the tops of furniture."""

from __future__ import annotations

import numpy as np

from mtl_training.labels import NYUD_ID
from mtl_training.rooms.room import Room
from mtl_training.scenes.scene import Float
from mtl_training.scenes.shapes import lathe
from mtl_training.scenes.textures import muted_color

THICKEST_RUG = 0.05  # metres
# What lies on tops and on floors, and how often.
TOP_SHARES = {
    'otherprop': 0.28, 'lamp': 0.08, 'books': 0.16, 'paper': 0.08, 'box': 0.1, 'television': 0.12,
    'bag': 0.03, 'vessel': 0.15,
}  # fmt: skip
FLOOR_SHARES = {
    'otherprop': 0.3, 'bag': 0.15, 'box': 0.15, 'books': 0.1, 'paper': 0.1, 'clothes': 0.1,
    'vessel': 0.1,
}  # fmt: skip
# Radius and height from below to above, in any unit: solids of revolution.
PROFILES: dict[str, tuple[tuple[float, float], ...]] = {
    'mug': ((0, 0), (4, 0), (4, 9), (3.7, 9), (3.7, 1), (0, 1)),
    'bottle': ((0, 0), (4, 0), (4, 16), (3, 20), (1.4, 23), (1.4, 28), (0, 28)),
    'bowl': ((0, 0), (4, 0), (7, 3), (9, 8), (8.6, 8), (6.6, 3.4), (0, 1)),
    'pot': ((0, 0), (7, 0), (9, 12), (9.6, 14), (8.4, 14), (8, 11), (0, 11)),
    'can': ((0, 0), (3.3, 0), (3.3, 11.5), (0, 11.5)),
    'vase': (
        (0, 0),
        (4, 0),
        (6, 6),
        (5.5, 12),
        (2.5, 19),
        (3.5, 24),
        (3.1, 24),
        (2.1, 19),
        (0, 18),
    ),
    'ball': tuple(
        (float(10 * np.sin(a)), float(10 - 10 * np.cos(a))) for a in np.linspace(0, np.pi, 11)
    ),
}


def floor_mat(room: Room) -> None:
    """A rug about the middle, below what stands there."""
    rng, s = room.rng, room.scene
    x, y = rng.uniform(0.3, 0.7) * room.width, rng.uniform(0.3, 0.7) * room.depth
    yaw, piece = rng.integers(4) * np.pi / 2, room.choose('floor mat')
    if piece is not None and rng.random() < 0.5:
        size = rng.uniform(0.9, 1.4)
        width, depth = piece.width * size, piece.depth * size
    else:
        piece, width, depth = None, rng.uniform(0.8, 2.2), rng.uniform(0.6, 1.6)
    if not room.inside(room.footprint(x, y, width, depth, yaw)):
        return
    instance = s.instance('floor mat', NYUD_ID['floor mat'])
    if piece is not None:
        s.piece(
            room.library.mesh(piece), (x, y, 0.002), yaw, instance,
            scale=(size, 1, size), tint=room.tint(0.6),
        )  # fmt: skip
        return
    material = s.material(
        muted_color(rng), room.texture(('gray-felt',), ('stripes', 'noise', 'checks', 'plain'))
    )
    s.box((x, y, 0), (width, depth, 0.012), yaw, material, instance)


def pillows(room: Room) -> None:
    for owner in room.cushioned:
        low, high = room.scene.bounds(owner)
        for _ in range(room.rng.integers(0, 4)):
            x = room.rng.uniform(low[0] + 0.2, max(high[0] - 0.2, low[0] + 0.21))
            y = room.rng.uniform(low[1] + 0.2, max(high[1] - 0.2, low[1] + 0.21))
            top = room.top_at(x, y, high[2])
            if 0.2 < top < 0.95:
                _pillow(room, x, y, top)


def _pillow(room: Room, x: float, y: float, top: float) -> None:
    """A superellipsoid cushion."""
    rng, s = room.rng, room.scene
    polar, around = np.meshgrid(
        np.linspace(0, np.pi, 13), np.linspace(0, 2 * np.pi, 25), indexing='ij'
    )

    def power(a: Float, p: float) -> Float:
        return np.sign(a) * np.abs(a) ** p

    radii = np.array([rng.uniform(0.18, 0.35), rng.uniform(0.15, 0.25), rng.uniform(0.05, 0.09)])
    side = power(np.sin(polar), 0.5)
    grid = np.stack(
        [power(np.cos(around), 0.45) * side, power(np.sin(around), 0.45) * side, np.cos(polar)],
        -1,
    )
    yaw, tilt = rng.uniform(0, 2 * np.pi), rng.uniform(-0.2, 0.8)
    cy, sy, ct, st = np.cos(yaw), np.sin(yaw), np.cos(tilt), np.sin(tilt)
    turn = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, ct, -st], [0, st, ct]]
    )
    center = np.array([x, y, top + 0.07 + 0.1 * abs(st)])
    grid = (grid * radii) @ turn.T + center
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    soup = np.stack([a, b, c, a, c, d], 2).reshape(-1, 3)
    face = np.cross(soup[1::3] - soup[0::3], soup[2::3] - soup[0::3])
    soup = soup[np.repeat(np.linalg.norm(face, axis=1) > 1e-9, 3)]
    normals = soup - center
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    material = s.material(
        muted_color(rng), room.texture((), ('plain', 'stripes', 'checks', 'noise'))
    )
    s.add(soup, normals, soup[:, :2] * 2, material, s.instance('pillow', NYUD_ID['pillow']))


def things_on_surfaces(room: Room) -> None:
    rng = room.rng
    for surface in room.surfaces:
        for _ in range(rng.integers(0, 9)):
            dx = rng.uniform(-0.4, 0.4) * surface.width
            dy = rng.uniform(-0.38, 0.38) * surface.depth
            c, s = np.cos(surface.yaw), np.sin(surface.yaw)
            x, y = surface.x + c * dx - s * dy, surface.y + s * dx + c * dy
            top = room.top_at(x, y, surface.top)
            if top > 0.25 and room.inside(room.footprint(x, y, 0.3, 0.3, 0.0)):
                _thing(room, x, y, top, surface.yaw)


def things_on_floor(room: Room) -> None:
    """What lies about: bags, boxes, shoes, books, bottles, balls; on rugs too."""
    rng = room.rng
    for _ in range(rng.integers(0, 9)):
        x, y = rng.uniform(0.15, room.width - 0.15), rng.uniform(0.15, room.depth - 0.15)
        area, top = room.footprint(x, y, 0.3, 0.3, 0.0), room.top_at(x, y, 0.0)
        if room.fits(area) and top < THICKEST_RUG:
            room.taken.append(area)
            _thing(room, x, y, top, 0.0, FLOOR_SHARES)


def vessel(
    room: Room, x: float, y: float, z: float, tallest: float = 0.3, widest: float = 0.13
) -> None:
    """A mug, bottle, bowl, pot or ball; at most so tall, with at most such a radius."""
    rng, s = room.rng, room.scene
    shape = str(rng.choice(list(PROFILES)))
    radius, height = np.max(PROFILES[shape], axis=0)
    size = min(tallest, rng.uniform(0.07, 0.3)) / height
    size = min(size, widest / radius)
    profile = [(size * r, size * level) for r, level in PROFILES[shape]]
    texture = room.texture((), ('plain', 'stripes', 'checks')) if rng.random() < 0.3 else -1
    material = s.material(
        muted_color(rng, 0.05, 0.95), texture, specular=float(rng.choice([0.02, 0.1]))
    )
    lathe(s, (x, y, z), profile, material, s.instance(shape, NYUD_ID['otherprop']))


def _thing(
    room: Room, x: float, y: float, top: float, yaw: float, shares: dict[str, float] = TOP_SHARES
) -> None:
    rng, s = room.rng, room.scene
    label = str(rng.choice(list(shares), p=list(shares.values())))
    if label == 'vessel':
        vessel(room, x, y, top + 0.001)
        return
    if label == 'television':
        _monitor(room, x, y, top, yaw + rng.normal(0, 0.3))
        return
    pieces = [
        p for p in room.library.pieces(label)
        if max(p.width, p.depth) < 0.45 and 0.03 < p.height < 0.7 and p.elevation < 0.02
    ]  # fmt: skip
    if pieces and rng.random() < 0.75:
        piece = pieces[rng.integers(len(pieces))]
        instance = s.instance(piece.name, NYUD_ID[label])
        s.piece(
            room.library.mesh(piece), (x, y, top + 0.001), rng.uniform(0, 2 * np.pi), instance,
            tint=room.tint(0.3),
        )  # fmt: skip
        return
    if label not in ('books', 'paper', 'box'):
        return
    height = {'books': rng.uniform(0.02, 0.15), 'paper': 0.004, 'box': rng.uniform(0.08, 0.3)}[
        label
    ]
    size = (rng.uniform(0.14, 0.3), rng.uniform(0.12, 0.3), height)
    color = np.full(3, 0.9) if label == 'paper' else muted_color(rng, 0.1, 0.8)
    s.box(
        (x, y, top + 0.001),
        size,
        rng.uniform(0, 6.3),
        s.material(color),
        s.instance(label, NYUD_ID[label]),
    )


def _monitor(room: Room, x: float, y: float, top: float, yaw: float) -> None:
    """A screen on a foot."""
    rng, s = room.rng, room.scene
    width = rng.uniform(0.4, 0.7)
    if not room.inside(room.footprint(x, y, width, 0.2, yaw)):
        return
    instance = s.instance('monitor', NYUD_ID['television'])
    black = s.material(np.full(3, rng.uniform(0.01, 0.1)))
    height, lift = width * rng.uniform(0.55, 0.7), rng.uniform(0.05, 0.14)
    s.box((x, y, top), (0.2, 0.16, 0.015), yaw, black, instance)
    s.box((x, y, top), (0.05, 0.03, lift + 0.1), yaw, black, instance)
    s.box((x, y, top + lift), (width, 0.035, height), yaw, black, instance)
    side = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    front = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    start = np.array([x, y, top + lift + 0.015]) - side * (width / 2 - 0.015) + front * 0.02
    room.scene.quad(
        start, start + side * (width - 0.03), start + np.array([0, 0, height - 0.03]),
        room.screen_material(), instance,
    )  # fmt: skip
