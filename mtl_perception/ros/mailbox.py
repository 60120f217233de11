"""A mailbox with one slot per sender: the newest item wins, older ones are dropped."""

from __future__ import annotations

from threading import Condition
from typing import Generic, TypeVar

Key = TypeVar('Key')
Item = TypeVar('Item')


class Mailbox(Generic[Key, Item]):
    """Hands the newest item of each sender from the ROS thread to the thread of the engine."""

    def __init__(self) -> None:
        self._slots: dict[Key, Item] = {}
        self._changed = Condition()
        self._closed = False

    def put(self, key: Key, item: Item) -> bool:
        """Leave an item; returns whether it replaced one that nobody had taken."""
        with self._changed:
            replaced = key in self._slots
            self._slots[key] = item
            self._changed.notify()
            return replaced

    def take(self) -> dict[Key, Item]:
        """Wait for items and empty the slots; an empty dict means that the mailbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._slots or self._closed)
            slots, self._slots = ({}, {}) if self._closed else (self._slots, {})
            return slots

    def clear(self, key: Key) -> None:
        """Forget what a sender left."""
        with self._changed:
            self._slots.pop(key, None)

    def close(self) -> None:
        """Wake the taker; it gets an empty dict from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
