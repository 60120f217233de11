"""Flicker is what changes where the image does not."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_perception.offline.flicker import Flicker

cv2 = pytest.importorskip('cv2')
HEIGHT, WIDTH = 128, 160


def texture(shift: int = 0) -> np.ndarray:
    """A picture with detail everywhere, as a camera that pans sees it."""
    coarse = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    wide = cv2.resize(coarse, (WIDTH + 80, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(wide[:, 40 + shift : 40 + shift + WIDTH])


def halves(shift: int = 0) -> np.ndarray:
    """Two classes with a border that moves with the picture."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:, WIDTH // 2 - shift :] = 1
    return labels


def test_a_label_that_comes_and_goes_is_counted_where_it_does() -> None:
    flicker = Flicker()
    labels, other = halves(), halves()
    other[: HEIGHT // 2] += 2
    assert flicker.add(texture(), {'semantic': labels}) == {}
    assert flicker.add(texture(), {'semantic': labels}) == {'semantic': 0}
    assert flicker.add(texture(), {'semantic': other})['semantic'] == pytest.approx(0.5, abs=0.05)
    assert flicker.compute()['semantic'] == pytest.approx(0.25, abs=0.03)


def test_labels_that_move_with_what_they_are_of_do_not_flicker() -> None:
    flicker = Flicker()
    flicker.add(texture(), {'semantic': halves()})
    assert flicker.add(texture(8), {'semantic': halves(8)})['semantic'] == 0
    # Labels that move by themselves do: a column of points in ten.
    moved = flicker.add(texture(8), {'semantic': halves(24)})['semantic']
    assert moved == pytest.approx(0.1, abs=0.02)


def test_depth_and_normals_are_compared_while_nothing_moves() -> None:
    flicker = Flicker()
    depth = np.full((HEIGHT, WIDTH), 2, np.float32)
    normals = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    normals[..., 2] = -1
    tilted = normals + np.float32([np.sin(0.2), 0, 1 - np.cos(0.2)])
    flicker.add(texture(), {'depth': depth, 'normals': normals})
    farther = np.where(np.arange(WIDTH) < WIDTH // 2, np.nan, depth * 1.1).astype(np.float32)
    figures = flicker.add(texture(), {'depth': farther, 'normals': tilted})
    assert figures['depth'] == pytest.approx(np.log(1.1), rel=1e-4)
    assert figures['normals'] == pytest.approx(np.degrees(0.2), rel=1e-3)
    moving = flicker.add(texture(5), {'depth': depth, 'normals': normals})
    assert np.isnan(moving['depth'])
    assert np.isnan(moving['normals'])


def test_a_few_points_that_stay_in_place_do_not_make_a_static_camera() -> None:
    """A bumper at the edge of the image, or what happens to move with the camera."""
    flicker = Flicker()
    moved = texture(5)
    moved[-HEIGHT // 16 :] = texture()[-HEIGHT // 16 :]
    depth = {'depth': np.full((HEIGHT, WIDTH), 2, np.float32)}
    flicker.add(texture(), depth)
    assert np.isnan(flicker.add(moved, depth)['depth'])
    assert np.isnan(flicker.compute()['depth'])


def test_images_without_room_for_a_point_say_nothing() -> None:
    flicker = Flicker()
    small = {'semantic': halves()[:4, :4]}
    flicker.add(texture()[:4, :4], small)
    assert flicker.add(texture()[:4, :4], small) == {}


def test_frames_of_another_size_begin_anew() -> None:
    flicker = Flicker()
    flicker.add(texture(), {'semantic': halves()})
    assert flicker.add(texture()[:64], {'semantic': halves()[:64]}) == {}
