"""Normals of planes and edges of labels that are known by construction."""

from __future__ import annotations

import numpy as np
import pytest
from mtl_training.datasets.derive import Intrinsics, edges_of, normals_of
from numpy.typing import NDArray

CAMERA = Intrinsics(fx=300, fy=240, cx=20, cy=80)  # nothing is symmetric
SIZE = (96, 128)


def plane(normal: tuple[float, float, float], distance: float) -> NDArray[np.float64]:
    """Depth [H, W] in millimetres of the plane normal . P = -distance, metres."""
    v, u = np.indices(SIZE)
    rays = np.stack([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(SIZE)], -1)
    unit = np.array(normal) / np.linalg.norm(normal)
    return np.asarray(-1000 * distance / (rays @ unit))


def vectors(stored: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.where(stored.any(axis=-1, keepdims=True), stored / 127.5 - 1, 0.0)


@pytest.mark.parametrize('normal', [(0, 0, -1), (0.4, 0, -1), (0, -0.8, -0.6), (-0.3, 0.5, -0.8)])
def test_a_plane_has_its_normal_everywhere(normal: tuple[float, float, float]) -> None:
    found = vectors(normals_of(np.rint(plane(normal, 1.5)).astype(np.uint16), CAMERA))
    inside = found[8:-8, 8:-8]
    assert inside.any(axis=-1).all()
    unit = np.array(normal) / np.linalg.norm(normal)
    degrees = np.degrees(
        np.arccos(np.clip((inside @ unit) / np.linalg.norm(inside, axis=-1), 0, 1))
    )
    assert degrees.max() < 1.5


def test_where_two_surfaces_meet_in_depth_there_is_no_normal() -> None:
    depth = np.full(SIZE, 1000, np.uint16)
    depth[:, 64:] = 1500
    found = normals_of(depth, CAMERA).any(axis=-1)
    assert not found[8:-8, 60:68].any()
    assert found[8:-8, 8:56].all()
    assert found[8:-8, 72:-8].all()


def test_holes_have_no_normal_and_spoil_none() -> None:
    depth = np.rint(plane((0.4, 0, -1), 1.5)).astype(np.uint16)
    depth[40:43, 50:53] = 0  # small: around it there is enough depth
    depth[60:90, 90:120] = 0  # large
    found = vectors(normals_of(depth, CAMERA))
    valid = found.any(axis=-1)
    assert not valid[depth == 0].any()
    assert valid[38:45, 45:50].all()
    expected = np.array([0.4, 0, -1]) / np.hypot(0.4, 1)
    np.testing.assert_allclose(
        found[valid], np.broadcast_to(expected, found[valid].shape), atol=0.03
    )


def test_a_few_pixels_of_depth_are_not_a_surface() -> None:
    depth = np.zeros(SIZE, np.uint16)
    depth[40:44, 50:54] = 1000
    assert not normals_of(depth, CAMERA).any()


def test_no_depth_at_all_gives_no_normals() -> None:
    assert not normals_of(np.zeros(SIZE, np.uint16), CAMERA).any()


def test_borders_of_classes_are_edges() -> None:
    ids = np.zeros((20, 30), np.uint8)
    ids[:, 12:] = 3
    ids[15:, :] = 7
    edges = edges_of(ids, ids == 255)
    assert set(np.flatnonzero(edges[5])) == {11, 12}
    assert set(np.flatnonzero(edges[:, 5])) == {14, 15}
    assert edges.max() == 1


def test_a_seam_without_labels_is_one_edge_in_its_middle() -> None:
    ids = np.zeros((20, 30), np.uint8)
    ids[:, 14:] = 3
    ids[:, 12:16] = 255
    edges = edges_of(ids, ids == 255)
    assert set(np.flatnonzero(edges[10])) == {13, 14}
    assert (edges != 255).all()


def test_a_seam_inside_one_class_is_not_an_edge() -> None:
    ids = np.zeros((20, 30), np.uint8)
    ids[:, 12:16] = 255
    assert (edges_of(ids, ids == 255) == 0).all()


def test_far_from_labels_nothing_is_known() -> None:
    ids = np.zeros((40, 60), np.uint8)
    ids[:, 20:] = 255
    edges = edges_of(ids, ids == 255, gap=6)
    assert (edges[:, :26] == 0).all()
    assert (edges[:, 26:] == 255).all()
    assert (edges_of(np.zeros((8, 8), np.uint8), np.ones((8, 8), bool)) == 255).all()
