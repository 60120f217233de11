"""Doors ajar, what is behind them, corridors and stairs: where things are, by rays."""

from __future__ import annotations

import numpy as np
import pytest
from mtl_training.labels import NYUD_ID
from mtl_training.rooms.beyond import KINDS, build_beyond
from mtl_training.rooms.catalogue import Library
from mtl_training.rooms.doors import Doorway, hang_door, shut_door
from mtl_training.rooms.layout import random_room
from mtl_training.rooms.parametric import PARAMETRIC
from mtl_training.rooms.room import Opening, Rectangle, Room
from mtl_training.rooms.shell import shell
from mtl_training.rooms.stairs import Flight, Hall, Looks, build_flight
from mtl_training.rooms.things import floor_mat, things_on_floor
from mtl_training.rooms.views import ViewRange, look_at, random_view
from mtl_training.scenes.light import direct
from mtl_training.scenes.render import Camera, Exposure, Quality, render
from mtl_training.scenes.scene import Float, Scene

WALL = 0.15  # thickness
STEPS = Flight(steps=6, rise=0.17, run=0.28, width=1.0)
BARE = Looks(0, 0, 0, 0, 0.0)


def empty_room(
    library: Library, seed: int = 0, size: tuple[float, float, float] = (4, 5, 2.5)
) -> Room:
    return Room(library, np.random.default_rng(seed), 'living', size, daylight=False)


def with_doorway(
    library: Library, wall: int, beyond: str, *, angle: float | None = None, seed: int = 0
) -> Scene:
    """A room of 4 x 5 m with a doorway in the middle of a wall, and what is behind it."""
    room = empty_room(library, seed)
    place = Opening(wall, room.wall_length(wall) / 2, 0.9, 2.0, 0.0)
    door = Doorway(place, WALL, angle, inward=True, hinge=1, casing=0.06)
    room.doorways.append(place)
    shell(room)
    hang_door(room, door)
    build_beyond(room, door, beyond)
    room.scene.finish()
    return room.scene


def hit(scene: Scene, eye: tuple[float, float, float], way: Float) -> tuple[float, str, Float]:
    """Distance, label and face normal of what a ray meets."""
    hits = scene.cast(np.array([eye], np.float32), np.array([way], np.float32))
    triangle = hits.triangle[0]
    assert triangle >= 0
    label = scene.labels[scene.triangle_instance[triangle]]
    return float(hits.distance[0]), list(NYUD_ID)[label], scene.face_normals[triangle]


OUTWARD = ((0, -1, 0), (1, 0, 0), (0, 1, 0), (-1, 0, 0))


@pytest.mark.parametrize('wall', range(4))
def test_a_doorway_shows_what_is_behind_the_wall(library: Library, wall: int) -> None:
    scene = with_doorway(library, wall, 'room')
    way = np.array(OUTWARD[wall], float)
    to_wall = 2.5 if wall in (0, 2) else 2.0
    aside = np.array([-way[1], way[0], 0])
    for across in (-0.3, 0.0, 0.3):
        distance, _, _ = hit(scene, tuple(np.array([2, 2.5, 1.0]) + aside * across), way)
        assert distance > to_wall + WALL + 0.2
    beside = tuple(np.array([2, 2.5, 1.0]) + aside * 0.7)
    assert hit(scene, beside, way)[:2] == (pytest.approx(to_wall, abs=1e-5), 'wall')
    above = hit(scene, (2, 2.5, 2.3), way)
    assert above[:2] == (pytest.approx(to_wall, abs=1e-5), 'wall')
    frame = hit(scene, tuple(np.array([2, 2.5, 1.0]) + aside * 0.48), way)
    assert frame[:2] == (pytest.approx(to_wall - 0.012, abs=1e-5), 'door')


@pytest.mark.parametrize('beyond', KINDS)
def test_no_ray_leaves_a_room_and_what_is_behind_its_door(library: Library, beyond: str) -> None:
    for seed, wall in enumerate((0, 3)):
        scene = with_doorway(library, wall, beyond, angle=1.2, seed=seed)
        rng = np.random.default_rng(1)
        ways = rng.normal(size=(20_000, 3))
        door = (2.0, -WALL / 2, 1.0) if wall == 0 else (-WALL / 2, 2.5, 1.0)
        for eye in ((2.0, 2.5, 1.0), door):
            assert (scene.cast(np.tile(eye, (len(ways), 1)), ways).triangle >= 0).all()


