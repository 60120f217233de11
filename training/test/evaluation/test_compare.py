"""The page that puts runs side by side: read back as a browser would, from real runs."""

from __future__ import annotations

import csv
import doctest
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from mtl_training.checkpoints.config import load_config
from mtl_training.cli import main
from mtl_training.evaluation import charts
from mtl_training.evaluation.charts import chart, thinned, ticks
from mtl_training.evaluation.compare import delta_of, page, read_runs
from mtl_training.loop.train import train

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'
SETTINGS = (
    'task_set=nyud', 'optim.max_steps=4', 'run.validate_every=2', 'run.validate_frames=2',
    'run.picture_every=0', 'run.gradients_every=2',
)  # fmt: skip


@pytest.fixture(scope='module')
def runs(rooms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two methods, and of both tasks alone."""
    out = tmp_path_factory.mktemp('runs')
    for name, settings in {
        'fixed': ['tasks=[semantic, depth]'],
        'balanced/dtp': ['tasks=[semantic, depth]', 'balancing.method=dtp'],
        'semantic': ['tasks=[semantic]', 'optim.lr=0.05', 'optim.warmup_steps=0'],
        'depth': ['tasks=[depth]', 'optim.lr=1e-2'],
    }.items():
        train(load_config(TINY, [*SETTINGS, *settings]), rooms, out / name)
    return out


def svgs(text: str) -> dict[str, ET.Element]:
    """The charts of a page by their titles."""
    found = [ET.fromstring(svg) for svg in re.findall('<svg.*?</svg>', text)]
    return {svg.find("text[@class='title']").text or '': svg for svg in found}  # type: ignore[union-attr]


def test_a_page_has_curves_deltas_weights_and_angles(runs: Path, tmp_path: Path) -> None:
    command = ['compare', str(runs / 'fixed'), str(runs / 'balanced' / 'dtp'), '--out']
    singles = ['--single', str(runs / 'semantic'), str(runs / 'depth')]
    assert main([*command, str(tmp_path / 'page.html'), *singles]) == 0
    text = (tmp_path / 'page.html').read_text()
    assert not re.search('(src|href|url)[=(]|<script', text)  # needs nothing else
    found = svgs(text)
    assert list(found) == [
        'quality', 'semantic.miou', 'depth.rmse', 'semantic', 'depth', 'total', 'weight semantic',
        'weight depth', 'cosine semantic depth', 'norm semantic', 'norm depth',
    ]  # fmt: skip
    for title, svg in found.items():
        assert [g.find('title').text for g in svg.findall('g')] == ['fixed', 'dtp'], title  # type: ignore[union-attr]
    assert 'against single tasks' in text
    first, second = read_runs([runs / 'fixed', runs / 'balanced' / 'dtp'])
    base = {}
    for task, column in (('semantic', 'semantic.miou'), ('depth', 'depth.rmse')):
        rows = list(csv.DictReader((runs / task / 'validation.csv').open()))
        base[task] = float(max(rows, key=lambda row: float(row['quality']))[column])
    for run in (first, second):
        change = delta_of(run, base)
        semantic = (run.best['semantic.miou'] - base['semantic']) / base['semantic']
        depth = (base['depth'] - run.best['depth.rmse']) / base['depth']
        assert change == pytest.approx(50 * (semantic + depth))
        assert f'<td>{change:+.2f}</td>' in text
    rows = list(csv.DictReader((runs / 'balanced' / 'dtp' / 'log.csv').open()))
    assert [y for _, y in second.tables['log']['weight_depth']] == [
        float(row['weight_depth']) for row in rows
    ]


def test_without_single_tasks_the_first_run_is_the_yardstick(runs: Path) -> None:
    text = page(read_runs([runs / 'fixed', runs / 'balanced' / 'dtp']))
    assert 'delta against fixed' in text
    assert '<td>+0.00</td>' in text


def test_runs_of_one_name_are_told_apart(runs: Path, tmp_path: Path) -> None:
    (tmp_path / 'dtp').symlink_to(runs / 'fixed')
    names = [run.name for run in read_runs([runs / 'balanced' / 'dtp', tmp_path / 'dtp'])]
    assert names == ['dtp', 'fixed']  # links are followed
    assert main(['compare', str(runs / 'fixed'), str(tmp_path / 'dtp')]) == 1


def test_a_curve_is_where_its_numbers_are() -> None:
    svg = ET.fromstring(chart('t', {'a': [(0, 1), (10, 3)]}, {'a': 'red'}))
    path = svg.find("g/path[@class='curve']")
    assert path is not None
    numbers = [float(x) for x in re.findall(r'[\d.]+', path.get('d', ''))]
    labels = {text.text: text for text in svg.findall("text[@class='y']")}
    assert numbers[0] < numbers[2]  # from left to right,
    assert numbers[1] > numbers[3]  # and up
    assert numbers[1] == pytest.approx(float(labels['1'].get('y', '')) - 4, abs=0.1)
    assert numbers[3] == pytest.approx(float(labels['3'].get('y', '')) - 4, abs=0.1)


@pytest.mark.parametrize(
    ('low', 'high'), [(0, 97), (0.5, 0.5), (-3, 2), (1e-5, 3e-5), (7, 2e6), (0, 0)]
)
def test_ticks_enclose_what_is_drawn(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 8
    assert found[0] <= low
    assert found[-1] >= high
    assert found == sorted(set(found))


def test_long_curves_are_thinned_to_means() -> None:
    assert list(thinned([(0, 1), (1, 3), (2, 5), (3, 7)], most=2)) == [(0.5, 2), (2.5, 6)]
    assert len(thinned([(x, x) for x in range(1001)])) <= 200
    assert doctest.testmod(charts).failed == 0


def test_folders_without_a_run_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['compare', str(tmp_path)]) == 1
    assert 'has no log.csv' in capsys.readouterr().err
