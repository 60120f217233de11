"""Whether onnxruntime computes what torch does: the check of a graph before it is a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from mtl_training.deploy import DeployError
from mtl_training.deploy.deployable import Deployable
from mtl_training.deploy.probes import smooth_noise

MAX_RELATIVE = 1e-3  # of float outputs
MAX_LEVELS = 1  # of 0..255: a probability on the edge of two levels may round either way
MIN_AGREEMENT = 0.999  # of labels
LABELS = ('semantic', 'human_parts')


@dataclass(frozen=True)
class Difference:
    """How far an output of onnxruntime is from torch's, and whether that is near enough."""

    output: str
    measure: str
    value: float
    accepted: bool

    def __str__(self) -> str:
        if self.measure == 'agreement':
            return f'{self.output}: {100 * self.value:.4f} % of pixels agree'
        return f'{self.output}: max {self.measure} difference {self.value:.3g}'


def compare(
    model: bytes, module: Deployable, images: NDArray[np.uint8], threads: int = 0
) -> list[Difference]:
    """Run a graph in onnxruntime beside the module in torch, as one batch and image by image.

    Args:
        model: the ONNX file's bytes.
        images: [N,H,W,3] RGB.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    with torch.inference_mode():
        expected = {k: v.numpy() for k, v in module(torch.from_numpy(images)).items()}
    batch = dict(zip(names, session.run(names, {'image': images}), strict=True))
    single = [session.run(names, {'image': image[None]}) for image in images]
    differences = []
    for index, name in enumerate(names):
        found = np.stack([batch[name], np.concatenate([run[index] for run in single])])
        differences.append(_difference(name, found, expected[name]))
    return differences


def _difference(name: str, found: NDArray[Any], expected: NDArray[Any]) -> Difference:
    if found.dtype != expected.dtype or found.shape[1:] != expected.shape:
        raise DeployError(
            f'{name} is {found.dtype} {list(found.shape[1:])} in onnxruntime, '
            f'expected {expected.dtype} {list(expected.shape)}'
        )
    if name in LABELS:
        agreement = float((found == expected).mean())
        return Difference(name, 'agreement', agreement, agreement >= MIN_AGREEMENT)
    distance = np.abs(found.astype(np.float64) - expected)
    if found.dtype == np.uint8:
        levels = float(distance.max())
        return Difference(name, 'level', levels, levels <= MAX_LEVELS)
    size = np.abs(expected) if name == 'depth' else 1.0  # normals are of length 1
    relative = float((distance / np.maximum(size, 1e-6)).max())
    return Difference(name, 'relative', relative, relative <= MAX_RELATIVE)  # False for NaN


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
