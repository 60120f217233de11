"""The rooms data on disk becomes the tensors that the contract of a batch names."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mtl_training.datasets.rooms import (
    DataError,
    EpochBatches,
    Rooms,
    class_weights,
    list_frames,
    loader,
    read_sample,
)
from mtl_training.loop.config import AugmentConfig
from mtl_training.rooms.labels import NYUD_ID, group_lut

TASKS = ('semantic', 'depth', 'normals', 'edges', 'saliency')


def make_data(rooms: Path, **options: object) -> Rooms:
    return Rooms(
        list_frames(rooms / 'train'), TASKS, height=64, width=96, canonical_focal=277.0, **options
    )  # type: ignore[arg-type]


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
    }
    stored = cv2.imread(str(rooms / 'train' / '000001_0_semantic.png'), cv2.IMREAD_GRAYSCALE)
    void = torch.from_numpy(stored == 0)
    assert (item['semantic'][void] == 255).all()
    chairs = torch.from_numpy(stored == NYUD_ID['chair'])
    assert (item['semantic'][chairs] == int(group_lut()[NYUD_ID['chair']])).all()
    assert (item['depth'][0][void] == 0).all()
    torch.testing.assert_close(
        item['depth'][0][chairs], torch.full((int(chairs.sum()),), 1.5 * 277 / 81)
    )
    length = item['normals'].norm(dim=0)
    assert (length[void] == 0).all()
    torch.testing.assert_close(length[~void], torch.ones(int((~void).sum())))
    assert item['normals'][2][~void].max() < 0
    assert set(item['edges'].unique().tolist()) == {0.0, 1.0}


def test_rare_classes_weigh_more_and_the_mean_over_pixels_is_one(rooms: Path) -> None:
    frames = list_frames(rooms / 'train')
    ids = np.concatenate([read_sample(f, ['semantic']).arrays['semantic'].ravel() for f in frames])
    share = np.bincount(ids[ids != 255], minlength=18)[:18] / (ids != 255).sum()
    weights = np.array(class_weights(frames, 18, 0.5))
    present = share > 0
    assert (weights[present] @ share[present]) == pytest.approx(1)
    order = np.argsort(share[present])
    assert (np.diff(weights[present][order]) <= 0).all()
    np.testing.assert_allclose(class_weights(frames, 18, 0.0), 1.0)


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


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / 'frames.jsonl').write_text('{"name": "a", "fx": 1.0}\n{"name": "b", "f')
    assert [frame.prefix.name for frame in list_frames(tmp_path)] == ['a']


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'cannot be read'),
        ('', 'lists no frames'),
        ('not json\n', 'line 1'),
        ('{"name": "a"}\n', 'line 1'),
    ],
)
def test_unusable_lists_are_told_in_one_sentence(
    tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / 'frames.jsonl').write_text(text)
    with pytest.raises(DataError, match=message):
        list_frames(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / 'frames.jsonl').write_text('{"name": "gone", "fx": 1.0}\n')
    data = Rooms(list_frames(tmp_path), TASKS, height=64, width=96, canonical_focal=277.0)
    with pytest.raises(DataError, match=r'gone_rgb\.jpg is missing'):
        data[0]


def test_a_broken_picture_is_named(rooms: Path, tmp_path: Path) -> None:
    (tmp_path / 'frames.jsonl').write_text('{"name": "a", "fx": 1.0}\n')
    (tmp_path / 'a_rgb.jpg').write_bytes(np.zeros(10, np.uint8).tobytes())
    data = Rooms(list_frames(tmp_path), (), height=64, width=96, canonical_focal=277.0)
    with pytest.raises(DataError, match='is not a picture'):
        data[0]
