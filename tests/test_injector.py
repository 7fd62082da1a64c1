"""The injector strikes where it says, once, and says when there is no such line."""

from __future__ import annotations

import pytest

from tests.injector import Struck, at_every_line, strike
from zmule.core.queues import farm_queue, mule_queue


def test_every_line_is_struck_once() -> None:
    finished: list[str] = []

    def call() -> None:
        mule_queue(1)
        finished.append(farm_queue("a"))

    places = list(at_every_line(call))
    assert len(places) == len(set(places)) >= 2
    assert finished == ["farm:a"]  # only the run that no strike came to


def test_an_action_takes_the_place_of_the_exception() -> None:
    seen: list[str] = []
    assert strike(lambda: mule_queue(7), 1, lambda: seen.append(mule_queue(8)))
    assert seen == ["mule:8"]
    assert strike(lambda: mule_queue(7), 99, seen.clear) == ""
    assert seen == ["mule:8"]


def test_what_else_is_raised_passes() -> None:
    def fail() -> None:
        raise Struck

    with pytest.raises(Struck):
        strike(fail, 1)
