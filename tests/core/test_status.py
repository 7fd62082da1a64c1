"""What the status says of mules and deliveries, and when the broker is ready."""

from __future__ import annotations

from collections import Counter
from typing import Any

from zmule.core.events import MuleExited, MuleGivenUp
from zmule.core.frames import SIGNAL
from zmule.core.mules import MuleSetup
from zmule.core.status import status
from zmule.core.turns import LOADING_SECONDS
from zmule.testing import SimMule, World


def world() -> World:
    return World([MuleSetup(1, "a.py"), MuleSetup(2, None)])


def entry(w: World, number: int) -> dict[str, Any]:
    """A mule's entry in the status."""
    return next(mule for mule in status(w.broker, w.clock.now())["mules"] if mule["id"] == number)


def totals(w: World) -> dict[str, int]:
    found: dict[str, int] = status(w.broker, w.clock.now())["totals"]
    return found


def send(w: World, queue: str, count: int) -> None:
    client = w.client()
    for number in range(count):
        client.send(queue, str(number))
    w.settle()


def get(w: World, mule: SimMule) -> None:
    mule.threads[0].get()
    w.settle()


# Readiness.


def test_a_registered_mule_is_at_work_when_it_waits_for_something() -> None:
    w = world()
    programmed, signal_only = w.spawn(1), w.spawn(2)
    signal_only.inbox.settle()
    w.settle()
    assert entry(w, 1)["state"] == "starting"
    assert not w.broker.manned()
    assert w.broker.summary() == "1 of 2 mules are at work"
    get(w, programmed)
    assert entry(w, 1)["state"] == "idle"
    assert w.broker.manned()
    assert w.broker.summary() == "2 of 2 mules are at work"


def test_to_wait_for_a_signal_will_do() -> None:
    w = world()
    mule = w.spawn(1)
    mule.threads[0].get(SIGNAL)
    w.settle()
    assert entry(w, 1)["state"] == "idle"


def test_a_program_that_asks_for_nothing_has_time_to_load() -> None:
    w = world()
    w.spawn(1)
    w.settle()
    due = w.broker.next_deadline()
    assert due == w.clock.mono + LOADING_SECONDS
    w.clock.advance(LOADING_SECONDS - 0.1)
    w.tick()
    assert entry(w, 1)["state"] == "starting"
    w.clock.advance(0.1)
    w.tick()
    assert entry(w, 1)["state"] == "busy"


def test_an_application_has_as_long_as_it_takes() -> None:
    w = world()
    mule = w.spawn(2)
    w.settle()
    w.clock.advance(LOADING_SECONDS)
    mule.inbox.ask("ping")
    w.settle()
    w.tick()
    assert entry(w, 2)["state"] == "starting"


def test_a_mule_that_was_loaded_is_so_when_it_registers_anew() -> None:
    w = world()
    mule = w.spawn(1)
    get(w, mule)
    send(w, "any", 1)
    assert entry(w, 1)["state"] == "busy"
    mule.cut()
    w.settle()
    assert entry(w, 1)["state"] == "busy"


def test_mules_that_do_not_come_up_keep_the_broker_from_being_ready() -> None:
    w = World([MuleSetup(1, "a.py")])
    w.spawn(1)
    w.settle()
    w.happened(MuleExited(1, 7, 1))
    assert w.broker.summary() == "0 of 1 mules are at work; mule 1 does not: exit code 1"
    w.happened(MuleGivenUp(1, "too many crashes"))
    assert not w.broker.manned()
    mule = w.spawn(1)
    get(w, mule)
    assert w.broker.manned()
    assert w.broker.troubles() == []


# What a mule does.


def test_since_when_and_on_what() -> None:
    w = world()
    w.clock.advance(10)
    mule = w.spawn(1)
    born = w.clock.wall
    get(w, mule)
    w.clock.advance(5)
    send(w, "any", 1)
    began = w.clock.wall
    w.clock.advance(3)
    w.tick()
    found = entry(w, 1)
    assert (found["started"], found["since"], found["state"]) == (born, began, "busy")
    assert found["work"] == [{"id": 1, "queue": "any", "attempt": 1, "age_s": 3.0}]
    get(w, mule)
    assert (entry(w, 1)["work"], entry(w, 1)["since"]) == ([], w.clock.wall)


def test_a_jump_of_the_wall_clock_does_not_change_since_when() -> None:
    w = world()
    get(w, w.spawn(1))
    w.clock.advance(5)
    w.clock.wall += 3600
    assert entry(w, 1)["since"] == w.clock.wall - 5


def test_how_it_has_ended_last() -> None:
    w = world()
    assert (entry(w, 1)["last_exit"], entry(w, 1)["started"]) == (None, None)
    w.spawn(1)
    w.happened(MuleExited(1, 7, 3))
    assert entry(w, 1)["last_exit"] == {"code": 3, "signal": None, "at": w.clock.wall}
    w.spawn(1)
    w.happened(MuleExited(1, 8, -9))
    assert entry(w, 1)["last_exit"] == {"code": None, "signal": 9, "at": w.clock.wall}


# What programs have seen.


def warmed(w: World) -> SimMule:
    """A quick mule that has been given messages ahead."""
    mule = w.spawn(1)
    send(w, "any", 50)
    for _ in range(4):
        get(w, mule)
        w.clock.advance(0.001)
    assert len(list(w.broker.roster.get(1).in_flight)) > 1  # type: ignore[union-attr]
    return mule


def test_what_lies_ahead_of_a_thread_is_not_delivered_yet() -> None:
    w = world()
    warmed(w)
    assert totals(w)["delivered"] == len(w.started) == 4
    assert totals(w)["recalled"] == 0
    assert len(entry(w, 1)["work"]) == 1


def test_what_was_taken_back_is_counted_apart() -> None:
    w = world()
    mule = warmed(w)
    w.clock.advance(1)
    w.tick()
    w.settle()
    assert len(w.returned) > 0
    found = totals(w)
    assert (found["delivered"], found["recalled"]) == (len(w.started), len(w.returned))
    for _ in range(50):
        get(w, mule)
    assert totals(w)["delivered"] == len(w.started) == 50


def test_what_a_killed_mule_had_ahead_has_not_been_delivered() -> None:
    w = world()
    mule = warmed(w)
    ahead = len(w.broker.roster.get(1).unseen())  # type: ignore[union-attr]
    mule.kill()
    w.settle()
    found = totals(w)
    assert (found["delivered"], found["recalled"]) == (4, ahead)


def test_every_redelivery_that_a_program_has_seen_counts_once() -> None:
    w = world()
    mule = w.spawn(1)
    send(w, "any", 3)
    get(w, mule)
    mule.kill()
    w.exited(1)
    w.settle()
    mule = w.spawn(1)
    for _ in range(5):
        get(w, mule)
    seen = Counter(delivery.attempt for delivery in w.started)
    assert seen == {1: 3, 2: 1}
    assert (totals(w)["delivered"], totals(w)["redelivered"]) == (4, 1)
