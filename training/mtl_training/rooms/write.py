"""Render rooms to disk: splits share neither rooms nor furniture; same seed, same bytes."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_training.rooms.catalogue import SPLITS, Library
from mtl_training.rooms.layout import random_room
from mtl_training.rooms.views import close_view, random_view
from mtl_training.scenes.render import Camera, Quality, Rendering, render

VIEWS = 6  # per room
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Job:
    """One room of one split."""

    assets: Path
    out: Path
    split: str
    seed: int
    room: int
    views: int
    close: float  # the share of them that are close-ups
    width: int
    height: int


def encode(
    frame: Rendering, jpeg_quality: int = JPEG_QUALITY
) -> dict[str, tuple[str, NDArray[np.uint8]]]:
    """The files of a frame: name -> (extension, encoded bytes)."""
    facing = np.round((frame.normals + 1) * 127.5).clip(0, 255).astype(np.uint8)
    facing[frame.semantic == 0] = 0
    images = {
        'rgb': ('.jpg', frame.rgb[..., ::-1]),
        'depth': ('.png', np.round(frame.depth * 1000).clip(0, 65535).astype(np.uint16)),
        'semantic': ('.png', frame.semantic),
        'normals': ('.png', facing[..., ::-1]),
        'edges': ('.png', frame.edges.astype(np.uint8) * 255),
        'saliency': ('.png', frame.saliency.astype(np.uint8) * 255),
        'instance': ('.png', frame.instance),
    }
    options = {
        '.jpg': [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality],
        '.png': [cv2.IMWRITE_PNG_COMPRESSION, 5],
    }
    return {
        name: (
            extension,
            cv2.imencode(extension, np.ascontiguousarray(image), options[extension])[1],
        )
        for name, (extension, image) in images.items()
    }


def record(name: str, room: int, kind: str, camera: Camera) -> dict[str, object]:
    """The line of frames.jsonl that describes a frame."""
    cx, cy = camera.center
    return {
        'name': name, 'room': room, 'kind': kind, 'width': camera.width, 'height': camera.height,
        'fx': camera.focal, 'fy': camera.focal, 'cx': cx, 'cy': cy,
    }  # fmt: skip


_libraries: dict[tuple[Path, str], Library] = {}  # one per worker process and split


def render_room(job: Job) -> list[dict[str, object]]:
    """Render the views of one room and write their files; returns their records."""
    key = (job.assets, job.split)
    if key not in _libraries:
        _libraries[key] = Library.of_split(job.assets, job.split)
    rng = np.random.default_rng([job.seed, SPLITS.index(job.split), job.room])
    scene = random_room(_libraries[key], rng)
    records = []
    for view in range(job.views):
        near = job.close > 0 and rng.random() < job.close
        camera = (close_view if near else random_view)(scene, rng, job.width, job.height)
        if camera is None:
            continue
        frame = render(scene, camera, rng, Quality())
        name = f'{job.room:06d}_{view}'
        for part, (extension, data) in encode(frame).items():
            (job.out / f'{name}_{part}{extension}').write_bytes(data.tobytes())
        records.append(record(name, job.room, scene.kind, camera))
    return records


def render_split(
    assets: Path,
    out: Path,
    split: str,
    frames: int,
    *,
    seed: int,
    size: tuple[int, int],
    workers: int,
    close: float = 0.0,
) -> Iterator[int]:
    """Render until ``frames`` frames exist; yields the number written with every room.

    A share ``close`` of the views are close-ups. Rooms that an earlier, interrupted run finished
    are kept: frames.jsonl names only whole rooms.
    """
    folder = out / split
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / 'frames.jsonl'
    known = [json.loads(line) for line in index.read_text().splitlines()] if index.exists() else []
    finished = {int(row['room']) for row in known}
    written = len(known)
    rooms = range(max(-(-frames // VIEWS), max(finished, default=-1) + 1) * 2)
    jobs = (
        Job(assets, folder, split, seed, room, VIEWS, close, size[1], size[0])
        for room in rooms
        if room not in finished
    )
    yield written
    if written >= frames:
        return
    with multiprocessing.get_context('spawn').Pool(workers) as pool, index.open('a') as lines:
        for records in pool.imap(render_room, jobs):
            lines.writelines(json.dumps(row) + '\n' for row in records)
            lines.flush()
            written += len(records)
            yield written
            if written >= frames:
                break
