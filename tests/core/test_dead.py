"""Dead letters: how messages become some, and what can be done with them."""

from __future__ import annotations

from typing import Any

import pytest

from zmule.core.broker import Broker
from zmule.core.frames import Answer
from zmule.core.mules import MuleSetup
from zmule.core.queues import content_size
from zmule.core.setup import Limits
from zmule.core.status import status
from zmule.testing import SimClient, SimMule, World


def world(**limits: Any) -> World:
    setups = [MuleSetup(1, "a.py"), MuleSetup(2, None)]
    return World(setups, limits=Limits(**{"max_deliveries": 1, **limits}))


def send(w: World, queue: str, *bodies: str | bytes) -> SimClient:
    client = w.client()
    for body in bodies:
        client.outbox.put(queue, body, {"trace": "x"}, awaited=False)
    w.settle()
    return client


def bury(w: World, *bodies: str, queue: str = "any") -> list[int]:
    """Let messages become dead letters; return their ids."""
    send(w, queue, *bodies)
    mule = w.spawn(1)
    for _ in bodies:
        mule.threads[0].get()
        w.settle()
        assert mule.threads[0].delivery is not None
        mule.threads[0].fail()
        w.settle()
    w.exited(1)
    mule.kill()
    w.settle()
    return [id for id, dead in w.broker.dead.items() if dead.message[2] in bodies]


def ask(w: World, what: str, *arguments: Any) -> Answer:
    client = w.client()
    w.settle()
    request = client.outbox.questions.ask(what, arguments)
    w.settle()
    answer = client.outbox.questions.answer(request)
    assert answer is not None
    return answer


def started(mule: SimMule) -> list[Any]:
    return [thread.delivery.body for thread in mule.threads if thread.delivery is not None]


def restarted(w: World) -> Broker:
    """Return a broker that knows what is in the store."""
    broker = Broker(w.setup, w.clock.now())
    broker.recover(w.store.recover())
    broker.validate()
    return broker


def test_they_are_listed_by_id() -> None:
    w = world()
    first, second, third = bury(w, "a", "bè", "c")
    answer = ask(w, "list_dead", "", 0, 2)
    assert answer.value["count"] == 3
    one, two = answer.value["letters"]
    assert two == {
        "id": second,
        "queue": "any",
        "reason": "mule 1 failed with it, at delivery 1 of 1",
        "mule": 1,
        "at": w.clock.wall,
        "accepted": w.clock.wall,
        "deliveries": 1,
        "bytes": 3,
        "preview": "bè",
    }
    assert one["id"] == first
    rest = ask(w, "list_dead", "", second, 10).value
    assert [letter["id"] for letter in rest["letters"]] == [third]


def test_they_are_listed_by_queue() -> None:
    w = world()
    bury(w, "a")
    (other,) = bury(w, "b", queue="mule:1")
    answer = ask(w, "list_dead", "mule:1", 0, 10).value
    assert (answer["count"], [letter["id"] for letter in answer["letters"]]) == (1, [other])
    assert ask(w, "list_dead", "farm:none", 0, 10).value == {"count": 0, "letters": ()}


def test_one_is_shown_as_a_whole() -> None:
    w = world()
    (id,) = bury(w, "x" * 1000)
    letter = ask(w, "show_dead", id).value
    assert (letter["body"], letter["headers"]) == ("x" * 1000, {"trace": "x"})
    assert letter["preview"] == "x" * 100


def test_a_requeued_one_is_as_new_and_comes_first() -> None:
    w = world(max_deliveries=2, redelivery_pause=0.0)
    mule = w.spawn(1)
    send(w, "any", "a")
    for _ in range(2):
        mule.threads[0].get()
        w.settle()
        mule.threads[0].fail()
        w.settle()
    (id,) = w.broker.dead
    send(w, "any", "b")
    answer = ask(w, "requeue_dead", (id,), "")
    assert (answer.code, answer.value["requeued"], answer.value["left"]) == ("", 1, 0)
    assert not w.broker.dead
    mule.threads[0].get()
    w.settle()
    assert mule.threads[0].delivery is not None
    assert (mule.threads[0].delivery.body, mule.threads[0].delivery.attempt) == ("a", 1)
    assert mule.threads[0].delivery.headers == {"trace": "x"}
    broker = restarted(w)
    assert (broker.left(), len(broker.dead)) == (2, 0)


