"""A session over its connections: greeting, heartbeats, and giving up."""

from __future__ import annotations

from typing import Any

import pytest

from zmule.core.frames import (
    DIRECT,
    Answer,
    Ask,
    Bye,
    Confirm,
    Deliver,
    Frame,
    Hello,
    Nack,
    Parcel,
    Ping,
    Pong,
    Put,
    Recall,
    Refused,
    Report,
    Reset,
    Return,
    Welcome,
)
from zmule.core.inbox import Arrival, Hand, Inbox, Waiter
from zmule.core.outbox import Outbox
from zmule.errors import MessageTooLarge, NotPermitted, ProtocolError, WrongValue

SESSION = bytes(16)


def outbox() -> Outbox:
    return Outbox(SESSION, most_messages=10, most_bytes=1000)


def inbox() -> Inbox:
    return Inbox(SESSION, number=1, farms=(), program="p", pid=1, token=b"")


def welcome_mule(**details: Any) -> Welcome:
    given = {
        "number": 1,
        "farms": (),
        "publish": (),
        "broadcast": 0,
        "heartbeat": 3.0,
        "heartbeat_timeout": 10.0,
    }
    return Welcome(1, bytes(16), 1, given | details)


def welcome_client() -> Welcome:
    return Welcome(1, bytes(16), 0, {"max_message": 100, "heartbeat": 3.0, "heartbeat_timeout": 10.0})


def up(box: Outbox, now: float = 0.0) -> Outbox:
    assert isinstance(box.outgoing(now)[0], Hello)
    box.receive(welcome_client(), now)
    box.receive(Confirm(0, ()), now)
    return box


def mule_up(box: Inbox, now: float = 0.0) -> Inbox:
    assert isinstance(box.outgoing(now)[0], Hello)
    box.receive(welcome_mule(), now)
    return box


def kinds(frames: list[Frame]) -> list[type]:
    return [type(frame) for frame in frames]


def test_a_doubt_is_a_ping_at_once_if_an_answer_is_due() -> None:
    box = up(outbox())
    box.doubt()
    assert box.outgoing(0.1) == []
    box.questions.ask("status", ())
    assert kinds(box.outgoing(0.1)) == [Ask]
    box.doubt()
    assert kinds(box.outgoing(0.2)) == [Ping]
    assert box.outgoing(0.3) == []
    box.receive(Reset("unknown", "say HELLO first"), 0.4)
    assert kinds(box.outgoing(0.4)) == [Hello]


def test_pauses_between_attempts_stay_below_half_a_second() -> None:
    box, now = inbox(), 0.0
    for _ in range(20):
        box.outgoing(now)
        box.receive(Reset("stopping", "this broker is about to end"), now)
        due = box.next_deadline(now)
        assert due is None or due - now < 0.5
        now = due or now


def test_it_greets_once_and_again_after_a_reset() -> None:
    box = up(outbox())
    assert box.outgoing(1.0) == []
    box.receive(Reset("unknown", "who are you"), 1.0)
    assert kinds(box.outgoing(1.0)) == [Hello]
    assert box.outgoing(1.0) == []
    box.receive(Reset("unknown", "a late one"), 1.0)
    assert box.outgoing(1.0) == []


def test_pauses_between_attempts_grow() -> None:
    box = outbox()
    now, pauses = 0.0, []
    for _ in range(8):
        assert kinds(box.outgoing(now)) == [Hello]
        box.disconnected(now)
        due = box.next_deadline(now)
        pauses.append(0.0 if due is None else due - now)
        now = now if due is None else due
    assert pauses == sorted(pauses)
    assert 0 < pauses[-1] <= 2.0


def test_a_greeting_without_an_answer_breaks_the_connection() -> None:
    box = outbox()
    box.outgoing(0.0)
    assert box.next_deadline(0.0) == 0.5
    assert not box.broken(0.4)
    assert box.broken(0.5)


def test_a_refusal_is_final() -> None:
    box = inbox()
    box.outgoing(0.0)
    box.receive(Refused("not-permitted", "no"), 0.0)
    assert isinstance(box.error, NotPermitted)
    assert box.outgoing(100.0) == []


def test_a_client_without_anything_to_say_neither_pings_nor_breaks() -> None:
    box = up(outbox())
    assert box.next_deadline(50.0) is None
    assert not box.broken(1000.0)
    box.put("any", "x", None, awaited=True)
    assert not box.broken(1000.0)
    assert kinds(box.outgoing(1000.0)) == [Put]
    assert not box.broken(1009.0)
    assert box.broken(1010.0)


def test_a_client_that_waits_for_an_answer_pings() -> None:
    box = up(outbox())
    box.put("any", "x", None, awaited=True)
    box.outgoing(0.0)
    assert box.next_deadline(0.0) == 1.0
    assert kinds(box.outgoing(1.0)) == [Ping]


