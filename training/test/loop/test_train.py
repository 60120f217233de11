"""The training loop: resumes as if nothing had happened, learns, and writes what it says."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from mtl_training.balancing import METHODS
from mtl_training.checkpoints.checkpoint import CheckpointError, load_checkpoint, read_checkpoint
from mtl_training.checkpoints.config import Config, ConfigError, load_config
from mtl_training.cli import main
from mtl_training.datasets.dataset import DataError
from mtl_training.evaluation.predictors import normalise
from mtl_training.loop.run import prepare
from mtl_training.loop.state import begin_with
from mtl_training.loop.step import sub_sample
from mtl_training.loop.train import batches, train
from mtl_training.models.backbones import BACKBONES
from mtl_training.models.pyramids import ResNetPyramid
from mtl_training.tasks import multi_task_loss
from safetensors.torch import load_file, save_file

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'
QUIET = ('run.validate_every=0', 'run.picture_every=0', 'tasks=[semantic, depth]')
POSITIVE = ('task_set=nyud',)  # depth with L1 instead of a likelihood


def log_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a log without what the clock says."""
    rows = list(csv.DictReader(path.read_text().splitlines()))
    return [{k: v for k, v in row.items() if k not in ('seconds', 'waiting')} for row in rows]


def change(config: Config, section: str, **values: Any) -> Config:
    part = dataclasses.replace(getattr(config, section), **values)
    return dataclasses.replace(config, **{section: part})


@pytest.mark.parametrize(
    'balancing',
    [
        *(f'{{method: {method}}}' for method in METHODS if method != 'torchjd'),
        '{method: mgda, options: {normalization: l2, features: true}}',
        '{method: torchjd, options: {aggregator: pcgrad}}',
        '{method: torchjd, options: {aggregator: nash_mtl, features: true}}',
    ],
)
def test_resume_within_an_epoch_is_bit_equal(balancing: str, rooms: Path, tmp_path: Path) -> None:
    if 'torchjd' in balancing:
        pytest.importorskip('torchjd')
    config = load_config(
        TINY,
        [*QUIET, *POSITIVE, 'augment.noise_p=0.5', 'optim.max_steps=10', f'balancing={balancing}'],
    )
    whole = train(config, rooms, tmp_path / 'whole')
    train(config, rooms, tmp_path / 'parts', stop=lambda step: step == 6)  # 4 batches an epoch
    parts = train(config, rooms, tmp_path / 'parts', resume=True)
    expected, found = load_file(whole), load_file(parts)
    assert expected.keys() == found.keys()
    kinds = {name.split('.')[0] for name in found} - {'balancer'}
    assert kinds == {'net', 'ema', 'optimizer', 'random'}
    unequal = [name for name in expected if not torch.equal(expected[name], found[name])]
    assert unequal == []
    assert log_rows(whole.parent / 'log.csv') == log_rows(parts.parent / 'log.csv')
    assert read_checkpoint(parts)[1]['progress'] == read_checkpoint(whole)[1]['progress']


def test_what_a_balancer_learns_is_learned_and_kept(rooms: Path, tmp_path: Path) -> None:
    settings = [*QUIET, *POSITIVE, 'optim.max_steps=6', 'balancing.method=uncertainty']
    config = load_config(TINY, settings)
    learned = load_file(train(config, rooms, tmp_path / 'learned'))
    first = log_rows(tmp_path / 'learned' / 'log.csv')[0]
    for task in config.tasks:  # losses of more than 1 have a variance of more than 1
        assert float(first[task]) > 1
        assert learned[f'balancer.log_variance.{task}'] > 0
    config = load_config(TINY, [*QUIET, *POSITIVE, 'balancing.method=dwa'])
    counted = load_file(train(config, rooms, tmp_path / 'counted', stop=lambda step: step == 6))
    assert counted['balancer.steps'].tolist() == [2, 2]  # of the second epoch
    rows = log_rows(tmp_path / 'counted' / 'log.csv')
    for index, task in enumerate(config.tasks):
        mean = sum(float(row[task]) for row in rows[:4]) / 4
        assert counted['balancer.previous'][0, index].item() == pytest.approx(mean, rel=1e-4)


def test_a_run_is_resumed_with_the_method_it_began_with(rooms: Path, tmp_path: Path) -> None:
    config = load_config(TINY, [*QUIET, *POSITIVE, 'optim.max_steps=2'])
    train(config, rooms, tmp_path, stop=lambda step: step == 1)
    other = load_config(TINY, [*QUIET, *POSITIVE, 'optim.max_steps=2', 'balancing.method=dwa'])
    with pytest.raises(CheckpointError, match=r"with balancing .*'fixed'.* expected .*'dwa'"):
        train(other, rooms, tmp_path, resume=True)


