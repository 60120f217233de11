"""Which frames of a run a report shows."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_perception.offline.filmstrip import Filmstrip, encode

cv2 = pytest.importorskip('cv2')


def run(film: Filmstrip, count: int, bad: dict[int, float] | None = None) -> list[int]:
    """Frames at whole seconds, some of them bad; the seconds of those that are kept, and taken."""
    made: list[int] = []

    def picture(second: int) -> dict[str, np.ndarray]:
        made.append(second)
        return {'image': np.full((8, 8, 3), second % 256, np.uint8)}

    for second in range(count):
        worse = {'depth': (bad or {}).get(second, 0.1)}
        film.add(second, '', worse, lambda second=second: picture(second))
    return made


@pytest.mark.parametrize('count', [1, 5, 16, 17, 1000])
def test_frames_are_evenly_spread_however_long_the_run(count: int) -> None:
    film = Filmstrip(even=16, worst=0)
    run(film, count)
    seconds = [moment.seconds for moment in film.moments()]
    assert min(count, 8) <= len(seconds) <= 16
    assert seconds[0] == 0
    assert len(set(np.diff(seconds))) <= 1
    assert seconds[-1] >= count - 1 - count / 8


def test_the_worst_frames_are_kept_wherever_they_are() -> None:
    film = Filmstrip(even=4, worst=2)
    run(film, 200, {77: 0.9, 131: 0.8, 132: float('nan')})
    assert {77, 131} <= {moment.seconds for moment in film.moments()}
    assert 132 not in {moment.seconds for moment in film.moments()}


def test_pictures_are_made_of_few_frames() -> None:
    made = run(Filmstrip(even=16, worst=4), 5000)
    assert len(made) < 120


def test_where_the_length_is_known_hardly_any_picture_is_made_in_vain() -> None:
    film = Filmstrip(expected=18_000, even=16, worst=0)
    assert len(run(film, 18_000)) <= 16
    assert len(film.moments()) == 16
    longer = Filmstrip(expected=100, even=16, worst=0)  # than anybody thought
    run(longer, 1000)
    assert 8 <= len(longer.moments()) <= 16


def test_evenly_spread_frames_give_way_to_the_budget_before_the_worst() -> None:
    size = len(encode(np.zeros((8, 8, 3), np.uint8)))
    film = Filmstrip(even=16, worst=2, budget=7 * size)
    run(film, 16, {5: 0.9, 6: 0.8})
    moments = film.moments()
    assert {5, 6} <= {moment.seconds for moment in moments}
    assert 2 < len(moments) <= 7
    small = Filmstrip(even=16, worst=2, budget=size)
    run(small, 16, {5: 0.9, 6: 0.8})
    assert [moment.seconds for moment in small.moments()] == [5]


def test_wide_pictures_are_scaled_down() -> None:
    jpeg = np.frombuffer(encode(np.full((480, 640, 3), (200, 30, 30), np.uint8)), np.uint8)
    picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    assert picture.shape == (240, 320, 3)
    assert picture[0, 0].tolist() == pytest.approx([30, 30, 200], abs=4)
