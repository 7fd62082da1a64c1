"""A broker that has just been started, and what was there before and comes back."""

from __future__ import annotations

import pytest

from zmule.core.frames import Refusal
from zmule.core.setup import Limits
from zmule.testing import SimClient, World


def world() -> World:
    return World(limits=Limits(returning=3.0))


def failures(client: SimClient) -> list[Refusal]:
    return list(client.outbox.failures_since()[1].values())


@pytest.mark.parametrize("queue", ["farm:busy", "mule:7", "call:f:farm:busy", "call:f:mule:7"])
def test_a_message_waits_for_a_mule_that_comes_back(queue: str) -> None:
    w = world()
    client = w.client()
    client.send(queue, "x")
    w.settle()
    assert client.outbox.unconfirmed() == 1
    w.mule(7, farms=["busy"])
    w.settle()
    assert (client.outbox.unconfirmed(), failures(client)) == (0, [])
    assert w.broker.dispatch.length(queue)[0] == 1


def test_what_does_not_come_back_is_missing_when_the_time_is_over() -> None:
    w = world()
    client = w.client()
    for queue in ("farm:busy", "any", "mule:7"):
        client.send(queue, "x")
    w.pass_time(2.9)
    w.settle()
    assert client.outbox.unconfirmed() == 3, "the second must not overtake the first"
    w.pass_time(0.2)
    w.settle()
    assert client.outbox.unconfirmed() == 0
    assert [refusal.code for refusal in failures(client)] == ["unknown-farm", "unknown-mule"]
    client.send("farm:busy", "x")
    w.settle()
    assert [refusal.code for refusal in failures(client)] == ["unknown-farm"], "at once from here on"


def test_the_order_of_a_sender_is_kept_and_others_do_not_wait() -> None:
    w = world()
    client, other = w.client(), w.client()
    client.send("farm:busy", "1")
    w.settle()
    client.send("any", "2")
    w.settle()
    client.send("farm:idle", "3")
    other.send("any", "4")
    w.settle()
    assert (client.outbox.unconfirmed(), other.outbox.unconfirmed()) == (3, 0)
    w.mule(7, farms=["busy"])
    w.settle()
    assert client.outbox.unconfirmed() == 1
    w.mule(8, farms=["idle"])
    w.settle()
    assert client.outbox.unconfirmed() == 0
    accepted = [w.broker.dispatch.length(name)[0] for name in ("farm:busy", "farm:idle", "any")]
    assert accepted == [1, 1, 2]


def test_a_sender_that_is_cut_off_meanwhile_sends_it_once() -> None:
    w = world()
    client = w.client()
    client.send("farm:busy", "x")
    w.settle()
    client.cut()
    w.settle()
    w.mule(7, farms=["busy"])
    w.settle()
    assert client.outbox.unconfirmed() == 0
    assert w.broker.dispatch.length("farm:busy")[0] == 1


def test_a_sender_that_waits_for_room_is_not_told_that_nobody_is_there() -> None:
    w = World(limits=Limits(queue_messages=2, returning=3.0))
    client, mule = w.client(), w.mule(7)
    w.settle()
    for _ in range(3):
        client.outbox.put("mule:7", "x", None, awaited=True, until=w.clock.mono + 60.0)
    w.settle()
    assert client.outbox.expecting(), "for room"
    w.restart()
    client.pump()
    w.settle_only(client)
    assert failures(client) == []
    mule.pump()
    w.settle()
    assert failures(client) == []
    assert w.broker.dispatch.length("mule:7")[0] == 1


def test_only_so_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmule.core.returns.MOST_BYTES", 5)
    w = world()
    client = w.client()
    client.send("farm:busy", "123")
    w.settle()
    assert client.outbox.unconfirmed() == 1
    client.send("farm:busy", "456")
    w.settle()
    assert client.outbox.unconfirmed() == 0
    assert len(failures(client)) == 2
