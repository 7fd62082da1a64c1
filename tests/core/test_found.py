"""What the simulation has found, each in as few steps as it takes."""

from __future__ import annotations

from zmule.core.events import PeersVanished
from zmule.core.frames import DIRECT, FARM
from zmule.core.mules import FarmSetup, MuleSetup
from zmule.core.senders import Senders
from zmule.core.setup import Limits
from zmule.core.terms import Terms, recovered
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


def test_a_connection_that_is_gone_twice_over() -> None:
    """The monitor told of it, and a send found it out, in one turn of the loop."""
    w = World()
    mule = w.mule(7)
    w.settle()
    assert mule.pipe is not None
    w.happened(PeersVanished((mule.pipe.peer, mule.pipe.peer)))
    assert w.broker.roster.known(7) is None


def test_what_was_given_ahead_is_recalled_from_a_thread_that_waits_for_something_else() -> None:
    w = World([MuleSetup(1, "a.py")], [FarmSetup("busy", (1,))])
    mule, other = w.spawn(1), w.mule(7, farms=["busy"])
    (thread,) = mule.threads
    thread.get(FARM)
    w.settle()
    client = w.client()
    client.send("farm:busy", "first")
    client.send("farm:busy", "second")
    w.settle()
    thread.get(DIRECT)  # by the pace of the first, the mule is given the second ahead
    w.settle()
    other.threads[0].get()
    w.settle()
    w.pass_time(0.1)
    w.settle()
    assert other.threads[0].delivery is not None


def test_what_only_one_mule_may_have_is_not_recalled_from_it_for_ever() -> None:
    w = World([MuleSetup(1, "a.py"), MuleSetup(2, "b.py")])
    busy, idle = w.spawn(1), w.spawn(2, threads=2)
    (thread,) = busy.threads
    thread.get()
    client = w.client()
    client.send("mule:1", "quick")
    w.settle()
    w.pass_time(0.02)
    client.send("mule:1", "slow")
    client.send("any", "given ahead")
    w.settle()
    thread.get()
    w.settle()
    client.send("mule:1", "its own")
    w.settle()
    for other in idle.threads:
        other.get()
    w.settle()  # which has an end
    assert [other.delivery and other.delivery.body for other in idle.threads] == ["given ahead", None]


def test_a_pause_does_not_become_a_day_when_the_clock_is_set_back_before_a_restart() -> None:
    accepted, paused, day = 1000.0, 1010.0, 86_400.0
    terms = recovered(Terms(due=paused), accepted, accepted - day)
    assert terms is not None
    assert terms.at == paused - day
