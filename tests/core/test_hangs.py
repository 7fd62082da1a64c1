"""Mules that hang and are killed: silent ones, absent ones, and those beyond their own deadlines."""

from __future__ import annotations

import pytest

from tests.core.test_services import Recorder, ask, world
from zmule.core.effects import Note
from zmule.core.events import MuleExited, MuleSpawned, Stalled
from zmule.core.hangs import START_SECONDS
from zmule.core.status import status
from zmule.testing import SimMule

TIMEOUT = 20.0


def later(w: Recorder, seconds: float, *, among: tuple[SimMule, ...] = ()) -> None:
    """Let time pass in small steps, while only these mules show that they live."""
    end = w.clock.mono + seconds
    while w.clock.mono < end:
        w.pass_time(min(0.25, end - w.clock.mono))
        for mule in among:
            w.settle_only(mule)


def texts(w: Recorder, word: str) -> list[Note]:
    return [note for note in w.notes if word in note.text]


def settled(w: Recorder, number: int = 1) -> SimMule:
    mule = w.spawn(number)
    w.settle()
    return mule


def work(w: Recorder, mule: SimMule, body: str) -> None:
    client = w.client()
    client.send("any", body)
    mule.threads[0].get()
    w.settle()
    assert mule.threads[0].delivery is not None


def test_a_silent_mule_is_killed_and_what_it_had_goes_to_another() -> None:
    w = world(heartbeat_timeout=TIMEOUT)
    hung, other = settled(w, 1), settled(w, 2)
    work(w, hung, "x")
    other.threads[0].get()
    w.settle()
    hung.frozen = True
    later(w, TIMEOUT + 1, among=(other,))
    assert w.slain == [1]
    assert [note.text for note in texts(w, "silent")] == [
        f"mule 1 has been silent for {TIMEOUT:g} s: killed, pid {w.broker.roster.get(1).pid}"  # type: ignore[union-attr]
    ]
    w.settle_only(other)
    assert other.threads[0].delivery is not None


def test_a_silent_mule_from_outside_is_not_killed() -> None:
    w = world(heartbeat_timeout=TIMEOUT)
    mule = w.mule(7)
    w.settle()
    mule.frozen = True
    later(w, 2 * TIMEOUT)
    assert w.slain == []
    assert len(texts(w, "silent")) == 1


def test_who_does_not_register_is_killed() -> None:
    w = world(heartbeat_timeout=TIMEOUT)
    w.happened(MuleSpawned(1, 77, b"token"))
    later(w, START_SECONDS - 1)
    assert w.slain == []
    later(w, 2)
    assert w.slain == [1]
    assert texts(w, "mule 1 has not registered in time: killed, pid 77")


def test_who_does_not_come_back_is_killed_and_who_does_is_not() -> None:
    w = world(heartbeat_timeout=TIMEOUT)
    mule = settled(w)
    mule.cut()
    w.notice()
    later(w, TIMEOUT - 1)
    w.settle()
    later(w, TIMEOUT, among=(mule,))
    assert w.slain == []
    mule.frozen = True
    mule.cut()
    w.notice()
    later(w, TIMEOUT + 1)
    assert w.slain == [1]


def test_who_has_left_in_good_order_may_take_its_time() -> None:
    w = world(heartbeat_timeout=TIMEOUT)
    mule = settled(w)
    mule.inbox.bid_farewell()
    w.settle()
    later(w, 2 * START_SECONDS)
    assert w.slain == []


def test_a_mule_is_killed_at_its_deadline_and_the_message_counts() -> None:
    w = world(max_deliveries=1)
    mule = settled(w)
    work(w, mule, "x")
    assert ask(w, mule, "set_deadline", 2.0).code == ""
    later(w, 1.9, among=(mule,))
    assert w.slain == []
    later(w, 0.5, among=(mule,))
    assert w.slain == [1]
    pid = w.broker.roster.get(1).pid  # type: ignore[union-attr]
    assert texts(w, f"*** HARAKIRI ON MULE 1 (pid: {pid}) ***")
    w.happened(MuleExited(1, pid, -9))
    (letter,) = w.broker.dead.values()
    assert letter.reason == "mule 1 was killed with it (harakiri), at delivery 1 of 1"
    again = settled(w)
    later(w, 10.0, among=(again,))
    assert w.slain == [1]


@pytest.mark.parametrize("then", [0, 5])
def test_a_deadline_is_what_was_said_last(then: float) -> None:
    w = world()
    mule = settled(w)
    ask(w, mule, "set_deadline", 2)
    later(w, 1.0, among=(mule,))
    ask(w, mule, "set_deadline", then)
    later(w, 4.0, among=(mule,))
    assert w.slain == []
    later(w, 2.0, among=(mule,))
    assert w.slain == ([1] if then else [])


def test_a_deadline_outlives_a_connection() -> None:
    w = world()
    mule = settled(w)
    ask(w, mule, "set_deadline", 5.0)
    mule.cut()
    w.notice()
    w.settle()
    later(w, 6.0, among=(mule,))
    assert w.slain == [1]


def test_what_a_mule_tells_arrives_over_the_next_connection_too() -> None:
    w = world()
    mule = settled(w)
    mule.inbox.tell("set_deadline", 1000)
    mule.inbox.tell("set_deadline", 3)
    mule.cut()
    w.notice()
    w.settle()
    later(w, 4.0, among=(mule,))
    assert w.slain == [1]
    assert not mule.inbox.questions


@pytest.mark.parametrize("seconds", [-1, float("nan"), 1e11, "soon"])
def test_a_deadline_that_is_none_is_refused(seconds: object) -> None:
    w = world()
    assert ask(w, settled(w), "set_deadline", seconds).code == "wrong-value"


def test_only_mules_that_zmuled_has_started_have_deadlines() -> None:
    w = world()
    mule, client = w.mule(7), w.client()
    w.settle()
    assert ask(w, mule, "set_deadline", 1).code == "not-permitted"
    assert ask(w, client, "set_deadline", 1).code == "not-permitted"


def test_time_in_which_the_broker_stood_still_does_not_count() -> None:
    w = world(heartbeat_timeout=TIMEOUT)
    mule = settled(w)
    ask(w, mule, "set_deadline", 2.0)
    w.happened(MuleSpawned(2, 77, b"token"))
    w.clock.advance(START_SECONDS)
    w.happened(Stalled(START_SECONDS))
    later(w, 1.5, among=(mule,))
    assert w.slain == []
    later(w, 1.0, among=(mule,))
    assert w.slain == [1]
    w.happened(MuleExited(1, 1, -9))
    later(w, START_SECONDS)
    assert w.slain == [1, 2]


def test_each_start_and_end_is_told_with_what_was_in_flight() -> None:
    w = world()
    mule = settled(w)
    work(w, mule, "x")
    mule.kill()
    w.notice()
    w.happened(MuleExited(1, 77, -11, "killed by SIGSEGV after 1.0 s", "; starts again in 0.1 s"))
    started, ended = (note for note in w.notes if note.text.startswith(("mule 1 started", "mule 1 ended")))
    assert (started.level, started.text[:20], started.damped) == ("info", "mule 1 started: pid ", False)
    story = "mule 1 ended: pid 77, killed by SIGSEGV after 1.0 s, with 1 in flight; starts again in 0.1 s"
    assert ended == Note("warning", story, damped=False)
    assert status(w.broker, w.clock.now())["mules"][0]["restarts"] == 1
