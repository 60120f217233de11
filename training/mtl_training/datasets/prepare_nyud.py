"""The official file of NYU Depth V2 in the layout that rooms have (Silberman et al., ECCV 2012)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from tqdm import tqdm

from mtl_perception.files import write_beside
from mtl_training.datasets.dataset import DataError
from mtl_training.datasets.derive import Intrinsics, edges_of, normals_of
from mtl_training.datasets.nyud import CROP, FILES, FX, SIZE
from mtl_training.labels import NYUD40

# The colour camera at 640x480, which the depth is projected into.
CAMERA = Intrinsics(FX, 519.470, 325.582, 253.736)
CROPPED = Intrinsics(CAMERA.fx, CAMERA.fy, CAMERA.cx - CROP[1].start, CAMERA.cy - CROP[0].start)
TASKS = ('semantic', 'depth', 'normals', 'edges')
JPEG_QUALITY = 95
# Split of the layout -> where its numbers are in splits.mat.
SPLITS = {'train': 'trainNdxs', 'test': 'testNdxs'}
# What is needed of nyu_depth_v2_labeled.mat, as h5py sees it: MATLAB's axes are reversed there.
ARRAYS = {
    'images': (3, *SIZE[::-1]),
    'depths': SIZE[::-1],
    'rawDepths': SIZE[::-1],
    'labels': SIZE[::-1],
    'instances': SIZE[::-1],
}


@dataclass(frozen=True)
class Official:
    """The three files that one gets.

    Attributes:
        labeled: ``nyu_depth_v2_labeled.mat``.
        splits: ``splits.mat``, from the same home page.
        mapping: ``classMapping40.mat`` of Gupta et al. (CVPR 2013), from its 894 classes to 40.
    """

    labeled: Path
    splits: Path
    mapping: Path


def prepare(official: Official, out: Path) -> None:
    """Write the data set to ``out``; ``val`` is ``test``, as in the literature.

    The white frame is cut off (425x560). Depth is the filled-in one; normals are fitted where depth
    was measured, see ``normals_of``; edges are the borders between instances, see ``edges_of``.

    All is written to ``out.part`` and renamed when it is complete; when it was interrupted, the
    frames that are there stay.

    Raises:
        DataError: a file that is missing, damaged or not the official one; ``out`` exists.
    """
    if out.exists():
        raise DataError(f'{out} exists already, expected a folder to be made')
    table = read_mapping(official.mapping)
    with open_labeled(official.labeled) as labeled:
        count = len(labeled['images'])
        numbers = {split: read_split(official.splits, key, count) for split, key in SPLITS.items()}
        part = out.with_name(f'{out.name}.part')
        todo = []
        for split, chosen in numbers.items():
            (part / split).mkdir(parents=True, exist_ok=True)
            todo += [(part / split / f'{number:04d}', number) for number in chosen]

        def write(frame: tuple[Path, int]) -> None:
            prefix, number = frame
            if not all(file.exists() for file in files_of(prefix)):
                write_frame(prefix, {name: labeled[name][number - 1] for name in ARRAYS}, table)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in tqdm(
                pool.map(write, todo), total=len(todo), desc=out.name, unit='frame', disable=None
            ):
                pass
    for split, chosen in numbers.items():
        write_list(part / split, (f'{number:04d}' for number in chosen))
    (part / 'val').mkdir(exist_ok=True)
    write_list(part / 'val', (f'../test/{number:04d}' for number in numbers['test']))
    for leftover in part.glob('*/.*.tmp.*'):  # of a process that was killed
        leftover.unlink()
    part.rename(out)


def open_labeled(path: Path) -> Any:
    """The official file, opened.

    Raises:
        DataError: it is missing, damaged or another one, or h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            "reading the official file needs h5py: pip install 'mtl_training[nyud]'"
        ) from error
    try:
        labeled = h5py.File(path, 'r')
    except OSError as error:
        raise FILES.wrong(path, f'is missing or damaged ({error})') from error
    counts = set()
    for name, shape in ARRAYS.items():
        if name not in labeled:
            raise FILES.wrong(path, f'has no {name}')
        found = labeled[name].shape
        if found[1:] != shape:
            rest = ', '.join(map(str, shape))
            raise FILES.wrong(path, f'has {name} of {list(found)}, expected [N, {rest}]')
        counts.add(found[0])
    if len(counts) > 1:
        raise FILES.wrong(path, f'has arrays of {sorted(counts)} frames, expected one number')
    return labeled


