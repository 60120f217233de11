"""The mailbox: the newest item of each sender, some held back, and an end."""

from __future__ import annotations

from threading import Thread

import pytest

from mtl_perception.ros.mailbox import Mailbox

FOREVER_S = 3600.0


@pytest.fixture
def mailbox() -> Mailbox[str, int]:
    return Mailbox()


def test_the_newest_item_wins_and_the_loss_is_told(mailbox: Mailbox[str, int]) -> None:
    assert not mailbox.put('front', 1)
    assert mailbox.put('front', 2)
    assert not mailbox.put('rear', 3)
    assert mailbox.take(9) == {'front': 2, 'rear': 3}
    assert not mailbox.put('front', 4)
    mailbox.clear('rear')
    assert mailbox.take(9) == {'front': 4}


def test_what_is_held_back_keeps_no_other_sender_waiting(mailbox: Mailbox[str, int]) -> None:
    mailbox.put('front', 1, hold_s=FOREVER_S)
    mailbox.put('rear', 2)
    assert mailbox.take(9) == {'rear': 2}
    mailbox.release('front', lambda item: item == 1)
    assert mailbox.take(9) == {'front': 1}


def test_it_is_held_back_for_so_long_and_no_longer(mailbox: Mailbox[str, int]) -> None:
    mailbox.put('front', 1, hold_s=0.01)
    assert mailbox.take(9) == {'front': 1}


def test_a_release_wakes_the_taker(mailbox: Mailbox[str, int]) -> None:
    mailbox.put('front', 1, hold_s=FOREVER_S)
    taken: list[dict[str, int]] = []
    taker = Thread(target=lambda: taken.append(mailbox.take(9)), daemon=True)
    taker.start()
    mailbox.release('front', lambda item: item == 2)  # not this one
    taker.join(timeout=0.05)
    assert taker.is_alive()
    mailbox.release('front', lambda item: item == 1)
    taker.join(timeout=60)
    assert taken == [{'front': 1}]


def test_the_newest_waits_behind_the_one_that_is_held_back(mailbox: Mailbox[str, int]) -> None:
    """Else the first of many that are held back for longer than the next needs to come is lost."""
    assert not mailbox.put('front', 1, hold_s=FOREVER_S)
    assert not mailbox.put('front', 2, hold_s=FOREVER_S)
    assert mailbox.put('front', 3, hold_s=FOREVER_S), 'instead of 2'
    mailbox.release('front', lambda item: item == 3)
    mailbox.put('rear', 4)
    assert mailbox.take(9) == {'rear': 4}, '1 is first'
    mailbox.release('front', lambda item: item == 1)
    assert mailbox.take(9) == {'front': 1}
    assert mailbox.take(9) == {'front': 3}, 'released already'
    mailbox.put('front', 5, hold_s=FOREVER_S)
    mailbox.clear('front')
    assert not mailbox.put('front', 6)
    assert mailbox.take(9) == {'front': 6}


def test_senders_take_turns_however_much_they_send(mailbox: Mailbox[str, int]) -> None:
    served: list[str] = []
    for number in range(6):
        mailbox.put('busy', number)
        mailbox.put('busy', number)
        if number % 2:
            mailbox.put('slow', number)
        served += mailbox.take(1)
    assert served == ['busy', 'slow'] * 3
    assert list(mailbox.take(1)) == ['busy'], 'what is left has not been forgotten'


def test_with_more_senders_than_places_nobody_is_served_twice_before_all_were_once(
    mailbox: Mailbox[str, int],
) -> None:
    names = ['front', 'left', 'right', 'rear']
    rounds = []
    for number in range(6):
        for name in names:
            mailbox.put(name, number)
        rounds.append(list(mailbox.take(3)))
    assert all(len(taken) == 3 for taken in rounds)
    served = [name for taken in rounds for name in taken]
    for first in range(0, len(served) - 4, 4):
        assert sorted(served[first : first + 4]) == sorted(names)


def test_closing_wakes_the_taker(mailbox: Mailbox[str, int]) -> None:
    taken: list[dict[str, int]] = []
    taker = Thread(target=lambda: taken.append(mailbox.take(9)), daemon=True)
    taker.start()
    mailbox.close()
    taker.join(timeout=60)
    assert taken == [{}]
    mailbox.put('front', 1)
    assert mailbox.take(9) == {}
