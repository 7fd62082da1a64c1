"""What a sender may claim, and for how long it is remembered."""

from __future__ import annotations

import pytest

from zmule.core.mules import MuleSetup
from zmule.core.senders import LAST_NUMBER, SESSION_SECONDS, Sender, Senders
from zmule.errors import ProtocolError
from zmule.testing import World


def test_numbers_end_where_a_store_and_a_confirm_can_no_longer_hold_them() -> None:
    sender = Sender(bytes(16), last=LAST_NUMBER - 1)
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
    senders.disconnect(b"peer", 0.0)
    sender.accept(1, 1, 0)
    assert senders.expire(2 * SESSION_SECONDS) == []
    sender.confirmed = 1
    assert senders.expire(2 * SESSION_SECONDS) == [bytes(16)]
