"""Messages that pause, wait for their time or expire, on clocks that jump."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmule.core.broker import Broker
from zmule.core.events import StopRequested
from zmule.core.expiry import SCANNED_A_SECOND
from zmule.core.frames import Options
from zmule.core.mules import FarmSetup, MuleSetup
from zmule.core.redelivery import LONGEST_PAUSE, pause
from zmule.core.setup import Limits
from zmule.core.status import status
from zmule.core.terms import Terms, recovered, wished
from zmule.testing import SimClient, SimMule, World

DAY = 86_400.0


def world(*, ttls: dict[str, float] | None = None, **limits: Any) -> World:
    w = World([MuleSetup(1, "a.py"), MuleSetup(2, None)], [FarmSetup("busy", (1,))], Limits(**limits))
    w.setup = w.setup._replace(ttls=ttls or {})
    w.broker = Broker(w.setup, w.clock.now())
    return w


def send(w: World, *bodies: str, queue: str = "any", **options: float | None) -> SimClient:
    client = w.client()
    for body in bodies:
        client.outbox.put(queue, body, None, awaited=False, options=wished(**NONE | options))
    w.settle()
    return client


NONE: dict[str, Any] = {"delay": None, "at": None, "ttl": None}


def get(w: World, mule: SimMule) -> Any:
    """Let a mule ask for its next message; return it, or None."""
    mule.threads[0].get()
    w.settle()
    delivery = mule.threads[0].delivery
    return delivery and delivery.body


def later(w: World, seconds: float) -> None:
    """Let time pass, while mules show that they live."""
    left = seconds
    while left > 0:
        w.pass_time(min(left, 1.0))
        w.settle()
        left -= 1.0


def restart(w: World) -> None:
    """Kill the broker and start another on the same store."""
    for actor in w.actors:
        actor.cut()
    w.vanished.clear()
    w.revive()
    w.broker.validate()
    w.settle()


def reasons(w: World) -> list[tuple[Any, str]]:
    return [(dead.message[2], dead.reason) for dead in w.broker.dead.values()]


# Pauses.


def test_pauses_grow_and_end() -> None:
    assert pause(1, 2, 1.0) == 0
    for attempt, about in ((3, 1), (4, 2), (5, 4), (9, 60), (10_000, 60)):
        for id in range(50):
            assert 0.75 * about <= pause(id, attempt, 1.0) <= 1.25 * about
    assert pause(1, 9, 0.0) == 0


def test_pauses_differ_from_message_to_message() -> None:
    pauses = {round(pause(id, 3, 1.0), 3) for id in range(1, 101)}
    assert len(pauses) > 80
    assert max(pauses) - min(pauses) > 0.4


@given(st.integers(1, 2**63), st.integers(2, 2**31), st.floats(0, 1e6))
def test_a_pause_is_never_much_longer_than_the_longest(id: int, attempt: int, base: float) -> None:
    assert 0 <= pause(id, attempt, base) <= 1.25 * LONGEST_PAUSE


def test_the_second_delivery_is_at_once_and_the_third_after_a_pause() -> None:
    w = world(redelivery_pause=10.0)
    mule = w.spawn(1)
    send(w, "a", "b")
    assert get(w, mule) == "a"
    mule.threads[0].fail()
    assert get(w, mule) == "a"
    mule.threads[0].fail()
    assert get(w, mule) == "b"
    queue = status(w.broker, w.clock.now())["queues"]["any"]
    assert (queue["ready"], queue["delayed"], queue["in_flight"]) == (0, 1, 1)
    later(w, 7)
    assert get(w, mule) is None
    later(w, 6)
    assert mule.threads[0].delivery is not None
    assert (mule.threads[0].delivery.body, mule.threads[0].delivery.attempt) == ("a", 3)


def test_a_pause_comes_back_to_the_head() -> None:
    w = world()
    mule = w.spawn(1)
    send(w, "a", *"bcd")
    assert get(w, mule) == "a"
    mule.inbox.fail(mule.threads[0].delivery, delay=5.0)  # type: ignore[arg-type]
    mule.threads[0].delivery = None
    w.settle()
    later(w, 6)
    assert [message[2] for message in w.broker.dispatch.queue("any").ready] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("delay", [0.0, 3.0])
def test_a_delay_of_a_nack_is_what_it_says(delay: float) -> None:
    w = world(redelivery_pause=50.0)
    mule = w.spawn(1)
    send(w, "a")
    for attempt in (1, 2, 3):
        assert get(w, mule) == "a"
        delivery = mule.threads[0].delivery
        assert delivery is not None
        assert delivery.attempt == attempt
        mule.inbox.fail(delivery, delay=delay)
        mule.threads[0].delivery = None
        w.settle()
        if delay:
            later(w, delay - 0.1)
            assert get(w, mule) is None
            mule.threads[0].time_out()
        later(w, 0.2)


def test_attempts_and_pauses_outlive_the_broker() -> None:
    w = world(redelivery_pause=10.0)
    mule = w.spawn(1)
    send(w, "a")
    for _ in range(2):
        assert get(w, mule) == "a"
        mule.threads[0].fail()
        w.settle()
    w.exited(1)
    mule.kill()
    restart(w)
    mule = w.spawn(1)
    assert get(w, mule) is None
    later(w, 13)
    assert mule.threads[0].delivery is not None
    assert mule.threads[0].delivery.attempt == 3


def test_after_a_restart_what_was_delivered_before_travels_alone() -> None:
    w = world()
    mule = w.spawn(1)
    send(w, "a", "b")
    assert get(w, mule) == "a"
    w.exited(1)
    mule.kill()
    w.settle()
    restart(w)
    mule = w.spawn(1, threads=2)
    for thread in mule.threads:
        thread.get()
    w.settle()
    assert [thread.delivery and thread.delivery.body for thread in mule.threads] == ["a", None]


# Delays.


def test_a_delayed_message_waits_and_takes_its_place_by_age() -> None:
    w = world()
    send(w, "late", delay=10)
    send(w, "early")
    mule = w.spawn(1)
    w.settle()
    later(w, 9)
    assert [message[2] for message in w.broker.dispatch.queue("any").ready] == ["early"]
    later(w, 2)
    assert [get(w, mule), get(w, mule)] == ["late", "early"]


def test_a_mule_that_waits_gets_it_on_time() -> None:
    w = world()
    mule = w.spawn(1)
    send(w, "a", delay=2.5)
    assert get(w, mule) is None
    deadline = w.broker.next_deadline()
    assert deadline <= w.clock.mono + 2.5
    w.clock.advance(2.5)
    w.tick()
    w.settle()
    assert mule.threads[0].delivery is not None


def test_a_time_of_day_follows_the_wall_clock() -> None:
    w = world()
    mule = w.spawn(1)
    send(w, "a", at=w.clock.wall + 3600)
    send(w, "b", delay=3600)
    assert get(w, mule) is None
    w.clock.wall += 3601  # somebody has set the clock
    w.pass_time(0)
    w.settle()
    assert mule.threads[0].delivery is not None
    assert mule.threads[0].delivery.body == "a"
    assert status(w.broker, w.clock.now())["queues"]["any"]["delayed"] == 1


def test_a_time_of_day_waits_when_the_wall_clock_is_set_back() -> None:
    w = world()
    mule = w.spawn(1)
    send(w, "a", at=w.clock.wall + 5)
    w.clock.wall -= 60
    later(w, 30)
    assert get(w, mule) is None
    later(w, 36)
    assert mule.threads[0].delivery is not None


def test_a_jump_is_noticed_within_a_minute() -> None:
    w = world()
    send(w, "a", at=w.clock.wall + DAY)
    assert w.broker.next_deadline() <= w.clock.mono + 60


@pytest.mark.parametrize("jump", [-DAY, DAY])
def test_a_span_does_not_follow_the_wall_clock(jump: float) -> None:
    w = world(queue_ttl=100.0)
    mule = w.spawn(1)
    send(w, "a", delay=10)
    send(w, "b", ttl=20)
    w.clock.wall += jump
    later(w, 9)
    assert reasons(w) == []
    assert w.broker.redelivery.delays.counts["any"] == 1
    later(w, 2)
    assert get(w, mule) == "a"
    assert status(w.broker, w.clock.now())["queues"]["any"]["oldest_age_s"] == pytest.approx(11, abs=1)
    later(w, 10)
    assert reasons(w) == [("b", "expired")]


@pytest.mark.parametrize("option", ["delay", "at"])
def test_a_delay_outlives_the_broker(option: str) -> None:
    w = world()
    options: dict[str, Any] = {option: 100 if option == "delay" else w.clock.wall + 100}
    send(w, "a", **options)
    w.clock.advance(60)  # the broker is down for a while
    restart(w)
    mule = w.spawn(1)
    assert get(w, mule) is None
    later(w, 39)
    assert mule.threads[0].delivery is None
    later(w, 2)
    assert mule.threads[0].delivery is not None


def test_what_was_due_while_the_broker_was_down_is_due_at_once() -> None:
    w = world()
    send(w, "a", delay=100)
    w.clock.advance(1000)
    restart(w)
    w.tick()
    assert get(w, w.spawn(1)) == "a"


def test_what_is_delayed_counts_in_the_limits() -> None:
    w = world(queue_messages=1)
    send(w, "a", delay=100)
    assert [refusal.code for refusal in send(w, "b").outbox.failures] == ["queue-full"]
    assert w.broker.left() == 1


def test_what_is_due_for_a_mule_that_reads_none_is_a_dead_letter() -> None:
    w = world()
    mule = w.spawn(2)
    w.settle()
    send(w, "a", queue="mule:2", delay=5)
    mule.inbox.settle()
    w.settle()
    assert reasons(w) == []
    later(w, 6)
    assert reasons(w) == [("a", "mule 2 is signal-only: it reads none")]


def test_many_that_are_due_find_their_places_in_a_long_queue() -> None:
    w = world()
    for number in range(60):
        send(w, f"late {number}", delay=10)
        send(w, f"plain {number}")
    later(w, 11)
    ready = [message[0] for message in w.broker.dispatch.queue("any").ready]
    assert ready == list(range(1, 121))


def test_a_stopping_broker_delivers_nothing_that_is_due() -> None:
    w = world()
    mule = w.spawn(1)
    send(w, "a", delay=5)
    assert get(w, mule) is None
    w.happened(StopRequested())
    later(w, 6)
    assert mule.threads[0].delivery is None
    assert w.broker.left() == 1


# Expiry.


def test_an_expired_message_is_not_delivered_but_a_dead_letter() -> None:
    w = world()
    send(w, "a", ttl=5)
    send(w, "b")
    w.clock.advance(5)
    mule = w.spawn(1)
    assert get(w, mule) == "b"
    assert reasons(w) == [("a", "expired")]
    assert len(w.store.recover().dead) == 1


def test_it_expires_without_anybody_asking() -> None:
    w = world()
    send(w, "a", ttl=5)
    assert w.broker.next_deadline() <= w.clock.mono + 5
    later(w, 6)
    assert reasons(w) == [("a", "expired")]
    assert w.broker.left() == 0


def test_a_queue_has_a_ttl_and_some_have_their_own() -> None:
    w = world(queue_ttl=10, ttls={"farm:busy": 3.0, "mule:1": 0.0})
    for queue in ("any", "farm:busy", "mule:1"):
        send(w, queue, queue=queue)
    send(w, "shorter", queue="any", ttl=5)
    send(w, "longer", queue="any", ttl=50)
    later(w, 4)
    assert reasons(w) == [("farm:busy", "expired")]
    later(w, 2)
    assert reasons(w)[1:] == [("shorter", "expired")]
    later(w, 5)
    assert sorted(reasons(w)[2:]) == [("any", "expired"), ("longer", "expired")]
    assert w.broker.left() == 1
    queues = status(w.broker, w.clock.now())["queues"]
    assert (queues["any"]["ttl_s"], queues["mule:1"]["ttl_s"]) == (10, None)


def test_what_is_in_work_does_not_expire_until_it_comes_back() -> None:
    w = world()
    mule = w.spawn(1)
    send(w, "a", ttl=5)
    assert get(w, mule) == "a"
    later(w, 9)
    assert reasons(w) == []
    mule.threads[0].fail()
    w.settle()
    assert reasons(w) == [("a", "expired")]


def test_expired_ones_in_the_middle_of_a_queue_are_found() -> None:
    w = world()
    for number in range(10):
        send(w, str(number), ttl=5.0 if number % 3 == 1 else None)
    later(w, 6)
    assert [body for body, _ in reasons(w)] == ["1", "4", "7"]
    assert [message[2] for message in w.broker.dispatch.queue("any").ready] == list("023568" + "9")


def test_several_threads_get_nothing_that_has_expired() -> None:
    w = world()
    for number in range(6):
        send(w, str(number), ttl=5.0 if number % 2 else None)
    w.clock.advance(6)
    mule = w.spawn(1, threads=6)
    for thread in mule.threads:
        thread.get()
    w.settle()
    assert [thread.delivery.body for thread in mule.threads if thread.delivery] == ["0", "2", "4"]


def test_a_ttl_outlives_the_broker() -> None:
    w = world()
    send(w, "a", ttl=100)
    send(w, "b", ttl=10)
    w.clock.advance(60)
    restart(w)
    later(w, 1)
    assert reasons(w) == [("b", "expired")]
    later(w, 40)
    assert reasons(w) == [("b", "expired"), ("a", "expired")]


def test_a_requeued_message_does_not_expire_again() -> None:
    w = world()
    client = send(w, "a", ttl=5)
    later(w, 6)
    client.outbox.questions.ask("requeue_dead", ((), ""))
    w.settle()
    later(w, 6)
    assert get(w, w.spawn(1)) == "a"


def test_a_delayed_message_that_expires_first_is_buried_when_it_is_due() -> None:
    w = world()
    send(w, "a", delay=10, ttl=5)
    later(w, 11)
    assert reasons(w) == [("a", "expired")]


def test_a_long_queue_is_not_gone_through_too_often() -> None:
    w = world()
    client = w.client()
    for number in range(900):
        client.outbox.put("any", "x", None, awaited=False, options=Options(ttl=5 + number / 1000))
    w.settle()
    w.pass_time(5.0001)
    expiry = w.broker.dispatch.queue("any").expiry
    assert expiry is not None
    assert expiry.next >= w.broker.steady() + 899 / SCANNED_A_SECOND
    later(w, 2)
    assert len(reasons(w)) == 900


# Clocks.


def test_spans_of_a_clock_that_was_set_back_begin_anew() -> None:
    assert recovered(Terms(due=15.0, expires=110.0), 10.0, 4.0) == Terms(at=9.0, expires=104.0)
    assert recovered(Terms(due=15.0, expires=110.0), 10.0, 12.0) == Terms(at=15.0, expires=110.0)
    assert recovered(Terms(at=15.0), 10.0, 4.0) == Terms(at=15.0)
    assert recovered(None, 10.0, 4.0) is None


@pytest.mark.parametrize("jump", [-DAY, -5.0, 5.0, DAY])
def test_a_wall_clock_set_while_the_broker_is_down_loses_nothing(jump: float) -> None:
    w = world()
    send(w, "delayed", delay=10)
    send(w, "plain")
    w.clock.wall += jump
    restart(w)
    later(w, 16)
    mule = w.spawn(1)
    assert sorted([get(w, mule), get(w, mule)]) == ["delayed", "plain"]


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"delay": -1}, "delay"),
        ({"delay": float("nan")}, "delay"),
        ({"at": -1}, "time"),
        ({"at": 1e11}, "time"),
        ({"ttl": 0}, "ttl"),
        ({"ttl": -1}, "ttl"),
        ({"delay": 1, "at": 1}, "not both"),
    ],
)
def test_options_that_make_no_sense_are_refused_to_the_caller(options: dict[str, float], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        wished(**NONE | options)


def test_a_time_may_be_a_datetime() -> None:
    from datetime import UTC, datetime

    options = wished(None, datetime(2030, 1, 1, tzinfo=UTC), None)
    assert options == Options(at=1_893_456_000.0)
    assert wished(None, None, None) is None
    assert wished(0, None, 5) == Options(ttl=5)
