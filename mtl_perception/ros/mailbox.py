"""A mailbox between threads: the newest item of each sender, some held back for a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition
from time import monotonic
from typing import Generic, TypeVar

Key = TypeVar('Key')
Item = TypeVar('Item')


@dataclass
class _Letter(Generic[Item]):
    item: Item
    due: float  # monotonic, when it may be taken


class Mailbox(Generic[Key, Item]):
    """Hands the newest item of each sender from the ROS thread to the thread of the engine.

    Senders take turns: where not all can be served at once, those come first whose last turn is the
    longest ago. So one that sends much cannot crowd out one that sends little, and nobody is waited
    for: a sender without an item has no turn.

    An item that is held back is not replaced by newer ones, of which the newest waits behind it:
    else one that is always held back would never come through. It keeps no other sender waiting.
    """

    def __init__(self) -> None:
        self._letters: dict[Key, list[_Letter[Item]]] = {}  # of each sender the held and the newest
        self._turns: dict[Key, int] = {}  # of each sender the number of its last one
        self._changed = Condition()
        self._closed = False

    def put(self, key: Key, item: Item, *, hold_s: float = 0.0) -> bool:
        """Leave an item; returns whether it replaced one that nobody had taken.

        Args:
            hold_s: how long it is held back at most, until ``release``.
        """
        now = monotonic()
        with self._changed:
            letters = self._letters.setdefault(key, [])
            replaces = len(letters) == 2 or bool(letters and letters[0].due <= now)
            if replaces:
                letters.pop()
            letters.append(_Letter(item, now + hold_s))
            self._changed.notify()
            return replaces

    def release(self, key: Key, which: Callable[[Item], bool]) -> None:
        """Hold the items of a sender for which ``which`` is true back no longer."""
        now = monotonic()
        with self._changed:
            for letter in self._letters.get(key, []):
                if which(letter.item):
                    letter.due = min(letter.due, now)
            self._changed.notify()

    def take(self, most: int) -> dict[Key, Item]:
        """Wait for items that may be taken; an empty dict means that the mailbox is closed.

        Args:
            most: so many at most, each of another sender.
        """
        with self._changed:
            while not self._closed:
                now = monotonic()
                due = [key for key, letters in self._letters.items() if letters[0].due <= now]
                if due:
                    due.sort(key=lambda key: self._turns.get(key, -1))
                    return {key: self._next(key) for key in due[:most]}
                ends = [letters[0].due for letters in self._letters.values()]
                self._changed.wait(min(ends) - now if ends else None)
            return {}

    def clear(self, key: Key) -> None:
        """Throw away what a sender left."""
        with self._changed:
            self._letters.pop(key, None)

    def close(self) -> None:
        """Send the taker home, at once and for good."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _next(self, key: Key) -> Item:
        self._turns[key] = 1 + max(self._turns.values(), default=0)
        letters = self._letters[key]
        letter = letters.pop(0)
        if not letters:
            del self._letters[key]
        return letter.item
