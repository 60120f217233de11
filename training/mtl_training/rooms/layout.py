"""Furnish a random room: shell, openings, furniture where people put it, things on top, lights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtl_training.datasets.classes import NYUD_ID
from mtl_training.rooms.catalogue import Library, Piece
from mtl_training.scenes.scene import Float, Light, Scene, caster
from mtl_training.scenes.textures import muted_color, pattern

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
        'bookshelf', 'lamp', 'person', 'shelves',
    ),
}  # fmt: skip
KIND_SHARES = {
    'bedroom': 0.22, 'living': 0.25, 'office': 0.2, 'kitchen': 0.15, 'bathroom': 0.1,
    'corridor': 0.08,
}  # fmt: skip
FREE_STANDING = frozenset({'table', 'person', 'bag', 'box', 'clothes', 'lamp', 'chair'})
SUPPORTING = frozenset({'table', 'desk', 'night stand', 'dresser', 'counter', 'cabinet'})
HANGS = 1.2  # metres: furniture whose catalogue elevation is above this hangs on the wall
FLOOR_TEXTURES = (
    'wood-tiles', 'light-gray-floor-tile', 'wood-varnished-panels', 'gray-felt', 'red-wood',
    'light-wood', 'dark-wood', 'gray-woodgrain', 'ceramic',
)  # fmt: skip
WALL_TEXTURES = (
    'cream-plaster', 'white-plaster', 'pink-plaster', 'yellow-plaster', 'gray-plaster',
    'light-gray-plaster', 'white-bricks', 'clay',
)  # fmt: skip
# Walls: 0 at y = 0, 1 at x = W, 2 at y = D, 3 at x = 0. Yaw of a piece that stands against each.
WALL_YAW = (np.pi, -np.pi / 2, 0.0, np.pi / 2)
WALL_TANGENT = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
WALL_NORMAL = ((0.0, 1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (1.0, 0.0, 0.0))


@dataclass(frozen=True)
class Rectangle:
    """Axis-aligned floor area."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Rectangle, margin: float = 0.03) -> bool:
        return (
            self.x0 < other.x1 + margin
            and self.x1 > other.x0 - margin
            and self.y0 < other.y1 + margin
            and self.y1 > other.y0 - margin
        )


@dataclass(frozen=True)
class Surface:
    """The top of a piece where things can lie."""

    x: float
    y: float
    top: float
    width: float
    depth: float
    yaw: float


@dataclass(frozen=True)
class Opening:
    """A place on a wall: wall index, position along it, size, height of its lower edge."""

    wall: int
    along: float
    width: float
    height: float
    base: float


