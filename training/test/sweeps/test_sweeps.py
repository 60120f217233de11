"""Sweeps: a local Ray with real workers, and tables whose numbers are known by hand."""

from __future__ import annotations

import csv
import dataclasses
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from mtl_training.checkpoints.config import ConfigError
from mtl_training.cli import main
from mtl_training.loop.train import train
from mtl_training.sweeps.engine import done
from mtl_training.sweeps.results import (
    Outcome,
    Spread,
    best_alone,
    delta_of,
    profile,
    read_outcome,
    table,
)
from mtl_training.sweeps.space import Trial, read_trials

CONFIGS = Path(__file__).parents[2] / 'configs'
SPACE = f"""
config: {CONFIGS / 'tiny.yaml'}
settings:
  task_set: nyud
  tasks: [semantic, depth]
  optim: {{max_steps: 4, warmup_steps: 0, lr: 0.05}}  # so that four steps teach something
  run:
    {{validate_every: 2, validate_frames: 2, picture_every: 0, checkpoint_every: 1, log_every: 1,
     threads: 1}}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / 'space.yaml'
    path.write_text(SPACE + text)
    return path


# ---------------------------------------------------------------------------------------- spaces


def test_the_surveys_grid_has_twelve_settings() -> None:
    """Table IV: SGD with 4 rates and Adam with 2, each with 2 batch sizes."""
    trials = read_trials(CONFIGS / 'sweeps' / 'survey_nyud.yaml')
    variants = list(dict.fromkeys(trial.variant for trial in trials))
    assert variants == [
        'fixed', 'uncertainty', 'dwa', 'gradnorm', 'mgda', 'alone semantic', 'alone depth',
    ]  # fmt: skip
    assert len(trials) == 12 * len(variants)
    optims = {t.config.optim for t in trials if t.variant == 'gradnorm'}
    assert {(o.optimizer, o.lr, o.batch_size) for o in optims} == {
        *(('sgd', lr, b) for lr in (1e-3, 5e-3, 1e-2, 5e-2) for b in (6, 12)),
        *(('adam', lr, b) for lr in (1e-4, 5e-4) for b in (6, 12)),
    }
    assert {o.weight_decay for o in optims} == {1e-4}
    assert all(t.config.balancing.method == 'gradnorm' for t in trials if t.variant == 'gradnorm')
    alone = [t.config for t in trials if t.variant == 'alone depth']
    assert {(c.tasks, c.balancing.method) for c in alone} == {(('depth',), 'fixed')}


def test_a_grid_search_over_weights_is_a_sweep() -> None:
    trials = read_trials(CONFIGS / 'sweeps' / 'weights_nyud.yaml')
    weights = [trial.config.weights for trial in trials if trial.variant == 'fixed']
    assert weights == [{'depth': weight} for weight in (0.25, 0.5, 1, 2, 4)]


def test_the_small_sweep_has_methods_systems_and_seeds() -> None:
    trials = read_trials(CONFIGS / 'sweeps' / 'small_nyud.yaml')
    tried = {(t.config.model.system, t.config.balancing.method) for t in trials}
    for system in ('mtl_baseline', 'tif'):
        assert len({method for name, method in tried if name == system}) == 5
    assert len(trials) == 2 * (2 * 5 + 2)
    assert len({trial.name for trial in trials}) == len(trials)


def test_names_of_trials_are_folders_that_tell_them_apart(tmp_path: Path) -> None:
    path = write(
        tmp_path, 'grid: [{optim.lr: [1e-3, 2e-3]}]\nseeds: [0, 7]\nvariants: {a b: , c/d: {}}\n'
    )
    trials = read_trials(path)
    assert [trial.name for trial in trials][:3] == [
        'a_b,lr=1e-3,seed=0', 'a_b,lr=1e-3,seed=7', 'a_b,lr=2e-3,seed=0',
    ]  # fmt: skip
    assert len({trial.name for trial in trials}) == 8
    assert {trial.config.seed for trial in trials} == {0, 7}
    assert not any('/' in trial.name for trial in trials)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('variants: 3', 'variants is 3, expected a mapping'),
        ('variants: {a: 3}', 'variants.a is 3, expected a mapping'),
        ('variants: {a: }\ngrid: [{optim.lr: 1}]', r'grid\[0\].optim.lr is 1, expected a list'),
        ('variants: {a: {optim.luck: 1}}', 'unknown key optim.luck'),
        ('variants: {a b: , a/b: }', 'a_b,seed=0 is there twice'),
        ('variants: {a: {run.validate_every: 0}}', 'never judged'),
        ('varieties: {}', 'unknown key varieties'),
    ],
)
def test_mistakes_in_a_space_are_told(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_trials(write(tmp_path, text))
    assert 'space.yaml' in str(caught.value) or 'tiny.yaml' in str(caught.value)


# ---------------------------------------------------------------------------------------- tables


def outcome(variant: str, lr: float, seed: int, **figures: float) -> Outcome:
    name = f'{variant},{lr},{seed}'
    trial = Trial(name, variant, {'optim.lr': lr}, seed, CONFIGS / 'tiny.yaml', ())
    return Outcome(trial, 100, 0.5, figures)


OUTCOMES = [
    outcome('alone semantic', 0.1, 0, semantic=0.40),
    outcome('alone semantic', 0.2, 0, semantic=0.30),
    outcome('alone depth', 0.1, 0, depth=0.9),
    outcome('alone depth', 0.2, 0, depth=0.5),
    outcome('fixed', 0.1, 0, semantic=0.44, depth=0.50),
    outcome('fixed', 0.1, 1, semantic=0.36, depth=0.55),
    outcome('fixed', 0.2, 0, semantic=0.20, depth=0.50),
    outcome('mgda', 0.1, 0, semantic=0.40, depth=0.50),
]


def test_each_task_alone_is_given_its_own_best_setting() -> None:
    assert best_alone(OUTCOMES) == {'semantic': 0.40, 'depth': 0.5}


def test_deltas_are_against_tasks_alone() -> None:
    base = best_alone(OUTCOMES)
    deltas = [delta_of(each, base) for each in OUTCOMES]
    assert all(math.isnan(value) for value in deltas[:4])
    assert deltas[4:] == pytest.approx([5, -10, -25, 0])


def test_the_table_has_the_best_setting_with_its_spread() -> None:
    """fixed: +5 and -10 are -2.5 +- 10.61, better than -25; of all settings -10 +- 15."""
    lines = table(OUTCOMES, best_alone(OUTCOMES)).splitlines()
    assert lines[2] == '| alone | each its own | | 0.4 | 0.5 | 0 | |'
    assert lines[3] == (
        '| fixed | optim.lr 0.1 | 2 | 0.4000 ± 0.0566 | 0.5250 ± 0.0354 | -2.50 ± 10.61 | '
        '-10.00 ± 15.00 |'
    )
    assert lines[4].startswith('| mgda | optim.lr 0.1 | 1 | 0.4000 | 0.5000 | +0.00 |')


def test_without_tasks_alone_the_best_setting_has_the_best_quality() -> None:
    fixed = [dataclasses.replace(each, quality=q) for each, q in zip(OUTCOMES[4:7], (3, 3, 9))]
    lines = table(fixed, best_alone(fixed)).splitlines()
    assert lines[2:] == ['| fixed | optim.lr 0.2 | 1 | 0.2000 | 0.5000 |  |  |']


def test_one_seed_has_no_spread() -> None:
    assert Spread.of([2.0]).text('.1f') == '2.0'
    assert Spread.of([1.0, 3.0]).text('.1f') == '2.0 ± 1.4'


def test_the_profile_has_a_point_for_every_trial() -> None:
    """Tasks alone are one point for each setting and seed."""
    text, picture = profile(OUTCOMES, ('semantic', 'depth'))
    rows = list(csv.reader(text.splitlines()))
    assert rows[0] == ['variant', 'optim.lr', 'seed', 'semantic', 'depth']
    assert ['alone', '0.1', '0', '0.4', '0.9'] in rows
    assert ['fixed', '0.1', '1', '0.36', '0.55'] in rows
    assert len(rows) == 1 + 2 + 4
    svg = ET.fromstring(picture)
    groups = svg.findall('{*}g')
    assert [len(group.findall('{*}circle')) for group in groups] == [2, 3, 1]
    worst, best = groups[0].findall('{*}circle')  # lr 0.1, then 0.2: less mIoU, less RMSE
    assert float(worst.get('cx', '')) > float(best.get('cx', ''))
    assert float(worst.get('cy', '')) < float(best.get('cy', ''))


# ------------------------------------------------------------------------------------ a local Ray


def times(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob('*/log.csv')}


def figures(path: Path) -> list[Mapping[str, str]]:
    return list(csv.DictReader(path.open()))


def test_a_sweep_is_run_by_workers_and_resumed(
    rooms: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip('ray')
    path = write(tmp_path, 'singles: {}\nvariants: {fixed: , dtp: {balancing.method: dtp}}\n')
    shutil.copy(CONFIGS / 'tiny.yaml', tmp_path)
    path.write_text(path.read_text().replace(f'{CONFIGS}/', ''))
    out, trials = tmp_path / 'out', read_trials(path)
    cut = trials[0]  # a run that was killed after its first step
    train(cut.config, rooms, out / cut.name, stop=lambda step: step == 1)
    (begun,) = figures(out / cut.name / 'log.csv')
    monkeypatch.chdir(tmp_path)
    command = ['sweep', path.name, '--data', str(rooms), '--out', 'out', '--processes', '2']
    assert main(command) == 0
    assert all(done(trial, out) for trial in trials)
    assert figures(out / cut.name / 'log.csv')[0] == begun  # not made once more

    printed = capsys.readouterr().out
    assert printed == (out / 'table.md').read_text()
    assert [line.split('|')[1].strip() for line in printed.splitlines()[2:]] == [
        'alone', 'fixed', 'dtp',
    ]  # fmt: skip
    rows = {row['trial']: row for row in figures(out / 'results.csv')}
    assert list(rows) == [trial.name for trial in trials]
    for trial in trials:
        told = figures(out / trial.name / 'validation.csv')
        assert [row['step'] for row in told] == ['2', '4']
        best = max(told, key=lambda row: float(row['quality']))
        assert float(rows[trial.name]['quality']) == float(best['quality'])
        assert read_outcome(trial, out).step == float(best['step'])
    assert (out / 'profile.svg').exists()
    assert len(figures(out / 'profile.csv')) == 3

    before = times(out)
    assert main(command) == 0  # nothing is left to do
    assert times(out) == before
    assert main(['sweep', str(path), '--out', str(out), '--list']) == 0
    assert capsys.readouterr().out.count('done') == len(trials)


def test_poor_trials_are_given_up_and_failures_told(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('ray')
    path = write(
        tmp_path,
        'variants:\n'
        '  fixed: {run.validate_every: 1}\n'
        '  broken: {model.backbone: luck}\n'
        'grid: [{optim.lr: [1e-2, 1e-9]}]\n',
    )
    out, trials = tmp_path / 'out', read_trials(path)
    command = ['sweep', str(path), '--data', str(rooms), '--out', str(out), '--asha', '1']
    assert main([*command, '--reduction', '2']) == 1
    told = [x for x in capsys.readouterr().err.splitlines() if x.startswith('mtl_training sweep')]
    assert len(told) == 2
    assert all('broken' in line and "unknown backbone 'luck'" in line for line in told)
    stopped = [trial for trial in trials if (out / trial.name / 'stopped.json').exists()]
    assert [trial.name for trial in stopped] == ['fixed,lr=1e-9,seed=0']
    assert [trial.name for trial in trials if done(trial, out)] == [
        'fixed,lr=1e-2,seed=0', 'fixed,lr=1e-9,seed=0',
    ]  # fmt: skip
    steps = [len(figures(out / trial.name / 'validation.csv')) for trial in trials[:2]]
    assert steps[0] == 4 > steps[1]
