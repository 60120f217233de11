"""Outputs and ground truth of recordings, brought to one form and one grid."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mtl_perception.offline.cdr import RecordingError
from mtl_perception.offline.ground_truth import image_array, nearest, truth_array

cv2 = pytest.importorskip('cv2')


def test_truth_of_another_size_is_sampled_at_the_pixel_centres() -> None:
    truth = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert nearest(truth, 2, 2).tolist() == [[5, 7], [13, 15]]
    assert nearest(truth, 4, 4).tolist() == truth.tolist()
    assert nearest(truth[:2, :2], 4, 2).tolist() == [[0, 1], [0, 1], [4, 5], [4, 5]]


def test_ground_truth_pictures_decode_to_metres_and_unit_vectors() -> None:
    depth = cv2.imencode('.png', np.array([[0, 1500]], np.uint16))[1]
    assert truth_array('depth', depth)[0].tolist() == pytest.approx([0, 1.5])
    towards_right = np.array([[[255, 128, 128], [0, 0, 0]]], np.uint8)  # RGB = x y z
    picture = cv2.imencode('.png', towards_right[..., ::-1])[1]
    normals = truth_array('normals', picture)
    assert normals[0, 0] == pytest.approx([1, 0, 0], abs=0.01)
    assert normals[0, 1].tolist() == [0, 0, 0]


def test_true_edges_are_there_or_not() -> None:
    edges = cv2.imencode('.png', np.array([[0, 255]], np.uint8))[1]
    assert truth_array('edges', edges).tolist() == [[0, 1]]


def test_rows_of_images_may_be_padded() -> None:
    # A row of two pixels that is padded to four bytes.
    data = np.array([0, 51, 99, 99], np.uint8).tobytes()
    message = SimpleNamespace(encoding='mono8', height=1, width=2, step=4, data=data)
    assert image_array(message).tolist() == [[0, 51]]


def test_what_cannot_be_decoded_is_told() -> None:
    with pytest.raises(RecordingError, match='picture of depth cannot be decoded'):
        truth_array('depth', np.zeros(8, np.uint8))
    with pytest.raises(RecordingError, match='picture of edges cannot be decoded'):
        truth_array('edges', np.zeros(0, np.uint8))
    message = SimpleNamespace(encoding='bayer', height=1, width=1, step=1, data=b'0')
    with pytest.raises(RecordingError, match="encoding 'bayer' is not one of the node"):
        image_array(message)
