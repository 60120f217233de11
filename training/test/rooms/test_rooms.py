"""Rooms: exact labels, disjoint splits, same seed same bytes, on a furniture library made here."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mtl_training.labels import NYUD_ID
from mtl_training.rooms import write
from mtl_training.rooms.catalogue import (
    CatalogueError,
    Library,
    classify,
    credits,
    read_catalogue,
    read_properties,
    split_pieces,
)
from mtl_training.rooms.layout import random_room
from mtl_training.rooms.views import CloseRange, close_view, look_at, path, random_view
from mtl_training.scenes.meshes import MeshError, read_obj
from mtl_training.scenes.render import Camera, Exposure, Quality, render
from mtl_training.scenes.scene import Light, Scene


def small_camera(eye: tuple[float, float, float], target: tuple[float, float, float]) -> Camera:
    rotation = look_at(np.array(eye), np.array(target))
    return Camera(64, 48, 50.0, rotation, np.array(eye, np.float32))


def plain_scene() -> Scene:
    """A wall at y = 3, a floor at z = 0 and a box of 1 m in front of the wall."""
    scene = Scene()
    gray = scene.material((0.5, 0.5, 0.5))
    wall = scene.instance('wall', NYUD_ID['wall'])
    scene.quad((10, 3, -1), (-10, 3, -1), (10, 3, 10), gray, wall)
    floor = scene.instance('floor', NYUD_ID['floor'])
    scene.quad((-10, -10, 0), (10, -10, 0), (-10, 10, 0), gray, floor)
    scene.box((0, 2.5, 0), (1, 1, 1), 0.0, gray, scene.instance('box', NYUD_ID['box']))
    scene.lights.append(
        Light(*(np.array(a, np.float32) for a in ((0, 0, 3), (1, 0, 0), (0, 1, 0), (9, 9, 9))))
    )
    scene.finish()
    return scene


def test_labels_are_exact() -> None:
    eye = (0.0, -1.0, 1.5)
    camera = small_camera(eye, (0.0, 3.0, 1.5))  # level, looking along +y
    frame = render(plain_scene(), camera, np.random.default_rng(0), Quality(shadow=1, bounce=1))
    v = np.arange(48)[:, None].repeat(64, axis=1)
    below = (v - camera.center[1]) / camera.focal  # dz per metre ahead
    semantic = frame.semantic
    wall, floor = semantic == NYUD_ID['wall'], semantic == NYUD_ID['floor']
    assert wall.any()
    assert floor.any()
    assert (semantic == NYUD_ID['box']).any()
    np.testing.assert_allclose(frame.depth[wall], 4.0, atol=1e-4)
    np.testing.assert_allclose(frame.depth[floor], (1.5 / below)[floor], rtol=1e-4)
    np.testing.assert_allclose(frame.normals[wall], [[0, 0, -1]] * wall.sum(), atol=1e-5)
    np.testing.assert_allclose(frame.normals[floor], [[0, -1, 0]] * floor.sum(), atol=1e-5)
    front = (semantic == NYUD_ID['box']) & (frame.normals[..., 2] < -0.9)
    np.testing.assert_allclose(frame.depth[front], 3.0, atol=1e-4)  # its near face is at y = 2
    # Edges lie where labels change (marked left or above), and nowhere inside the wall.
    across = semantic[:, :-1] != semantic[:, 1:]
    assert across.any()
    assert frame.edges[:, :-1][across].all()
    assert not frame.edges[:4].any()
    assert frame.rgb.std() > 1


def test_normals_face_the_camera(assets: Path) -> None:
    rng = np.random.default_rng(3)
    scene = random_room(Library.of_split(assets, 'train'), rng)
    camera = random_view(scene, rng, 64, 48)
    assert camera is not None
    frame = render(scene, camera, rng, Quality(1, 1, ()))
    known = frame.semantic > 0
    u, v = np.meshgrid(np.arange(64) - camera.center[0], np.arange(48) - camera.center[1])
    rays = np.dstack([u / camera.focal, v / camera.focal, np.ones_like(u)])
    np.testing.assert_allclose(np.linalg.norm(frame.normals[known], axis=1), 1, atol=1e-4)
    assert ((frame.normals * rays).sum(-1)[known] <= 1e-4).all()
    assert known.mean() > 0.99
    assert frame.depth[known].min() > 0.1


def test_close_ups_look_at_a_thing_from_near_by(assets: Path) -> None:
    rng = np.random.default_rng(3)
    scene = random_room(Library.of_split(assets, 'train'), rng)
    shell = np.isin(scene.labels, [0, *(NYUD_ID[name] for name in ('wall', 'floor', 'ceiling'))])
    corners = scene.vertices.reshape(-1, 3, 3)[~shell[scene.triangle_instance]]
    found = [close_view(scene, rng, 32, 24) for _ in range(12)]
    cameras = [camera for camera in found if camera is not None]
    assert len(cameras) > 6
    for camera in cameras:
        assert np.linalg.norm(corners.mean(1) - camera.eye, axis=-1).min() < 1.5
        assert (camera.eye > 0.03).all()
        assert (camera.eye < scene.size).all()
        rays = camera.directions()
        distance = scene.cast(np.repeat(camera.eye[None], len(rays), 0), rays).distance
        assert 0.05 < distance.min() < np.median(distance) < 2
    low = [close_view(scene, rng, 32, 24, CloseRange(low_share=1)) for _ in range(6)]
    heights = [camera.eye[2] for camera in low if camera is not None]
    assert heights
    assert max(heights) <= 0.4


def test_a_share_of_the_views_are_close_ups(assets: Path, tmp_path: Path) -> None:
    medians = []
    for share in (0.0, 1.0):
        out = tmp_path / str(share)
        list(
            write.render_split(
                assets, out, 'train', 3, seed=5, size=(24, 32), workers=1, close=share
            )
        )
        depths = [cv2.imread(str(p), -1) for p in sorted((out / 'train').glob('*_depth.png'))]
        medians.append(np.median(np.concatenate(depths)) / 1000)
    assert medians[1] < 1.8 < medians[0]


def test_same_seed_same_bytes(assets: Path, tmp_path: Path) -> None:
    for out in ('a', 'b'):
        list(write.render_split(assets, tmp_path / out, 'val', 3, seed=5, size=(48, 64), workers=1))
    first = {p.name: p.read_bytes() for p in (tmp_path / 'a' / 'val').iterdir()}
    second = {p.name: p.read_bytes() for p in (tmp_path / 'b' / 'val').iterdir()}
    assert first == second
    assert len(first) > 7
    row = json.loads((tmp_path / 'a' / 'val' / 'frames.jsonl').read_text().splitlines()[0])
    assert (row['width'], row['height']) == (64, 48)
    assert row['fx'] > 20
    # A second run adds nothing to a finished split.
    again = write.render_split(assets, tmp_path / 'a', 'val', 3, seed=5, size=(48, 64), workers=1)
    assert next(iter(again)) >= 3


def test_splits_share_no_piece(assets: Path) -> None:
    pieces = read_catalogue(assets)
    assert len(pieces) == 36
    keys = {
        split: {piece.key for piece in members} for split, members in split_pieces(pieces).items()
    }
    assert keys['train'] | keys['val'] | keys['test'] == {piece.key for piece in pieces}
    assert sum(len(members) for members in keys.values()) == len(pieces)
    labels = {s: {p.label for p in members} for s, members in split_pieces(pieces).items()}
    assert labels['train'] == labels['val'] == labels['test']
    assert 'A. Sculptor' in credits(pieces)


def test_missing_assets_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match='rooms assets'):
        read_catalogue(tmp_path)


def test_obj_is_scaled_and_has_its_materials(assets: Path, tmp_path: Path) -> None:
    mesh = read_obj(assets / 'sh3d' / 'core' / 'cube.obj', (1.0, 0.5, 0.25))
    np.testing.assert_allclose(mesh.vertices.min(0), [-0.5, 0, -0.125], atol=1e-6)
    np.testing.assert_allclose(mesh.vertices.max(0), [0.5, 0.5, 0.125], atol=1e-6)
    assert mesh.counts.tolist() == [18, 18]
    np.testing.assert_allclose(mesh.color[0], [1, 0, 0])
    assert mesh.opacity.tolist() == pytest.approx([1.0, 0.4])
    (tmp_path / 'empty.obj').write_text('v 0 0 0\n')
    with pytest.raises(MeshError, match=r'empty\.obj'):
        read_obj(tmp_path / 'empty.obj', (1, 1, 1))


def test_properties_join_continued_lines(tmp_path: Path) -> None:
    file = tmp_path / 'x.properties'
    file.write_text('# no\nname#1 = Long \\\n   name\nwidth#1: 12\n')
    assert read_properties(file) == {'name#1': 'Long name', 'width#1': '12'}


@pytest.mark.parametrize(
    ('name', 'category', 'label'),
    [
        ('Bed 140x190', 'Bedroom', 'bed'),
        ('Bedside table', 'Bedroom', 'night stand'),
        ('Apple iBook', 'Office', 'television'),
        ('Sitting man', 'Characters', None),
        ('Classic lamppost', 'Lights', None),
        ('Renault', 'Vehicles', None),
        ('Coffee table', 'Living room', 'table'),
        ('Island bath', 'Bathroom', 'bathtub'),
    ],
)
def test_names_become_classes(name: str, category: str, label: str | None) -> None:
    assert classify(name, category) == label


def test_a_path_moves_smoothly_and_sees_the_room(assets: Path) -> None:
    rng = np.random.default_rng(11)
    template = Camera(64, 48, 50.0, np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
    for _ in range(10):
        scene = random_room(Library.of_split(assets, 'test'), rng)
        cameras = path(scene, rng, 20, template)
        if cameras:
            break
    assert len(cameras) == 20
    steps = np.linalg.norm(np.diff([camera.eye for camera in cameras], axis=0), axis=1)
    assert 0 < steps.max() < 0.5
    exposure = Exposure.random(rng)
    brightness = [
        render(scene, camera, rng, Quality(1, 1, ()), exposure).rgb.mean() for camera in cameras[:2]
    ]
    assert abs(brightness[0] - brightness[1]) < 20
