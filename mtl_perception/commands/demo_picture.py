"""The demo's picture: some moments of the recording with what the node said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..camera import Letterbox
from ..files import beside
from ..images import read_image
from ..montage import montage
from ..offline.cameras import CameraTopics
from ..offline.cdr import Types, header_stamp_ns
from ..offline.ground_truth import image_array
from ..offline.recordings import RecordingReader
from ..pipeline import Frame, Prediction
from .graph import Topic
from .node_process import NODE


def montage_stamps(topics: Mapping[str, Topic], bundle: Bundle, count: int) -> list[int]:
    """Header stamps, evenly spread, of images for which every task of the bundle has come."""
    kinds = [task.kind for task in bundle.tasks.values()]
    sets = [topics[name].stamps for kind in kinds if (name := f'{NODE}/{kind}') in topics]
    common = sorted(set.intersection(*sets)) if sets else []
    count = min(count, len(common))
    return [common[int((index + 0.5) * len(common) / count)] for index in range(count)]


def demo_montage(
    outputs: Path, recording: Path, camera: CameraTopics, bundle: Bundle, stamps: Sequence[int]
) -> NDArray[np.uint8]:
    """Stack pictures of some moments: image, semantic, depth, normals and edges side by side.

    Returns:
        RGB [H, W, 3].
    """
    types = Types()
    images: dict[int, NDArray[np.uint8]] = {}
    with RecordingReader(recording, types=types) as reader:
        for message in reader.messages([camera.image]):
            stamp = header_stamp_ns(message.data)
            if stamp in stamps:
                images[stamp] = read_image(reader.unpack(message))
    arrays: dict[int, dict[str, NDArray[Any]]] = {stamp: {} for stamp in images}
    with RecordingReader(outputs, types=types) as reader:
        tensors = {f'{NODE}/{tensor}': tensor for tensor in bundle.outputs}
        for message in reader.messages([t for t in tensors if t in reader.topics]):
            stamp = header_stamp_ns(message.data)
            if stamp in arrays:
                arrays[stamp][tensors[message.topic]] = image_array(reader.unpack(message))
    predictions = []
    for stamp in stamps:
        image = images[stamp]
        grid = Letterbox.fit(image.shape[1], image.shape[0], bundle.width, bundle.height)
        predictions.append(
            Prediction(
                frame=Frame(image, stamp=stamp),
                grid=grid,
                arrays=arrays[stamp],
                image=grid.crop(grid.forward(image)),
                calibration=None,
                metric=bundle.metric,
                timings_ms={},
            )
        )
    return montage(predictions, bundle)


def write_picture(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write RGB [H, W, 3] as PNG, whole or not at all."""
    with beside(path) as partial:
        if not cv2.imwrite(str(partial), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
            raise OSError(f'{path}: cannot be written')