@pytest.mark.parametrize(
    'balancing',
    ['{method: uncertainty}', '{method: dwa}', '{method: mgda, options: {normalization: loss+}}'],
)
def test_methods_that_need_losses_above_0_are_not_given_likelihoods(
    balancing: str, rooms: Path, tmp_path: Path
) -> None:
    config = load_config(TINY, [*QUIET, f'balancing={balancing}'])
    with pytest.raises(ConfigError, match='for losses below 0, as of depth in task_set rooms'):
        train(config, rooms, tmp_path)


def test_weights_of_tasks_and_of_auxiliary_predictions_count(rooms: Path, tmp_path: Path) -> None:
    """MT-CP predicts each task three times; the first two count half."""
    config = load_config(TINY, [*QUIET, 'optim.max_steps=1', 'weights={semantic: 3, depth: 5}'])
    config = change(config, 'model', system='mt_cp', options={'width': 16})
    train(config, rooms, tmp_path)
    (row,) = ({k: float(v) for k, v in row.items()} for row in log_rows(tmp_path / 'log.csv'))
    run = prepare(config, Fabric(accelerator='cpu'), rooms)
    batch = next(batches(run))
    predictions = run.net.train().predictions(normalise(batch['image'], run.net.mean, run.net.std))
    total = 0.0
    for task, weight in (('semantic', 3), ('depth', 5)):
        final, deep, middle = (
            multi_task_loss(logits, batch, run.tasks)[task].item()
            for logits in (predictions.final, *(a.logits for a in predictions.auxiliary))
        )
        assert row[task] == pytest.approx(final, rel=1e-3)
        assert row[f'auxiliary_{task}'] == pytest.approx(deep / 2 + middle / 2, rel=1e-3)
        total += weight * (final + deep / 2 + middle / 2)
    assert row['total'] == pytest.approx(total, rel=1e-3)


def test_tensorboard_has_what_the_tables_have(rooms: Path, tmp_path: Path) -> None:
    """Also after a run that was cut off after its last checkpoint: each step once."""
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    settings = ['task_set=nyud', 'run.picture_every=0', 'run.validate_every=2']
    settings += ['run.validate_frames=2', 'run.gradients_every=2', 'run.tensorboard=true']
    config = load_config(TINY, [*settings, 'tasks=[semantic, depth]', 'optim.max_steps=4'])
    last = train(config, rooms, tmp_path, stop=lambda step: step == 2)
    shutil.copy(last, tmp_path / 'kept')
    train(config, rooms, tmp_path, resume=True, stop=lambda step: step == 3)
    shutil.copy(tmp_path / 'kept', last)
    train(config, rooms, tmp_path, resume=True)
    for name in ('log', 'validation', 'gradients'):
        events = accumulator.EventAccumulator(str(tmp_path / 'tensorboard' / name)).Reload()
        rows = list(csv.DictReader((tmp_path / f'{name}.csv').open()))
        columns = [column for column in rows[0] if column != 'step']
        assert set(events.Tags()['scalars']) == {f'{name}/{column}' for column in columns}
        for column in columns:
            found = [(e.step, e.value) for e in events.Scalars(f'{name}/{column}')]
            assert [step for step, _ in found] == [int(row['step']) for row in rows]
            values = [float(row[column]) for row in rows]
            assert [value for _, value in found] == pytest.approx(values, rel=1e-5), column


