"""Limits, and senders that wait for room."""

from __future__ import annotations

from typing import Any

import pytest

from zmule.core.mules import MuleSetup
from zmule.core.setup import Limits
from zmule.core.status import status
from zmule.testing import SimClient, SimMule, World


def world(**limits: Any) -> World:
    return World([MuleSetup(1, "a.py"), MuleSetup(2, None)], limits=Limits(**limits))


def ready(w: World, queue: str = "any") -> list[Any]:
    return [message[2] for message in w.broker.dispatch.queue(queue).ready]


def line_up(
    w: World, client: SimClient, *bodies: str, queue: str = "any", seconds: float = 60.0
) -> list[int]:
    """Put messages that may wait for room into a client's outbox; return their tickets."""
    until = w.clock.mono + seconds
    return [client.outbox.put(queue, body, None, awaited=False, until=until) for body in bodies]


def work(w: World, mule: SimMule, count: int) -> list[Any]:
    """Let a mule work on so many messages; return them."""
    bodies: list[Any] = []
    while len(bodies) < count:
        mule.threads[0].get()
        w.settle()
        assert mule.threads[0].delivery is not None, f"only {bodies}"
        bodies.append(mule.threads[0].delivery.body)
    mule.threads[0].finish()
    w.settle()
    return bodies


def codes(client: SimClient) -> list[str]:
    return [refusal.code for refusal in client.outbox.failures]


# Limits.


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"queue_messages": 3}, "queue any is full: it holds 3 messages, 3 bytes (limits: 3 messages, "),
        (
            {"queue_bytes": 3},
            "any is full: it holds 3 messages, 3 bytes (limits: 2000000 messages, 3 bytes)",
        ),
        ({"total_messages": 3}, "the broker is full: it holds 3 messages, and 2253 bytes in all (limits: 3 "),
        (
            {"total_bytes": 2500},
            "is full: it holds 3 messages, and 2253 bytes in all (limits: 5000000 messages, 2500 bytes)",
        ),
    ],
)
def test_a_limit_refuses_and_is_named(limits: dict[str, int], reason: str) -> None:
    w = world(**limits)
    client = w.client()
    for body in "abcd":
        client.send("any", body)
    w.settle()
    (refusal,) = client.outbox.failures
    assert (refusal.sequence, refusal.code) == (4, "queue-full")
    assert reason in refusal.reason
    assert ready(w) == ["a", "b", "c"]


def test_the_limits_of_the_broker_are_for_all_queues_together() -> None:
    w = world(total_messages=2)
    client = w.client()
    for queue in ("any", "mule:1", "any"):
        client.send(queue, "x")
    w.settle()
    assert codes(client) == ["queue-full"]
    assert status(w.broker, w.clock.now())["broker"]["messages"] == 2


def test_what_is_on_its_way_into_the_store_counts() -> None:
    w = world(queue_messages=2)
    clients = [w.client() for _ in range(3)]
    for client in clients:
        client.send("any", "x")
        client.pump()
        assert client.pipe is not None
        while client.pipe.to_broker:
            w.carry(client.pipe)
    w.settle()
    assert sum(len(codes(client)) for client in clients) == 1


def test_a_text_counts_in_utf_8_and_bytes_as_they_are() -> None:
    w = world()
    client = w.client()
    for body in ("è", "🐴", "a"):
        client.send("any", body)
    client.outbox.put("any", b"\xff\xff", None, awaited=False)
    w.settle()
    assert w.broker.dispatch.length("any") == (4, 2 + 4 + 1 + 2)


def test_a_message_too_large_in_utf_8_is_refused_alone() -> None:
    w = world(max_message=4)
    client = w.client()
    client.outbox.max_message = 100
    w.settle()
    client.outbox.max_message = 100  # as one that does not check
    for body in ("abcd", "èèè", "🐴", "èè"):
        client.send("any", body)
    w.settle()
    assert codes(client) == ["too-large"]
    assert ready(w) == ["abcd", "🐴", "èè"]


def test_what_follows_a_refusal_does_not_overtake() -> None:
    w = world(queue_bytes=10)
    client = w.client()
    for body in ("12345678", "123456", "1", "2"):
        client.send("any", body)
    client.send("mule:1", "another queue")
    w.settle()
    assert [refusal.sequence for refusal in client.outbox.failures] == [2, 3, 4, 5]
    client.send("any", "3")  # it has heard of the refusals by now
    w.settle()
    assert ready(w) == ["12345678", "3"]