def test_a_mule_pings_though_it_hears_something_all_the_time() -> None:
    box = mule_up(inbox())
    box.outgoing(0.0)
    pings = 0
    for second in range(1, 30):
        box.receive(Pong(0, 0), float(second))
        pings += kinds(box.outgoing(float(second))).count(Ping)
    assert pings >= 8


def test_a_mule_pings_though_it_says_something_all_the_time() -> None:
    box = mule_up(inbox())
    pings = 0
    for second in range(1, 9):
        waiter = Waiter(DIRECT)
        box.wait(waiter)
        pings += kinds(box.outgoing(float(second))).count(Ping)
        box.leave(waiter)
    assert pings >= 2


def test_mules_ping_at_the_same_moments() -> None:
    dues = set()
    for came in (0.01, 0.05, 0.09):
        box = mule_up(inbox(), came)
        box.outgoing(came)
        due = box.next_deadline(came)
        assert due is not None
        assert came + 2.9 < due <= came + 3.0
        assert kinds(box.outgoing(due)) == [Ping]
        dues.add(due)
    assert len(dues) == 1


def test_an_interval_just_below_the_timeout_is_kept() -> None:
    box = inbox()
    box.outgoing(0.0)
    box.receive(welcome_mule(heartbeat=9.9, heartbeat_timeout=10.0), 0.0)
    box.outgoing(0.0)
    said = 0.0
    for _ in range(20):
        due = box.next_deadline(said)
        assert due is not None
        assert said < due <= said + 9.9
        said = due + 0.001
        assert kinds(box.outgoing(said)) == [Ping]
        box.receive(Pong(0, 0), said)


def test_waiting_for_a_connection_is_no_deadline() -> None:
    box = up(outbox())
    box.disconnected(1.0)
    assert box.next_deadline(1.0) is None


def test_what_was_sent_is_sent_again_on_the_next_connection() -> None:
    box = up(outbox())
    box.put("any", "a", None, awaited=False)
    box.outgoing(0.0)
    box.put("any", "b", None, awaited=False)
    box.disconnected(1.0)
    assert kinds(box.outgoing(1.0)) == [Hello]
    box.receive(welcome_client(), 1.0)
    assert box.outgoing(1.0) == []  # not before the broker has said what it has
    box.receive(Confirm(0, ()), 1.0)
    puts = [frame for frame in box.outgoing(1.0) if isinstance(frame, Put)]
    assert [(put.first, put.batches[0].bodies) for put in puts] == [(1, ("a",)), (2, ("b",))]


def test_what_cannot_travel_is_refused_at_once() -> None:
    box = up(outbox())
    with pytest.raises(MessageTooLarge):
        box.put("any", "x" * 101, None, awaited=False)
    with pytest.raises(UnicodeEncodeError):
        box.put("any", "\ud800", None, awaited=False)
    bad_headers: list[Any] = [
        {"a": object()},
        {"a": {}},
        {1: 2},
        {"a": "x" * 5000},
        {"\ud800": 1},
        [],
        {"a": 2**70},
    ]
    for headers in bad_headers:
        with pytest.raises(WrongValue):
            box.put("any", "x", headers, awaited=False)
    for queue in ("farm:" + "x" * 300, "farm:\udcff"):
        with pytest.raises(WrongValue):
            box.put(queue, "x", None, awaited=False)
    assert box.unconfirmed() == 0


def test_questions_are_asked_again_and_answered_once() -> None:
    box = up(outbox())
    request = box.questions.ask("status", ())
    assert not box.questions.answered(request)
    first = box.outgoing(0.0)
    box.disconnected(1.0)
    box.outgoing(1.0)
    box.receive(welcome_client(), 1.0)
    box.receive(Confirm(0, ()), 1.0)
    assert box.outgoing(1.0) == first
    box.receive(Answer(request, "", 7), 1.0)
    answer = box.questions.answer(request)
    assert answer is not None
    assert answer.value == 7
    assert box.questions.answer(request) is None


def deliver(*bodies: str) -> Deliver:
    return Deliver(1, (Parcel("any", 1, tuple(range(1, len(bodies) + 1)), bodies, None),))


def test_a_recall_is_answered_even_if_there_is_nothing_to_return() -> None:
    box = mule_up(inbox())
    box.outgoing(0.0)
    box.receive(Recall(1, 5), 0.0)
    assert Return(1, ()) in box.outgoing(0.0)
    box.receive(deliver("a", "b", "c"), 0.0)
    box.receive(Recall(1, 2), 0.0)
    frames = box.outgoing(0.0)
    assert Return(1, (3, 2)) in frames
    report = next(frame for frame in frames if isinstance(frame, Report))
    assert (report.received[0], report.buffered) == (3, 1)


