"""What holds for every data set: how its folder is told, thinned out and weighed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mtl_training.datasets import open_data
from mtl_training.datasets.dataset import DataError, class_weights, thin_out
from mtl_training.datasets.rooms import Rooms
from mtl_training.labels import ROBOT_GROUPS


def test_a_folder_of_another_kind_is_told(rooms: Path, tmp_path: Path) -> None:
    assert isinstance(open_data(rooms, 'val', ROBOT_GROUPS), Rooms)
    for folder in (tmp_path, tmp_path / 'gone'):
        with pytest.raises(DataError, match=f'{folder} is not a data set .* expected one with'):
            open_data(folder, 'val', ROBOT_GROUPS)


def test_thinning_out_is_even(rooms: Path) -> None:
    data = Rooms(rooms, 'train', ROBOT_GROUPS)
    few = thin_out(data, 3)
    assert (len(few), few.tasks, few.classes) == (3, data.tasks, data.classes)
    assert [few.read(index, ()).fx for index in range(3)] == [80, 83, 86]
    assert thin_out(data, 0) is thin_out(data, 9) is data


def test_rare_classes_weigh_more_and_the_mean_over_pixels_is_one(rooms: Path) -> None:
    data = Rooms(rooms, 'train', ROBOT_GROUPS)
    ids = np.concatenate(
        [data.read(index, ['semantic']).arrays['semantic'].ravel() for index in range(len(data))]
    )
    share = np.bincount(ids[ids != 255], minlength=18)[:18] / (ids != 255).sum()
    weights = np.array(class_weights(data, 0.5))
    present = share > 0
    assert (weights[present] @ share[present]) == pytest.approx(1)
    order = np.argsort(share[present])
    assert (np.diff(weights[present][order]) <= 0).all()
    np.testing.assert_allclose(class_weights(data, 0.0), 1.0)
