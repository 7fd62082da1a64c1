"""Numbers that look free: the same one for all that load the same code, and for nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.test_services import Recorder, ask, world
from zmule.testing import SimMule


def looks(w: Recorder, mule: SimMule, place: str) -> int:
    """Return the first number that looks free to a mule that is loading a place."""
    return next(number for number in range(256) if not ask(w, mule, "signal_registered", number, place).value)


def registers(w: Recorder, mule: SimMule, *arguments: Any) -> str:
    """Let a mule register a signal; return the code of the answer."""
    return ask(w, mule, "register_signal", *arguments).code


def test_all_that_load_a_module_find_the_same_numbers() -> None:
    w = world()
    mules = [w.spawn(1), w.spawn(2), w.mule(7)]
    for mule in mules:
        for number, name in enumerate(("app.first", "app.second")):
            assert looks(w, mule, "app") == number
            assert registers(w, mule, number, "mule", "app", name) == ""


def test_the_order_in_which_they_come_does_not_matter() -> None:
    w = world()
    one, two = w.spawn(1), w.spawn(2)
    assert [looks(w, one, "app"), looks(w, two, "app")] == [0, 0]
    assert registers(w, two, 0, "mule", "app", "app.first") == ""
    assert looks(w, two, "app") == 1
    assert registers(w, one, 0, "mule", "app", "app.first") == ""
    assert looks(w, one, "app") == 1


@pytest.mark.parametrize("place", ["", "other"])
def test_what_other_code_has_registered_is_taken(place: str) -> None:
    w = world()
    one, two = w.spawn(1), w.spawn(2)
    assert registers(w, one, 0, "mule", *[each for each in (place,) if each]) == ""
    assert looks(w, two, "app") == 1


def test_two_that_look_at_the_same_time_from_different_places_find_different_numbers() -> None:
    w = world()
    one, two = w.spawn(1), w.spawn(2)
    assert [looks(w, one, "a"), looks(w, two, "b")] == [0, 1]
    assert ask(w, two, "name_signal", "a decorator's", -1).value == 2


def test_what_is_reserved_and_not_taken_is_free_again() -> None:
    w = world()
    one, two = w.spawn(1), w.spawn(2)
    assert looks(w, one, "a") == 0
    one.threads[0].get()
    w.settle()
    assert looks(w, two, "b") == 0


def test_only_the_last_number_that_looked_free_is_reserved() -> None:
    w = world()
    one, two = w.spawn(1), w.spawn(2)
    for number in range(256):
        assert ask(w, one, "signal_registered", number, "a").value is False
    assert looks(w, two, "b") == 0


def test_numbers_of_decorators_are_taken() -> None:
    w = world()
    one = w.spawn(1)
    assert ask(w, one, "name_signal", "a decorator's", -1).value == 0
    assert looks(w, one, "app") == 1


def test_a_mule_that_is_started_again_finds_its_numbers_again() -> None:
    w = world()
    one, two = w.spawn(1), w.spawn(2)
    assert registers(w, one, 0, "mule", "app", "app.first") == ""
    one.kill()
    w.settle()
    assert looks(w, two, "other") == 1, "what is gone for a moment keeps its number"
    w.exited(1)
    again = w.spawn(1)
    assert looks(w, again, "app") == 0


def test_a_number_that_looked_free_cannot_mean_two_things() -> None:
    w = world()
    one, two = w.spawn(1), w.spawn(2)
    assert looks(w, one, "app") == 0
    assert registers(w, one, 0, "mule", "app", "app.first") == ""
    assert looks(w, two, "app") == 0
    assert registers(w, two, 0, "mule", "app", "app.second") == "signal-conflict"
    assert registers(w, two, 5, "mule", "app", "app.second") == "", "a number of its own will do"


def test_afterwards_the_answer_is_the_truth() -> None:
    w = world()
    one, two = w.spawn(1), w.spawn(2)
    assert registers(w, one, 0, "mule", "app", "app.first") == ""
    assert ask(w, two, "signal_registered", 0, "").value is True
    assert ask(w, two, "signal_registered", 0).value is True
    assert ask(w, w.client(), "signal_registered", 0).value is True


@pytest.mark.parametrize("arguments", [("x" * 1001,), (5,), ("app", "f")])
def test_nonsense_is_refused(arguments: tuple[object, ...]) -> None:
    w = world()
    assert ask(w, w.spawn(1), "signal_registered", 0, *arguments).code == "wrong-value"
    assert registers(w, w.mule(7), 0, "mule", "app", "f" * 1001) == "wrong-value"
