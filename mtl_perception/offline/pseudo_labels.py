"""What a network is sure of, as labels to train on, in the layout of mtl_training's rooms data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .. import PerceptionError
from ..bundle import UNLABELLED, Bundle
from ..camera import Letterbox
from ..pipeline import Frame
from .evaluation import Arrays
from .ground_truth import nearest
from .layout import namespace
from .recordings import RecordingReader
from .sources import Source
from .stored import RecordedCamera, paired, stored_frames
from .truth import truth_readers

_SPLITS = ('train', 'val', 'test')
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95]
_UNSURE = 128  # of edges and saliency, which are 0 or 255 otherwise
# Edges of middling probability are most of all edges: called none, they fade in training.
_SURE_EDGE = 204
_FARTHEST = 65.5  # metres that 16 bits of millimetres hold


class LabelError(PerceptionError):
    """Labels that cannot be written; the message says why."""


class PseudoLabels:
    """A folder of frames with labels; see ``training/mtl_training/datasets/rooms.py``.

    Of each image it has the picture on the network's grid, classes where their confidence is high,
    and depth: that of the recording's depth camera where there is one, else the network's where
    its confidence is high. Normals are the network's, where its depth is sure; edges and saliency
    where their probability is at most 0.2, or at least 0.8 and as high. Everything else is void.
    All frames are in every split.

    ``classes.json`` names the classes of the ids in the files; 0 is void.

    Args:
        folder: is made, or has labels of the same classes, which these are added to.
        bundle: that they are of.
        least: confidence that is high, 0 to 1.

    Attributes:
        frames: written.
        labelled: pixels with a class, and with a depth, of all.

    Raises:
        LabelError: something else is in the folder, or labels of other classes.
    """

    def __init__(self, folder: Path, bundle: Bundle, least: float) -> None:
        self.folder, self._bundle = folder, bundle
        self._least = round(least * 255)
        self.frames = 0
        self.labelled = {'semantic': 0, 'depth': 0}
        self._pixels = 0
        names = [item.name for item in bundle.classes]
        self._ids = np.zeros(256, np.uint8)  # of the bundle's class ids, in the files
        self._ids[[item.id for item in bundle.classes]] = np.arange(1, len(names) + 1)
        classes = folder / 'classes.json'
        if classes.is_file():
            if json.loads(classes.read_text(encoding='utf-8')) != names:
                raise LabelError(f'{classes} has other classes than {bundle.folder}')
        elif folder.exists() and any(folder.iterdir()):
            raise LabelError(f'{folder} is not empty and has no {classes.name}; not adding labels')
        for split in _SPLITS:
            (folder / split).mkdir(parents=True, exist_ok=True)
        classes.write_text(json.dumps(names), encoding='utf-8')
        self._listed = set(_names(folder / 'train' / 'frames.jsonl'))

    def read(self, bag: Path, source: Source, name: str) -> None:
        """Label all images of a recording, from the bag of its outputs.

        Args:
            name: before the stamps of the images, in the names of the frames.

        Raises:
            RecordingError: a bag cannot be read.
            OSError: a file cannot be written.
        """
        for camera, truth in truth_readers(source).items():
            with RecordingReader(bag) as stored:
                outputs = stored_frames(stored, namespace(camera))
                shots = RecordedCamera(source, camera, truth).frames()
                images = ((frame.stamp, (frame, known)) for frame, known in shots)
                prefix = '_'.join(part for part in (name, camera) if part)
                for stamp, arrays, (frame, known) in paired(outputs, images):
                    self.add(f'{prefix}_{stamp}', frame, arrays, known)

    def add(self, name: str, frame: Frame, arrays: Arrays, truth: Arrays) -> None:
        """Write the labels of an image, unless its name is there already.

        Args:
            name: of the labelled frame.
            frame: without a calibration it is passed over.
            arrays: outputs of it, with confidences.
            truth: of it, by task, see ``Evaluation.add``; of any size.
        """
        height, width = self._bundle.height, self._bundle.width
        grid = Letterbox.fit(frame.image.shape[1], frame.image.shape[0], width, height)
        if frame.calibration is None or name in self._listed:
            return
        image = grid.crop(grid.forward(frame.image))
        labels = self._labels(arrays, truth, image.shape[:2])
        if not labels:
            return
        train = self.folder / 'train'
        pictures = {'rgb.jpg': image[..., ::-1]}
        pictures |= {f'{task}.png': label for task, label in labels.items()}
        for suffix, picture in pictures.items():
            path = train / f'{name}_{suffix}'
            if not cv2.imwrite(str(path), picture, _JPEG if suffix == 'rgb.jpg' else []):
                raise OSError(f'{path}: cannot be written')
        # Last, so that no frame is listed whose files are not there.
        for split in _SPLITS:
            line = {
                'name': name if split == 'train' else f'../train/{name}',
                'fx': grid.camera(frame.calibration).fx,
                'tasks': list(labels),
            }
            with (self.folder / split / 'frames.jsonl').open('a', encoding='utf-8') as file:
                file.write(json.dumps(line) + '\n')
        self._listed.add(name)
        self.frames += 1
        self._pixels += image.shape[0] * image.shape[1]
        for task in self.labelled.keys() & labels.keys():
            self.labelled[task] += int(np.count_nonzero(labels[task]))

    def _labels(
        self, arrays: Arrays, truth: Arrays, size: tuple[int, ...]
    ) -> dict[str, NDArray[Any]]:
        """By task, as the files have them; only what some pixel has."""
        labels: dict[str, NDArray[Any]] = {}
        if {'semantic', 'semantic_confidence'} <= arrays.keys():
            sure = arrays['semantic_confidence'] >= self._least
            ids = np.where(arrays['semantic'] == UNLABELLED, 0, self._ids[arrays['semantic']])
            labels['semantic'] = np.where(sure, ids, 0).astype(np.uint8)
        if 'depth' in truth:
            labels['depth'] = _millimetres(nearest(truth['depth'], *size))
        if self._bundle.metric and {'depth', 'depth_confidence'} <= arrays.keys():
            sure = arrays['depth_confidence'] >= self._least
            if 'depth' not in labels:
                labels['depth'] = _millimetres(np.where(sure, arrays['depth'], 0))
            if 'normals' in arrays:
                shifted = np.rint((arrays['normals'][..., ::-1] + 1) * 127.5)  # BGR
                known = sure & np.isfinite(arrays['normals']).all(axis=-1)
                labels['normals'] = np.where(known[..., None], shifted, 0).astype(np.uint8)
        for task in ('edges', 'saliency'):
            if task in arrays:
                least = max(self._least, _SURE_EDGE)
                label = np.full(size, _UNSURE, np.uint8)
                label[arrays[task] >= least] = 255
                label[arrays[task] <= 255 - least] = 0
                labels[task] = label
        nothing = {'edges': _UNSURE, 'saliency': _UNSURE}
        return {t: label for t, label in labels.items() if (label != nothing.get(t, 0)).any()}

    def summary(self) -> str:
        """What was written, in a sentence."""
        shares = [
            f'{task} of {count / self._pixels:.0%} of the pixels'
            for task, count in self.labelled.items()
            if count
        ]
        return f'{self.frames} frames with labels in {self.folder}: {", ".join(shares) or "none"}'


def _names(path: Path) -> list[str]:
    """The frames that a list has; a line that was not finished is cut off."""
    if not path.is_file():
        return []
    text = path.read_text(encoding='utf-8')
    whole = text[: text.rfind('\n') + 1]
    if whole != text:
        path.write_text(whole, encoding='utf-8')
    return [str(json.loads(line)['name']) for line in whole.splitlines()]


def _millimetres(metres: NDArray[Any]) -> NDArray[np.uint16]:
    known = np.isfinite(metres) & (metres > 0) & (metres < _FARTHEST)
    return np.asarray(np.rint(np.where(known, metres, 0) * 1000).astype(np.uint16))