def test_what_expired_in_its_queue_has_all_its_time_again() -> None:
    w = world(queue_ttl=5.0)
    send(w, "any", "a")
    w.pass_time(6.0)
    (id,) = w.broker.dead
    assert ask(w, "requeue_dead", (id,), "").code == ""
    w.pass_time(4.0)
    assert (w.broker.left(), len(w.broker.dead)) == (1, 0)
    w.pass_time(2.0)
    assert (w.broker.left(), len(w.broker.dead)) == (0, 1)


def test_all_of_a_queue_and_all_are_requeued() -> None:
    w = world()
    bury(w, "a", "b")
    bury(w, "c", queue="mule:1")
    assert ask(w, "requeue_dead", (), "mule:1").value["requeued"] == 1
    assert ask(w, "requeue_dead", (), "").value["requeued"] == 2
    assert ask(w, "requeue_dead", (), "").value["requeued"] == 0
    assert [message[2] for message in w.broker.dispatch.queue("any").ready] == ["a", "b"]


def test_a_dropped_one_is_gone() -> None:
    w = world()
    first, _, third = bury(w, "a", "b", "c")
    assert ask(w, "drop_dead", (first, third, first), "").value == 2
    assert [dead.message[2] for dead in w.broker.dead.values()] == ["b"]
    assert [dead.message[2] for dead in restarted(w).dead.values()] == ["b"]
    assert ask(w, "drop_dead", (), "").value == 1
    totals = status(w.broker, w.clock.now())["totals"]
    assert (totals["dead"], totals["dropped"]) == (0, 3)


@pytest.mark.parametrize("what", ["requeue_dead", "drop_dead"])
def test_if_one_is_unknown_nothing_is_done(what: str) -> None:
    w = world()
    (id,) = bury(w, "a")
    answer = ask(w, what, (id, 999), "")
    assert (answer.code, answer.value) == ("unknown-letter", "there is no dead letter 999")
    assert list(w.broker.dead) == [id]


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("list_dead", ()),
        ("list_dead", ("", 0, 0)),
        ("list_dead", ("", 0, 1001)),
        ("list_dead", ("", "0", 1)),
        ("list_dead", (1, 0, 1)),
        ("show_dead", ()),
        ("show_dead", ("1",)),
        ("show_dead", (True,)),
        ("requeue_dead", (1, "")),
        ("requeue_dead", (("1",), "")),
        ("requeue_dead", ((), "", "")),
        ("drop_dead", ((), None)),
    ],
)
def test_a_wrong_question_is_answered_with_an_error(what: str, arguments: tuple[Any, ...]) -> None:
    w = world()
    bury(w, "a")
    assert ask(w, what, *arguments).code == "wrong-value"
    assert len(w.broker.dead) == 1


def test_one_that_cannot_go_back_stays_and_says_why() -> None:
    w = world()
    outsider = w.mule(7)
    w.settle()
    send(w, "mule:7", "a")
    outsider.threads[0].get()
    w.settle()
    outsider.threads[0].fail()
    w.settle()
    bury(w, "b")
    outsider.kill()
    w.settle()
    answer = ask(w, "requeue_dead", (), "").value
    assert answer == {"requeued": 1, "left": 1, "code": "unknown-mule", "reason": "there is no mule 7"}
    assert [dead.message[2] for dead in w.broker.dead.values()] == ["a"]


def test_a_full_queue_takes_none_back() -> None:
    w = world(queue_messages=2)
    bury(w, "a", "b")
    send(w, "any", "c")
    answer = ask(w, "requeue_dead", (), "").value
    assert (answer["requeued"], answer["left"], answer["code"]) == (1, 1, "queue-full")