def read_mapping(path: Path) -> NDArray[np.uint8]:
    """Table from the ids 0..894 of the official labels to those of NYUD's 40 classes, 0 void.

    Raises:
        DataError: the file is missing or is not such a table.
    """
    table = _matlab(path, 'mapClass')
    if table.min(initial=0) < 0 or table.max(initial=0) > len(NYUD40):
        raise FILES.wrong(path, f'has classes {table.min()}..{table.max()}, expected 0..40')
    return np.concatenate([[0], table]).astype(np.uint8)


def read_split(path: Path, key: str, count: int) -> list[int]:
    """Numbers, 1..count, of the frames of a split.

    Raises:
        DataError: the file is missing or has no such numbers.
    """
    numbers = [int(number) for number in _matlab(path, key)]
    if not numbers or min(numbers) < 1 or max(numbers) > count:
        raise FILES.wrong(path, f'has {key} that are not among the {count} frames')
    return numbers


def files_of(prefix: Path) -> list[Path]:
    """The files of a frame."""
    names = ('rgb.jpg', *(f'{task}.png' for task in TASKS))
    return [prefix.with_name(f'{prefix.name}_{name}') for name in names]


def write_frame(prefix: Path, arrays: dict[str, NDArray[Any]], table: NDArray[np.uint8]) -> None:
    """Write the files of one frame, each whole or not at all.

    Args:
        arrays: of the official file, axes as h5py has them.
        table: see ``read_mapping``.

    Raises:
        DataError: labels beyond the table.
    """
    whole = {name: np.ascontiguousarray(array.T)[CROP] for name, array in arrays.items()}
    labels = whole['labels'].astype(np.int64)
    if labels.max() >= len(table):
        raise DataError(
            f'frame {prefix.name} has the label {labels.max()}, expected 0..{len(table) - 1}'
        )
    depth = np.rint(whole['depths'] * 1000).astype(np.uint16)
    measured = np.where(whole['rawDepths'] > 0, depth, 0).astype(np.uint16)
    # Borders are those of objects: of pairs of a class and an instance of it.
    objects = labels * 256 + whole['instances']
    images = (
        cv2.cvtColor(whole['images'], cv2.COLOR_RGB2BGR),
        table[labels],
        depth,
        cv2.cvtColor(normals_of(measured, CROPPED), cv2.COLOR_RGB2BGR),
        (edges_of(objects, labels == 0) == 1).astype(np.uint8) * 255,
    )
    for file, image in zip(files_of(prefix), images, strict=True):
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if file.suffix == '.jpg' else []
        write_beside(file, cv2.imencode(file.suffix, image, options)[1].tobytes())


def write_list(folder: Path, names: Iterator[str]) -> None:
    """``frames.jsonl`` of a split."""
    camera = {'fx': CROPPED.fx, 'fy': CROPPED.fy, 'cx': CROPPED.cx, 'cy': CROPPED.cy}
    lines = [json.dumps({'name': name, **camera, 'tasks': TASKS}) + '\n' for name in names]
    write_beside(folder / 'frames.jsonl', ''.join(lines).encode())


def _matlab(path: Path, key: str) -> NDArray[np.int64]:
    """A vector of whole numbers from a MATLAB file."""
    try:
        return np.asarray(loadmat(path)[key], np.int64).reshape(-1)
    except (OSError, KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise FILES.wrong(path, f'is missing, damaged or has no {key}') from error
