"""Furniture where people put it: against walls, freely, chairs at tables."""

from __future__ import annotations

import numpy as np

from mtl_training.labels import NYUD_ID
from mtl_training.rooms.hung import hang
from mtl_training.rooms.parametric import PARAMETRIC
from mtl_training.rooms.room import WALL_YAW, Room, Surface

# What a room of each kind is furnished with, most typical first; the rest is shuffled.
PROGRAMMES: dict[str, tuple[str, ...]] = {
    'bedroom': (
        'bed', 'night stand', 'night stand', 'cabinet', 'dresser', 'desk', 'chair', 'lamp', 'chair',
        'bookshelf', 'television', 'clothes', 'bag', 'box', 'otherfurniture', 'person',
    ),
    'living': (
        'sofa', 'table', 'sofa', 'table', 'chair', 'chair', 'television', 'bookshelf', 'cabinet',
        'lamp', 'shelves', 'otherfurniture', 'otherstructure', 'person', 'box', 'dresser',
    ),
    'office': (
        'desk', 'chair', 'desk', 'chair', 'table', 'chair', 'bookshelf', 'cabinet', 'cabinet',
        'whiteboard', 'shelves', 'box', 'box', 'bag', 'person', 'person', 'lamp', 'otherstructure',
    ),
    'kitchen': (
        'counter', 'table', 'chair', 'chair', 'chair', 'refridgerator', 'sink', 'cabinet',
        'cabinet', 'otherfurniture', 'otherfurniture', 'box', 'bag', 'person', 'lamp',
    ),
    'bathroom': (
        'toilet', 'sink', 'bathtub', 'cabinet', 'towel', 'shower curtain', 'otherstructure',
        'otherfurniture', 'clothes', 'shelves', 'toilet', 'box',
    ),
    'corridor': (
        'cabinet', 'chair', 'person', 'box', 'box', 'bag', 'otherstructure', 'otherfurniture',
        'bookshelf', 'lamp', 'person', 'shelves', 'clothes', 'chair',
    ),
    'hall': ('cabinet', 'chair', 'otherfurniture', 'person', 'box', 'bag', 'shelves', 'table'),
}  # fmt: skip
FREE_STANDING = frozenset({'table', 'person', 'bag', 'box', 'clothes', 'lamp', 'chair'})
SUPPORTING = frozenset({'table', 'desk', 'night stand', 'dresser', 'counter', 'cabinet'})
HANGS = 1.2  # metres: furniture whose catalogue elevation is above this hangs on the wall


def furnish(room: Room, most: int | None = None) -> None:
    """Bring in what a room of its kind has, or the ``most`` typical pieces of it."""
    programme = list(PROGRAMMES[room.kind])
    order = programme[:3] + [programme[3:][i] for i in room.rng.permutation(len(programme) - 3)]
    for label in order[:most]:
        if label in ('whiteboard', 'shower curtain', 'towel'):
            hang(room, label)
        elif label == 'chair' and room.surfaces and room.rng.random() < 0.7:
            chair_at_surface(room)
        elif label == 'television' and room.rng.random() < 0.6:
            hang(room, 'television')
        else:
            stand(room, label)


