"""Signals that are known by name."""

from __future__ import annotations

import pytest

from zmule.core.names import MAX_NAME, Names
from zmule.errors import WrongValue


def test_a_name_has_one_number_whoever_asks() -> None:
    names = Names(lambda _: False)
    assert [names.number(name, -1) for name in ("a", "b", "a", "c", "b")] == [0, 1, 0, 2, 1]


def test_numbers_that_were_chosen_by_hand_are_left_alone() -> None:
    names = Names({0, 1, 3}.__contains__)
    assert [names.number(name, -1) for name in "ab"] == [2, 4]


def test_a_name_gets_back_what_it_had_if_that_is_free() -> None:
    names = Names({7}.__contains__)
    assert names.number("a", 5) == 5
    assert names.number("b", 5) == 0
    assert names.number("c", 7) == 1
    assert names.number("d", 256) == 2
    assert names.number("a", 9) == 5


def test_names_that_nobody_uses_make_room() -> None:
    registered = {0, 1}
    names = Names(registered.__contains__)
    for number in range(2, 256):
        assert names.number(f"old {number}", -1) == number
    registered.add(77)
    assert names.number("new", -1) == 2
    assert names.number("old 77", -1) == 77
    assert names.number("old 3", -1) == 3
    registered.update(range(256))
    with pytest.raises(WrongValue, match="all signals"):
        names.number("newer", -1)


def test_a_name_is_not_too_long() -> None:
    names = Names(lambda _: False)
    assert names.number("x" * MAX_NAME, -1) == 0
    with pytest.raises(WrongValue, match="1000"):
        names.number("x" * (MAX_NAME + 1), -1)
