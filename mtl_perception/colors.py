"""Predictions as pictures for people: colour maps, and a montage of all tasks with legends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, SemanticClass
from .pipeline import Prediction

_Picture = NDArray[np.uint8]

NEAR, FAR = 0.3, 10.0  # metres, where a bundle gives no range
_STEEPEST = 1000.0  # far / near at most, since the scale is logarithmic
BEYOND = (225, 225, 225)  # of +Inf depth; black is for NaN. Neither occurs in the colour map

# The montage: a light card, one column per task, one row per moment.
_PAPER, _INK, _FRAME = (250, 250, 248), (45, 48, 54), (205, 205, 205)
_MARGIN, _GAP, _TITLE, _LINE = 16, 10, 30, 24
_FONT, _TITLE_SIZE, _TEXT_SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.55, 0.45
_COLUMN_WIDTH = 320  # smaller predictions are enlarged to about this, so that text fits


def semantic_color(ids: NDArray[np.uint8], classes: Sequence[SemanticClass]) -> _Picture:
    """Class ids [H, W] to RGB [H, W, 3] in the classes' colours; black where unlabelled."""
    return _look_up(ids, _class_lut(tuple(classes)))


def depth_color(depth: NDArray[np.float32], near: float = NEAR, far: float = FAR) -> _Picture:
    """Depth [H, W] in metres to RGB [H, W, 3], from red (near) over green to blue (far).

    The colour map is Turbo over the logarithm of depth: equal ratios look equally different.
    Black where unknown (NaN, or not positive), light grey beyond the range (+Inf).
    """
    near = max(near, far / _STEEPEST)
    # Levels 1 (far) to 254 (near); what the logarithm makes of special values is overwritten.
    slope = 253 / (np.log(near) - np.log(far))
    level = np.asarray(cv2.log(depth)) * np.float32(slope)
    level += np.float32(1.5 - np.log(far) * slope)
    level = cv2.min(cv2.max(level, 1.0), 254.0)
    level[~(depth > 0)] = 0
    level[depth == np.inf] = 255
    return _look_up(level.astype(np.uint8), _depth_lut())


def normals_color(normals: NDArray[np.float32]) -> _Picture:
    """Unit normals [H, W, 3] in the optical frame to RGB [H, W, 3].

    Red grows to the right, green upwards, blue towards the camera, as in normal maps of graphics:
    rgb = (n * [1, -1, -1] + 1) / 2. A wall ahead is bluish, a floor green. Black where NaN.
    """
    axes = np.array([[127.5, 0, 0], [0, -127.5, 0], [0, 0, -127.5]])
    shifted = cv2.transform(normals, np.hstack([axes, np.full((3, 1), 127.5)]))
    cv2.patchNaNs(shifted, 0)
    return np.asarray(cv2.convertScaleAbs(shifted), np.uint8)


def probability_color(probability: NDArray[np.uint8]) -> _Picture:
    """Probability x 255 [H, W] to RGB [H, W, 3], from white (0) to black (255), as a drawing."""
    return np.asarray(cv2.cvtColor(255 - probability, cv2.COLOR_GRAY2RGB), np.uint8)


def overlay(image: _Picture, colors: _Picture, strength: float = 0.65) -> _Picture:
    """Colours laid over the gray of an image, both [H, W, 3], so that outlines shine through."""
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(colors, strength, gray, 1 - strength, 0), np.uint8)