def test_no_two_spaces_meet(library: Library) -> None:
    """Behind doors side by side, at corners and opposite one another; things end at walls."""
    for seed, kind in enumerate(('room', 'corridor')):
        room = empty_room(library, seed, (5, 6, 2.5))
        for wall, along in ((0, 0.7), (3, 0.7), (1, 1.5), (1, 3.6), (2, 4.2)):
            room.doorways.append(Opening(wall, along, 0.9, 2.0, 0.0))
        spaces = [(np.zeros(3), np.array([5, 6, 2.5]))]
        for place in room.doorways:
            before = len(room.scene._vertices)
            build_beyond(room, Doorway(place, WALL, None, False, 1, 0.0), kind)
            points = np.concatenate(room.scene._vertices[before:])
            spaces.append((points.min(0), points.max(0)))
        for one, (low, high) in enumerate(spaces):
            for index, (other_low, other_high) in enumerate(spaces[:one]):
                apart = 0.05 if index else WALL - 0.05  # a leaf that is shut is 4 cm deep
                assert ((high < other_low - apart) | (low > other_high + apart)).any()


def test_a_leaf_stands_at_its_angle(library: Library) -> None:
    angle = np.radians(40)
    scene = with_doorway(
        library, 2, 'corridor', angle=angle
    )  # hinged at x = 2.45 in the wall y = 5
    outer = np.array([-np.cos(angle), -np.sin(angle)])  # along the leaf
    normal = np.array([-np.sin(angle), np.cos(angle)])
    pivot = np.array([2 + 0.45 - 0.004, 5.0])
    for x in (1.95, 2.1, 2.25):
        expected = ((pivot - [x, 2.0]) @ normal) / normal[1]
        distance, label, face = hit(scene, (x, 2.0, 0.06), np.array([0, 1.0, 0]))
        assert (label, distance) == ('door', pytest.approx(expected, abs=1e-4))
        assert abs(face[:2] @ normal) == pytest.approx(1, abs=1e-5)
        assert abs(face[:2] @ outer) < 1e-5
    # Beside its free edge one looks into the corridor.
    assert hit(scene, (1.65, 2.0, 1.0), np.array([0, 1.0, 0]))[0] > 3 + WALL


def test_a_shut_door_is_a_door_up_to_its_frame(library: Library) -> None:
    room = empty_room(library, 3)
    shell(room)
    shut_door(room)
    wall = next(index for index, taken in enumerate(room.on_walls) if taken)
    ((along, _),) = room.on_walls[wall]
    room.scene.finish()
    for across in np.linspace(-0.44, 0.44, 441):
        x, y = room.at_wall(wall, along + across, 1.0)
        distance, label, _ = hit(
            room.scene, (float(x), float(y), 1.5), np.array(OUTWARD[wall], float)
        )
        assert label == 'door'
        assert 0.98 < distance < 1


def flight_scene(library: Library, heading: int) -> Scene:
    room = empty_room(library)
    room.scene.material()
    build_flight(room, STEPS, (2.0, 2.0, -0.5), heading, BARE)
    room.scene.shine(*np.array([(1, -1, 3), (1, 0, 0), (0, 1, 0), (9, 9, 9)], np.float32))
    room.scene.finish()
    return room.scene


@pytest.mark.parametrize('heading', [1, -1])
def test_treads_are_level_and_risers_upright(library: Library, heading: int) -> None:
    scene = flight_scene(library, heading)
    for step in range(STEPS.steps - 1):
        y = 2.0 + heading * (step + 0.5) * STEPS.run
        distance, label, face = hit(scene, (2.0, y, 2.0), np.array([0, 0, -1.0]))
        assert (label, 2.0 - distance) == (
            'otherstructure', pytest.approx(-0.5 + (step + 1) * STEPS.rise, abs=1e-5),
        )  # fmt: skip
        np.testing.assert_allclose(np.abs(face), [0, 0, 1], atol=1e-6)
        eye = (2.1, 2.0 - heading, -0.5 + (step + 0.5) * STEPS.rise)
        distance, label, face = hit(scene, eye, np.array([0, heading, 0.0]))
        assert (label, distance) == (
            'otherstructure',
            pytest.approx(1 + step * STEPS.run, abs=1e-5),
        )
        np.testing.assert_allclose(np.abs(face), [0, 1, 0], atol=1e-6)