def test_tensorboard_that_is_not_installed_is_told(
    rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    config = load_config(TINY, [*QUIET, 'run.tensorboard=true'])
    with pytest.raises(ConfigError, match='needs the package tensorboard'):
        train(config, rooms, tmp_path)


@pytest.mark.parametrize('system', ['tif', 'astmt'])
def test_mixed_precision_computes_in_16_bits(system: str, rooms: Path, tmp_path: Path) -> None:
    rows = []
    for precision in ('32-true', 'bf16-mixed'):
        config = load_config(TINY, [*QUIET, 'optim.max_steps=2', f'run.precision={precision}'])
        if system == 'astmt':  # which looks at gradients itself
            config = change(config, 'model', system=system, backbone='resnet18', options={})
        last = train(config, rooms, tmp_path / precision)
        rows.append(log_rows(tmp_path / precision / 'log.csv'))
        weights = load_file(last)
        assert all(w.dtype == torch.float32 for n, w in weights.items() if n.endswith('weight'))
    for full, mixed in zip(*rows, strict=True):
        assert full['total'] != mixed['total']
        assert float(full['total']) == pytest.approx(float(mixed['total']), rel=0.05)


def test_rows_after_the_last_checkpoint_are_written_again(rooms: Path, tmp_path: Path) -> None:
    config = load_config(TINY, [*QUIET, 'optim.max_steps=4', 'run.checkpoint_every=2'])
    train(config, rooms, tmp_path / 'a', stop=lambda step: step == 2)
    shutil.copy(tmp_path / 'a' / 'last.safetensors', tmp_path / 'kept')
    train(config, rooms, tmp_path / 'a', resume=True)
    rows = log_rows(tmp_path / 'a' / 'log.csv')
    shutil.copy(tmp_path / 'kept', tmp_path / 'a' / 'last.safetensors')  # as after a power cut
    train(config, rooms, tmp_path / 'a', resume=True)
    assert log_rows(tmp_path / 'a' / 'log.csv') == rows
    assert [row['step'] for row in rows] == ['1', '2', '3', '4']


def test_a_whole_run_from_the_command_line(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        'train',
        str(TINY),
        '--data',
        str(rooms),
        '--out',
        str(tmp_path),
        '--max-steps',
        '2',
    ]
    arguments += ['--set', 'run.picture_every=2', '--set', 'run.validate_every=2']
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / 'last.safetensors')
    assert (tmp_path / 'pictures' / '000002.png').exists()
    (row,) = csv.DictReader((tmp_path / 'validation.csv').read_text().splitlines())
    assert {'semantic.miou', 'depth.absrel', 'normals.mean', 'edges.f', 'quality'} <= row.keys()
    assert not list(tmp_path.rglob('*.tmp*'))

    net, meta = load_checkpoint(tmp_path / 'best.safetensors')
    assert meta['step'] == 2
    assert meta['canonical_focal'] == 277
    assert meta['tasks'] == {'semantic': 18, 'depth': 2, 'normals': 3, 'edges': 1}
    assert meta['classes'][0] == {'id': 0, 'name': 'wall', 'color': [174, 199, 232]}
    assert meta['metrics']['depth']['absrel'] == pytest.approx(float(row['depth.absrel']), abs=1e-4)
    assert not net.training
    averaged = load_checkpoint(tmp_path / 'last.safetensors')[0].state_dict()
    assert all(torch.equal(averaged[name], t) for name, t in net.state_dict().items())
    json.dumps(meta)


def test_learns_four_frames(rooms: Path, tmp_path: Path) -> None:
    data = tmp_path / 'four'
    shutil.copytree(rooms, data)
    listing = data / 'train' / 'frames.jsonl'
    listing.write_text(''.join(listing.read_text().splitlines(keepends=True)[:4]))
    config = load_config(TINY, ['run.validate_every=0', 'run.picture_every=0'])
    config = change(config, 'optim', lr=4e-3, power=0.0, max_steps=30, batch_size=4)
    config = change(config, 'augment', scale=(1.0, 1.0), photometric_p=0.0, flip_p=0.0)
    train(config, data, tmp_path / 'run')
    rows = [{k: float(v) for k, v in row.items()} for row in log_rows(tmp_path / 'run' / 'log.csv')]
    first, last = rows[0], rows[-1]
    assert last['semantic'] < 0.75 * first['semantic']
    assert last['depth'] < first['depth'] - 0.4  # a log likelihood: differences count
    assert last['normals'] < 0.1 * first['normals']
    assert last['edges'] < 0.85 * first['edges']


def test_frozen_stages_stay_as_they_were(rooms: Path, tmp_path: Path) -> None:
    config = load_config(TINY, [*QUIET, 'optim.max_steps=1', 'optim.frozen_stages=2'])
    one = load_file(train(config, rooms, tmp_path / 'one'))
    three = load_file(train(change(config, 'optim', max_steps=3), rooms, tmp_path / 'three'))
    for name in one:
        frozen = name.startswith(('net.backbone.net.conv_stem', 'net.backbone.net.bn1'))
        frozen |= name.startswith(('net.backbone.net.blocks.0', 'net.backbone.net.blocks.1'))
        if frozen:
            assert torch.equal(one[name], three[name]), name
    assert not torch.equal(
        one['net.backbone.net.blocks.2.0.conv_pw.weight'],
        three['net.backbone.net.blocks.2.0.conv_pw.weight'],
    )