def montage(prediction: Prediction | Sequence[Prediction], bundle: Bundle) -> _Picture:
    """A picture of predictions: the image and every task side by side, with titles and legends.

    Args:
        prediction: one, or several of one size, which become rows under one set of titles.
        bundle: for the classes and the range of depth.

    Returns:
        [H, W, 3] RGB. A task that a prediction lacks is left blank.
    """
    rows = [prediction] if isinstance(prediction, Prediction) else list(prediction)
    height, width = rows[0].image.shape[:2]
    zoom = max(1, round(_COLUMN_WIDTH / width))
    height, width = height * zoom, width * zoom
    depth = bundle.task_of('depth')
    near, far = depth.range if depth and depth.range else (NEAR, FAR)
    near = max(near, far / _STEEPEST)

    painters: dict[str, Callable[[NDArray[Any], _Picture], _Picture]] = {
        'semantic': lambda ids, image: overlay(image, semantic_color(ids, bundle.classes)),
        'depth': lambda metres, _: depth_color(metres, near, far),
        'normals': lambda normals, _: normals_color(normals),
        'edges': lambda probability, _: probability_color(probability),
        'saliency': lambda probability, _: probability_color(probability),
    }
    names = [n for n in painters if any(n in row.arrays for row in rows)]
    columns = len(names) + 1
    total_width = 2 * _MARGIN + columns * width + (columns - 1) * _GAP
    lefts = [_MARGIN + index * (width + _GAP) for index in range(columns)]

    classes = _present(rows, bundle.classes)
    legend_left, legend_width = lefts[0], min(2, columns) * (width + _GAP) - 2 * _GAP
    boxes = _flow([c.name for c in classes], legend_width)
    foot = max(len({y for _, y in boxes}) * _LINE, 3 * _LINE) + _GAP
    top = _MARGIN + _TITLE
    bottom = top + len(rows) * (height + _GAP)
    canvas: _Picture = np.empty((bottom + foot + _MARGIN, total_width, 3), np.uint8)
    canvas[:] = _PAPER

    for name, left in zip(['image', *names], lefts, strict=True):
        _text(canvas, name, left, top - 10, _TITLE_SIZE)
    for index, row in enumerate(rows):
        y = top + index * (height + _GAP)
        _paste(canvas, _enlarge(row.image, zoom), lefts[0], y)
        for name, left in zip(names, lefts[1:], strict=True):
            if name in row.arrays:
                picture = painters[name](row.arrays[name], row.image)
                _paste(canvas, _enlarge(picture, zoom), left, y)
            else:
                _frame(canvas, left, y, width, height)

    legend_top = bottom + 4
    for item, (x, y) in zip(classes, boxes, strict=True):
        left, line = legend_left + x, legend_top + y
        canvas[line : line + 14, left : left + 14] = item.color
        _frame(canvas, left, line, 14, 14)
        _text(canvas, item.name, left + 20, line + 12, _TEXT_SIZE)
    for name, left in zip(names, lefts[1:], strict=True):
        if name == 'depth':
            _depth_legend(canvas, left, legend_top, width, near, far, bundle.metric)
        elif name == 'normals':
            _normals_legend(canvas, left, legend_top)
        elif name in ('edges', 'saliency'):
            _probability_legend(canvas, left, legend_top, width)
    return canvas


# --- colour tables ---------------------------------------------------------------------------


def _look_up(ids: NDArray[np.uint8], lut: NDArray[np.uint32]) -> _Picture:
    """[H, W] through a table of 256 packed colours (half the time of cv2.LUT, a third of rows)."""
    rgba = np.take(lut, ids).view(np.uint8).reshape(*ids.shape, 4)
    return np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), np.uint8)


def _packed(colors: NDArray[Any]) -> NDArray[np.uint32]:
    """[256, 3] RGB to 256 numbers whose bytes are r, g, b, 0."""
    rgba = np.zeros((256, 4), np.uint8)
    rgba[:, :3] = colors
    return rgba.view(np.uint32)[:, 0]


@lru_cache(maxsize=8)
def _class_lut(classes: tuple[SemanticClass, ...]) -> NDArray[np.uint32]:
    colors = np.zeros((256, 3), np.uint8)
    for item in classes:
        colors[item.id] = item.color
    return _packed(colors)


@lru_cache(maxsize=1)
def _depth_lut() -> NDArray[np.uint32]:
    """0: unknown, 1..254: far to near, 255: beyond. Turbo's nearly black ends are left out."""
    levels = np.linspace(20, 240, 254).round().astype(np.uint8)[None]
    turbo = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return _packed(np.concatenate([[(0, 0, 0)], turbo[0], [BEYOND]]))


# --- drawing ---------------------------------------------------------------------------------


def _enlarge(picture: _Picture, zoom: int) -> _Picture:
    if zoom == 1:
        return picture
    size = (picture.shape[1] * zoom, picture.shape[0] * zoom)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _paste(canvas: _Picture, picture: _Picture, left: int, top: int) -> None:
    height, width = picture.shape[:2]
    canvas[top : top + height, left : left + width] = picture
    _frame(canvas, left, top, width, height)


