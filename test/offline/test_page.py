"""The report page: one file that needs nothing else, and says what it was given."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

import pytest

from mtl_perception.offline.page import (
    Film,
    Moment,
    Page,
    PageError,
    Plot,
    Section,
    Series,
    Table,
    check_page,
    render,
    write_page,
)

EVIL = '</script><script>alert(1)</script><!--'


def small_page(title: str = 'A run') -> Page:
    line = Series('mIoU', [0.0, 1.0, 2.0], [0.5, math.nan, 1 / 3])
    plot = Plot('mIoU over time', 'lines', 'seconds', 'mIoU', [line], over_time=True)
    table = Table('Figures', ('figure', 'value'), [['miou', '0.5']])
    moments = [Moment(0.0, EVIL, {'depth': math.nan}, {'image': b'jpeg'})]
    return Page(title, EVIL, [Section('Accuracy', EVIL, [table], [plot])], Film(['image'], moments))


@pytest.fixture
def no_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'plotly', None)
    monkeypatch.setitem(sys.modules, 'plotly.offline', None)


def test_the_page_holds_its_data_whatever_it_says() -> None:
    pytest.importorskip('plotly', reason='its library is in the page')
    html = render(small_page(EVIL))
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert found is not None
    data = json.loads(found[1])
    assert data['subtitle'] == EVIL
    assert data['film']['moments'][0]['caption'] == EVIL
    assert data['film']['moments'][0]['worse'] == {'depth': None}
    series = data['sections'][0]['plots'][0]['series'][0]
    assert series == {'name': 'mIoU', 'x': [0.0, 1.0, 2.0], 'y': [0.5, None, 0.333333]}
    assert EVIL not in html


def test_the_page_loads_nothing() -> None:
    pytest.importorskip('plotly', reason='its library is in the page')
    html = render(small_page())
    outside = html.replace(html[html.index('<style>') : html.index('</style>')], '')
    assert not re.search(r'<script[^>]+src|<link|@import', outside)
    assert "default-src 'none'" in html


def test_without_the_plotting_library_it_is_said_in_a_sentence(
    tmp_path: Path, no_plotly: None
) -> None:
    with pytest.raises(PageError, match='pip install plotly'):
        write_page(tmp_path / 'report.html', small_page())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PageError, match='pip install plotly'):
        check_page(tmp_path / 'report.html')


def test_a_page_without_a_place_is_told_beforehand(tmp_path: Path) -> None:
    pytest.importorskip('plotly', reason='its library is in the page')
    check_page(tmp_path / 'report.html')
    for place in (tmp_path, tmp_path / 'missing' / 'report.html'):
        with pytest.raises(PageError, match='expected a file in a folder that exists'):
            check_page(place)