def test_small_crops_and_half_size_losses_train(rooms: Path, tmp_path: Path) -> None:
    config = load_config(TINY, [*QUIET, 'optim.max_steps=5', 'optim.loss_stride=2'])
    small = change(config, 'data', small_share=0.5, small_height=32, small_width=64)
    train(config, rooms, tmp_path / 'whole')
    train(small, rooms, tmp_path / 'small')
    whole, cropped = (log_rows(tmp_path / name / 'log.csv') for name in ('whole', 'small'))
    assert len(cropped) == 5
    assert cropped[0]['total'] != whole[0]['total']  # the same frames and weights, other crops


def test_class_balance_changes_the_semantic_loss_only(rooms: Path, tmp_path: Path) -> None:
    for balance in (0.0, 0.5):
        config = load_config(TINY, [*QUIET, 'optim.max_steps=1', f'class_balance={balance}'])
        train(config, rooms, tmp_path / str(balance))
    plain, balanced = (log_rows(tmp_path / name / 'log.csv')[0] for name in ('0.0', '0.5'))
    assert balanced['semantic'] != plain['semantic']
    assert balanced['depth'] == plain['depth']


def test_sub_sampling_favours_no_pixel_of_a_cell() -> None:
    batch = {'depth': torch.arange(16.0).view(1, 1, 4, 4), 'fx': torch.ones(1)}
    seen = [sub_sample(batch, 2, step)['depth'].flatten().tolist() for step in range(4)]
    assert seen[0] == [0, 2, 8, 10]
    assert sorted(value for part in seen for value in part) == list(range(16))
    assert sub_sample(batch, 2, 0)['fx'].shape == (1,)


def test_a_growing_folder_is_listed_again_at_every_epoch(rooms: Path, tmp_path: Path) -> None:
    data = tmp_path / 'growing'
    shutil.copytree(rooms, data)
    listing = data / 'train' / 'frames.jsonl'
    lines = listing.read_text().splitlines(keepends=True)
    listing.write_text(''.join(lines[:4]))

    def stop(step: int) -> bool:
        listing.write_text(''.join(lines))
        return step == 3  # 2 batches of the first epoch, 1 of the second

    config = load_config(TINY, [*QUIET, 'data.rescan=true'])
    _, meta = read_checkpoint(train(config, data, tmp_path / 'run', stop=stop))
    assert meta['progress']['epoch'] == 1
    assert meta['progress']['epoch_frames'] == 9


def test_a_run_begins_with_the_weights_of_another(rooms: Path, tmp_path: Path) -> None:
    config = load_config(TINY, [*QUIET, 'optim.max_steps=2'])
    first = train(config, rooms, tmp_path / 'first')
    trained = load_checkpoint(first)[0]  # what is judged: the average, where there is one
    still = change(config, 'optim', lr=0.0, max_steps=1)
    second = train(still, rooms, tmp_path / 'second', init=[first])
    found = load_file(second)
    for name, weights in trained.named_parameters():
        assert torch.equal(found[f'net.{name}'], weights), name
        torch.testing.assert_close(found[f'ema.{name}'], weights)
    assert read_checkpoint(second)[1]['progress']['step'] == 1  # not the other run's


@pytest.fixture
def single_tasks(
    rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Config, list[Path]]:
    """A run for each of two tasks, and the configuration that both were made from."""
    small = {'layers': (1, 1, 1, 1), 'channels': (8, 8, 16, 16), 'out_indices': (1, 2, 3, 4)}
    monkeypatch.setitem(
        BACKBONES, 'small_d8', (ResNetPyramid, 'resnet18', {**small, 'output_stride': 8})
    )
    config = load_config(TINY, [*QUIET, 'optim.max_steps=1', 'optim.batch_size=4'])
    config = change(config, 'model', system='single_task', backbone='small_d8', options={})
    runs = [
        train(dataclasses.replace(config, tasks=(task,)), rooms, tmp_path / task)
        for task in config.tasks
    ]
    return config, runs


def test_cross_stitch_begins_as_the_single_task_networks_that_were_trained(
    rooms: Path, single_tasks: tuple[Config, list[Path]]
) -> None:
    config, runs = single_tasks
    config = change(config, 'model', system='cross_stitch', options={'own': 1.0})
    run = prepare(config, Fabric(accelerator='cpu'), rooms)
    begin_with(run, runs)
    image = torch.randn(1, 3, 64, 96)
    for joined in (run.net.eval(), run.judged):
        for task, run in zip(config.tasks, runs, strict=True):
            expected = load_checkpoint(run)[0](image)[task]
            torch.testing.assert_close(joined(image)[task], expected)


