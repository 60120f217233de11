"""Bags: colour images of a recording with the registered depth of an RGB-D camera, as recorded."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_perception import PerceptionError
from mtl_training.datasets.augment import Sample
from mtl_training.datasets.dataset import DataError
from mtl_training.datasets.derive import Intrinsics, normals_of
from mtl_training.labels import LabelClass

if TYPE_CHECKING:
    from mtl_perception.camera import CameraModel

SUFFIXES = ('.mcap', '.db3', '.bag')


@dataclass(frozen=True)
class Shot:
    """One frame of a bag: where its two messages are, and the camera at the size of its image."""

    name: str
    bag: Path
    image: tuple[str, int]  # topic, and when it was recorded, in nanoseconds
    depth: tuple[str, int]
    camera: CameraModel


class Bags:
    """All frames of a bag, or of the bags in a folder, whichever split is asked for.

    Bags are read as ``mtl_perception replay`` reads them: any of rosbag2 and ROS 1; the best colour
    camera; its CameraInfo; the depth that has the frame of its images, within 20 ms. Normals are
    derived from depth where images have no distortion, see ``normals_of``. Frames are called
    ``BAG/STAMP``: hold out whole bags, with ``only`` and ``without`` of a ``Mixture``.

    Args:
        folder: a rosbag2 folder, or one with bags.

    Raises:
        DataError: a bag that cannot be read, or no frame with depth and a CameraInfo.
    """

    def __init__(self, folder: Path, split: str, classes: Sequence[LabelClass]) -> None:
        self.name = f'{folder}, {split}'
        self.classes: Mapping[str, Sequence[LabelClass]] = {}
        self.problems: list[str] = []
        self.shots = [shot for bag in bags_of(folder) for shot in self._list(bag)]
        if not self.shots:
            why = f': {self.problems[0]}' if self.problems else ''
            raise DataError(f'{folder} has no image with registered depth and a CameraInfo{why}')
        flat = any(not shot.camera.distortion for shot in self.shots)
        self.tasks: tuple[str, ...] = ('depth', 'normals') if flat else ('depth',)
        self.frames: Sequence[str] = [shot.name for shot in self.shots]

    def _list(self, bag: Path) -> Iterator[Shot]:
        """The frames of a bag; its messages are read once, and not decoded but for the first."""
        from mtl_perception.offline.inputs import Reading, open_input
        from mtl_perception.offline.sources import Selection
        from mtl_perception.offline.truth import truth_readers

        try:
            with open_input(bag, Reading()) as opened:
                ((_, truth),) = truth_readers(opened.source).items()
                topic = next((topic for topic, task in truth.tasks.items() if task == 'depth'), '')
                size: tuple[int, int] | None = None
                for step in opened.source.steps(Selection(truth=(topic,) if topic else ())):
                    shot = step.shot
                    if shot is None or topic not in step.truth:
                        continue
                    if size is None:
                        height, width = shot.load().shape[:2]
                        size = width, height
                        if not truth.read(step.truth, shot.frame_id, size):
                            break
                    if shot.calibration is not None:
                        name = f'{bag.stem}/{shot.stamp}'
                        depth = topic, step.truth[topic].time_ns
                        camera = shot.calibration.for_image(*size)
                        yield Shot(name, bag, (shot.topic, shot.time_ns), depth, camera)
                self.problems += [f'{bag}: {problem}' for problem in truth.problems()]
        except PerceptionError as error:
            raise DataError(str(error)) from error

    def __len__(self) -> int:
        return len(self.shots)

    def read(self, index: int, tasks: Collection[str]) -> Sample:
        """See ``DataSet.read``."""
        from mtl_perception.images import read_image
        from mtl_perception.offline.ground_truth import nearest
        from mtl_perception.offline.truth import depth_array

        shot = self.shots[index]
        try:
            color = read_image(_message(shot.bag, *shot.image))
            metres = depth_array(_message(shot.bag, *shot.depth))
        except PerceptionError as error:
            raise DataError(f'{shot.name} of {shot.bag.parent}: {error}') from error
        height, width = min(color.shape[:2], metres.shape)
        camera = shot.camera
        scale = width / color.shape[1]
        if color.shape[:2] != (height, width):
            color = np.asarray(cv2.resize(color, (width, height), interpolation=cv2.INTER_AREA))
        depth = millimetres(nearest(metres, height, width))
        arrays: dict[str, NDArray[np.generic]] = {'image': color}
        if 'depth' in tasks:
            arrays['depth'] = depth
        if 'normals' in tasks and not camera.distortion:
            # Pixel centres are at whole numbers, so the corner at -0.5 is what stays in its place.
            cx, cy = ((c + 0.5) * scale - 0.5 for c in (camera.cx, camera.cy))
            pinhole = Intrinsics(camera.fx * scale, camera.fy * scale, cx, cy)
            arrays['normals'] = normals_of(depth, pinhole)
        return Sample(arrays, camera.fx * scale)

    def faults(self) -> Iterator[str]:
        """See ``DataSet.faults``."""
        yield from self.problems


# Of one thread of one process: a bag is read at one place at a time.
_own = threading.local()


def _message(bag: Path, topic: str, time_ns: int) -> Any:
    """A message of a bag, which stays open."""
    from mtl_perception.offline.recordings import RecordingReader

    if getattr(_own, 'process', 0) != os.getpid():  # another thread, or a copy of this process
        _own.process, _own.readers = os.getpid(), {}
    if bag not in _own.readers:
        _own.readers[bag] = RecordingReader(bag).__enter__()
    reader = _own.readers[bag]
    found = next(reader.messages([topic], time_ns, time_ns + 1), None)
    if found is None:
        raise DataError(f'{bag} has no message of {topic} at {time_ns} any more')
    return reader.unpack(found)


def millimetres(metres: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Depth as a ``Sample`` has it: 0 where it is unknown, or beyond 65.5 m."""
    known = np.isfinite(metres) & (metres > 0) & (metres < 65.5)
    return np.rint(np.where(known, metres, 0) * 1000).astype(np.uint16)


def bags_of(folder: Path) -> list[Path]:
    """The bags in a folder, by name; the folder itself if it is one.

    Raises:
        DataError: the package that reads them is missing.
    """
    try:
        import rosbags  # noqa: F401
    except ImportError:
        raise DataError(f'{folder}: bags need the Python package rosbags') from None
    if (folder / 'metadata.yaml').is_file():
        return [folder]
    return sorted(
        path
        for path in folder.iterdir()
        if (path / 'metadata.yaml').is_file() or path.suffix in SUFFIXES
    )
