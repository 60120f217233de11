"""Charts of curves as SVG, to stand inside a page that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

Place = tuple[float, float]
Curve = Sequence[Place]

# Paul Tol's bright and vibrant schemes, for people who do not see red and green, too.
COLORS = (
    '#4477aa', '#ee6677', '#228833', '#ccbb44', '#66ccee', '#aa3377', '#777777', '#ee7733',
    '#0077bb', '#009988', '#cc3311', '#997700',
)  # fmt: skip
WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 28, 30


def chart(title: str, curves: Mapping[str, Curve], colors: Mapping[str, str]) -> str:
    """Curves by name over steps, with axes; the names are shown by pointing at a curve."""
    parts, place = axes(title, [point for curve in curves.values() for point in curve])
    for name, curve in curves.items():
        places = [place(*point) for point in curve]
        line = 'L'.join(f'{x:.1f} {y:.1f}' for x, y in places)
        dots = ''.join(dot(*point) for point in places if len(curve) <= 30)
        parts.append(
            f'<g stroke="{colors[name]}" fill="{colors[name]}"><title>{escape(name)}</title>'
            f'<path class="curve" d="M{line}"/>{dots}</g>'
        )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def scatter(across: str, up: str, points: Mapping[str, Curve], colors: Mapping[str, str]) -> str:
    """Points of several kinds, with axes and a legend, as a file of its own.

    Args:
        across, up: titles of the axes.
    """
    parts, place = axes(f'{up} over {across}', [p for some in points.values() for p in some])
    for number, (name, some) in enumerate(points.items()):
        dots = ''.join(dot(*place(*point), 3.5) for point in some)
        parts.append(f'<g fill="{colors[name]}"><title>{escape(name)}</title>{dots}</g>')
        y = TOP + 16 * number
        parts.append(f'<circle cx="{WIDTH + 8}" cy="{y}" r="4" fill="{colors[name]}"/>')
        parts.append(f'<text x="{WIDTH + 18}" y="{y + 4}">{escape(name)}</text>')
    height = max(HEIGHT, TOP + 16 * len(points) + 8)
    style = (
        'text{font:11px sans-serif;fill:#333}.x{text-anchor:middle}.y{text-anchor:end}'
        '.grid{stroke:#ddd}'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 180} {height}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'{"".join(parts)}</svg>\n'
    )


def reliability_diagram(measured: Mapping[str, Curve]) -> str:
    """How often what is said with some confidence is right, as a file of its own.

    Args:
        measured: (confidence, share that is right) of bins, by what they are about.
    """
    honest = {'honest': [(step / 20, step / 20) for step in range(21)]}
    colors = {**dict(zip(measured, COLORS, strict=False)), 'honest': '#bbbbbb'}
    return scatter('confidence', 'share that is right', {**honest, **measured}, colors)


def dot(x: float, y: float, radius: float = 2) -> str:
    """A point."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'


def axes(title: str, points: Curve) -> tuple[list[str], Callable[[float, float], Place]]:
    """Title, axes and grid around points, and where a point is between them."""
    x_ticks = ticks(min(x for x, _ in points), max(x for x, _ in points))
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points))

    def place(x: float, y: float) -> Place:
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
    return parts, place


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