class RoomBuilder:
    """Builds one room; every decision is drawn from ``rng``."""

    def __init__(self, library: Library, rng: np.random.Generator) -> None:
        self.library, self.rng = library, rng
        self.scene = Scene()
        kinds = list(KIND_SHARES)
        self.kind = kinds[rng.choice(len(kinds), p=list(KIND_SHARES.values()))]
        if self.kind == 'corridor':
            self.width, self.depth = rng.uniform(1.7, 2.6), rng.uniform(5.0, 9.0)
        elif self.kind == 'bathroom':
            self.width, self.depth = rng.uniform(2.2, 3.6), rng.uniform(2.2, 3.8)
        else:
            self.width, self.depth = rng.uniform(3.0, 6.5), rng.uniform(3.0, 7.0)
        self.height = rng.uniform(2.35, 3.1)
        self.taken: list[Rectangle] = []
        self.on_walls: list[list[tuple[float, float]]] = [[], [], [], []]
        self.surfaces: list[Surface] = []
        self.cushioned: list[int] = []
        self.daylight = rng.random() < 0.65

    # -- geometry of the room -------------------------------------------------------------------

    def wall_length(self, wall: int) -> float:
        return self.depth if wall % 2 else self.width

    def at_wall(self, wall: int, along: float, away: float) -> Float:
        """Floor point [2] at ``along`` metres on a wall, ``away`` metres from it."""
        points = (
            (along, away),
            (self.width - away, along),
            (along, self.depth - away),
            (away, along),
        )
        return np.array(points[wall], np.float32)

    def footprint(self, x: float, y: float, width: float, depth: float, yaw: float) -> Rectangle:
        c, s = abs(np.cos(yaw)), abs(np.sin(yaw))
        half_x, half_y = (width * c + depth * s) / 2, (width * s + depth * c) / 2
        return Rectangle(x - half_x, y - half_y, x + half_x, y + half_y)

    def fits(self, area: Rectangle) -> bool:
        inside = (
            area.x0 > -0.02
            and area.y0 > -0.02
            and area.x1 < self.width + 0.02
            and area.y1 < self.depth + 0.02
        )
        return inside and not any(area.overlaps(other) for other in self.taken)

    # -- materials ------------------------------------------------------------------------------

    def texture(self, names: Sequence[str], patterns: Sequence[str], share: float = 0.55) -> int:
        """A photographed texture from ``names`` with probability ``share``, else a pattern."""
        if names and self.rng.random() < share:
            path = self.library.texture(str(self.rng.choice(names)))
            if path:
                return self.scene.textures.file(path)
        return self.scene.textures.add(pattern(self.rng, str(self.rng.choice(patterns))))

    def tint(self, share: float = 0.35) -> Float | None:
        """A recolouring for a piece, or None to keep its own colours."""
        if self.rng.random() >= share:
            return None
        return np.asarray(
            self.rng.uniform(0.45, 1.1) + self.rng.normal(0, 0.12, 3), np.float32
        ).clip(0.15, 1.2)

    # -- the shell ------------------------------------------------------------------------------

    def shell(self) -> None:
        """Floor, ceiling, four walls, skirting."""
        s, rng, w, d, h = self.scene, self.rng, self.width, self.depth, self.height
        floor = s.material(
            np.clip(rng.uniform(0.5, 1.0) + rng.normal(0, 0.05, 3), 0.2, 1),
            self.texture(FLOOR_TEXTURES, ('wood', 'tiles', 'checks', 'plain', 'plain')),
            specular=float(rng.choice([0.02, 0.04, 0.08])),
        )
        tile = rng.uniform(0.7, 2.0)
        s.quad(
            (0, 0, 0), (w, 0, 0), (0, d, 0), floor, s.instance('floor', NYUD_ID['floor']), tile=tile
        )
        ceiling = s.material((0.9, 0.9, 0.9), self.texture(('white-plaster',), ('plain', 'tiles')))
        s.quad(
            (0, 0, h),
            (0, d, h),
            (w, 0, h),
            ceiling,
            s.instance('ceiling', NYUD_ID['ceiling']),
            tile=2.0,
        )
        common = self._wall_material()
        corners = ((0, 0), (w, 0), (w, d), (0, d))
        skirting = s.material(muted_color(rng, 0.3, 0.95)) if rng.random() < 0.5 else None
        for wall in range(4):
            (ax, ay), (bx, by) = corners[wall], corners[(wall + 1) % 4]
            material = common if rng.random() < 0.8 else self._wall_material()
            s.quad(
                (bx, by, 0), (ax, ay, 0), (bx, by, h), material,
                s.instance('wall', NYUD_ID['wall']), tile=rng.uniform(1, 2.5),
            )  # fmt: skip
            if skirting is not None:
                x, y = self.at_wall(wall, self.wall_length(wall) / 2, 0.006)
                s.box(
                    (x, y, 0), (self.wall_length(wall), 0.012, 0.08), WALL_YAW[wall], skirting,
                    len(s.instances) - 1,
                )  # fmt: skip

    def _wall_material(self) -> int:
        rng = self.rng
        return self.scene.material(
            np.clip(
                rng.uniform(0.55, 1.0) + rng.normal(0, rng.choice([0.03, 0.12], p=[0.75, 0.25]), 3),
                0.15,
                1,
            ),
            self.texture(WALL_TEXTURES, ('plain', 'plain', 'plain', 'stripes', 'noise')),
            specular=0.0,
        )

    def opening(self, width: float, height: float, base: float) -> Opening | None:
        """Reserve a free stretch of wall, or None when there is none."""
        for _ in range(12):
            wall = int(self.rng.integers(4))
            length = self.wall_length(wall)
            if width > length - 0.2 or base + height > self.height - 0.04:
                continue
            along = self.rng.uniform(width / 2 + 0.05, length - width / 2 - 0.05)
            if all(
                abs(along - other) > (width + size) / 2 + 0.05
                for other, size in self.on_walls[wall]
            ):
                self.on_walls[wall].append((along, width))
                return Opening(wall, along, width, height, base)
        return None

    def panel(self, place: Opening, away: float, material: int, instance: int) -> None:
        """A flat rectangle on the wall, facing the room, texture upright."""
        x, y = self.at_wall(place.wall, place.along, 0)
        tangent, normal = np.array(WALL_TANGENT[place.wall]), np.array(WALL_NORMAL[place.wall])
        start = np.array([x, y, place.base]) - tangent * place.width / 2 + normal * away
        end = start + tangent * place.width
        if np.dot(np.cross(end - start, (0, 0, 1)), normal) < 0:
            start, end = end, start
        up = start + np.array([0, 0, place.height])
        self.scene.quad(start, end, up, material, instance)

    def choose(self, label: str) -> Piece | None:
        pieces = self.library.pieces(label)
        return pieces[self.rng.integers(len(pieces))] if pieces else None

    def door(self) -> None:
        piece = self.choose('door')
        if piece is None:
            return
        mesh = self.library.mesh(piece)
        place = self.opening(piece.width, piece.height, 0.0)
        if place is None:
            return
        depth = min(piece.depth, 0.09)
        x, y = self.at_wall(place.wall, place.along, 0.004 + depth / 2)
        self.scene.piece(
            mesh, (x, y, 0.0), WALL_YAW[place.wall], self.scene.instance('door', NYUD_ID['door']),
            scale=(1, 1, depth / max(piece.depth, 1e-6)), tint=self.tint(0.5),
        )  # fmt: skip
        middle = self.at_wall(place.wall, place.along, 0.4)
        self.taken.append(
            self.footprint(middle[0], middle[1], piece.width, 0.8, WALL_YAW[place.wall])
        )

    def window(self) -> None:
        """A window with bright sky behind it, daylight in front of it, maybe curtains or blinds."""
        piece, rng, s = self.choose('window'), self.rng, self.scene
        if piece is None:
            return
        mesh = self.library.mesh(piece)
        base = 0.05 if piece.height > 1.8 else rng.uniform(0.75, 1.05)
        place = self.opening(piece.width, piece.height, base)
        if place is None:
            return
        normal, tangent = np.array(WALL_NORMAL[place.wall]), np.array(WALL_TANGENT[place.wall])
        instance = s.instance('window', NYUD_ID['window'])
        depth = min(piece.depth, 0.09)
        x, y = self.at_wall(place.wall, place.along, 0.006 + depth / 2)
        s.piece(
            mesh, (x, y, base), WALL_YAW[place.wall], instance,
            scale=(1, 1, depth / max(piece.depth, 1e-6)), tint=self.tint(0.2),
        )  # fmt: skip
        outside = s.material(
            (0.5, 0.5, 0.55), s.textures.add(pattern(rng, 'art')) if rng.random() < 0.4 else -1,
            specular=0.0, emission=rng.uniform(0.25, 0.9) if self.daylight else 0.02,
        )  # fmt: skip
        self.panel(place, 0.004, outside, instance)
        if self.daylight:
            x, y = self.at_wall(place.wall, place.along, 0.25)
            corner = np.array([x, y, base]) - tangent * place.width / 2
            sky = np.array([0.75, 0.88, 1.0]) if rng.random() < 0.6 else np.array([1.0, 0.9, 0.75])
            power = sky * rng.uniform(1.2, 3.5) * place.width * place.height
            self._shine(corner, tangent * place.width, (0, 0, place.height), power)
        if rng.random() < 0.5:
            self._dress_window(place, normal)
        if base < 0.9:
            middle = self.at_wall(place.wall, place.along, 0.2)
            self.taken.append(
                self.footprint(middle[0], middle[1], place.width + 0.2, 0.4, WALL_YAW[place.wall])
            )

    def _shine(self, corner: Float, u: Float, v: Sequence[float], power: Float) -> None:
        self.scene.lights.append(Light(*(np.asarray(a, np.float32) for a in (corner, u, v, power))))

    def _dress_window(self, place: Opening, normal: Float) -> None:
        """Curtains to both sides (procedural folds) or a catalogue curtain or blind."""
        rng, s = self.rng, self.scene
        top = min(place.base + place.height + 0.15, self.height - 0.03)
        label = str(rng.choice(['curtain', 'curtain', 'folds', 'folds', 'blinds']))
        piece = None if label == 'folds' else self.choose(label)
        x, y = self.at_wall(place.wall, place.along, 0.16)
        if piece is None:
            low = 0.03 if rng.random() < 0.6 else max(place.base - 0.2, 0.03)
            material = s.material(
                muted_color(rng, 0.15, 0.9), self.texture((), ('plain', 'stripes', 'noise'))
            )
            instance = s.instance('curtain', NYUD_ID['curtain'])
            share = rng.uniform(0.15, 0.45)
            for side in (-1, 1):
                self._folds(place, side, share * place.width, low, top, material, instance)
            return
        height = (
            place.height * rng.uniform(0.5, 1)
            if label == 'blinds'
            else top - max(place.base - 0.2, 0.02)
        )
        scale = (place.width * 1.15 / piece.width, height / piece.height, 1.0)
        self.scene.piece(
            self.library.mesh(piece), (x, y, max(0.0, top - height)), WALL_YAW[place.wall],
            s.instance(label, NYUD_ID[label]), scale=scale, tint=self.tint(0.8),
        )  # fmt: skip

    def _folds(
        self,
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
        length = self.wall_length(place.wall)
        for i in range(steps):
            a = self.at_wall(
                place.wall, float(np.clip(along[i], 0.01, length - 0.01)), float(away[i])
            )
            b = self.at_wall(
                place.wall, float(np.clip(along[i + 1], 0.01, length - 0.01)), float(away[i + 1])
            )
            self.scene.quad((*a, low), (*b, low), (*a, top), material, instance, tile=0.8)

    # -- furniture ------------------------------------------------------------------------------

    def furnish(self) -> None:
        programme = list(PROGRAMMES[self.kind])
        order = programme[:3] + [programme[3:][i] for i in self.rng.permutation(len(programme) - 3)]
        for label in order:
            if label in ('whiteboard', 'shower curtain', 'towel'):
                self.hang(label)
            elif label == 'chair' and self.surfaces and self.rng.random() < 0.7:
                self.chair_at_surface()
            elif label == 'television' and self.rng.random() < 0.6:
                self.hang('television')
            else:
                self.stand(label)

    def stand(self, label: str) -> None:
        """Stand a piece against a wall or freely on the floor."""
        rng = self.rng
        if label in PARAMETRIC and rng.random() < 0.3:
            self.parametric_piece(label)
            return
        for _ in range(14):
            piece = self.choose(label)
            if piece is None:
                self.parametric_piece(label)
                return
            hung = piece.elevation > HANGS
            if label == 'lamp' and (piece.height < 1.0 or hung):
                continue
            base = piece.elevation if hung else 0.0
            if base + piece.height > self.height - 0.02 or max(piece.width, piece.depth) > 3.6:
                continue
            if label == 'otherprop' and max(piece.width, piece.depth, piece.height) < 0.3:
                continue
            free = label in FREE_STANDING and rng.random() < 0.75
            x, y, yaw = self._spot(piece.width, piece.depth, free)
            area = self.footprint(x, y, piece.width, piece.depth, yaw)
            if not self.fits(area):
                continue
            if not hung:
                self.taken.append(area)
            instance = self.scene.instance(piece.name, NYUD_ID[label])
            mesh = self.library.mesh(piece)
            stretch = (
                rng.uniform(0.9, 1.12, 3)
                if label not in ('person', 'chair')
                else np.full(3, rng.uniform(0.94, 1.06))
            )
            if base + piece.height * stretch[1] > self.height - 0.02:
                stretch[1] = 1.0
            self.scene.piece(
                mesh, (x, y, base), yaw, instance, scale=tuple(stretch), tint=self.tint()
            )
            self._remember(
                label, instance, x, y, piece.height * stretch[1], piece.width, piece.depth, yaw
            )
            return

    def _spot(self, width: float, depth: float, free: bool) -> tuple[float, float, float]:
        rng = self.rng
        if free:
            yaw = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.integers(4) * np.pi / 2
            x, y = rng.uniform(0.3, self.width - 0.3), rng.uniform(0.3, self.depth - 0.3)
            return float(x), float(y), float(yaw)
        wall = int(rng.integers(4))
        slack = self.wall_length(wall) - width
        along = width / 2 + rng.uniform(0, max(slack, 0.0))
        x, y = self.at_wall(wall, along, 0.015 + depth / 2 + rng.choice([0, 0, 0.05]))
        return float(x), float(y), WALL_YAW[wall]

    def _remember(
        self,
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
            self.surfaces.append(Surface(x, y, top, w, d, yaw))
        if label in ('bed', 'sofa'):
            self.cushioned.append(instance)

    def chair_at_surface(self) -> None:
        """A chair drawn up to a table or desk."""
        rng, piece = self.rng, self.choose('chair')
        if piece is None or piece.height > 1.35:
            return
        table = self.surfaces[rng.integers(len(self.surfaces))]
        yaw = table.yaw + rng.integers(4) * np.pi / 2
        reach = table.depth if abs(np.cos(yaw - table.yaw)) > 0.5 else table.width
        front = np.array([np.sin(yaw), -np.cos(yaw)])
        x, y = np.array([table.x, table.y]) + front * (
            reach / 2 + piece.depth * rng.uniform(0.25, 0.7)
        )
        area = self.footprint(x, y, piece.width * 0.8, piece.depth * 0.5, yaw)
        if not self.fits(area):
            return
        self.taken.append(area)
        instance = self.scene.instance(piece.name, NYUD_ID['chair'])
        turn = yaw + np.pi + rng.normal(0, 0.3)
        self.scene.piece(self.library.mesh(piece), (x, y, 0), turn, instance, tint=self.tint())

    def parametric_piece(self, label: str) -> None:
        """A simple piece made of boxes: more shapes than the catalogue has."""
        make = PARAMETRIC.get(label)
        if make is None:
            return
        for _ in range(8):
            width, depth, height = make.size(self.rng)
            x, y, yaw = self._spot(width, depth, label in FREE_STANDING and self.rng.random() < 0.7)
            area = self.footprint(x, y, width, depth, yaw)
            if not self.fits(area) or height > self.height - 0.1:
                continue
            self.taken.append(area)
            instance = self.scene.instance(f'made {label}', NYUD_ID[label])
            make.build(self, instance, (x, y), (width, depth, height), yaw)
            self._remember(label, instance, x, y, height, width, depth, yaw)
            return

    # -- on the walls ---------------------------------------------------------------------------

    def hang(self, label: str) -> None:
        """Hang something flat: picture, mirror, whiteboard, screen, towel, shower curtain."""
        rng, s = self.rng, self.scene
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
        place = self.opening(width, height, base)
        if place is None:
            return
        instance = s.instance(label, NYUD_ID[label])
        thick = {'television': 0.06, 'picture': 0.025}.get(label, 0.02)
        frame, face = self._facing(label)
        if label == 'shower curtain':
            self._folds(place, -1, width, base, base + height, face, instance)
            return
        x, y = self.at_wall(place.wall, place.along, 0.004 + thick / 2)
        s.box((x, y, base), (width, thick, height), WALL_YAW[place.wall], frame, instance)
        rim = {'picture': 0.03, 'television': 0.02, 'whiteboard': 0.015}.get(label, 0.0)
        inner = Opening(place.wall, place.along, width - 2 * rim, height - 2 * rim, base + rim)
        self.panel(inner, 0.006 + thick, face, instance)

    def _facing(self, label: str) -> tuple[int, int]:
        """Materials of the rim and of the face of something flat."""
        rng, s = self.rng, self.scene
        dark = s.material(np.full(3, rng.uniform(0.01, 0.08)))
        if label == 'mirror':
            mirror = s.material((0.04, 0.04, 0.04), specular=0.9)
            return dark, mirror
        if label == 'whiteboard':
            return s.material(muted_color(rng)), s.material(
                np.full(3, rng.uniform(0.75, 0.92)), specular=0.1
            )
        if label == 'television':
            return dark, self.screen_material()
        if label == 'picture':
            art = s.textures.add(pattern(rng, 'art'))
            return s.material(muted_color(rng, 0.05, 0.7)), s.material((1, 1, 1), art)
        cloth = s.material(muted_color(rng), self.texture((), ('plain', 'stripes', 'checks')))
        return cloth, cloth

    def screen_material(self) -> int:
        """A dark screen, or one that shows something."""
        if self.rng.random() < 0.6:
            return self.scene.material(np.full(3, self.rng.uniform(0.01, 0.04)), specular=0.1)
        art = self.scene.textures.add(pattern(self.rng, 'art'))
        return self.scene.material((0.6, 0.6, 0.6), art, emission=0.08)

    # -- on floor, beds and table tops ----------------------------------------------------------

    def floor_mat(self) -> None:
        rng, s = self.rng, self.scene
        x, y = rng.uniform(0.3, 0.7) * self.width, rng.uniform(0.3, 0.7) * self.depth
        instance = s.instance('floor mat', NYUD_ID['floor mat'])
        piece = self.choose('floor mat')
        if piece is not None and rng.random() < 0.5:
            size = rng.uniform(0.9, 1.4)
            s.piece(
                self.library.mesh(piece), (x, y, 0.002), rng.integers(4) * np.pi / 2, instance,
                scale=(size, 1, size), tint=self.tint(0.6),
            )  # fmt: skip
            return
        material = s.material(
            muted_color(rng), self.texture(('gray-felt',), ('stripes', 'noise', 'checks', 'plain'))
        )
        s.box(
            (x, y, 0),
            (rng.uniform(0.8, 2.2), rng.uniform(0.6, 1.6), 0.012),
            rng.integers(4) * np.pi / 2,
            material,
            instance,
        )

    def pillows(self) -> None:
        for owner in self.cushioned:
            low, high = self.scene.bounds(owner)
            for _ in range(self.rng.integers(0, 4)):
                x = self.rng.uniform(low[0] + 0.2, max(high[0] - 0.2, low[0] + 0.21))
                y = self.rng.uniform(low[1] + 0.2, max(high[1] - 0.2, low[1] + 0.21))
                top = self._top(x, y, high[2])
                if 0.2 < top < 0.95:
                    self._pillow(x, y, top)

    def _pillow(self, x: float, y: float, top: float) -> None:
        """A superellipsoid cushion."""
        rng, s = self.rng, self.scene
        polar, around = np.meshgrid(
            np.linspace(0, np.pi, 13), np.linspace(0, 2 * np.pi, 25), indexing='ij'
        )

        def power(a: Float, p: float) -> Float:
            return np.sign(a) * np.abs(a) ** p

        radii = np.array(
            [rng.uniform(0.18, 0.35), rng.uniform(0.15, 0.25), rng.uniform(0.05, 0.09)]
        )
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
            muted_color(rng), self.texture((), ('plain', 'stripes', 'checks', 'noise'))
        )
        s.add(soup, normals, soup[:, :2] * 2, material, s.instance('pillow', NYUD_ID['pillow']))

    def _top(self, x: float, y: float, ceiling: float) -> float:
        """Height of what lies under (x, y), looked up with a ray from just above ``ceiling``."""
        start = ceiling + 0.15
        found = self._probe.run(
            np.array([[x, y, start]], np.float32), np.array([[0, 0, -1]], np.float32), output=True
        )
        return start - float(found['tfar'][0]) if found['primID'][0] >= 0 else 0.0

    def things_on_surfaces(self) -> None:
        rng = self.rng
        for surface in self.surfaces:
            for _ in range(rng.integers(0, 5)):
                dx = rng.uniform(-0.35, 0.35) * surface.width
                dy = rng.uniform(-0.3, 0.3) * surface.depth
                c, s = np.cos(surface.yaw), np.sin(surface.yaw)
                x, y = surface.x + c * dx - s * dy, surface.y + s * dx + c * dy
                top = self._top(x, y, surface.top)
                if top > 0.25:
                    self._thing(x, y, top, surface.yaw)

    def _thing(self, x: float, y: float, top: float, yaw: float) -> None:
        rng, s = self.rng, self.scene
        label = str(
            rng.choice(
                ['otherprop', 'lamp', 'books', 'paper', 'box', 'television', 'bag'],
                p=[0.36, 0.1, 0.16, 0.06, 0.12, 0.16, 0.04],
            )
        )
        if label == 'television':
            self._monitor(x, y, top, yaw + rng.normal(0, 0.3))
            return
        pieces = [
            p for p in self.library.pieces(label)
            if max(p.width, p.depth) < 0.45 and 0.03 < p.height < 0.7 and p.elevation < 0.02
        ]  # fmt: skip
        if pieces and rng.random() < 0.75:
            piece = pieces[rng.integers(len(pieces))]
            instance = s.instance(piece.name, NYUD_ID[label])
            s.piece(
                self.library.mesh(piece), (x, y, top + 0.001), rng.uniform(0, 2 * np.pi), instance,
                tint=self.tint(0.3),
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

    def _monitor(self, x: float, y: float, top: float, yaw: float) -> None:
        """A screen on a foot."""
        rng, s = self.rng, self.scene
        instance = s.instance('monitor', NYUD_ID['television'])
        black = s.material(np.full(3, rng.uniform(0.01, 0.1)))
        width = rng.uniform(0.4, 0.7)
        height, lift = width * rng.uniform(0.55, 0.7), rng.uniform(0.05, 0.14)
        s.box((x, y, top), (0.2, 0.16, 0.015), yaw, black, instance)
        s.box((x, y, top), (0.05, 0.03, lift + 0.1), yaw, black, instance)
        s.box((x, y, top + lift), (width, 0.035, height), yaw, black, instance)
        side = np.array([np.cos(yaw), np.sin(yaw), 0.0])
        front = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
        start = np.array([x, y, top + lift + 0.015]) - side * (width / 2 - 0.015) + front * 0.02
        self.scene.quad(
            start, start + side * (width - 0.03), start + np.array([0, 0, height - 0.03]),
            self.screen_material(), instance,
        )  # fmt: skip

    # -- lights ---------------------------------------------------------------------------------

    def ceiling_lights(self) -> None:
        rng, s = self.rng, self.scene
        for _ in range(rng.integers(1, 3)):
            x, y = rng.uniform(0.25, 0.75) * self.width, rng.uniform(0.25, 0.75) * self.depth
            a = rng.uniform(0.12, 0.6)
            b = a * rng.uniform(0.4, 1)
            warmth = np.array([1.0, 0.92, 0.8]) * rng.uniform(0.9, 1.1, 3)
            power = (
                warmth
                * rng.uniform(2.5, 6)
                * (0.6 if self.daylight else 1)
                * (self.width * self.depth / 14) ** 0.5
            )
            corner = np.array([x - a / 2, y - b / 2, self.height - 0.06])
            self._shine(corner, np.array([a, 0, 0]), (0, b, 0), power)
            lamp = s.material((0.9, 0.9, 0.9), emission=2.5)
            s.box(
                (x, y, self.height - 0.05),
                (a, b, 0.05),
                0,
                lamp,
                s.instance('ceiling lamp', NYUD_ID['lamp']),
            )

    def build(self) -> Scene:
        rng, s = self.rng, self.scene
        self.shell()
        self.door()
        for _ in range(rng.integers(1, 3)):
            self.window()
        self.furnish()
        if rng.random() < 0.55:
            self.floor_mat()
        for _ in range(rng.integers(0, 4)):
            self.hang('picture')
        if rng.random() < (0.8 if self.kind in ('bathroom', 'bedroom') else 0.2):
            self.hang('mirror')
        self._probe = caster(np.concatenate(s._vertices))
        self.pillows()
        self.things_on_surfaces()
        self.ceiling_lights()
        s.ambient = np.array([0.5, 0.5, 0.52], np.float32) * np.float32(rng.uniform(0.6, 1.4))
        s.size, s.kind = (self.width, self.depth, self.height), self.kind
        s.finish()
        return s


@dataclass(frozen=True)
class Recipe:
    """A parametric piece: the range of its sizes (width, depth, height) and how it is built."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    style: str

    def size(self, rng: np.random.Generator) -> tuple[float, float, float]:
        w, d, h = rng.uniform(self.low, self.high)
        return float(w), float(d), float(h)

    def build(
        self,
        room: RoomBuilder,
        instance: int,
        at: tuple[float, float],
        size: tuple[float, float, float],
        yaw: float,
    ) -> None:
        s, rng = room.scene, room.rng
        (x, y), (w, d, h) = at, size
        c, n = np.cos(yaw), np.sin(yaw)
        wood = s.material(
            muted_color(rng, 0.2, 0.95),
            room.texture(('light-wood', 'dark-wood', 'red-wood'), ('wood', 'plain')),
            specular=float(rng.choice([0.02, 0.06])),
        )  # fmt: skip

        def part(
            dx: float, dy: float, z: float, pw: float, pd: float, ph: float, material: int = wood
        ) -> None:
            s.box(
                (x + c * dx - n * dy, y + n * dx + c * dy, z), (pw, pd, ph), yaw, material, instance
            )

        t = 0.03
        if self.style == 'table':
            leg = rng.uniform(0.03, 0.07)
            part(0, 0, h - t, w, d, t)
            for sx in (-1, 1):
                for sy in (-1, 1):
                    part(sx * (w / 2 - leg), sy * (d / 2 - leg), 0, leg, leg, h - t)
        elif self.style == 'cabinet':
            part(0, 0, 0, w, d, h)
            columns, rows = max(1, round(w / rng.uniform(0.4, 0.6))), int(rng.integers(1, 5))
            front = (
                s.material(muted_color(rng, 0.3, 0.95), specular=0.04)
                if rng.random() < 0.5
                else wood
            )
            knob = s.material(np.full(3, rng.uniform(0.05, 0.6)), specular=0.1)
            for i in range(columns):
                for j in range(rows):
                    px = -w / 2 + (i + 0.5) * w / columns
                    part(
                        px,
                        -d / 2 - 0.008,
                        (j + 0.03) * h / rows,
                        w / columns * 0.95,
                        0.016,
                        h / rows * 0.94,
                        front,
                    )
                    part(px, -d / 2 - 0.025, (j + 0.5) * h / rows, 0.1, 0.02, 0.015, knob)
        elif self.style == 'shelf':
            part(0, d / 2 - 0.01, 0, w, 0.02, h)
            part(-w / 2 + t / 2, 0, 0, t, d, h)
            part(w / 2 - t / 2, 0, 0, t, d, h)
            boards = max(2, round(h / rng.uniform(0.28, 0.42)))
            for j in range(boards + 1):
                part(0, 0, j * (h - t) / boards, w - 2 * t, d, t)
            for j in range(boards):
                self._fill(part, room, w, d, j * (h - t) / boards + t, (h - t) / boards - t)
        else:  # box
            card = (
                s.material(np.array([0.55, 0.4, 0.25]) * rng.uniform(0.6, 1.3), -1)
                if rng.random() < 0.6
                else wood
            )
            part(0, 0, 0, w, d, h, card)
            part(0, 0, h, w * 0.14, d, 0.002, s.material((0.6, 0.5, 0.35)))

    @staticmethod
    def _fill(part, room: RoomBuilder, w: float, d: float, z: float, space: float) -> None:  # type: ignore[no-untyped-def]
        """Stand book-like blocks on a board; they belong to the shelf."""
        rng, x = room.rng, -w / 2 + 0.05
        while x < w / 2 - 0.08:
            bw, bh = rng.uniform(0.02, 0.07), space * rng.uniform(0.5, 0.95)
            if rng.random() < 0.75:
                part(
                    x + bw / 2,
                    rng.uniform(-0.03, 0.03),
                    z,
                    bw,
                    d * 0.6,
                    bh,
                    room.scene.material(muted_color(rng, 0.1, 0.8)),
                )
            x += bw + (rng.uniform(0.05, 0.25) if rng.random() < 0.12 else 0.002)


PARAMETRIC: dict[str, Recipe] = {
    'table': Recipe((0.7, 0.6, 0.4), (1.9, 1.0, 0.8), 'table'),
    'desk': Recipe((1.0, 0.55, 0.68), (1.8, 0.85, 0.78), 'table'),
    'counter': Recipe((1.0, 0.55, 0.85), (2.6, 0.7, 0.98), 'cabinet'),
    'cabinet': Recipe((0.5, 0.35, 0.6), (1.8, 0.65, 2.2), 'cabinet'),
    'dresser': Recipe((0.7, 0.4, 0.7), (1.4, 0.55, 1.2), 'cabinet'),
    'night stand': Recipe((0.35, 0.35, 0.4), (0.55, 0.45, 0.65), 'cabinet'),
    'bookshelf': Recipe((0.6, 0.25, 1.2), (1.6, 0.38, 2.1), 'shelf'),
    'shelves': Recipe((0.6, 0.25, 0.6), (1.4, 0.4, 1.9), 'shelf'),
    'box': Recipe((0.25, 0.2, 0.15), (0.7, 0.5, 0.6), 'box'),
}


def random_room(library: Library, rng: np.random.Generator) -> Scene:
    """A furnished room, ready to render."""
    return RoomBuilder(library, rng).build()
