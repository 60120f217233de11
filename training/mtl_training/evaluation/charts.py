"""Charts of curves as SVG, to stand inside a page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Curve = Sequence[tuple[float, float]]

COLORS = (
    '#4477aa', '#ee6677', '#228833', '#ccbb44', '#66ccee', '#aa3377', '#ee8866', '#777777',
)  # fmt: skip  # Paul Tol's bright scheme, which people see who do not see red and green
WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 28, 30


def chart(title: str, curves: Mapping[str, Curve], colors: Mapping[str, str]) -> str:
    """Curves by name over steps, with axes; the names are shown by pointing at a curve."""
    points = [point for curve in curves.values() for point in curve]
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points))
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        inner = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return LEFT + across * inner[0], HEIGHT - BOTTOM - up * inner[1]

    parts = [f'<text class="title" x="{LEFT}" y="16">{escape(title)}</text>']
    for x in x_ticks:
        across, bottom = place(x, y_ticks[0])
        parts.append(f'<text x="{across:.1f}" y="{bottom + 18:.1f}" class="x">{x:g}</text>')
    for y in y_ticks:
        left, up = place(x_ticks[0], y)
        parts.append(f'<path class="grid" d="M{left:.1f} {up:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{left - 6:.1f}" y="{up + 4:.1f}" class="y">{y:g}</text>')
    for name, curve in curves.items():
        line = 'L'.join(f'{x:.1f} {y:.1f}' for x, y in (place(*point) for point in curve))
        dots = ''.join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2"/>'
            for x, y in (place(*point) for point in curve)
            if len(curve) <= 30
        )
        parts.append(
            f'<g stroke="{colors[name]}" fill="{colors[name]}"><title>{escape(name)}</title>'
            f'<path class="curve" d="M{line}"/>{dots}</g>'
        )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers that enclose a range.

    >>> ticks(0, 97)
    [0, 20, 40, 60, 80, 100]
    """
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    rough = (high - low) / 5
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(number * step, digits) for number in range(first, max(last, first + 1) + 1)]


def thinned(curve: Curve, most: int = 200) -> Curve:
    """At most so many points, each the mean of its neighbours."""
    size = math.ceil(len(curve) / most)
    groups = [curve[begin : begin + size] for begin in range(0, len(curve), size)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]