def test_they_stay_what_they_are_until_the_store_has_noted_it() -> None:
    w = world()
    (id,) = bury(w, "a")
    client = w.client()
    w.settle()
    request = client.outbox.questions.ask("requeue_dead", ((id,), ""))
    client.pump()
    assert client.pipe is not None
    w.carry(client.pipe)
    assert list(w.broker.dead) == [id]
    w.broker.validate()
    assert w.broker.letters.rising() == 1
    other = w.client()
    w.settle_only(other)
    w.settle()
    assert client.outbox.questions.answer(request) is not None
    assert not w.broker.dead


def test_a_store_that_fails_leaves_them() -> None:
    w = world()
    (id,) = bury(w, "a")
    w.store_works = False
    answer = ask(w, "requeue_dead", (id,), "")
    assert answer.code == "store"
    assert list(w.broker.dead) == [id]
    assert w.broker.left() == 0
    w.store_works = True
    assert ask(w, "requeue_dead", (id,), "").value["requeued"] == 1


def test_one_that_is_on_its_way_is_neither_dropped_nor_requeued_twice() -> None:
    w = world()
    bury(w, "a")
    client = w.client()
    w.settle()
    requests = [
        client.outbox.questions.ask(what, ((), "")) for what in ("requeue_dead", "drop_dead", "requeue_dead")
    ]
    client.pump()
    assert client.pipe is not None
    while client.pipe.to_broker:
        w.carry(client.pipe)
    w.settle()
    answers = [client.outbox.questions.answer(request) for request in requests]
    values = [answer.value if answer else None for answer in answers]
    assert [values[0]["requeued"], values[1], values[2]["requeued"]] == [1, 0, 0]  # type: ignore[index]
    assert w.broker.left() == 1


def test_a_queue_with_too_many_of_them_takes_no_more() -> None:
    w = world(max_dead=2)
    bury(w, "a", "b")
    client = send(w, "any", "c")
    (refusal,) = client.outbox.failures
    assert refusal.code == "queue-full"
    assert "queue any has 2 dead letters (limit: 2): requeue or drop some" in refusal.reason
    assert not send(w, "mule:1", "another queue").outbox.failures
    ask(w, "drop_dead", (min(w.broker.dead),), "")
    assert not send(w, "any", "d").outbox.failures


def test_they_count_in_the_limits_of_the_broker() -> None:
    w = world(total_messages=2)
    bury(w, "a")
    client = send(w, "any", "b", "c")
    assert [refusal.code for refusal in client.outbox.failures] == ["queue-full"]
    shown = status(w.broker, w.clock.now())
    size = content_size([dead.message for dead in w.broker.dead.values()])
    assert (shown["broker"]["messages"], shown["broker"]["bytes"]) == (2, 2 * size)
    assert shown["dead"] == {"count": 1, "bytes": size}
    assert shown["queues"]["any"]["dead"] == 1


def test_those_of_a_mule_that_reads_none_name_it() -> None:
    w = world()
    mule = w.spawn(2)
    w.settle()
    send(w, "mule:2", b"\xff")
    mule.inbox.settle()
    w.settle()
    (letter,) = ask(w, "list_dead", "", 0, 1).value["letters"]
    assert letter["reason"] == "mule 2 is signal-only: it reads none"
    assert letter["preview"] == "\N{REPLACEMENT CHARACTER}"
    assert ask(w, "requeue_dead", (), "").value["code"] == "not-programmed"


def test_a_rejected_message_is_one_at_once() -> None:
    w = world(max_deliveries=5)
    mule = w.spawn(1)
    send(w, "any", "a")
    mule.threads[0].get()
    w.settle()
    delivery = mule.threads[0].delivery
    assert delivery is not None
    mule.inbox.fail(delivery, dead=True)
    w.settle()
    (dead,) = w.broker.dead.values()
    assert (dead.reason, dead.mule) == ("mule 1 rejected it", 1)
