"""A picture of predictions for people: the image and all tasks side by side, with legends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, SemanticClass
from .colors import (
    BEYOND,
    depth_color,
    depth_range,
    normals_color,
    overlay,
    probability_color,
    semantic_color,
)
from .pipeline import Prediction

_Picture = NDArray[np.uint8]

# A light card, one column per task, one row per moment.
_PAPER, _INK, _FRAME = (250, 250, 248), (45, 48, 54), (205, 205, 205)
_MARGIN, _GAP, _TITLE, _LINE = 16, 10, 30, 24
_FONT, _TITLE_SIZE, _TEXT_SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.55, 0.45
_COLUMN_WIDTH = 320  # smaller predictions are enlarged to about this, so that text fits


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
    near, far = depth_range(bundle)

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
