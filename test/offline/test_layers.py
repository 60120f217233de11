"""The pictures of a report say by colour where outputs differ from what they are compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('cv2')

from mtl_perception.bundle import load_bundle
from mtl_perception.offline.layers import difference, legends, painted, shown

EQUAL, RED, BLUE, BLACK = (225, 225, 225), (200, 30, 30), (30, 80, 200), (0, 0, 0)


def colors(picture: np.ndarray) -> list[tuple[int, ...]]:
    """Of a single row."""
    assert picture.dtype == np.uint8
    return [tuple(map(int, pixel)) for pixel in picture[0]]


def test_other_classes_are_red_and_unknown_ones_black() -> None:
    found = np.array([[0, 1, 255, 1]], np.uint8)
    truth = np.array([[0, 0, 0, 255]], np.uint8)
    assert colors(difference('semantic', found, truth)) == [EQUAL, RED, RED, BLACK]


def test_farther_is_red_and_nearer_blue_full_at_a_factor_of_two() -> None:
    found = np.float32([[2, 4, 1, 9, np.nan, 2, np.inf]])
    truth = np.float32([[2, 2, 2, 2, 2, 0, 2]])
    picture = difference('depth', found, truth)
    assert colors(picture) == [EQUAL, RED, BLUE, RED, BLACK, BLACK, BLACK]
    half = difference('depth', np.float32([[2 * 2**0.5]]), np.float32([[2]]))
    assert colors(half)[0] == pytest.approx(np.add(EQUAL, RED) / 2, abs=2)


def test_directions_are_red_by_their_angle() -> None:
    truth = np.float32([[[0, 0, -1], [0, 0, -1], [0, 0, -1], [0, 0, 0]]])
    found = np.float32([[[0, 0, -3], [1, 0, 0], [0.5, 0, -(0.75**0.5)], [0, 0, -1]]])
    equal, across, half, unknown = colors(difference('normals', found, truth))
    assert (equal, across, unknown) == (EQUAL, RED, BLACK)
    assert half == pytest.approx(np.add(EQUAL, RED) / 2, abs=2)


def test_outputs_have_the_colours_of_the_node_and_their_legend(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    picture = painted('semantic', np.array([[0, 1, 2, 255]], np.uint8), bundle)
    assert colors(picture) == [(200, 30, 30), (30, 200, 30), (30, 30, 200), BLACK]
    titles = {legend.title: legend for legend in legends(bundle, ['semantic', 'depth truth'])}
    assert titles['Classes'].swatches[0] == ('rgb(200,30,30)', 'red thing')
    assert titles['Depth'].ends == ('0.5 m', '10 m')
    assert len(titles['Depth'].ramp) > 2
    assert titles.keys() == {'Classes', 'Depth'}
    for layer in ('normals', 'depth error', 'depth difference'):
        titles = {legend.title: legend for legend in legends(bundle, [layer])}
        assert ('Differences' in titles) == (layer != 'normals')
    unknown = painted('normals', np.float32([[[0, 0, 0], [0, 0, -1]]]), bundle)
    assert colors(unknown)[0] == BLACK
    assert colors(unknown)[1][2] == 255


def test_no_more_is_painted_than_is_shown() -> None:
    labels = np.arange(640, dtype=np.uint16)[None].repeat(480, 0)
    assert shown(labels).shape == (240, 320)
    assert set(np.diff(shown(labels)[0])) == {2}
    assert shown(labels[:, :320]).shape == (480, 320)
