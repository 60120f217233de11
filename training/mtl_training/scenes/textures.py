"""Textures of a scene: one flat store with a mip chain per image, and procedural patterns."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]
LEVELS = 10  # 512 px down to 1 px
GAMMA = 2.2
TO_LINEAR = (np.arange(256, dtype=np.float32) / 255) ** np.float32(GAMMA)


@lru_cache(maxsize=512)
def _read(path: str) -> NDArray[np.uint8]:
    """[H, W, 4] uint8 RGBA, at most 512 px."""
    image = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if image is None:
        return np.full((1, 1, 4), 200, np.uint8)
    if image.dtype != np.uint8:
        image = (image / 256).astype(np.uint8)
    code = {2: cv2.COLOR_GRAY2RGBA, 3: cv2.COLOR_BGR2RGBA, 4: cv2.COLOR_BGRA2RGBA}
    image = image.reshape(*image.shape[:2], -1)
    image = cv2.cvtColor(image, code[2 if image.shape[2] < 3 else image.shape[2]])
    return _fit(image)


def _fit(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = 512 / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


class Textures:
    """The images of one scene, sampled by index, texture coordinates and level of detail."""

    def __init__(self) -> None:
        self._chunks: list[NDArray[np.uint8]] = []
        self._length = 0
        self._table: list[list[tuple[int, int, int]]] = []
        self._means: list[Float] = []
        self._by_name: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._table)

    def file(self, path: str | Path) -> int:
        """Index of an image file, added at first use."""
        name = str(path)
        if name not in self._by_name:
            self._by_name[name] = self.add(_read(name))
        return self._by_name[name]

    def add(self, image: NDArray[np.uint8]) -> int:
        """Add a [H, W, 4] uint8 RGBA image (v upward); returns its index."""
        level = image
        table = []
        while True:
            height, width = level.shape[:2]
            table.append((self._length, width, height))
            self._chunks.append(level[::-1].reshape(-1, 4))
            self._length += width * height
            if width == height == 1:
                break
            half = (max(1, width // 2), max(1, height // 2))
            level = cv2.resize(level, half, interpolation=cv2.INTER_AREA).reshape(
                half[1], half[0], 4
            )
        self._table.append((table + [table[-1]] * LEVELS)[:LEVELS])
        self._means.append((level[0, 0, :3] / np.float32(255)) ** GAMMA)
        return len(self._table) - 1

    def finish(self) -> None:
        """Freeze the store; call once, before sampling."""
        empty = not self._table
        texels = np.zeros((1, 4), np.uint8) if empty else np.concatenate(self._chunks)
        self.flat = TO_LINEAR[texels]
        self.flat[:, 3] = texels[:, 3] / np.float32(255)
        self.table = (
            np.zeros((1, LEVELS, 3), np.int64) if empty else np.array(self._table, np.int64)
        )
        self.means = np.ones((1, 3), np.float32) if empty else np.array(self._means, np.float32)
        self.pixels = (self.table[:, 0, 1] * self.table[:, 0, 2]).astype(np.float32)

    def sample(self, index: NDArray[np.int64], uv: Float, level: Float) -> tuple[Float, Float]:
        """Bilinear samples: linear RGB [N, 3] and alpha [N]."""
        row = self.table[index, np.clip(np.rint(level), 0, LEVELS - 1).astype(np.int64)]
        start, width, height = row[:, 0], row[:, 1], row[:, 2]
        x = (uv[:, 0] % 1) * width - np.float32(0.5)
        y = (uv[:, 1] % 1) * height - np.float32(0.5)
        x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        fx, fy = (x - x0).astype(np.float32)[:, None], (y - y0).astype(np.float32)[:, None]
        left, right = x0 % width, (x0 + 1) % width
        low, high = start + (y0 % height) * width, start + ((y0 + 1) % height) * width
        flat = self.flat
        bottom = flat[low + left] * (1 - fx) + flat[low + right] * fx
        top = flat[high + left] * (1 - fx) + flat[high + right] * fx
        color = bottom * (1 - fy) + top * fy
        return color[:, :3], color[:, 3]

    def alpha(self, index: NDArray[np.int64], uv: Float) -> Float:
        """Nearest alpha [N] at full resolution, for cut-outs."""
        row = self.table[index, 0]
        x = ((uv[:, 0] % 1) * row[:, 1]).astype(np.int64)
        y = ((uv[:, 1] % 1) * row[:, 2]).astype(np.int64)
        return self.flat[row[:, 0] + np.minimum(y, row[:, 2] - 1) * row[:, 1] + x, 3]


def muted_color(rng: np.random.Generator, low: float = 0.2, high: float = 0.95) -> Float:
    """A surface colour as rooms have them: mostly gray or beige, sometimes strong."""
    spread = rng.choice([0.03, 0.08, 0.18], p=[0.5, 0.35, 0.15])
    warm = np.array([0.04, 0.01, -0.05]) * rng.uniform(0, 1.5)
    color = rng.uniform(low, high) + warm + rng.normal(0, spread, 3)
    return np.clip(color, 0.04, 0.97).astype(np.float32)


def _noise(rng: np.random.Generator, size: int) -> Float:
    """Fractal value noise in 0..1, [size, size]."""
    total = np.zeros((size, size), np.float32)
    for octave in range(1, 6):
        grid = rng.random((2**octave, 2**octave), np.float32)
        total += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) / 2 ** (octave * 0.7)
    return np.asarray((total - total.min()) / (np.ptp(total) + 1e-9), np.float32)


def pattern(rng: np.random.Generator, kind: str, size: int = 256) -> NDArray[np.uint8]:
    """A procedural [size, size, 4] uint8 texture: plain, stripes, checks, wood, tiles or art."""
    if kind == 'art':
        return _art(rng, size)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    noise = _noise(rng, size)
    if kind == 'stripes':
        wave = np.sin(2 * np.pi * x * rng.integers(3, 16)) > rng.uniform(-0.5, 0.5)
        mix = wave * 0.9 + noise * 0.1
    elif kind == 'checks':
        cells = np.floor(x * rng.integers(2, 8)) + np.floor(y * rng.integers(2, 8))
        mix = cells % 2 + noise * 0.1
    elif kind == 'wood':
        mix = 0.5 + 0.5 * np.sin(2 * np.pi * (x * rng.integers(3, 8) + 1.5 * noise))
        planks = (y * rng.integers(3, 7)) % 1 < 0.03
        mix = np.where(planks, 1, mix * 0.7)
    elif kind == 'tiles':
        count = rng.integers(2, 6)
        joint = ((x * count) % 1 < 0.04) | ((y * count) % 1 < 0.04)
        mix = joint + noise * 0.25
    else:  # plain, noise
        mix = noise * (0.3 if kind == 'plain' else 1.0)
    first = muted_color(rng)
    second = np.clip(first + rng.normal(0, 0.15) + rng.normal(0, 0.05, 3), 0.03, 0.97)
    mix = np.clip(mix, 0, 1)[..., None]
    rgb = first * (1 - mix) + second * mix
    return np.dstack([rgb * 255, np.full((size, size), 255)]).astype(np.uint8)


def _art(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """A picture for a frame or a screen: gradient and random shapes."""
    top, bottom = rng.random(3) * 255, rng.random(3) * 255
    ramp = np.linspace(0, 1, size)[:, None, None]
    image = np.ascontiguousarray(np.broadcast_to(top * (1 - ramp) + bottom * ramp, (size, size, 3)))
    for _ in range(rng.integers(2, 14)):
        color = tuple(float(c) for c in rng.random(3) * 255)
        center = tuple(int(c) for c in rng.integers(0, size, 2))
        axes = tuple(int(a) for a in rng.integers(size // 20, size // 3, 2))
        if rng.random() < 0.5:
            cv2.ellipse(image, center, axes, float(rng.uniform(0, 180)), 0, 360, color, -1)
        else:
            cv2.fillPoly(
                image, [rng.integers(0, size, (rng.integers(3, 6), 2)).astype(np.int32)], color
            )
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(1, 8)))
    return np.dstack([image, np.full((size, size), 255)]).astype(np.uint8)
