"""Networks learn other classes and other tasks from where another network has come."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from mtl_training.checkpoints.checkpoint import CheckpointError, load_checkpoint, read_checkpoint
from mtl_training.checkpoints.config import ConfigError, load_config
from mtl_training.cli import main
from mtl_training.datasets.dataset import DataError
from mtl_training.loop.train import train
from safetensors.torch import load_file

from mtl_perception.bundle import load_bundle

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'
QUIET = ('run.validate_every=0', 'run.picture_every=0', 'optim.max_steps=1')
TWO = 'tasks=[semantic, depth]'
MINE = 'classes=[aisle, pallet, forklift]'


@pytest.fixture
def warehouse(rooms: Path, tmp_path: Path) -> Path:
    """The frames of ``rooms`` with labels of three classes that no set has."""
    data = Path(shutil.copytree(rooms, tmp_path / 'warehouse'))
    (data / 'classes.json').write_text(json.dumps(['aisle', 'pallet', 'forklift']))
    for file in data.rglob('*_semantic.png'):
        ids = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(file), np.select([ids == 1, ids == 2, ids == 5], [1, 2, 3], 0))
    return data


@pytest.fixture
def first(rooms: Path, tmp_path: Path) -> Path:
    """A network of semantic classes and depth, with the classes of rooms."""
    return train(load_config(TINY, [*QUIET, TWO]), rooms, tmp_path / 'first')


def test_own_classes_from_the_labels_to_the_bundle(
    first: Path, warehouse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        'train', str(TINY), '--data', str(warehouse), '--out', str(tmp_path), '--init', str(first),
    ]  # fmt: skip
    for setting in (*QUIET, TWO, MINE, 'optim.lr=0.0'):
        words += ['--set', setting]
    assert main(words) == 0
    (told,) = [line for line in capsys.readouterr().err.splitlines() if 'begins anew' in line]
    assert told == 'begins anew: decoders.semantic.fusion.predict'
    begun, had = load_file(tmp_path / 'last.safetensors'), load_checkpoint(first)[0]
    for name, weights in had.named_parameters():
        fits = not name.startswith('decoders.semantic.fusion.predict')
        assert begun[f'net.{name}'].shape == weights.shape or not fits
        assert not fits or torch.equal(begun[f'net.{name}'], weights), name
        if fits:
            torch.testing.assert_close(begun[f'ema.{name}'], weights)
    checkpoint = str(tmp_path / 'last.safetensors')
    assert main(['evaluate', '--checkpoint', checkpoint, '--data', str(warehouse)]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in ('aisle', 'pallet', 'forklift'))
    bundle = tmp_path / 'bundle'
    assert main(['export', '--checkpoint', checkpoint, '--out', str(bundle)]) == 0
    classes = load_bundle(bundle).classes
    assert [label.name for label in classes] == ['aisle', 'pallet', 'forklift']
    assert len({label.color for label in classes}) == 3
    capsys.readouterr()
    mixture = tmp_path / 'mixture.yaml'
    mixture.write_text(yaml.safe_dump([{'path': str(warehouse)}]))
    assert main(['data', 'check', str(mixture)]) == 0
    words = ['quantize', str(bundle), '--precision', 'fp16', '--data', str(warehouse)]
    assert main(words) == 0
    assert main(['evaluate', '--bundle', str(bundle), '--data', str(warehouse)]) == 0
    assert 'pallet' in capsys.readouterr().out


def test_tasks_that_the_other_network_lacks_begin_anew(
    first: Path, rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['train', str(TINY), '--data', str(rooms), '--out', str(tmp_path), '--init', str(first)]
    for setting in (*QUIET, 'tasks=[depth, normals]', 'optim.lr=0.0'):
        words += ['--set', setting]
    assert main(words) == 0
    assert 'begins anew: decoders.normals\n' in capsys.readouterr().err
    begun, had = load_file(tmp_path / 'last.safetensors'), load_checkpoint(first)[0]
    kept = [name for name, _ in had.named_parameters() if '.semantic.' not in name]
    assert all(any(part in name for name in kept) for part in ('.depth.', 'backbone'))
    for name in kept:
        assert torch.equal(begun[f'net.{name}'], had.get_parameter(name)), name


def test_what_all_tasks_share_has_to_fit(first: Path, rooms: Path, tmp_path: Path) -> None:
    settings = [*QUIET, TWO, MINE, 'model.options={width: 24, fuse_width: 16, slim: true}']
    with pytest.raises(CheckpointError, match=r'do not fit tiny: size mismatch for'):
        train(load_config(TINY, settings), rooms, tmp_path / 'second', init=[first])
    cross = 'model.options={width: 16, fuse_width: 16, slim: true, cross: true}'
    crossed = train(load_config(TINY, [*QUIET, TWO, cross]), rooms, tmp_path / 'cross')
    with pytest.raises(CheckpointError, match=r'do not fit tiny: Unexpected key.*saff'):
        train(load_config(TINY, [*QUIET, TWO]), rooms, tmp_path / 'third', init=[crossed])


def test_other_classes_are_not_resumed(first: Path, rooms: Path) -> None:
    with pytest.raises(CheckpointError, match=r'was trained with classes \[\], expected \['):
        train(load_config(TINY, [*QUIET, TWO, 'classes=[floor]']), rooms, first.parent, resume=True)


def test_without_validation_no_frames_are_asked_for_it(rooms: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(rooms, tmp_path / 'data'))
    shutil.rmtree(data / 'val')
    train(load_config(TINY, [*QUIET, TWO]), data, tmp_path / 'run')
    with pytest.raises(DataError, match=r'val.frames\.jsonl is missing'):
        train(load_config(TINY, [TWO]), data, tmp_path / 'looks')


def test_some_of_the_known_classes_are_told_by_their_names(rooms: Path, tmp_path: Path) -> None:
    """Whatever else there is has no label."""
    config = load_config(TINY, [*QUIET, TWO, 'classes=[floor, chair]'])
    meta = read_checkpoint(train(config, rooms, tmp_path))[1]
    assert [label['name'] for label in meta['classes']] == ['floor', 'chair']
    assert meta['tasks']['semantic'] == 2


@pytest.mark.parametrize(
    ('classes', 'found'),
    [('[floor, wall, floor]', "'floor' twice"), (str([f'c{i}' for i in range(256)]), '256 names')],
)
def test_classes_that_cannot_be(classes: str, found: str) -> None:
    with pytest.raises(ConfigError, match=f'classes has {found}, expected at most 255 different'):
        load_config(TINY, [f'classes={classes}'])
