"""Record a drive through test rooms: a camera at 10 Hz with its ground truth, as an MCAP bag."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from mtl_training import TrainingError
from mtl_training.datasets.dataset import nyud_table
from mtl_training.labels import ROBOT_GROUPS
from mtl_training.rooms.catalogue import SPLITS, Library
from mtl_training.rooms.layout import random_room
from mtl_training.rooms.views import path
from mtl_training.rooms.write import encode
from mtl_training.scenes.render import Camera, Exposure, Quality, render

RATE = 10  # Hz
WIDTH, HEIGHT, FOCAL = 640, 480, 500.0
TRUTH = 2  # ground truth has half the camera's resolution
TRUTH_EVERY = 2  # frames
START_NS = 1_700_000_000_000_000_000
JPEG_QUALITY = 82
DEPTH_STEP = 4  # millimetres; halves the size of the depth images


class RecordingError(TrainingError):
    """The recording cannot be made."""


def _drive(job: tuple[Path, int, int, int]) -> list[dict[str, object]]:
    """Frames of one drive through one room of the test split."""
    assets, seed, room, count = job
    # Rooms of a recording must not be rooms of the test split: another seed sequence.
    rng = np.random.default_rng([seed, SPLITS.index('test'), room, 1])
    library = Library.of_split(assets, 'test')
    template = Camera(WIDTH, HEIGHT, FOCAL, np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
    for _ in range(20):
        scene = random_room(library, rng)
        if scene.kind in ('corridor', 'bathroom', 'hall'):
            continue
        cameras = path(scene, rng, count, template)
        if cameras:
            break
    else:
        raise RecordingError(f'no free path through room {room}: choose another seed')
    exposure = Exposure.random(rng, odd=0)
    table = nyud_table('the renderer', ROBOT_GROUPS)
    frames = []
    for index, camera in enumerate(cameras):
        picture = render(scene, camera, rng, Quality(), exposure)
        frame: dict[str, object] = {
            'rgb': cv2.imencode(
                '.jpg', picture.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            )[1].tobytes(),
            'k': (FOCAL, 0.0, camera.center[0], 0.0, FOCAL, camera.center[1], 0.0, 0.0, 1.0),
            'width': WIDTH,
            'height': HEIGHT,
        }
        if index % TRUTH_EVERY == 0:
            small = Camera(
                WIDTH // TRUTH, HEIGHT // TRUTH, FOCAL / TRUTH, camera.rotation, camera.eye
            )
            truth = render(scene, small, rng, Quality(shadow=1, bounce=1, subpixels=()), exposure)
            files = encode(truth)
            depth = np.round(truth.depth * (1000 / DEPTH_STEP)).astype(np.uint16) * DEPTH_STEP
            frame |= {
                'depth_mm': _png(depth),
                'semantic': _png(table[truth.semantic]),
                'normals': files['normals'][1].tobytes(),
                'edges': _png(truth.edges.astype(np.uint8) * 255),
            }
        frames.append(frame)
    return frames


def _png(image: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    return bytes(cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


def _frames(
    assets: Path, seconds: float, rooms: int, seed: int, workers: int
) -> Iterator[dict[str, object]]:
    count = round(seconds * RATE / rooms)
    jobs = [(assets, seed, room, count) for room in range(rooms)]
    stamp = START_NS
    with multiprocessing.get_context('spawn').Pool(workers) as pool:
        for drive in tqdm(pool.imap(_drive, jobs), total=rooms, desc='drives'):
            for frame in drive:
                yield {'stamp_ns': stamp, **frame}
                stamp += 1_000_000_000 // RATE


def record_drive(
    assets: Path, out: Path, *, seconds: float, rooms: int, seed: int, workers: int
) -> None:
    """Write the bag; the frames of ``rooms`` drives follow one another.

    Raises:
        RecordingError: the runtime package, which knows the bag's layout, is not installed.
    """
    try:
        from mtl_perception.offline.sample import write_sample
    except ImportError as error:
        raise RecordingError(
            'recording needs the packages mtl_perception and rosbags: run it with `./run exec`'
        ) from error
    write_sample(out, _frames(assets, seconds, rooms, seed, workers))  # type: ignore[arg-type]