def test_what_is_sent_before_the_refusal_is_known_does_not_overtake() -> None:
    w = world(queue_messages=1)
    mule = w.spawn(1)
    w.settle()
    client = w.client()
    w.settle()
    for body in ("a", "b"):
        client.send("any", body)
    client.pump()
    assert client.pipe is not None
    w.carry(client.pipe)
    client.send("any", "c")
    client.pump()
    w.answer()
    mule.threads[0].get()
    mule.pump()
    assert mule.pipe is not None
    w.carry(mule.pipe)
    mule.take_in()
    mule.take_in()
    mule.threads[0].finish()
    mule.pump()
    w.carry(mule.pipe)
    assert w.broker.left() == 0
    w.carry(client.pipe)  # there is room for "c", which was sent after "b"
    w.settle()
    assert [refusal.sequence for refusal in client.outbox.failures] == [2, 3]


# Senders that wait.


def test_a_sender_waits_and_its_messages_keep_their_order() -> None:
    w = world(queue_messages=3)
    client, mule = w.client(), w.spawn(1)
    w.settle()
    bodies = [str(number) for number in range(50)]
    tickets = line_up(w, client, *bodies)
    w.settle()
    assert ready(w) == bodies[:3]
    assert client.outbox.unconfirmed() == 47
    assert client.outbox.waits_for_room()
    assert [client.outbox.answered(ticket) for ticket in tickets[:4]] == [True, True, True, False]
    assert work(w, mule, 50) == bodies
    assert client.outbox.unconfirmed() == 0
    assert all(map(client.outbox.answered, tickets))
    assert codes(client) == []
    assert not client.outbox.expecting()


def test_what_is_put_later_goes_behind_what_waits() -> None:
    w = world(queue_messages=2)
    client, mule = w.client(), w.spawn(1)
    w.settle()
    line_up(w, client, "a", "b", "c")
    w.settle()
    line_up(w, client, "d")
    w.settle()
    assert work(w, mule, 4) == ["a", "b", "c", "d"]


def test_a_burst_grows_for_as_long_as_there_is_room() -> None:
    w = world(queue_messages=400)
    client, mule = w.client(), w.spawn(1)
    w.settle()
    bodies = [str(number) for number in range(900)]
    line_up(w, client, *bodies)
    w.settle()
    assert work(w, mule, 60) == bodies[:60]
    assert w.broker.dispatch.length("any")[0] > 340 + 16, "one burst filled all the room there was"
    assert work(w, mule, 840) == bodies[60:]


def test_another_queue_is_not_held_up() -> None:
    w = world(queue_messages=1)
    client = w.client()
    w.settle()
    line_up(w, client, "a", "b")
    w.settle()
    line_up(w, client, "c", queue="mule:1")
    w.settle()
    assert ready(w, "mule:1") == ["c"]


def test_a_message_that_does_not_wait_is_refused_at_once() -> None:
    w = world(queue_messages=1)
    client = w.client()
    w.settle()
    line_up(w, client, "a", "b")
    client.send("any", "c")
    w.settle()
    assert codes(client) == ["queue-full"]


def test_a_message_gives_up_in_time_and_those_behind_it_go_on() -> None:
    w = world(queue_messages=1)
    client, mule = w.client(), w.spawn(1)
    w.settle()
    line_up(w, client, "a")
    line_up(w, client, "short", seconds=5)
    line_up(w, client, "long", seconds=50)
    w.settle()
    assert client.outbox.next_deadline(w.clock.mono) is not None
    w.pass_time(6)
    w.settle()
    (refusal,) = client.outbox.failures
    assert refusal.code == "queue-full"
    assert "queue any" in refusal.reason
    assert work(w, mule, 2) == ["a", "long"]


def test_whoever_waits_no_longer_takes_the_message_along() -> None:
    w = world(queue_messages=1)
    client, mule = w.client(), w.spawn(1)
    w.settle()
    _, second = line_up(w, client, "a", "b")
    (third,) = line_up(w, client, "c")
    w.settle()
    error = client.outbox.abandon(second)
    assert error is not None
    assert error.code == "queue-full"
    assert client.outbox.answered(second)
    assert not client.outbox.answered(third)
    assert work(w, mule, 2) == ["a", "c"]


def test_other_refusals_are_final() -> None:
    w = world(queue_messages=1)
    client = w.client()
    w.settle()
    line_up(w, client, "x", queue="mule:9")
    w.settle()
    assert codes(client) == ["unknown-mule"]
    assert client.outbox.unconfirmed() == 0


def test_who_waits_for_a_queue_that_closes_is_told() -> None:
    w = world(queue_messages=1)
    client = w.client()
    mule = w.mule(7)
    w.settle()
    line_up(w, client, "a", "b", "c", queue="mule:7")
    w.settle()
    mule.kill()
    client.cut()  # asks again on another connection
    w.settle()
    assert codes(client) == ["unknown-mule", "unknown-mule"]


def test_a_message_that_can_never_fit_does_not_wait() -> None:
    w = world(queue_bytes=10)
    client = w.client()
    w.settle()
    line_up(w, client, "12345678901")
    w.settle()
    (refusal,) = client.outbox.failures
    assert "does not fit even if nothing else is there" in refusal.reason


