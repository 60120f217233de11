"""Mixtures: whose frames are seen how often, and what is masked."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mtl_training.checkpoints.checkpoint import read_checkpoint
from mtl_training.checkpoints.config import load_config
from mtl_training.cli import main
from mtl_training.datasets import open_data
from mtl_training.datasets.augment import Sample
from mtl_training.datasets.batches import Examples, loader, masked
from mtl_training.datasets.dataset import DataError, DataSet, class_weights
from mtl_training.datasets.mixture import frames_by_task, of_epoch
from mtl_training.datasets.rooms import Rooms
from mtl_training.labels import NYUD40, ROBOT_GROUPS
from mtl_training.loop.run import Progress
from mtl_training.loop.train import batches
from mtl_training.tasks import rooms as rooms_tasks

TASKS = rooms_tasks(NYUD40)
TINY = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'


@pytest.fixture
def depths(tmp_path: Path) -> Path:
    """An RGB-D folder: three frames of one place and one of another."""
    folder = tmp_path / 'depths'
    folder.mkdir()
    entries = []
    for name in ('desk_0', 'desk_1', 'desk_2', 'hall_0'):
        cv2.imwrite(str(folder / f'{name}.jpg'), np.full((64, 96, 3), 90, np.uint8))
        cv2.imwrite(str(folder / f'{name}.png'), np.full((64, 96), 900, np.uint16))
        entries.append({'name': name, 'k': [80, 80, 47.5, 31.5]})
    (folder / 'frames.json').write_text(json.dumps(entries))
    return folder


def mix(folder: Path, split: str, *entries: dict[str, object]) -> DataSet:
    (folder / 'mixture.yaml').write_text(json.dumps(entries))  # which is YAML as well
    return open_data(folder / 'mixture.yaml', split, NYUD40)


def test_sets_follow_one_another_as_often_as_they_weigh(
    rooms: Path, depths: Path, tmp_path: Path
) -> None:
    data = mix(
        tmp_path, 'val', {'path': str(rooms), 'weight': 0.5}, {'path': 'depths', 'weight': 2}
    )
    names = ['000000_0', '000002_0', *(f'{n}_{i}' for n, i in [('desk', 0), ('desk', 0)])]
    assert list(data.frames)[:4] == names
    assert list(data.frames).count('hall_0') == 2
    assert len(data) == 2 + 8
    assert data.tasks == ('semantic', 'depth', 'normals', 'edges', 'saliency')
    assert data.classes == {'semantic': NYUD40}
    fx = [data.read(index, []).fx for index in range(len(data))]
    assert fx == [80, 82, *[80] * 8]


def test_a_part_of_a_set_is_another_one_in_every_epoch(
    rooms: Path, depths: Path, tmp_path: Path
) -> None:
    data = mix(tmp_path, 'train', {'path': str(rooms), 'weight': 0.35}, {'path': 'depths'})
    epochs = [list(of_epoch(data, epoch).frames) for epoch in range(9)]
    assert epochs[0] == list(data.frames)
    assert epochs[4] == list(of_epoch(data, 4).frames)
    assert {len(frames) for frames in epochs} == {3 + 4}
    assert all(epochs[epoch] != epochs[epoch + 1] for epoch in range(8))
    assert len({name for frames in epochs for name in frames[:3]}) == 9  # none is left out
    assert {tuple(frames[3:]) for frames in epochs} == {('desk_0', 'desk_1', 'desk_2', 'hall_0')}
    whole = mix(tmp_path, 'train', {'path': str(rooms)})
    assert list(of_epoch(whole, 5).frames) == list(whole.frames)


def test_a_mixture_in_a_mixture_turns_with_it(rooms: Path, tmp_path: Path) -> None:
    inner = [{'path': str(rooms), 'weight': 0.35}]
    (tmp_path / 'inner.yaml').write_text(json.dumps(inner))
    data = mix(tmp_path, 'train', {'path': 'inner.yaml', 'weight': 2})
    assert list(of_epoch(data, 1).frames) != list(data.frames)


def test_training_takes_the_frames_of_its_epoch(
    rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    really = Rooms.read

    def read(self: Rooms, index: int, tasks: Collection[str]) -> Sample:
        seen.append(self.frames[index])
        return really(self, index, tasks)

    monkeypatch.setattr(Rooms, 'read', read)
    data = mix(tmp_path, 'train', {'path': str(rooms), 'weight': 0.35})
    fabric = SimpleNamespace(
        broadcast=lambda value: value,
        setup_dataloaders=lambda loader, **options: loader,
        global_rank=0,
        world_size=1,
    )
    run = SimpleNamespace(
        config=load_config(TINY, ['optim.batch_size=3']),
        fabric=fabric,
        progress=Progress(),
        split=lambda name: data,
        balancer=SimpleNamespace(begin_epoch=lambda frames: None),
        trained_tasks=TASKS,
    )
    for epoch, _ in zip(range(3), batches(run)):  # type: ignore[arg-type]
        assert sorted(seen[3 * epoch :]) == sorted(of_epoch(data, epoch).frames)


def test_places_are_held_out_and_sets_belong_to_splits(
    rooms: Path, depths: Path, tmp_path: Path
) -> None:
    entries = [
        {'path': str(rooms), 'splits': ['train']},
        {'path': 'depths', 'splits': ['train'], 'without': ['hall']},
        {'path': 'depths', 'splits': ['val', 'test'], 'only': ['hall']},
    ]
    names = [name for name in mix(tmp_path, 'train', *entries).frames if '00' not in name]
    assert names == ['desk_0', 'desk_1', 'desk_2']
    assert list(mix(tmp_path, 'val', *entries).frames) == ['hall_0']


def test_tasks_without_labels_are_masked_so_that_batches_stack(
    rooms: Path, depths: Path, tmp_path: Path
) -> None:
    data = mix(tmp_path, 'val', {'path': str(rooms)}, {'path': 'depths', 'only': ['hall']})
    examples = Examples(data, TASKS, height=64, width=96, canonical_focal=80.0)
    batch = next(iter(loader(examples, 0, batch_size=5)))
    assert batch['semantic'].shape == (5, 64, 96)
    for task in ('semantic', 'edges', 'saliency'):
        assert (batch[task][4] == 255).all(), task
        assert (batch[task][:4] != 255).any(), task
        assert batch[f'{task}.labelled'].tolist() == [True] * 4 + [False], task
    assert batch['depth.labelled'].all()
    assert frames_by_task(data) == {
        **dict.fromkeys(('semantic', 'edges', 'saliency'), 4),
        **dict.fromkeys(('depth', 'normals'), 5),
    }
    torch.testing.assert_close(batch['depth'][4], torch.full((1, 64, 96), 0.9))
    assert (batch['normals'][4].norm(dim=0) > 0.9).any()


def test_normals_and_depth_are_masked_with_nothing_measured(
    rooms: Path, depths: Path, tmp_path: Path
) -> None:
    data = mix(tmp_path, 'val', {'path': 'depths', 'only': ['hall']}, {'path': str(rooms)})
    data.parts[1].tasks = ('semantic',)  # type: ignore[attr-defined]
    lacking = data.read(1, ['semantic', 'depth', 'normals'])
    assert sorted(lacking.arrays) == ['image', 'semantic']
    arrays = masked(lacking, TASKS).arrays
    assert arrays['depth'].shape == (64, 96)
    assert arrays['depth'].dtype == np.uint16
    assert arrays['normals'].shape == (64, 96, 3)
    assert not arrays['depth'].any()
    assert not arrays['normals'].any()
    assert arrays['semantic'] is lacking.arrays['semantic']


def test_classes_are_weighed_over_the_frames_that_have_them(
    rooms: Path, depths: Path, tmp_path: Path
) -> None:
    whole = mix(tmp_path, 'train', {'path': str(rooms)}, {'path': 'depths'})
    alone = mix(tmp_path, 'train', {'path': str(rooms)})
    assert class_weights(whole, 0.5) == class_weights(alone, 0.5)


def test_a_network_is_trained_on_a_mixture(
    rooms: Path, depths: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mix(tmp_path, 'train', {'path': str(rooms), 'splits': ['train']}, {'path': 'depths'})
    out = tmp_path / 'run'
    words = ['train', str(TINY), '--data', str(tmp_path / 'mixture.yaml'), '--out', str(out)]
    assert main([*words, '--set', 'task_set=nyud', '--set', 'optim.batch_size=6']) == 0
    rows = (out / 'log.csv').read_text().splitlines()
    assert len(rows) == 9
    assert not any('nan' in row for row in rows)
    meta = read_checkpoint(out / 'best.safetensors')[1]
    assert len(meta['classes']) == 40
    assert meta['metrics'].keys() == {
        'depth',
        'normals',
    }  # all that val has

    assert main([*words, '--set', 'tasks=[saliency]']) == 1
    wanted = 'has labels of depth, normals only, expected some of saliency'
    assert wanted in capsys.readouterr().err


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, r'mixture\.yaml cannot be read'),
        ('[', 'cannot be read'),
        ('path: a', 'expected a list of data sets'),
        ('- a', 'entry 1 is .a., expected a mapping with path'),
        (
            '- {path: a}\n- {path: b, wieght: 2}',
            "entry 2 has the key 'wieght', expected of pa",
        ),
        ('- {path: a, weight: 0}', 'weight is 0, expected a number above 0'),
        ('- {path: a, weight: yes}', 'weight is True, expected a number above 0'),
        ('- {path: a, without: office}', "without is 'office', expected a list of names"),
        ('- {path: a, splits: [training]}', r"splits is \['training'\], expected of train, val"),
        ('- {path: a, splits: [val]}', 'lists no data set for the split train'),
        ('- {path: a}', 'a is not a data set that can be read'),
        ('- {path: depths, only: [bath]}', 'no frames are left of 4'),
    ],
)
def test_what_is_wrong_is_told(
    depths: Path, tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / 'mixture.yaml'
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        open_data(path, 'train', ROBOT_GROUPS)
