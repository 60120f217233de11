"""The mailbox: the newest item of each sender, and an end."""

from __future__ import annotations

from threading import Thread

from mtl_perception.ros.mailbox import Mailbox


def test_the_newest_item_wins_and_the_loss_is_told() -> None:
    mailbox: Mailbox[str, int] = Mailbox()
    assert not mailbox.put('front', 1)
    assert mailbox.put('front', 2)
    assert not mailbox.put('rear', 3)
    assert mailbox.take() == {'front': 2, 'rear': 3}
    assert not mailbox.put('front', 4)
    mailbox.clear('rear')
    assert mailbox.take() == {'front': 4}


def test_closing_wakes_the_taker() -> None:
    mailbox: Mailbox[str, int] = Mailbox()
    taken: list[dict[str, int]] = []
    taker = Thread(target=lambda: taken.append(mailbox.take()))
    taker.start()
    mailbox.close()
    taker.join(timeout=60)
    assert taken == [{}]
    mailbox.put('front', 1)
    assert mailbox.take() == {}
