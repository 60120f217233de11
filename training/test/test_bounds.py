"""Options say in their types what their values may be, and what is wrong with a value is told."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping

import pytest
from mtl_training import bounds
from mtl_training.balancing import METHODS
from mtl_training.bounds import BOUNDED, Amount, Positive, Whole, refusal
from mtl_training.models import SYSTEMS


def options() -> Iterator[inspect.Parameter]:
    """Those of all systems and of all methods of balancing."""
    for system in SYSTEMS.values():
        yield from system.options().values()
    for method in METHODS.values():
        yield from list(inspect.signature(method).parameters.values())[1:]


def test_every_number_among_the_options_says_its_bounds() -> None:
    found = set()
    for option in options():
        hint = str(option.annotation).partition(' | ')[0]
        assert hint in BOUNDED or hint not in {'int', 'float', *vars(bounds)}, option.name
        if hint in BOUNDED:
            found.add(hint)
            assert refusal(option, -1).startswith(f'{option.name}: -1; expected')
            assert refusal(option, 'fast').startswith(f"{option.name}: 'fast'; expected")
            assert refusal(option, math.nan).startswith(f'{option.name}: nan; expected')
            if option.default is not option.empty:
                assert not refusal(option, option.default)
    assert found == set(BOUNDED)


def some(
    rate: Amount | None = None,
    each: Positive | Mapping[str, Positive] = 1,
    seed: Whole = 0,
    names: tuple[str, ...] = (),
    quick: bool = False,
) -> None: ...


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('rate', None, ''),
        ('rate', math.inf, 'rate: inf; expected 0 or more'),
        ('rate', {'a': 1}, "rate: {'a': 1}; expected float"),
        ('seed', None, 'seed: None; expected int'),
        ('seed', True, 'seed: True; expected int'),
        ('seed', 1.0, 'seed: 1.0; expected int'),
        ('quick', 1, 'quick: 1; expected bool'),
        ('each', {'a': 1, 'b': 2.5}, ''),
        ('each', {'a': 1, 'b': 0}, 'each.b: 0; expected above 0'),
        ('each', {'a': '1'}, "each.a: '1'; expected float"),
        ('each', [1], 'each: [1]; expected float'),
        ('each', None, 'each: None; expected float'),
        ('names', 5, ''),  # of lists, only what has the option knows
    ],
)
def test_a_wrong_value_is_told_with_what_was_expected(
    name: str, value: object, message: str
) -> None:
    assert refusal(inspect.signature(some).parameters[name], value) == message