def test_waiting_survives_a_broken_connection_and_another_broker() -> None:
    w = world(queue_messages=2)
    client = w.client()
    w.settle()
    bodies = [str(number) for number in range(10)]
    line_up(w, client, *bodies)
    w.settle()
    client.cut()
    w.settle()
    w.restart()
    mule = w.spawn(1)
    w.settle()
    assert work(w, mule, 8) == bodies[2:]


def test_those_who_asked_first_are_told_first() -> None:
    w = world(queue_messages=1)
    mule = w.spawn(1)
    clients = [w.client() for _ in range(4)]
    w.settle()
    for number, client in enumerate(clients):
        line_up(w, client, str(number))
        w.settle()
    assert work(w, mule, 4) == ["0", "1", "2", "3"]


def test_a_sender_that_is_gone_waits_no_longer() -> None:
    w = world(queue_messages=1)
    mule = w.spawn(1)
    first, second = w.client(), w.client()
    w.settle()
    line_up(w, first, "a", "b")
    w.settle()
    line_up(w, second, "c")
    w.settle()
    first.kill()
    w.settle()
    assert work(w, mule, 2) == ["a", "c"]


def test_the_outbox_counts_what_waits() -> None:
    w = world(queue_messages=1)
    client = w.client()
    client.outbox.most_messages, client.outbox.most_bytes = 3, 100
    w.settle()
    line_up(w, client, "a", "b", "c")
    w.settle()
    assert client.outbox.fits()
    line_up(w, client, "d")
    assert not client.outbox.fits()
    client.outbox.most_messages = 10
    assert client.outbox.fits()
    line_up(w, client, "x" * 98)
    assert not client.outbox.fits()


@pytest.mark.parametrize("arguments", [(), ("any",), ("any", "1"), (1, 1), ("any", True)])
def test_a_wrong_question_is_answered_with_an_error(arguments: tuple[Any, ...]) -> None:
    w = world()
    client = w.client()
    w.settle()
    request = client.outbox.questions.ask("room", arguments)
    w.settle()
    answer = client.outbox.questions.answer(request)
    assert answer is not None
    assert answer.code == "wrong-value"


def test_what_was_numbered_before_the_refusal_was_known_does_not_overtake() -> None:
    w = world(queue_messages=1)
    client, mule = w.client(), w.spawn(1)
    w.settle()
    line_up(w, client, "a", "b")
    client.pump()
    line_up(w, client, "c")  # in the outbox, and not sent
    client.send("any", "z")
    assert client.pipe is not None
    w.carry(client.pipe)
    w.answer()
    while client.pipe.to_peer:
        client.take_in()  # "b" was refused
    line_up(w, client, "d")
    mule.threads[0].get()
    w.settle_only(mule)
    mule.threads[0].finish()
    w.settle_only(mule)
    assert w.broker.left() == 0, "there is room for what comes next"
    assert work(w, mule, 3) == ["b", "c", "d"]
    assert codes(client) == ["queue-full"]


def test_nothing_overtakes_a_refused_message_whose_refusal_was_lost_with_the_broker() -> None:
    w = world(queue_messages=1)
    client = w.client()
    w.settle()
    line_up(w, client, "a", "b")
    client.pump()
    assert client.pipe is not None
    w.carry(client.pipe)
    w.answer()
    client.cut()  # with the refusal of "b"
    w.vanished.clear()
    w.revive()
    line_up(w, client, "c")
    mule = w.spawn(1)
    mule.threads[0].get()
    w.settle_only(mule)
    mule.threads[0].finish()
    w.settle_only(mule)
    assert w.broker.left() == 0
    assert work(w, mule, 2) == ["b", "c"]


def test_who_gives_up_asks_for_room_no_longer() -> None:
    w = world(queue_messages=1)
    client = w.client()
    w.settle()
    kept, ticket = line_up(w, client, "a", "b")
    w.settle()
    assert client.outbox.expecting(), "it has asked for room"
    assert client.outbox.abandon(ticket) is not None
    w.settle()
    assert client.outbox.answered(kept)
    assert not client.outbox.expecting()


def test_nothing_overtakes_a_refused_message_at_a_broker_that_never_knew_it() -> None:
    w = world(queue_messages=1)
    client = w.client()
    w.settle()
    line_up(w, client, "a", "b")
    client.pump()
    line_up(w, client, "c")  # numbered before anything is known of "b"
    assert client.pipe is not None
    w.carry(client.pipe)
    w.answer()
    while client.pipe.to_peer:
        client.take_in()  # "b" was refused
    w.restart()  # and "a" is lost: there is room
    mule = w.spawn(1)
    w.settle()
    assert work(w, mule, 2) == ["b", "c"]
    assert codes(client) == []