def test_frames_that_are_not_for_it_are_refused() -> None:
    box = up(outbox())
    with pytest.raises(ProtocolError):
        box.receive(deliver("a"), 0.0)
    mule = mule_up(inbox())
    with pytest.raises(ProtocolError):
        mule.receive(Confirm(1, ()), 0.0)
    with pytest.raises(ProtocolError):
        mule.receive(Deliver(1, (Parcel("farm:other", 1, (1,), ("x",), None),)), 0.0)


@pytest.mark.parametrize(
    "details",
    [
        {"number": "1"},
        {"number": 0},
        {"farms": ("x", 1)},
        {"publish": (("a",),)},
        {"heartbeat": None},
        {"heartbeat": 0.0},
        {"heartbeat": float("nan")},
        {"heartbeat_timeout": float("inf")},
        {"heartbeat_timeout": 1e300},
    ],
)
def test_a_welcome_that_is_none_is_refused(details: dict[str, Any]) -> None:
    box = inbox()
    box.outgoing(0.0)
    with pytest.raises(ProtocolError):
        box.receive(welcome_mule(**details), 0.0)


@pytest.mark.parametrize("details", [{"max_message": 0}, {"heartbeat": -1.0}, {"heartbeat": float("nan")}])
def test_a_client_refuses_a_welcome_that_is_none(details: dict[str, Any]) -> None:
    box = outbox()
    box.outgoing(0.0)
    with pytest.raises(ProtocolError):
        box.receive(Welcome(1, bytes(16), 0, {"max_message": 100, "heartbeat": 3.0, **details}), 0.0)


def test_who_has_said_goodbye_says_no_more_unless_it_must_say_so_again() -> None:
    box = mule_up(inbox())
    waiter = Waiter(DIRECT)
    box.wait(waiter)
    box.bid_farewell()
    assert kinds(box.outgoing(0.0))[-1] is Bye
    box.leave(waiter)
    assert box.outgoing(0.0) == []
    box.disconnected(1.0)
    assert kinds(mule_up(box, 60.0).outgoing(60.0))[-1] is Bye


def taken(box: Inbox) -> Arrival | None:
    """Have a thread that has nothing take what is next."""
    return box.advance(Hand(), DIRECT)


def begun(box: Inbox) -> Arrival:
    """Have a thread begin what is next."""
    arrival = taken(box)
    assert arrival is not None
    return arrival


def test_a_farewell_tells_what_was_rejected_and_what_was_not_begun() -> None:
    box = mule_up(inbox())
    box.receive(deliver("a", "b", "c", "d"), 0.0)
    box.fail(begun(box), dead=True)
    box.finish(begun(box))
    box.give_back(begun(box))
    box.bid_farewell()
    assert box.outgoing(0.0) == [Nack(1, (1,), None, True), Bye(1, (2,), (3, 4), (4, 0, 0, 0))]


def test_nobody_begins_what_a_farewell_has_given_back() -> None:
    box = mule_up(inbox())
    box.receive(deliver("a"), 0.0)
    box.bid_farewell()
    assert box.outgoing(0.0) == [Bye(1, (), (1,), (1, 0, 0, 0))]
    assert taken(box) is None


def test_what_comes_after_a_farewell_is_for_others() -> None:
    box = mule_up(inbox())
    box.bid_farewell()
    box.outgoing(0.0)
    waiter = Waiter(DIRECT)
    box.wait(waiter)
    box.receive(deliver("a"), 0.0)
    assert list(box.waiters) == [waiter]
    assert taken(box) is None


def test_nothing_is_begun_that_was_left_of_a_lost_connection() -> None:
    box = mule_up(inbox())
    box.receive(deliver("a", "b"), 0.0)
    arrival = begun(box)
    box.disconnected(0.0)
    assert taken(box) is None
    box.finish(arrival)
    assert not any(isinstance(frame, Bye | Report) for frame in box.outgoing(0.0))


def test_a_fork_wants_what_its_parent_wanted() -> None:
    parent = mule_up(inbox())
    parent.want("add_timer", 1, 2.0)
    parent.want("add_timer", 2, 2.0)
    parent.unwant("add_timer", 2)
    child = mule_up(inbox())
    child.inherit(parent)
    asked = [(frame.what, frame.arguments) for frame in child.outgoing(0.0) if isinstance(frame, Ask)]
    assert asked == [("add_timer", (1, 2.0))]
    child.disconnected(1.0)
    mule_up(child, 60.0)
    asked = [(frame.what, frame.arguments) for frame in child.outgoing(60.0) if isinstance(frame, Ask)]
    assert asked == [("add_timer", (1, 2.0))]