def test_a_picture_of_stairs_has_their_exact_labels(library: Library) -> None:
    eye = np.array([2.0, 0.5, 1.1])
    camera = Camera(64, 48, 50.0, look_at(eye, np.array([2.0, 3.0, 1.1])), eye.astype(np.float32))
    frame = render(flight_scene(library, 1), camera, np.random.default_rng(0), Quality(1, 1, ()))
    stairs = frame.semantic == NYUD_ID['otherstructure']
    riser, tread = (
        stairs & (np.abs(frame.normals - normal).max(-1) < 1e-4)
        for normal in ((0, 0, -1), (0, -1, 0))
    )
    assert riser.sum() > 50
    assert tread.sum() > 50
    assert (riser | tread).sum() == stairs.sum()
    steps = (frame.depth[riser] - 1.5) / STEPS.run
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    v = (np.arange(48) - camera.center[1])[:, None].repeat(64, axis=1)
    levels = (1.1 - frame.depth * v / camera.focal + 0.5)[tread] / STEPS.rise
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    # The front edge of a tread is a crease.
    assert frame.edges[:-1][riser[1:] & tread[:-1]].all()


def test_a_hall_has_a_way_up_and_a_hole_with_a_way_down(library: Library) -> None:
    up, down = Flight(14, 0.17, 0.28, 1.0), Flight(8, 0.17, 0.28, 1.0)
    hall = Hall((4.0, 6.5, 4.7), up, side=-1, landing=1.2, down=down)
    room = empty_room(library, size=hall.size)
    hall.reserve(room)
    shell(room)
    hall.build(room)
    scene, below = room.scene, np.array([0, 0, -1.0])
    scene.finish()
    assert hit(scene, (2.0, 6.0, 4.0), below)[:2] == (
        pytest.approx(4.0 - 14 * 0.17, abs=1e-5),
        'floor',
    )
    assert hit(scene, (2.0, 6.0, 1.0), -below)[:2] == (
        pytest.approx(14 * 0.17 - 0.25 - 1, abs=1e-5), 'ceiling',
    )  # fmt: skip
    assert hit(scene, (2.0, 2.0, 1.0), below)[:2] == (pytest.approx(1.0, abs=1e-5), 'floor')
    for step in range(1, 8):  # the hole begins at y = 1
        y = 1.0 + (step - 0.5) * 0.28
        distance, label, _ = hit(scene, (3.5, y, 1.0), below)
        assert (label, distance) == ('otherstructure', pytest.approx(1 + step * 0.17, abs=1e-5))
    bottom = hit(scene, (3.5, 1.0 + 7 * 0.28 + 0.15, 1.0), below)
    assert bottom[:2] == (pytest.approx(1 + 8 * 0.17, abs=1e-5), 'floor')
    ways = np.random.default_rng(0).normal(size=(20_000, 3))
    for eye in ((2.0, 2.0, 1.0), (3.5, 2.5, -0.3)):
        assert (scene.cast(np.tile(eye, (len(ways), 1)), ways).triangle >= 0).all()
    # Nothing is put where the stairs are.
    assert not room.fits(Rectangle(0.2, 4.0, 0.6, 4.4))
    assert not room.fits(Rectangle(3.2, 1.5, 3.6, 1.9))


def test_a_corridor_is_long_and_has_doors(library: Library) -> None:
    doors, open_doors = [], []
    for seed in range(6):
        scene = random_room(library, np.random.default_rng(seed), 'corridor')
        width, depth, _ = scene.size
        assert (scene.kind, depth > 1.9 * width) == ('corridor', True)
        doors.append(sum(i.name in ('door', 'door frame') for i in scene.instances))
        open_doors.append(len(scene.sights))
    assert min(doors) >= 1
    assert sum(open_doors) >= 6


def test_cameras_of_small_robots_stand_just_above_the_floor(library: Library) -> None:
    rng = np.random.default_rng(2)
    scene = random_room(library, rng, 'living')
    views = [random_view(scene, rng, 32, 24, ViewRange(low_share=1)) for _ in range(12)]
    heights = [camera.eye[2] for camera in views if camera is not None]
    assert len(heights) > 8
    assert 0.05 <= min(heights) < 0.12
    assert max(heights) <= 0.4


