"""Frames become the tensors that the contract of a batch names, in an order that can be resumed."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from mtl_training.datasets.augment import AugmentConfig
from mtl_training.datasets.batches import EpochBatches, Examples, loader
from mtl_training.datasets.dataset import DataError
from mtl_training.datasets.rooms import Rooms
from mtl_training.labels import NYUD_ID, ROBOT_GROUPS
from mtl_training.tasks import every
from mtl_training.tasks import rooms as rooms_tasks

CHAIR = 5  # among the groups
TASKS = rooms_tasks(ROBOT_GROUPS)


def make_data(rooms: Path, **options: object) -> Examples:
    frames = Rooms(rooms, 'train', ROBOT_GROUPS)
    return Examples(frames, TASKS, height=64, width=96, canonical_focal=277.0, **options)  # type: ignore[arg-type]


def test_a_frame_as_tensors(rooms: Path) -> None:
    item = make_data(rooms)[1]
    shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in item.items()}
    assert shapes == {
        'image': ((3, 64, 96), torch.uint8),
        'fx': ((), torch.float32),
        'semantic': ((64, 96), torch.int64),
        'depth': ((1, 64, 96), torch.float32),
        'normals': ((3, 64, 96), torch.float32),
        'edges': ((1, 64, 96), torch.float32),
        'saliency': ((1, 64, 96), torch.float32),
        **{f'{task}.labelled': ((), torch.bool) for task in TASKS},
    }
    assert all(item[f'{task}.labelled'] for task in TASKS)
    stored = cv2.imread(str(rooms / 'train' / '000001_0_semantic.png'), cv2.IMREAD_GRAYSCALE)
    void = torch.from_numpy(stored == 0)
    assert (item['semantic'][void] == 255).all()
    chairs = torch.from_numpy(stored == NYUD_ID['chair'])
    assert (item['semantic'][chairs] == CHAIR).all()
    assert (item['depth'][0][void] == 0).all()
    torch.testing.assert_close(
        item['depth'][0][chairs], torch.full((int(chairs.sum()),), 1.5 * 277 / 81)
    )
    length = item['normals'].norm(dim=0)
    assert (length[void] == 0).all()
    torch.testing.assert_close(length[~void], torch.ones(int((~void).sum())))
    assert item['normals'][2][~void].max() < 0
    assert set(item['edges'].unique().tolist()) == {0.0, 1.0}


def test_epochs_are_permutations_and_can_be_entered_anywhere() -> None:
    first = list(EpochBatches(11, 2, seed=3, epoch=0))
    assert len(first) == 5
    seen = [index for batch in first for _, index in batch]
    assert len(set(seen)) == 10
    assert set(seen) < set(range(11))
    assert list(EpochBatches(11, 2, seed=3, epoch=0, skip=3)) == first[3:]
    assert list(EpochBatches(11, 2, seed=3, epoch=1)) != first


def test_ranks_share_an_epoch() -> None:
    parts = [
        [i for b in EpochBatches(16, 2, seed=0, epoch=0, rank=r, ranks=2) for _, i in b]
        for r in (0, 1)
    ]
    assert len(parts[0]) == len(parts[1]) == 8
    assert not set(parts[0]) & set(parts[1])


def test_workers_give_the_same_frames(rooms: Path) -> None:
    data = make_data(rooms, augmentation=AugmentConfig(noise_p=1.0), seed=5)
    batches = [
        next(iter(loader(data, workers, batch_sampler=EpochBatches(9, 3, seed=5, epoch=2))))
        for workers in (0, 1)
    ]
    for name in batches[0]:
        assert torch.equal(batches[0][name], batches[1][name])


def test_another_epoch_augments_otherwise(rooms: Path) -> None:
    data = make_data(rooms, augmentation=AugmentConfig())
    assert not torch.equal(data[(0, 0)]['image'], data[(1, 0)]['image'])
    assert torch.equal(data[(1, 0)]['image'], data[(1, 0)]['image'])


def test_a_task_without_labels_is_told(rooms: Path) -> None:
    frames = Rooms(rooms, 'train', ROBOT_GROUPS)
    with pytest.raises(DataError, match=r'train has no labels of human_parts, only of semantic, '):
        Examples(frames, every(ROBOT_GROUPS), height=64, width=96, canonical_focal=277.0)


def test_a_label_that_cannot_be_is_told_with_its_frame(rooms: Path) -> None:
    frames = Rooms(rooms, 'train', ROBOT_GROUPS)
    few = rooms_tasks(ROBOT_GROUPS[:3])
    data = Examples(frames, few, height=64, width=96, canonical_focal=277.0)
    with pytest.raises(DataError, match=r'frame 4 of .*train: semantic labels have the id 5, exp'):
        data[4]
