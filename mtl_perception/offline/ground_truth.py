"""Judge what a node put out: its outputs in one recording, the ground truth in another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..images import LAYOUTS
from .cdr import RecordingError, Types, header_stamp_ns
from .metrics import DepthError, EdgeF, MeanIoU, Metric, NormalError
from .recordings import RecordingReader
from .sample import GROUND_TRUTH


def score_outputs(
    outputs: str | Path,
    truth: str | Path,
    classes: Sequence[str],
    *,
    node: str = '/perception',
    types: Types | None = None,
) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """Compare recorded outputs of the node with the ground truth of the recording it saw.

    Ground truth is brought to the grid of the outputs by nearest neighbour: the two need not have
    the same size, only the same field of view.

    Args:
        outputs: recording with ``/perception/semantic`` and so on.
        truth: recording with the ``/ground_truth`` topics; frames are matched by header stamp.
        classes: names of the classes by id, of both.
        node: full name of the node.
        types: message types to share.

    Returns:
        Figures per task, and how many frames of each were compared; tasks without a pair are left
        out.

    Raises:
        RecordingError: a recording, or a picture in it, that cannot be read.
        PerceptionError: class ids that are not of these classes.
    """
    metrics: Mapping[str, Metric] = {
        'semantic': MeanIoU(classes),
        'depth': DepthError(),
        'normals': NormalError(),
        'edges': EdgeF(),
    }
    frames = dict.fromkeys(metrics, 0)
    types = types or Types()
    with (
        RecordingReader(truth, types=types) as known,
        RecordingReader(outputs, types=types) as seen,
    ):
        tasks = {
            f'{node}/{task}': task
            for task in metrics
            if f'{node}/{task}' in seen.topics and GROUND_TRUTH[task][0] in known.topics
        }
        pictures = {
            (m.topic, header_stamp_ns(m.data)): m
            for m in known.messages([GROUND_TRUTH[task][0] for task in tasks.values()])
        }
        for message in seen.messages(tasks):
            task = tasks[message.topic]
            picture = pictures.get((GROUND_TRUTH[task][0], header_stamp_ns(message.data)))
            if picture is not None:
                found = output_array(task, seen.unpack(message))
                true = truth_array(task, known.unpack(picture).data)
                metrics[task].update(found, nearest(true, *found.shape[:2]))
                frames[task] += 1
    compared = {task: count for task, count in frames.items() if count}
    return {task: metrics[task].compute() for task in compared}, compared


def output_array(task: str, message: Any) -> NDArray[Any]:
    """An Image of the node as metrics take predictions."""
    array = image_array(message)
    return array.astype(np.float32) / 255 if task == 'edges' else array


def image_array(message: Any) -> NDArray[Any]:
    """View an Image message of the node's outputs as an array.

    Args:
        message: sensor_msgs/Image, mono8, rgb8, 32FC1 or 32FC3, in the byte order of this machine.

    Returns:
        [H, W] or [H, W, 3].

    Raises:
        RecordingError: Another encoding.
    """
    if message.encoding not in LAYOUTS:
        raise RecordingError(f'image encoding {message.encoding!r} is not one of the node')
    kind, channels = LAYOUTS[message.encoding]
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    used = rows[:, : message.width * channels * np.dtype(kind).itemsize]
    shape = (message.height, message.width, channels)[: 3 if channels > 1 else 2]
    array: NDArray[Any] = np.ascontiguousarray(used).view(kind).reshape(shape)
    return array


def truth_array(task: str, picture: NDArray[np.uint8]) -> NDArray[Any]:
    """Decode a ground-truth PNG of a sample recording.

    Args:
        task: ``semantic``, ``depth``, ``normals`` or ``edges``.
        picture: the file's bytes.

    Returns:
        Class ids uint8 [H, W]; metres float32 [H, W], 0 = unknown; unit vectors float32 [H, W, 3],
        (0, 0, 0) = unknown; or edges uint8 [H, W], 0 or 1.

    Raises:
        RecordingError: The picture cannot be decoded.
    """
    array: NDArray[Any] | None = cv2.imdecode(
        np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED
    )
    if array is None:
        raise RecordingError(f'a ground-truth picture of {task} cannot be decoded')
    decode: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
        'semantic': lambda ids: ids,
        'depth': lambda millimetres: millimetres.astype(np.float32) * np.float32(1e-3),
        'normals': _normals,
        'edges': lambda gray: (gray > 127).astype(np.uint8),
    }
    return decode[task](array)


def nearest(array: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resample [H, W, ...] to [height, width, ...] by the nearest pixel centre."""
    if array.shape[:2] == (height, width):
        return array
    rows = ((np.arange(height) + 0.5) * array.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * array.shape[1] / width).astype(np.intp)
    sampled: NDArray[Any] = array[rows[:, None], columns[None, :]]
    return sampled


def _normals(bgr: NDArray[Any]) -> NDArray[np.float32]:
    """n = 2 v / 255 - 1 in RGB; black is unknown."""
    normals: NDArray[np.float32] = bgr[..., ::-1] * np.float32(2 / 255) - np.float32(1)
    normals[(bgr == 0).all(axis=-1)] = 0
    return normals
