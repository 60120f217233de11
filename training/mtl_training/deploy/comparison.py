"""Whether onnxruntime computes what torch does: the check of a graph before it is a bundle."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mtl_perception.engines.agreement import Agreement, compare
from mtl_training.deploy import DeployError
from mtl_training.deploy.bundles import open_model
from mtl_training.deploy.deployable import Deployable
from mtl_training.deploy.probes import smooth_noise


def compare_with_torch(
    model: bytes, module: Deployable, images: NDArray[np.uint8], threads: int = 0
) -> list[Agreement]:
    """Run a graph in onnxruntime beside the module in torch, as one batch and image by image.

    Args:
        model: the ONNX file's bytes.
        images: [N,H,W,3] RGB.
    """
    session = open_model(model, threads)
    names = [output.name for output in session.get_outputs()]
    with torch.inference_mode():
        expected = {k: v.numpy() for k, v in module(torch.from_numpy(images)).items()}
    parts = (images, *np.split(images, len(images)))
    runs = [session.run(names, {'image': part}) for part in parts]
    return [
        compare(
            name,
            np.concatenate([run[index] for run in runs]),
            np.concatenate([expected[name]] * 2),
            'export',
        )
        for index, name in enumerate(names)
    ]


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