def stand(room: Room, label: str) -> None:
    """Stand a piece against a wall or freely on the floor."""
    rng = room.rng
    if label in PARAMETRIC and rng.random() < 0.3:
        parametric_piece(room, label)
        return
    for _ in range(14):
        piece = room.choose(label)
        if piece is None:
            parametric_piece(room, label)
            return
        hung = piece.elevation > HANGS
        if label == 'lamp' and (piece.height < 1.0 or hung):
            continue
        base = piece.elevation if hung else 0.0
        if base + piece.height > room.height - 0.02 or max(piece.width, piece.depth) > 3.6:
            continue
        if label == 'otherprop' and max(piece.width, piece.depth, piece.height) < 0.3:
            continue
        stretch = (
            rng.uniform(0.9, 1.12, 3)
            if label not in ('person', 'chair')
            else np.full(3, rng.uniform(0.94, 1.06))
        )
        if base + piece.height * stretch[1] > room.height - 0.02:
            stretch[1] = 1.0
        width, height, depth = np.array([piece.width, piece.height, piece.depth]) * stretch
        free = label in FREE_STANDING and rng.random() < 0.75
        x, y, yaw = _spot(room, width, depth, free)
        area = room.footprint(x, y, width, depth, yaw)
        if not room.fits(area):
            continue
        if not hung:
            room.taken.append(area)
        instance = room.scene.instance(piece.name, NYUD_ID[label])
        mesh = room.library.mesh(piece)
        room.scene.piece(mesh, (x, y, base), yaw, instance, scale=tuple(stretch), tint=room.tint())
        _remember(room, label, instance, x, y, height, width, depth, yaw)
        return


def _spot(room: Room, width: float, depth: float, free: bool) -> tuple[float, float, float]:
    rng = room.rng
    if free:
        yaw = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.integers(4) * np.pi / 2
        x, y = rng.uniform(0.3, room.width - 0.3), rng.uniform(0.3, room.depth - 0.3)
        return float(x), float(y), float(yaw)
    wall = int(rng.integers(4))
    slack = room.wall_length(wall) - width
    along = width / 2 + rng.uniform(0, max(slack, 0.0))
    x, y = room.at_wall(wall, along, 0.015 + depth / 2 + rng.choice([0, 0, 0.05]))
    return float(x), float(y), WALL_YAW[wall]


def _remember(
    room: Room,
    label: str,
    instance: int,
    x: float,
    y: float,
    top: float,
    w: float,
    d: float,
    yaw: float,
) -> None:
    if label in SUPPORTING and 0.3 < top < 1.3:
        room.surfaces.append(Surface(x, y, top, w, d, yaw))
    if label in ('bed', 'sofa'):
        room.cushioned.append(instance)


def chair_at_surface(room: Room) -> None:
    """A chair drawn up to a table or desk."""
    rng, piece = room.rng, room.choose('chair')
    if piece is None or piece.height > 1.35:
        return
    table = room.surfaces[rng.integers(len(room.surfaces))]
    yaw = table.yaw + rng.integers(4) * np.pi / 2
    reach = table.depth if abs(np.cos(yaw - table.yaw)) > 0.5 else table.width
    front = np.array([np.sin(yaw), -np.cos(yaw)])
    x, y = np.array([table.x, table.y]) + front * (reach / 2 + piece.depth * rng.uniform(0.25, 0.7))
    area = room.footprint(x, y, piece.width * 0.8, piece.depth * 0.5, yaw)
    turn = yaw + np.pi + rng.normal(0, 0.3)
    whole = room.footprint(x, y, piece.width, piece.depth, turn)
    if not (room.fits(area) and room.inside(whole)):
        return
    room.taken.append(area)
    instance = room.scene.instance(piece.name, NYUD_ID['chair'])
    room.scene.piece(room.library.mesh(piece), (x, y, 0), turn, instance, tint=room.tint())


def parametric_piece(room: Room, label: str) -> None:
    """A simple piece made of boxes: more shapes than the catalogue has."""
    make = PARAMETRIC.get(label)
    if make is None:
        return
    for _ in range(8):
        width, depth, height = make.size(room.rng)
        x, y, yaw = _spot(room, width, depth, label in FREE_STANDING and room.rng.random() < 0.7)
        area = room.footprint(x, y, width, depth, yaw)
        if not room.fits(area) or height > room.height - 0.1:
            continue
        room.taken.append(area)
        instance = room.scene.instance(f'made {label}', NYUD_ID[label])
        make.build(room, instance, (x, y), (width, depth, height), yaw)
        _remember(room, label, instance, x, y, height, width, depth, yaw)
        return
