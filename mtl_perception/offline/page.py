"""A self-contained HTML page: text, tables, plots and a filmstrip, as plain data made to a file.

What a page says is data here; how it looks and what it does is in ``resource/report``. The page
needs nothing but itself: style, scripts, the plotting library and all pictures are inside, and its
content security policy forbids it to load anything.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Literal

from .. import PerceptionError
from ..files import write_beside
from ..share import share


class PageError(PerceptionError):
    """A page that cannot be made; the message says what is missing."""


@dataclass(frozen=True)
class Table:
    """Rows of text under headings; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Series:
    """One line, or one set of bars: a name, and numbers; NaN is a gap."""

    name: str
    x: Sequence[float | str]
    y: Sequence[float]


@dataclass(frozen=True)
class Plot:
    """Series on common axes. Of a heat map the series are rows, from the top.

    Attributes:
        note: a sentence on how to read it, or what it shows.
        over_time: x is seconds since the start; a click goes to that moment in the filmstrip.
        diagonal: draw y = x, where a calibrated confidence would lie.
    """

    title: str
    kind: Literal['lines', 'bars', 'heat']
    x_label: str
    y_label: str
    series: Sequence[Series]
    note: str = ''
    over_time: bool = False
    diagonal: bool = False


@dataclass(frozen=True)
class Section:
    """A heading with what is below it."""

    title: str
    text: str = ''
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()


@dataclass(frozen=True)
class Moment:
    """One frame of the filmstrip.

    Attributes:
        seconds: since the start.
        caption: what there is to say of it.
        worse: by figure, how bad this frame is; more is worse. It decides about the order.
        pictures: by layer, an encoded JPEG.
    """

    seconds: float
    caption: str
    worse: Mapping[str, float]
    pictures: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class Legend:
    """What the colours of a layer mean: (CSS colour, name), or a ramp of colours with its ends."""

    title: str
    swatches: Sequence[tuple[str, str]] = ()
    ramp: Sequence[str] = ()
    ends: tuple[str, str] = ('', '')


@dataclass(frozen=True)
class Film:
    """Moments in the order of time, with all layers that any of them has."""

    layers: Sequence[str]
    moments: Sequence[Moment]
    legends: Sequence[Legend] = ()
    note: str = ''


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    film: Film | None = None


def check_page(path: Path) -> None:
    """Say before a long run what would keep its page from being written.

    Raises:
        PageError: plotly, which has the plotting library, is not installed, or there is no folder
            for the page.
    """
    _plotting_library()
    if path.is_dir() or not path.parent.is_dir():
        raise PageError(f'{path}: expected a file in a folder that exists')


def write_page(path: Path, page: Page) -> None:
    """Write a page as one HTML file, whole or not at all.

    Raises:
        PageError: plotly, which has the plotting library, is not installed.
        OSError: the file cannot be written.
    """
    write_beside(path, render(page).encode())


def render(page: Page) -> str:
    """The HTML of a page; see ``write_page``."""
    read = {
        name: share(f'report/report.{name}').read_text(encoding='utf-8')
        for name in ('html', 'css', 'js')
    }
    return Template(read['html']).substitute(
        title=escape(page.title),
        style=read['css'],
        library=_plotting_library(),
        script=read['js'],
        data=_json(page),
    )


def _plotting_library() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise PageError('reports need the Python package plotly: pip install plotly') from None
    return str(get_plotlyjs())


def _json(page: Page) -> str:
    """The page as JSON that may stand inside a script element."""
    text = json.dumps(_plain(page), allow_nan=False, separators=(',', ':'))
    # Nothing in there can end the element, or begin a comment in it.
    return text.replace('<', '\\u003c')


def _plain(value: Any) -> Any:
    """Dataclasses to what JSON has; NaN to null, numbers to six digits, pictures to base64."""
    if isinstance(value, float):
        return float(f'{value:.6g}') if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {name: _plain(item) for name, item in vars(value).items()}
    return value