def _frame(canvas: _Picture, left: int, top: int, width: int, height: int) -> None:
    corners = (left - 1, top - 1), (left + width, top + height)
    cv2.rectangle(canvas, *corners, _FRAME, 1)


def _text(canvas: _Picture, text: str, x: int, y: int, size: float) -> None:
    cv2.putText(canvas, text, (x, y), _FONT, size, _INK, 1, cv2.LINE_AA)


def _text_width(text: str, size: float) -> int:
    return int(cv2.getTextSize(text, _FONT, size, 1)[0][0])


def _present(rows: Sequence[Prediction], classes: Sequence[SemanticClass]) -> list[SemanticClass]:
    """The classes that cover at least 0.1 % of what is shown."""
    counts = np.zeros(256, np.int64)
    for row in rows:
        if 'semantic' in row.arrays:
            counts += np.bincount(row.arrays['semantic'].ravel(), minlength=256)
    return [item for item in classes if counts[item.id] > 0.001 * counts.sum()]


def _flow(names: Sequence[str], width: int) -> list[tuple[int, int]]:
    """Top left corners of swatches with names, set like text in lines of a width."""
    places, x, y = [], 0, 0
    for name in names:
        advance = 20 + _text_width(name, _TEXT_SIZE) + 18
        if x and x + advance - 18 > width:
            x, y = 0, y + _LINE
        places.append((x, y))
        x += advance
    return places


def _depth_legend(
    canvas: _Picture, left: int, top: int, width: int, near: float, far: float, metric: bool
) -> None:
    bar = np.geomspace(near, far, width).astype(np.float32)[None].repeat(14, 0)
    _paste(canvas, depth_color(bar, near, far), left, top)
    unit = ' m' if metric else ' (relative)'
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if near <= t <= far]
    for tick in ticks:
        x = left + round((width - 1) * np.log(tick / near) / np.log(far / near))
        canvas[top + 14 : top + 19, x] = _INK
        text = f'{tick:g}' + (unit if tick == ticks[-1] else '')
        wide = _text_width(text, _TEXT_SIZE)
        start = min(max(left, x - _text_width(f'{tick:g}', _TEXT_SIZE) // 2), left + width - wide)
        _text(canvas, text, start, top + 33, _TEXT_SIZE)
    x, y = left, top + 3 * _LINE - 22
    for color, text in (((0, 0, 0), 'unknown'), (BEYOND, 'beyond range')):
        canvas[y : y + 14, x : x + 14] = color
        _frame(canvas, x, y, 14, 14)
        _text(canvas, text, x + 20, y + 12, _TEXT_SIZE)
        x += 20 + _text_width(text, _TEXT_SIZE) + 18


def _normals_legend(canvas: _Picture, left: int, top: int) -> None:
    """A ball as the camera sees it, and what its colours mean."""
    size = 3 * _LINE - 8
    x, y = np.meshgrid(*[(np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1] * 2)
    radius = np.maximum(np.hypot(x, y), 1e-6)
    cover = np.clip((1 - radius) * size / 2 + 0.5, 0, 1)[..., None]  # smooth rim
    x, y = x / np.maximum(radius, 1), y / np.maximum(radius, 1)
    ball = normals_color(np.stack([x, y, -np.sqrt(np.maximum(0, 1 - x * x - y * y))], -1))
    area = canvas[top : top + size, left : left + size]
    area[:] = (cover * ball + (1 - cover) * area).round()
    for line, text in enumerate(('red: right', 'green: up', 'blue: towards the camera')):
        _text(canvas, text, left + size + 12, top + 14 + 22 * line, _TEXT_SIZE)


def _probability_legend(canvas: _Picture, left: int, top: int, width: int) -> None:
    bar = np.linspace(0, 255, width).astype(np.uint8)[None].repeat(14, 0)
    _paste(canvas, probability_color(bar), left, top)
    _text(canvas, '0', left, top + 33, _TEXT_SIZE)
    _text(canvas, 'probability', left + width // 2 - 34, top + 33, _TEXT_SIZE)
    _text(canvas, '1', left + width - _text_width('1', _TEXT_SIZE), top + 33, _TEXT_SIZE)
