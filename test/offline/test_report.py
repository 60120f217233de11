"""The report of a run, made from frames and used in a real browser, by mouse and by keyboard."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_perception.bundle import load_bundle
from mtl_perception.offline.figures import over_time
from mtl_perception.offline.filmstrip import BUDGET
from mtl_perception.offline.page import Film, Moment, Page, Plot, Section, Series, write_page
from mtl_perception.offline.report import RunReport
from mtl_perception.offline.runs import RunFrame

HEIGHT, WIDTH = 64, 96
MANY = [f'class {index}' for index in range(30)]
# Chromium looks for Google at every start otherwise; as root it has no sandbox.
ARGUMENTS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--no-first-run']


def example(tiny_bundle: Path, frames: int = 30, *, truth: bool = True) -> Page:
    """Ten frames a second; depth is worst in frame 7, labels in frame 20."""
    bundle = load_bundle(tiny_bundle)
    report = RunReport(bundle)
    noise = np.random.default_rng(0)
    normals = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    normals[..., 2] = -1
    image = noise.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    labels = np.arange(WIDTH, dtype=np.uint8) // 32 + np.zeros((HEIGHT, 1), np.uint8)
    depth = np.linspace(1, 9, WIDTH, dtype=np.float32) + np.zeros((HEIGHT, 1), np.float32)
    for index in range(frames):
        wrong = labels if index != 20 else (labels + 1) % 3
        found = {
            'semantic': wrong.astype(np.uint8),
            'semantic_confidence': noise.integers(100, 256, (HEIGHT, WIDTH)).astype(np.uint8),
            'depth': depth * np.float32(1.5 if index == 7 else 1.05),
            'depth_confidence': noise.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8),
            'normals': normals,
        }
        known = {'semantic': labels, 'depth': depth, 'normals': normals} if truth else {}
        stamp = 1_000_000_000 + index * 100_000_000
        timings = {'engine': 40.0 + index, 'resize': 1.0}
        report.add(RunFrame(stamp, image, found, known, timings))
    return report.page('Example <run>', {'recording': '/home/robot' + '/somewhere' * 8})


def titles(page: Page) -> list[str]:
    """Of its sections."""
    return [section.title for section in page.sections]


def test_a_report_says_everything_that_was_measured(tiny_bundle: Path) -> None:
    page = example(tiny_bundle)
    assert titles(page) == [
        'Summary',
        'Accuracy',
        'Over time',
        'Depth by distance',
        'Calibration of confidences',
        'Flicker',
        'Rates and latency',
    ]
    assert page.film is not None
    assert page.film.layers[:4] == ['image', 'semantic', 'semantic truth', 'semantic error']
    latency = page.sections[-1]
    rows = {row[0]: row[1:] for row in latency.tables[0].rows}
    assert rows['engine'][0] == '54.5'
    assert 'Images come at 10 per second' in latency.text
    summary = {row[0]: row[1] for row in page.sections[0].tables[0].rows}
    # One frame of thirty is half too far, the others a twentieth.
    assert float(summary['depth AbsRel']) == pytest.approx((0.5 + 29 * 0.05) / 30, abs=5e-4)


def test_without_ground_truth_there_is_a_report_without_accuracy(tiny_bundle: Path) -> None:
    page = example(tiny_bundle, truth=False)
    assert titles(page) == ['Summary', 'Over time', 'Flicker', 'Rates and latency']
    assert 'no ground truth' in page.sections[0].text
    assert page.film is not None
    assert set(page.film.moments[0].worse) == {'semantic confidence', 'depth confidence'}


def test_a_long_run_gives_a_page_below_15_megabytes(tmp_path: Path) -> None:
    """Ten minutes at 30 Hz, all figures over time, and a filmstrip as large as it may be."""
    pytest.importorskip('plotly', reason='its library is in the page')
    points = [(index / 30, 1 / (index + 7)) for index in range(18_000)]
    plots = [over_time(f'figure {index}', 'value', {'line': points}) for index in range(20)]
    section = Section('Over time', plots=[plot for plot in plots if plot is not None])
    moments = [Moment(0.0, '', {}, {'image': bytes(BUDGET // 64)}) for _ in range(64)]
    path = tmp_path / 'report.html'
    write_page(path, Page('Long', '', [section], Film(['image'], moments)))
    assert path.stat().st_size < 15e6


@pytest.fixture(scope='module')
def report_file(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip('plotly', reason='its library is in the page')
    path = tmp_path_factory.mktemp('report') / 'report.html'
    page = example(tiny_bundle)
    rows = [Series(name, MANY, [1 / len(MANY)] * len(MANY)) for name in MANY]
    many = Section('Many classes', plots=[Plot('Confusion', 'heat', 'predicted', 'true', rows)])
    write_page(path, replace(page, sections=[*page.sections, many]))
    return path


@pytest.fixture(scope='module')
def chromium() -> Iterator[Any]:
    driver = pytest.importorskip('playwright.sync_api', reason='drives the browser')
    program = shutil.which('chromium') or shutil.which('google-chrome')
    if program is None:
        pytest.skip('needs chromium (apt-get install chromium)')
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


class Opened:
    """The report in a browser, and what went wrong in it."""

    def __init__(self, browser: Any, path: Path, width: int, scheme: str = 'light') -> None:
        self.page = browser.new_page(viewport={'width': width, 'height': 900}, color_scheme=scheme)
        self.faults: list[str] = []
        self.page.on('pageerror', lambda error: self.faults.append(str(error)))
        self.page.on('console', self._listen)
        self.requests: list[str] = []
        self.page.on('request', lambda request: self.requests.append(request.url))
        self.page.set_default_timeout(120_000)  # ms, of a machine that is busy
        self.page.goto(path.as_uri())
        self.page.wait_for_selector('.plot .main-svg')

    def _listen(self, message: Any) -> None:
        if message.type in ('error', 'warning'):
            self.faults.append(message.text)

    @property
    def caption(self) -> str:
        return str(self.page.inner_text('#caption'))


@pytest.fixture
def opened(chromium: Any, report_file: Path) -> Iterator[Opened]:
    report = Opened(chromium, report_file, 1280)
    yield report
    assert report.faults == []
    loaded = {url for url in report.requests if not url.startswith(('data:', 'blob:'))}
    assert loaded == {report_file.as_uri()}
    report.page.close()


def test_the_worst_frame_comes_first_and_the_order_can_be_chosen(opened: Opened) -> None:
    page = opened.page
    assert page.title() == 'Example <run>'
    assert page.inner_text('h1') == 'Example <run>'
    assert opened.caption.startswith('1 of 30: 2.00 s. semantic mIoU 0,')
    page.select_option('#order', 'depth')
    assert opened.caption.startswith('1 of 30: 0.70 s.')
    page.select_option('#order', '')
    assert opened.caption.startswith('1 of 30: 0.00 s.')


def test_the_filmstrip_goes_by_mouse_and_by_keyboard(opened: Opened) -> None:
    page = opened.page
    page.select_option('#order', '')
    page.click('#next')
    assert opened.caption.startswith('2 of 30: 0.10 s.')
    page.focus('#slider')
    page.keyboard.press('ArrowRight')
    assert opened.caption.startswith('3 of 30: 0.20 s.')
    page.keyboard.press('End')
    assert opened.caption.startswith('30 of 30: 2.90 s.')
    assert page.is_disabled('#next')
    page.click('#strip button >> nth=4')
    assert opened.caption.startswith('5 of 30: 0.40 s.')
    assert page.get_attribute('#strip button >> nth=4', 'aria-current') == 'true'
    assert page.get_attribute('#slider', 'aria-valuetext') == opened.caption
    width = page.evaluate("document.querySelector('#stage img').naturalWidth")
    assert width == WIDTH


def test_layers_are_hidden_and_enlarged(opened: Opened) -> None:
    page = opened.page
    shown = page.locator('#stage figcaption').all_inner_texts()
    assert shown[:3] == ['image', 'semantic', 'semantic truth']
    page.uncheck('#layers label:has-text("semantic truth") input')
    assert 'semantic truth' not in page.locator('#stage figcaption').all_inner_texts()
    small = page.locator('figure[data-layer="depth"] img').bounding_box()
    page.click('figure[data-layer="depth"] button')
    large = page.locator('figure[data-layer="depth"] img').bounding_box()
    assert large['width'] > 2 * small['width']
    # The focus stays, so that the same key makes it small again.
    page.keyboard.press('Enter')
    again = page.locator('figure[data-layer="depth"] img').bounding_box()
    assert again['width'] == small['width']


def test_a_click_on_a_plot_over_time_goes_to_that_moment(opened: Opened) -> None:
    page = opened.page
    plot = page.locator('.plot[aria-label^="depth over time"]')
    plot.scroll_into_view_if_needed()
    point = plot.locator('.scatterlayer .point').nth(15)
    point.hover(force=True)
    page.wait_for_selector('.hoverlayer .hovertext')
    point.click(force=True)
    page.wait_for_function("document.querySelector('#caption').textContent.includes(': 1.50 s.')")


def test_the_numbers_of_a_plot_are_in_a_table_for_who_cannot_see_it(opened: Opened) -> None:
    page = opened.page
    summary = page.locator('summary', has_text='Numbers: AbsRel by distance')
    summary.focus()
    page.keyboard.press('Enter')
    table = summary.locator('..').locator('tbody tr')
    table.first.wait_for()
    rows = table.all_inner_texts()
    assert [row.split('\t')[0] for row in rows][:2] == ['1–1.5 m', '1.5–2 m']
    for plot in page.locator('.plot').all():
        assert plot.get_attribute('role') == 'img'
        assert plot.get_attribute('aria-label')


def test_everything_that_can_be_used_has_a_name(opened: Opened) -> None:
    tree = opened.page.locator('body').aria_snapshot()
    for line in tree.splitlines():
        kind = line.strip().removeprefix('- ').split(' ')[0].rstrip(':')
        if kind in ('button', 'slider', 'combobox', 'checkbox', 'link', 'img', 'region'):
            assert '"' in line, line
    levels = opened.page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@pytest.mark.parametrize('width', [400, 1280])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_fits_and_can_be_read(chromium: Any, report_file: Path, width: int, scheme: str) -> None:
    opened = Opened(chromium, report_file, width, scheme)
    page = opened.page
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    summary = page.locator('.scroll').first
    assert summary.evaluate('box => box.scrollWidth - box.clientWidth') == 0
    distances = page.get_by_role('region', name='Depth by true distance')
    assert distances.evaluate('box => box.scrollWidth - box.clientWidth') == 0
    names = page.locator('.heat').last.locator('.xtick text')
    assert names.all_text_contents() == MANY
    paper = page.evaluate('getComputedStyle(document.body).backgroundColor')
    assert paper == ('rgb(21, 24, 28)' if scheme == 'dark' else 'rgb(250, 250, 248)')
    ink = "getComputedStyle(document.querySelector('.xtick text')).fill"
    before = page.evaluate(ink)
    page.click('#theme')
    page.wait_for_function(f'{ink} !== "{before}"')
    assert page.evaluate('getComputedStyle(document.body).backgroundColor') != paper
    assert opened.faults == []
    page.close()
