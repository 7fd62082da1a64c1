"""By when a process wants to be killed: nested calls, threads, and who is told."""

from __future__ import annotations

import threading

import pytest

from zmule import current
from zmule.compat import harakiri
from zmule.compat.harakiri import Harakiri


class Mule:
    """A mule that zmuled has started: it notes in how many seconds it is to be killed."""

    supervised = True
    mule_id = 1

    def __init__(self) -> None:
        self.told: list[float] = []

    def set_deadline(self, seconds: float) -> None:
        self.told.append(seconds)

    def rounded(self) -> list[int]:
        return [round(seconds, -1) for seconds in map(int, self.told)]


@pytest.fixture
def mule(monkeypatch: pytest.MonkeyPatch) -> Mule:
    supervised = Mule()
    monkeypatch.setattr(current, "_mule", supervised)
    return supervised


def test_a_time_is_set_and_taken_back(mule: Mule) -> None:
    times = Harakiri()
    times.set(101)
    times.set(0)
    assert mule.rounded() == [100, 0]


def test_the_end_of_an_inner_call_leaves_the_outer_one_its_time(mule: Mule) -> None:
    times = Harakiri()
    with times.call(101):
        with times.call(51):
            pass
        with times.call(501):
            pass
    assert mule.rounded() == [100, 50, 100, 0]


def test_within_a_call_the_time_of_the_call_is_set(mule: Mule) -> None:
    times = Harakiri()
    times.set(901)
    with times.call(101):
        times.set(501)
        times.set(0)
    times.set(0)
    assert mule.rounded() == [900, 100, 500, 900, 0]


def test_calls_in_threads_have_times_of_their_own(mule: Mule) -> None:
    times, inside, leave = Harakiri(), threading.Event(), threading.Event()

    def other() -> None:
        with times.call(51):
            inside.set()
            leave.wait(30.0)

    thread = threading.Thread(target=other)
    with times.call(101):
        thread.start()
        assert inside.wait(30.0)
    leave.set()
    thread.join()
    assert mule.rounded() == [100, 50, 0]


def test_a_call_that_raises_is_over(mule: Mule) -> None:
    times = Harakiri()
    with pytest.raises(ZeroDivisionError), times.call(101):
        raise ZeroDivisionError
    assert mule.rounded() == [100, 0]


@pytest.mark.parametrize(
    ("seconds", "error"), [("1", TypeError), (-1, ValueError), (float("nan"), ValueError)]
)
def test_what_is_no_time_is_refused(mule: Mule, seconds: float, error: type[Exception]) -> None:
    with pytest.raises(error, match="a time is"):
        harakiri.set_user_harakiri(seconds)
    assert mule.told == []


def test_who_has_nobody_to_kill_it_has_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    rung = threading.Event()
    monkeypatch.setattr(harakiri, "_commit", rung.set)
    times = Harakiri()
    times.set(1000)
    times.set(0)
    assert not rung.is_set()
    times.set(0.01)
    assert rung.wait(30.0)
    times.set(0)
