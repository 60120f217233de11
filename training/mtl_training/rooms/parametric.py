"""Simple pieces made of boxes: more shapes than the catalogue has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtl_training.rooms.room import Room
from mtl_training.rooms.things import vessel
from mtl_training.scenes.textures import muted_color


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
        room: Room,
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

        def spot(dx: float, dy: float) -> tuple[float, float]:
            return x + c * dx - n * dy, y + n * dx + c * dy

        def part(
            dx: float, dy: float, z: float, pw: float, pd: float, ph: float, material: int = wood
        ) -> None:
            s.box((*spot(dx, dy), z), (pw, pd, ph), yaw, material, instance)

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
                self._fill(part, spot, room, w, d, j * (h - t) / boards + t, (h - t) / boards - t)
        else:  # box
            card = (
                s.material(np.array([0.55, 0.4, 0.25]) * rng.uniform(0.6, 1.3), -1)
                if rng.random() < 0.6
                else wood
            )
            part(0, 0, 0, w, d, h, card)
            part(0, 0, h, w * 0.14, d, 0.002, s.material((0.6, 0.5, 0.35)))

    @staticmethod
    def _fill(part, spot, room: Room, w: float, d: float, z: float, space: float) -> None:  # type: ignore[no-untyped-def]
        """Stand book-like blocks on a board, which belong to the shelf, and things in the gaps."""
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
            gap = rng.uniform(0.05, 0.35) if rng.random() < 0.15 else 0.002
            if gap > 0.15 and x + bw + gap < w / 2:
                px, py = spot(x + bw + gap / 2, 0.0)
                vessel(room, px, py, z, space * 0.9, gap / 2)
            x += bw + gap


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
