"""Pictures that models are checked, calibrated and probed on, at the network's size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_training.datasets import open_labelled
from mtl_training.datasets.augment import fit
from mtl_training.datasets.dataset import thin_out
from mtl_training.deploy import DeployError

FRAMES = 64  # to calibrate on


def smooth_noise(size: tuple[int, int], count: int = 3) -> NDArray[np.uint8]:
    """Pictures of colourful clouds, the same every time: uint8 [count, height, width, 3]."""
    height, width = size
    noise = np.random.default_rng(0).integers(
        0, 256, (count, height // 16, width // 16, 3), np.uint8
    )
    return np.stack([cv2.resize(n, (width, height), interpolation=cv2.INTER_CUBIC) for n in noise])


def read_images(folder: Path | None, size: tuple[int, int], count: int = 6) -> NDArray[np.uint8]:
    """Photographs of a folder at the network's size, or smooth noise where there is no folder.

    Returns:
        [N,H,W,3] uint8 RGB.

    Raises:
        DeployError: the folder has no image that can be read.
    """
    height, width = size
    if folder is None:
        return smooth_noise(size)
    paths = sorted(p for p in folder.glob('*') if p.suffix.lower() in ('.jpg', '.jpeg'))
    paths = paths or sorted(folder.glob('*.png'))
    paths = paths[:: max(1, len(paths) // count)][:count]
    images = [
        image for path in paths if (image := cv2.imread(str(path), cv2.IMREAD_COLOR)) is not None
    ]
    if not images:
        raise DeployError(f'{folder} has no .jpg or .png that can be read, expected photographs')
    sized = [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images]
    return np.stack([cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in sized])


def read_pictures(
    data: Path, split: str, count: int, size: tuple[int, int]
) -> list[NDArray[np.uint8]]:
    """Evenly spaced frames of a split at the network's size: uint8 [1, H, W, 3] each.

    Raises:
        DataError: data that cannot be read.
    """
    frames = thin_out(open_labelled(data, split), count)
    return [
        np.asarray(fit(frames.read(index, ()), {}, *size).arrays['image'][None], np.uint8)
        for index in range(len(frames))
    ]
