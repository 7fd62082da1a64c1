"""What the simulation has found, each in as few steps as it takes."""

from __future__ import annotations

from zmule.core.broker import Limits
from zmule.core.frames import DIRECT, FARM
from zmule.core.mules import FarmSetup, MuleSetup
from zmule.core.senders import Senders
from zmule.testing import World


def test_a_client_knows_of_refusals_that_the_store_does_not() -> None:
    """Message 2 was refused since the disk was full, so no mark of it survived the broker; 3 follows."""
    senders = Senders()
    senders.restore(b"s" * 16, 1, [], 0.0)
    sender = senders.connect(b"peer", b"s" * 16, 2)
    assert (sender.taken, sender.confirmed) == (2, 2)


def test_several_older_messages_are_ready_when_younger_ones_come_back() -> None:
    w = World([MuleSetup(1, "a.py"), MuleSetup(2, "b.py")])
    first, second = w.spawn(1, threads=2), w.spawn(2, threads=2)
    for mule in (first, second):
        for thread in mule.threads:
            thread.get()
        w.settle()
    client = w.client()
    for body in "abcd":
        client.send("any", body)
    w.settle()
    assert [thread.delivery and thread.delivery.body for thread in second.threads] == ["c", "d"]
    first.kill()
    w.settle()
    second.kill()
    w.settle()
    assert [message[2] for message in w.broker.dispatch.queue("any").ready] == list("abcd")


def test_epochs_of_two_brokers_are_told_apart() -> None:
    """A thread that works on a message of the last broker acknowledges none of the next one's."""
    w = World()
    mule = w.mule(7, threads=2)
    client = w.client()
    old, new = mule.threads
    old.get()
    client.send("any", "of the last broker")
    w.settle()
    w.restart()
    w.settle()
    new.get()
    client.send("any", "of this one")
    w.settle()
    assert new.delivery is not None
    old.finish()
    w.settle()
    assert w.broker.left() == 1


def test_mules_that_are_silent_together_do_not_bury_a_message() -> None:
    """It was delivered once, and not to each of those that were found silent in the same instant."""
    w = World([MuleSetup(number, "a.py") for number in (1, 2, 3)], limits=Limits(max_deliveries=3))
    for number in (1, 2, 3):
        w.spawn(number).threads[0].get()
    w.settle()
    client = w.client()
    client.send("any", "x")
    w.settle()
    w.pass_time(60)
    assert not w.broker.dead
    assert [message[3] for message in w.broker.dispatch.queue("any").ready] == [2]


def test_a_queue_waits_no_longer_than_for_what_travels_alone() -> None:
    """A mule kept from its farm by the head of another queue is fed once that is gone."""
    w = World([MuleSetup(1, "a.py")], [FarmSetup("busy", (1,))])
    client = w.client()
    crashing, mule = w.mule(7), w.spawn(1, threads=2)
    crashing.threads[0].get()
    w.settle()
    client.send("any", "crash")
    w.settle()
    direct, farm = mule.threads
    direct.get(DIRECT)
    farm.get(FARM)
    w.settle()
    client.send("mule:1", "work")
    w.settle()
    assert direct.delivery is not None
    crashing.kill()  # its message comes back, and must travel alone
    w.settle()
    client.send("farm:busy", "waits")
    w.settle()
    assert farm.delivery is None
    w.mule(8).threads[0].get()
    w.settle()
    assert farm.delivery is not None
