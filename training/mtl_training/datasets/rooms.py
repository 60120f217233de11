"""Rooms: the rendered data set of `mtl_training rooms render`, and other data in its layout."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_training.datasets.augment import Sample
from mtl_training.datasets.classes import LabelClass
from mtl_training.datasets.dataset import DataError, nyud_table, read_color, read_image


@dataclass(frozen=True)
class Frame:
    """One line of ``frames.jsonl``: where a frame's files begin, and its focal length in pixels."""

    prefix: Path
    fx: float


class Rooms:
    """One split: ``SPLIT/frames.jsonl`` and, per frame, a picture and a file for every task.

    Files of a frame: ``_rgb.jpg``; ``_semantic.png``, ids of NYUD's 40 classes, 0 void;
    ``_depth.png``, 16 bit, millimetres, 0 invalid; ``_normals.png``, RGB, n = 2 v / 255 - 1, black
    invalid; ``_edges.png`` and ``_saliency.png``, 0 or 255.

    Args:
        folder: holds ``train``, ``val`` and ``test``.
        classes: of the semantic task: NYUD's 40, or groups of them.

    Raises:
        DataError: no ``frames.jsonl``, a line that is not JSON, no frames, or classes that cannot
            be told from NYUD's.
    """

    tasks: tuple[str, ...] = ('semantic', 'depth', 'normals', 'edges', 'saliency')

    def __init__(self, folder: Path, split: str, classes: Sequence[LabelClass]) -> None:
        self.name = str(folder / split)
        self.classes: Mapping[str, Sequence[LabelClass]] = {'semantic': classes}
        self.listed = list_frames(folder / split)
        self.frames: Sequence[str] = [frame.prefix.name for frame in self.listed]
        self.table = nyud_table(self.name, classes)

    def __len__(self) -> int:
        return len(self.listed)

    def read(self, index: int, tasks: Collection[str]) -> Sample:
        """See ``DataSet.read``."""
        frame = self.listed[index]

        def file(task: str) -> Path:
            return frame.prefix.with_name(f'{frame.prefix.name}_{task}.png')

        picture = frame.prefix.with_name(f'{frame.prefix.name}_rgb.jpg')
        arrays: dict[str, NDArray[np.generic]] = {'image': read_color(picture)}
        if 'semantic' in tasks:
            ids = read_image(file('semantic'), cv2.IMREAD_GRAYSCALE)
            arrays['semantic'] = cv2.LUT(ids, self.table)
        if 'depth' in tasks:
            arrays['depth'] = read_image(file('depth'), cv2.IMREAD_ANYDEPTH)
        if 'normals' in tasks:
            arrays['normals'] = read_color(file('normals'))
        for task in ('edges', 'saliency'):
            if task in tasks:
                arrays[task] = read_image(file(task), cv2.IMREAD_GRAYSCALE) >> 7
        return Sample(arrays, frame.fx)


def list_frames(folder: Path) -> list[Frame]:
    """The frames of one split, in the order in which they were rendered.

    A line without its line break is still being written and is left out.

    Raises:
        DataError: no ``frames.jsonl``, a line that is not JSON, or no frames.
    """
    path = folder / 'frames.jsonl'
    try:
        lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
    except OSError as error:
        raise DataError(f'{path} cannot be read, expected a split of the rooms data') from error
    frames = []
    for number, line in enumerate(lines, 1):
        if not line.endswith('\n'):
            continue
        try:
            entry = json.loads(line)
            frames.append(Frame(folder / entry['name'], float(entry['fx'])))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'{path}, line {number}: expected an object with name and fx'
            ) from error
    if not frames:
        raise DataError(f'{path} lists no frames')
    return frames