@pytest.mark.parametrize('system', ['nddr', 'sluice', 'cross_stitch', 'single_task'])
def test_single_task_networks_are_joined_by_the_command(
    system: str, rooms: Path, tmp_path: Path, single_tasks: tuple[Config, list[Path]]
) -> None:
    _, runs = single_tasks
    words = ['train', str(TINY), '--data', str(rooms), '--out', str(tmp_path / 'joined')]
    for setting in (*QUIET, 'optim.max_steps=1', 'optim.batch_size=4', 'optim.lr=0.0'):
        words += ['--set', setting]
    words += ['--set', f'model.system={system}', '--set', 'model.backbone=small_d8']
    words += ['--set', 'model.options={}', '--init', *map(str, runs)]
    assert main(words) == 0
    found = load_file(tmp_path / 'joined' / 'last.safetensors')
    for run in runs:
        for name, weights in load_checkpoint(run)[0].named_parameters():
            assert torch.equal(found[f'net.{name}'], weights), name


def test_single_task_networks_that_are_missing_or_given_twice_are_told(
    rooms: Path, tmp_path: Path, single_tasks: tuple[Config, list[Path]]
) -> None:
    config, (one, two) = single_tasks
    config = change(config, 'model', system='nddr')
    with pytest.raises(CheckpointError, match=r'do not fit tiny.*Missing key.*backbones\.depth'):
        train(config, rooms, tmp_path / 'joined', init=[one])
    shutil.copy(two, tmp_path / 'copy.safetensors')
    with pytest.raises(CheckpointError, match=r'copy.* is in another of the checkpoints, too'):
        train(config, rooms, tmp_path / 'joined', init=[one, two, tmp_path / 'copy.safetensors'])
    with pytest.raises(CheckpointError, match='do not fit tiny'):
        train(change(config, 'model', system='mtl_baseline'), rooms, tmp_path / 'x', init=[one])


def test_weights_that_do_not_fit_are_not_begun_with(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(TINY, [*QUIET, 'optim.max_steps=1'])
    first = train(config, rooms, tmp_path / 'first')
    arguments = ['train', str(TINY), '--data', str(rooms), '--out', str(tmp_path / 'second')]
    arguments += ['--init', str(first), '--set', 'model.options.width=24']
    capsys.readouterr()
    assert main(arguments) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('mtl_training train: ')
    assert f'{first}: the weights do not fit tiny' in line
    assert not (tmp_path / 'second' / 'last.safetensors').exists()


def test_another_network_is_not_resumed(rooms: Path, tmp_path: Path) -> None:
    config = load_config(TINY, [*QUIET, 'optim.max_steps=1'])
    train(config, rooms, tmp_path)
    other = change(config, 'model', options={**config.model.options, 'width': 24})
    with pytest.raises(CheckpointError, match='was trained with model'):
        train(other, rooms, tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=r'trained with optim\.frozen_stages 0, expected 2'):
        train(change(config, 'optim', frozen_stages=2), rooms, tmp_path, resume=True)


def test_what_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    (tmp_path / 'a.safetensors').write_bytes(b'nothing')
    save_file({'x': torch.zeros(1)}, tmp_path / 'b.safetensors')
    messages = {'a': 'cannot be read', 'b': 'no mtl_training metadata', 'c': 'cannot be read'}
    for name, message in messages.items():
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(tmp_path / f'{name}.safetensors')


def test_too_few_frames_are_told(rooms: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match='lists 9 frames, expected at least a batch'):
        train(load_config(TINY, [*QUIET, 'optim.batch_size=10']), rooms, tmp_path)


def test_mistakes_are_one_line_on_stderr(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['train', str(TINY), '--data', str(rooms), '--out', str(tmp_path), '--set', 'sed=1']
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert 'unknown key sed' in line


def test_labels_follow_the_classes_of_the_network(rooms: Path, tmp_path: Path) -> None:
    overrides = [*QUIET, 'task_set=nyud', 'tasks=[semantic]', 'optim.max_steps=2']
    config = load_config(TINY, [*overrides, 'run.validate_every=2', 'class_balance=0.5'])
    _, meta = load_checkpoint(train(config, rooms, tmp_path))
    assert len(meta['classes']) == meta['tasks']['semantic'] == 40
    judged = {key for key in meta['metrics']['semantic'] if key.startswith('iou_')}
    assert judged == {'iou_wall', 'iou_floor', 'iou_chair', 'iou_ceiling'}
    with pytest.raises(DataError, match='expected them or groups of them'):
        train(load_config(TINY, [*QUIET, 'task_set=pascal', 'tasks=[semantic]']), rooms, tmp_path)
