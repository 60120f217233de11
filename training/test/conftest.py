"""A tiny rooms data set on disk, made in the test run itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope='session', autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


@pytest.fixture(scope='session')
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with 9, 4 and 4 frames of 64x96: coloured blocks of classes."""
    root = tmp_path_factory.mktemp('rooms')
    for seed, (split, count) in enumerate({'train': 9, 'val': 4, 'test': 4}.items()):
        write_split(root / split, count, np.random.default_rng(seed))
    return root


@pytest.fixture(scope='session')
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``rooms``, with a label at every pixel; no test split."""
    root = tmp_path_factory.mktemp('labelled')
    for seed, (split, count) in enumerate({'train': 9, 'val': 2}.items()):
        write_split(root / split, count, np.random.default_rng(seed), known=(1, 2, 5, 22))
    return root


def write_split(
    folder: Path,
    count: int,
    rng: np.random.Generator,
    known: Sequence[int] = (0, 1, 2, 5, 22),
) -> None:
    """Write a split in the format of ``mtl_training rooms render``.

    Args:
        known: NYUD-40 ids that occur; 0 has no labels of any task.
    """
    folder.mkdir(parents=True)
    lines = []
    for index in range(count):
        name = f'{index:06}_0'
        size = (WIDTH, HEIGHT)
        ids = rng.choice(known, (4, 6)).astype(np.uint8)
        semantic = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
        image = np.stack([semantic * 11, 255 - semantic * 9, semantic * 5 + 40], axis=-1)
        depth = (1000 + 100 * semantic.astype(np.uint16)) * (semantic > 0)
        normals = np.full((HEIGHT, WIDTH, 3), (191, 128, 17), np.uint8)  # about (.5, 0, -.87)
        normals[semantic == 0] = 0
        edges = (cv2.Laplacian(semantic, cv2.CV_16S) != 0).astype(np.uint8) * 255
        files = {
            'rgb.jpg': cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
            'semantic.png': semantic,
            'depth.png': depth.astype(np.uint16),
            'normals.png': cv2.cvtColor(normals, cv2.COLOR_RGB2BGR),
            'edges.png': edges,
            'saliency.png': np.uint8(255) * (semantic == 5),
        }
        for suffix, array in files.items():
            assert cv2.imwrite(str(folder / f'{name}_{suffix}'), array)
        entry = {'name': name, 'room': index, 'kind': 'office', 'width': WIDTH, 'height': HEIGHT}
        entry |= {'fx': 80.0 + index, 'fy': 80.0 + index, 'cx': 47.5, 'cy': 31.5}
        lines.append(json.dumps(entry) + '\n')
    (folder / 'frames.jsonl').write_text(''.join(lines), encoding='utf-8')