def test_cameras_look_at_sights(library: Library) -> None:
    """Open doors and stairs are in ``Scene.sights``; here is one in a corner."""
    rng = np.random.default_rng(2)
    scene = random_room(library, rng, 'living')
    scene.sights = [np.array([0.2, 0.2, 1.0])]
    turns = []
    for _ in range(8):
        camera = random_view(scene, rng, 32, 24, ViewRange(sight_share=1))
        if camera is not None:
            way, gaze = (scene.sights[0] - camera.eye)[:2], camera.rotation[2][:2]
            turns.append(way @ gaze / np.linalg.norm(way) / np.linalg.norm(gaze))
    assert len(turns) > 4
    assert np.median(turns) > np.cos(np.radians(15))
    assert any(len(random_room(library, rng, kind).sights) for kind in ('hall', 'hall', 'corridor'))


def test_rugs_end_at_walls(library: Library) -> None:
    found = 0
    for seed in range(20):
        room = empty_room(library, seed, (1.4, 6.0, 2.5))
        floor_mat(room)
        if len(room.scene.instances) > 1:
            found += 1
            low, high = room.scene.bounds(1)
            assert low[:2].min() > -0.03
            assert (high[:2] < np.array([1.43, 6.03])).all()
    assert found


@pytest.mark.parametrize('behind', [False, True])
def test_a_light_counts_if_anything_sees_it(behind: bool) -> None:
    """One lamp behind a wall with a slit lights what it reaches; another one nothing at all."""
    scene = Scene()
    gray = scene.material((0.5, 0.5, 0.5))
    floor = scene.instance('floor', NYUD_ID['floor'])
    scene.quad((-3, -3, 0), (3, -3, 0), (-3, 3, 0), gray, floor)
    slit = [] if behind else [(2.9, 0.0, 3.1, 1.0)]
    wall = scene.instance('wall', NYUD_ID['wall'])
    scene.sheet((-3, 3, 0), (3, 3, 0), (-3, 3, 3), slit, gray, wall, tile=1.0)
    scene.shine(*np.array([(-0.2, 4, 0.3), (0.4, 0, 0), (0, 0, 0.4), (9, 9, 9)], np.float32))
    scene.ambient[:] = 0
    scene.finish()
    x, y = np.meshgrid(np.linspace(-2.5, 2.5, 64), np.linspace(-2.5, 2.5, 48))
    points = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3).astype(np.float32)
    up = np.tile(np.array([0, 0, 1], np.float32), (len(points), 1))
    light = direct(scene, points, up, np.random.default_rng(0), 2).reshape(48, 64, 3)
    assert (light.max() > 0) != behind
    if not behind:
        assert (light[:, 31:33] > 0).all(-1).mean() > 0.5
        assert light[:, :8].max() == 0


def test_some_pictures_are_dark_and_some_are_bright() -> None:
    rng = np.random.default_rng(0)
    keys = np.array([Exposure.random(rng).key for _ in range(300)])
    usual = (keys >= 0.1) & (keys <= 0.22)
    assert 0.6 < usual.mean() < 0.8
    assert keys.min() < 0.05
    assert keys.max() > 0.35
    assert all(0.1 <= Exposure.random(rng, odd=0).key <= 0.22 for _ in range(50))


def test_things_lie_on_the_floor_and_stand_on_shelves(library: Library) -> None:
    names, vessels = [], 0
    for seed in range(6):
        room = empty_room(library, seed)
        shell(room)
        shelves = room.scene.instance('made shelves', NYUD_ID['shelves'])
        PARAMETRIC['shelves'].build(room, shelves, (3.2, 0.3), (1.4, 0.4, 1.9), 0.0)
        on_shelf = [i for i in room.scene.instances if i.label == NYUD_ID['otherprop']]
        vessels += len(on_shelf)
        before = len(room.scene.instances)
        room.probe()
        things_on_floor(room)
        names += [i.name for i in room.scene.instances[before:]]
        for index in range(before, len(room.scene.instances)):
            low, _ = room.scene.bounds(index)
            assert 0 <= low[2] < 0.06  # on the floor, or on the lowest board
    assert len(names) > 6
    assert vessels > 2
    room = empty_room(library)
    room.scene.box((2, 2.5, 0), (4, 5, 0.1), 0.0, room.scene.material(), 0)  # too thick for a rug
    room.probe()
    things_on_floor(room)
    assert len(room.scene.instances) == 1
