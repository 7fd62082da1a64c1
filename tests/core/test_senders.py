"""What a sender may claim, and for how long it is remembered."""

from __future__ import annotations

import pytest

from zmule.core.frames import Batch, Hello, Put, Refusal
from zmule.core.mules import MuleSetup
from zmule.core.senders import LAST_NUMBER, MOST_RUNS, SESSION_SECONDS, Run, Sender, Senders, Tally
from zmule.errors import ProtocolError
from zmule.testing import World


def test_numbers_end_where_a_store_and_a_confirm_can_no_longer_hold_them() -> None:
    sender = Sender(bytes(16), Tally(), last=LAST_NUMBER - 1)
    with pytest.raises(ProtocolError, match="numbered up to"):
        sender.accept(LAST_NUMBER, 2, 0)
    assert sender.accept(LAST_NUMBER, 1, 0) == 0


def test_who_is_gone_for_an_hour_is_forgotten_by_the_store_too() -> None:
    world = World([MuleSetup(1, "a.py")])
    gone, stays = world.client(), world.client()
    for client in (gone, stays):
        client.send("any", client.name)
    world.settle()
    gone.kill()
    world.notice()
    world.pass_time(SESSION_SECONDS - 61)
    assert sessions(world) == {gone.session, stays.session}
    world.pass_time(122)
    assert sessions(world) == {stays.session}
    world.revive()
    assert [sender.session for sender in world.broker.senders] == [stays.session]


def sessions(world: World) -> set[bytes]:
    return {mark.session for mark in world.store.recover().senders}


def test_a_session_with_an_open_answer_is_not_forgotten() -> None:
    senders = Senders()
    sender = senders.connect(b"peer", bytes(16), 0)
    sender.accept(1, 1, 0)
    senders.disconnect(b"peer", 0.0)
    assert senders.expire(2 * SESSION_SECONDS) == []
    sender.confirmed = 1
    assert senders.expire(2 * SESSION_SECONDS) == [bytes(16)]


def test_refusals_in_a_row_for_one_reason_cost_as_much_as_one() -> None:
    """The store writes them all again with each message that follows."""
    world = World([MuleSetup(1, "a.py")])
    client = world.client()
    for _ in range(3000):
        client.send("farm:none", "x")
    world.settle()
    (sender,) = world.broker.senders
    assert len(sender.mark().refusals) == 1
    sender.heard(3000)
    sender.refuse(Refusal(number, "full", "no room") for number in range(1, 65_537))
    assert sender.mark().refusals == ((1, "full", "no room", 65_536),)
    assert world.broker.senders.tally.runs == 1
    assert [refusal.sequence for refusal in sender.refused_after(2995)] == [2996, 2997, 2998, 2999, 3000]


def test_runs_of_refusals_come_back_from_a_mark() -> None:
    senders = Senders()
    sender = senders.connect(b"peer", bytes(16), 0)
    sender.accept(1, 9, 0)
    sender.confirmed = 9
    told = [Refusal(2, "full", "no room"), Refusal(3, "full", "no room"), Refusal(7, "full", "no room")]
    sender.refuse(told)
    again = Senders()
    again.restore(bytes(16), 9, map(Run.kept, sender.mark().refusals), 0.0)
    assert again.connect(b"other", bytes(16), 1).refused_after(1) == tuple(told)


def test_who_hears_of_no_refusal_is_refused_until_it_does() -> None:
    world = World([MuleSetup(1, "a.py")])
    pipe = world.connect(world.client())
    world.receive(pipe, Hello(1, "client", bytes(16), {"floor": 0}))
    batches = tuple(Batch(f"farm:f{number}", ("x",), None) for number in range(MOST_RUNS + 500))
    world.receive(pipe, Put(1, 0, (*batches, Batch("any", ("x",), None))))
    (sender,) = [sender for sender in world.broker.senders if sender.session == bytes(16)]
    assert len(sender.mark().refusals) == MOST_RUNS + 1
    assert world.broker.left() == 0, "it was taken though there was too much to hear of"
    last = MOST_RUNS + 501
    world.receive(pipe, Put(last + 1, last, (Batch("any", ("y",), None),)))
    assert world.broker.left() == 1
    assert sender.mark().refusals == ()


def test_a_session_with_nothing_to_remember_is_not_remembered() -> None:
    senders = Senders()
    for number in range(1000):
        senders.connect(b"peer", number.to_bytes(16), 0)
        senders.disconnect(b"peer", 0.0)
    assert list(senders) == []
    assert senders.cost() == 0


def test_no_more_sessions_are_remembered_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmule.core.senders.MAX_SESSIONS", 3)
    world = World([MuleSetup(1, "a.py")])
    clients = [world.client() for _ in range(6)]
    for client in clients:
        client.send("any", "x")
        world.settle()
        client.kill()
        world.notice()
    world.settle()
    kept = {client.session for client in clients[3:]}
    assert {sender.session for sender in world.broker.senders} == kept
    assert sessions(world) == kept
