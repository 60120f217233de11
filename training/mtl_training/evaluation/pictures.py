"""Pictures of labels and predictions, for people who watch a training run or read an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_perception.files import beside
from mtl_training.datasets.classes import LabelClass

FAR = 6.0  # metres at the dark end of the depth colours
Picture = NDArray[np.uint8]


def paint_semantic(ids: NDArray[np.uint8], classes: Sequence[LabelClass]) -> Picture:
    """Class ids [H, W] in the colours of their classes; black where there is no class."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes)] = [label.color for label in classes]
    return np.asarray(palette[ids], np.uint8)


def paint_depth(depth: NDArray[np.floating[Any]]) -> Picture:
    """Depth [H, W] in metres from yellow (0) to blue (``FAR`` and beyond); black where it is 0."""
    levels = np.clip(255 * (1 - depth / FAR), 0, 255).astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    return np.asarray(colors * (depth > 0)[..., None], np.uint8)


def paint_normals(normals: NDArray[np.floating[Any]]) -> Picture:
    """Normals [H, W, 3] as (n + 1) / 2; black where they are 0 0 0."""
    valid = (normals != 0).any(axis=-1, keepdims=True)
    return np.asarray(np.rint((normals + 1) * 127.5) * valid, np.uint8)


def paint_gray(share: NDArray[np.floating[Any]]) -> Picture:
    """A share [H, W] from black to white; 255 (no label) becomes black."""
    levels = np.rint(255 * np.where(share > 1, 0, share)).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=-1)


PAINTERS = {
    'depth': paint_depth,
    'normals': paint_normals,
    'edges': paint_gray,
    'saliency': paint_gray,
}


def strip(
    image: Picture, maps: Mapping[str, NDArray[Any]], classes: Sequence[LabelClass]
) -> Picture:
    """A picture and the maps of all tasks side by side."""
    painted = [
        paint_semantic(array, classes) if task == 'semantic' else PAINTERS[task](array)
        for task, array in maps.items()
    ]
    return np.concatenate([image, *painted], axis=1)


def write_png(path: Path, rows: Sequence[Picture]) -> None:
    """Write RGB pictures of one width below each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as partial:
        cv2.imwrite(str(partial), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
