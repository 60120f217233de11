"""What numbers that a user gives may be: types that say their bounds, and the check of them."""

from __future__ import annotations

import argparse
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args


@dataclass(frozen=True)
class Bounds:
    """From ``low`` to ``high``; without ``low`` itself where it is ``open``."""

    low: float
    high: float = math.inf
    open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open else value >= self.low
        return above and value <= self.high and math.isfinite(value)

    def __str__(self) -> str:
        if math.isfinite(self.high):
            return f'{self.low:g} to {self.high:g}'
        return f'above {self.low:g}' if self.open else f'{self.low:g} or more'


@dataclass(frozen=True)
class Rising:
    """A range: two numbers, the first not above the second."""

    def __contains__(self, value: tuple[float, float]) -> bool:
        return value[0] <= value[1]

    def __str__(self) -> str:
        return 'the smaller one first'


Count = Annotated[int, Bounds(1)]
Whole = Annotated[int, Bounds(0)]
Positive = Annotated[float, Bounds(0, open=True)]
Amount = Annotated[float, Bounds(0)]  # none to any
Share = Annotated[float, Bounds(0, 1)]
Fraction = Annotated[float, Bounds(0, 0.999999)]  # less than all of it
PositiveRange = Annotated[tuple[Positive, Positive], Rising()]
AmountRange = Annotated[tuple[Amount, Amount], Rising()]
ShareRange = Annotated[tuple[Share, Share], Rising()]
Percent = Annotated[int, Bounds(0, 100)]
PercentRange = Annotated[tuple[Percent, Percent], Rising()]


def complaint(value: Any, rules: Sequence[Any]) -> str:
    """What a value should have been, by the rules of an ``Annotated``; empty where it is."""
    return next((str(rule) for rule in rules if value not in rule), '')


# Types of options, by annotation, whose values a file can get wrong.
SCALARS: dict[str, type | tuple[type, ...]] = {
    'bool': bool,
    'float': (int, float),
    'int': int,
    'str': str,
}
BOUNDED = {
    'Amount': Amount,
    'Count': Count,
    'Positive': Positive,
    'Share': Share,
    'Whole': Whole,
}


def refusal(option: inspect.Parameter, value: object) -> str:
    """What is wrong with the value of an option, of a YAML file perhaps, by its annotation.

    Args:
        option: whose annotation is text, ``X | None`` and ``X | Mapping[str, X]`` among others.

    Returns:
        Such as ``width: 0; expected 1 or more``; empty where it has the type and keeps its bounds,
        and for types, such as lists, that only what has the option knows.
    """
    hint, _, other = str(option.annotation).partition(' | ')
    rules: Sequence[Any] = ()
    if hint in BOUNDED:
        number, *rules = get_args(BOUNDED[hint])
        hint = number.__name__
    expected = SCALARS.get(hint)
    if expected is None or (other == 'None' and value is None):
        return ''
    each = {option.name: value}
    if other.startswith('Mapping') and isinstance(value, Mapping):
        each = {f'{option.name}.{key}': entry for key, entry in value.items()}
    for name, entry in each.items():
        if not isinstance(entry, expected) or isinstance(entry, bool) != (hint == 'bool'):
            return f'{name}: {entry!r}; expected {hint}'
        if wanted := complaint(entry, rules):
            return f'{name}: {entry}; expected {wanted}'
    return ''


def bounded(kind: Any) -> Callable[[str], int | float]:
    """The ``type`` of an argument of a command whose numbers are of one of the kinds above."""
    plain, *rules = get_args(kind)

    def parse(text: str) -> int | float:
        value: int | float = plain(text)
        if expected := complaint(value, rules):
            raise argparse.ArgumentTypeError(f'expected {expected}, not {text}')
        return value

    parse.__name__ = plain.__name__  # argparse tells it where text is no number at all
    return parse


def image_size(text: str) -> tuple[int, int]:
    """The ``type`` of an argument that is a size: '425x560' -> (425, 560), height and width."""
    height, _, width = text.lower().partition('x')
    if not (height.isdecimal() and width.isdecimal() and min(int(height), int(width)) >= 32):
        raise argparse.ArgumentTypeError(
            f'expected HEIGHTxWIDTH in pixels, each at least 32, not {text}'
        )
    return int(height), int(width)
