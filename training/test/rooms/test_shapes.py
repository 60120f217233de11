"""Sheets with holes, turned parts, solids of revolution, bars: their places and normals."""

from __future__ import annotations

import numpy as np
from mtl_training.scenes.scene import Float, Scene
from mtl_training.scenes.shapes import beam, lathe

AT = (1.0, 2.0, 0.5)


def corners(scene: Scene) -> tuple[Float, Float, Float]:
    """Vertices [T, 3, 3], their normals, and the normals [T, 3] of the triangles."""
    scene.finish()
    return (
        scene.vertices.reshape(-1, 3, 3),
        scene.normals.reshape(-1, 3, 3),
        scene.face_normals,
    )


def test_a_texture_goes_on_around_a_hole() -> None:
    scene = Scene()
    scene.sheet((1, 0, 0), (5, 0, 0), (1, 0, 3), [(1, 0.5, 2, 1.5)], scene.material(), 0, tile=0.5)
    vertices, _, _ = corners(scene)
    x, z = vertices[..., 0].ravel(), vertices[..., 2].ravel()
    np.testing.assert_allclose(scene.uv, np.stack([(x - 1) / 0.5, z / 0.5], 1), atol=1e-5)
    edges = vertices[:, 1:] - vertices[:, :1]
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1).sum() / 2
    assert abs(area - (4 * 3 - 1)) < 1e-5


def test_what_is_placed_is_turned_with_its_normals_and_lights() -> None:
    scene = Scene()
    with scene.placed(np.pi / 2, (10, 0, 1)):
        scene.box((1, 0, 0), (0.2, 0.4, 0.6), 0.0, scene.material(), 0)
        scene.shine(*np.array([(1, 0, 2), (1, 0, 0), (0, 1, 0), (1, 1, 1)], np.float32))
    vertices, normals, faces = corners(scene)
    np.testing.assert_allclose(vertices.min((0, 1)), [9.8, 0.9, 1.0], atol=1e-6)
    np.testing.assert_allclose(vertices.max((0, 1)), [10.2, 1.1, 1.6], atol=1e-6)
    np.testing.assert_allclose(np.abs((normals * faces[:, None]).sum(-1)), 1, atol=1e-5)
    light = scene.lights[0]
    np.testing.assert_allclose(
        [light.corner, light.u, light.v], [(10, 1, 3), (0, 1, 0), (-1, 0, 0)], atol=1e-6
    )
    assert scene._pose is None


def test_a_solid_of_revolution_is_round_but_for_its_rims() -> None:
    angles = np.linspace(0, np.pi, 21)
    ball = [(float(np.sin(a)), float(1 - np.cos(a))) for a in angles]
    scene = Scene()
    lathe(scene, AT, ball, scene.material(), 0)
    vertices, normals, _ = corners(scene)
    radial = vertices - np.add(AT, (0, 0, 1))
    np.testing.assert_allclose(np.linalg.norm(radial, axis=-1), 1, atol=1e-6)
    assert (normals * radial).sum(-1).min() > 0.99
    scene = Scene()
    lathe(scene, AT, [(0, 0), (0.5, 0), (0.5, 1), (0, 1)], scene.material(), 0)  # a can
    _, normals, _ = corners(scene)
    upright = np.abs(normals[..., 2])
    assert ((upright < 1e-6) | (upright > 1 - 1e-6)).all()


def test_a_bar_is_as_thick_as_it_should_be() -> None:
    scene = Scene()
    a, b = np.array([0, 0, 1.0]), np.array([0, 3.0, 2.0])
    beam(scene, a, b, 0.1, scene.material(), 0)
    vertices, normals, faces = corners(scene)
    way = (b - a) / np.linalg.norm(b - a)
    offsets = vertices - a
    across = offsets - (offsets @ way)[..., None] * way
    np.testing.assert_allclose(np.linalg.norm(across, axis=-1), 0.05 * np.sqrt(2), atol=1e-6)
    np.testing.assert_allclose(np.abs((normals * faces[:, None]).sum(-1)), 1, atol=1e-5)
    middle = np.array([(a + b) / 2], np.float32)
    for side in ((1, 0, 0), (-1, 0, 0), np.cross(way, (1, 0, 0)), -np.cross(way, (1, 0, 0)), way):
        hits = scene.cast(middle, np.array([side], np.float32))
        inside = 0.05 if abs(np.dot(side, way)) < 0.5 else np.linalg.norm(b - a) / 2
        np.testing.assert_allclose(hits.distance, inside, atol=1e-5)
