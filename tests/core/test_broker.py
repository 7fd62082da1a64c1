"""The broker's promises one by one, in a world where nothing moves unless the test says so."""

from __future__ import annotations

from typing import Any

import pytest

from zmule.core.effects import Publish, Stop
from zmule.core.events import FrameReceived, FrameRejected, Stalled, StopRequested
from zmule.core.frames import DIRECT, FARM, Ask, Batch, Bye, Hello, Put, Refusal, Report, Reset
from zmule.core.mules import FarmSetup, MuleSetup
from zmule.core.setup import Limits
from zmule.core.status import status
from zmule.core.wire import decode
from zmule.testing import Actor, SimClient, SimMule, World


def world(**limits: Any) -> World:
    """Two programmed mules in a farm, a signal-only one, and a second farm with the second mule."""
    mules = [MuleSetup(1, "a.py"), MuleSetup(2, "b.py"), MuleSetup(3, None)]
    farms = [FarmSetup("busy", (1, 2)), FarmSetup("idle", (2,))]
    return World(mules, farms, Limits(**limits))


def started(mule: SimMule) -> list[Any]:
    """The bodies that the mule's threads work on."""
    return [thread.delivery.body for thread in mule.threads if thread.delivery is not None]


def send(world: World, queue: str, *bodies: str) -> SimClient:
    client = world.client()
    for body in bodies:
        client.send(queue, body)
    world.settle()
    return client


def refusals(client: SimClient) -> list[Refusal]:
    return list(client.outbox.failures)


def finish_all(world: World, mule: SimMule) -> list[Any]:
    """Let the mule's first thread work until nothing is left; return what it worked on, in order."""
    bodies: list[Any] = []
    while True:
        mule.threads[0].get()
        world.settle()
        if mule.threads[0].delivery is None:
            return bodies
        bodies.append(mule.threads[0].delivery.body)


def test_a_message_goes_to_the_mule_that_has_waited_longest() -> None:
    w = world()
    first, second = w.spawn(1), w.spawn(2)
    second.threads[0].get()
    w.settle()
    first.threads[0].get()
    w.settle()
    send(w, "any", "x")
    assert (started(first), started(second)) == ([], ["x"])


def test_mules_take_turns() -> None:
    w = world()
    first, second = w.spawn(1, threads=2), w.spawn(2, threads=2)
    for mule in (first, second):
        for thread in mule.threads:
            thread.get()
        w.settle()
    for body in "abcd":
        send(w, "any", body)
    assert sorted(started(first)) == ["a", "c"]
    assert sorted(started(second)) == ["b", "d"]


def test_own_queue_before_any_before_farms_in_their_order() -> None:
    w = world()
    mule = w.spawn(2)
    w.settle()
    send(w, "farm:idle", "idle")
    send(w, "farm:busy", "busy")
    send(w, "any", "any")
    send(w, "mule:2", "own")
    assert finish_all(w, mule) == ["own", "any", "busy", "idle"]


def test_farms_do_not_see_each_others_messages() -> None:
    w = world()
    mule = w.spawn(1)
    mule.threads[0].get()
    send(w, "farm:idle", "not mine")
    assert started(mule) == []
    send(w, "farm:busy", "mine")
    assert started(mule) == ["mine"]


def test_a_thread_gets_only_what_it_waits_for() -> None:
    w = world()
    mule = w.spawn(1, threads=3)
    direct, farm, both = mule.threads
    direct.get(DIRECT)
    farm.get(FARM)
    both.get(DIRECT | FARM)
    w.settle()
    send(w, "farm:busy", "f1", "f2", "f3")
    assert direct.delivery is None
    assert [thread.delivery.body for thread in (farm, both) if thread.delivery] == ["f1", "f2"]
    send(w, "any", "d1")
    assert started(mule) == ["d1", "f1", "f2"]


def test_a_report_that_crosses_a_delivery_does_not_buy_the_thread_twice() -> None:
    w = world()
    mule = w.spawn(1, threads=2)
    mule.threads[0].get()
    w.settle()
    client = w.client()
    client.send("any", "one")
    client.send("any", "two")
    client.pump()
    w.settle()
    assert started(mule) == ["one"]
    assert len(w.broker.dispatch.queue("any").ready) == 1


def test_a_second_thread_that_waits_while_a_message_is_on_its_way() -> None:
    w = world()
    mule = w.spawn(1, threads=2)
    mule.threads[0].get()
    w.settle()
    client = w.client()
    client.pump()
    for _ in range(3):
        w.carry(next(pipe for pipe in w.pipes.values() if b"client" in pipe.peer))
        client.take_in()
    client.take_in()
    client.send("any", "one")
    client.send("any", "two")
    client.pump()
    pipe = client.pipe
    assert pipe is not None
    w.carry(pipe)
    w.answer()  # the broker delivers "one", which stays in the pipe
    mule.threads[1].get()
    mule.pump()
    assert mule.pipe is not None
    w.carry(mule.pipe)  # its report counts two waiting threads and nothing received
    w.settle()
    assert sorted(started(mule)) == ["one", "two"]


def test_what_a_dead_mule_had_goes_back_to_the_head_in_order() -> None:
    w = world()
    mule = w.spawn(1, threads=3)
    for thread in mule.threads:
        thread.get()
    w.settle()
    send(w, "any", "a", "b", "c", "d")
    assert started(mule) == ["a", "b", "c"]
    mule.threads[1].finish()
    w.settle()
    mule.kill()
    w.settle()
    ready = w.broker.dispatch.queue("any").ready
    assert [(message[2], message[3]) for message in ready] == [("a", 2), ("c", 2), ("d", 2)]
    assert status(w.broker, w.clock.now())["totals"]["acked"] == 1


def test_what_is_delivered_again_travels_alone() -> None:
    w = world()
    mule = w.spawn(1, threads=2)
    for thread in mule.threads:
        thread.get()
    w.settle()
    send(w, "any", "a", "b", "c")
    w.exited(1)
    mule.kill()
    again = w.spawn(1, threads=2)
    for thread in again.threads:
        thread.get()
    w.settle()
    assert started(again) == ["a"]
    again.threads[0].finish()
    w.settle()
    assert started(again) == ["b"]
    again.threads[1].finish()
    again.threads[0].get()
    again.threads[1].get()
    w.settle()
    assert started(again) == ["c"]


def test_poison_is_buried_and_only_poison() -> None:
    w = world(max_deliveries=3, redelivery_pause=0.0)
    send(w, "any", "good", "poison", "fine")
    handled = []
    for _ in range(10):
        mule = w.spawn(1, threads=3)
        for thread in mule.threads:
            thread.get()
        w.settle()
        while "poison" not in started(mule) and started(mule):
            thread = next(thread for thread in mule.threads if thread.delivery)
            assert thread.delivery is not None
            handled.append(thread.delivery.body)
            thread.get()
            w.settle()
        w.exited(1)
        mule.kill()
        w.settle()
    (dead,) = w.broker.dead.values()
    assert (dead.message[2], dead.mule) == ("poison", 1)
    assert dead.reason == "mule 1 died with it, at delivery 3 of 3"
    assert sorted(handled) == ["fine", "good"]


def test_failed_and_returned_messages_come_again_at_the_head() -> None:
    w = world()
    mule = w.spawn(1)
    mule.threads[0].get()
    w.settle()
    send(w, "any", "a", "b")
    mule.threads[0].fail()
    mule.threads[0].get()
    w.settle()
    assert mule.threads[0].delivery is not None
    assert (mule.threads[0].delivery.body, mule.threads[0].delivery.attempt) == ("a", 2)


def test_a_message_that_came_too_late_for_its_thread_goes_to_an_idle_mule() -> None:
    w = world()
    late, idle = w.spawn(1), w.spawn(2)
    late.threads[0].get()
    w.settle()
    client = w.client()
    w.settle()
    client.send("any", "x")
    client.pump()
    assert client.pipe is not None
    w.carry(client.pipe)
    w.answer()  # on its way to the first mule, whose thread gives up now
    late.threads[0].time_out()
    idle.threads[0].get()
    w.settle()
    assert started(idle) == ["x"]
    assert idle.threads[0].delivery is not None
    assert idle.threads[0].delivery.attempt == 1


@pytest.mark.parametrize("where", ["mule", "farm"])
def test_early_acknowledgement_is_at_most_once(where: str) -> None:
    mule_early, farm_early = where == "mule", where == "farm"
    w = World([MuleSetup(1, "a.py", mule_early)], [FarmSetup("f", (1,), farm_early)])
    mule = w.spawn(1)
    mule.threads[0].get()
    w.settle()
    send(w, "farm:f", "x")
    assert started(mule) == ["x"]
    w.exited(1)
    mule.kill()
    w.settle()
    assert w.broker.left() == 0
    assert w.broker.turns.acked == 1


@pytest.mark.parametrize(
    ("queue", "code"),
    [
        ("mule:9", "unknown-mule"),
        ("mule:0", "unknown-mule"),
        ("farm:none", "unknown-farm"),
        ("mule:x", "protocol"),
        ("nonsense", "protocol"),
        ("", "protocol"),
    ],
)
def test_a_queue_that_is_not_there_is_refused(queue: str, code: str) -> None:
    w = world()
    client = send(w, queue, "x")
    assert [refusal.code for refusal in refusals(client)] == [code]
    assert w.broker.left() == 0


def test_a_full_queue_refuses_the_rest_and_says_its_limit() -> None:
    w = world(queue_messages=2)
    client = send(w, "any", "a", "b", "c", "d")
    assert [(refusal.sequence, refusal.code) for refusal in refusals(client)] == [
        (3, "queue-full"),
        (4, "queue-full"),
    ]
    assert "queue any is full: it holds 2 messages" in refusals(client)[0].reason
    assert w.broker.left() == 2


def test_a_queue_is_full_by_bytes_too() -> None:
    w = world(queue_bytes=10)
    client = send(w, "any", "12345", "12345è", "12345")
    assert [refusal.sequence for refusal in refusals(client)] == [2, 3]
    client.send("any", "12345")
    w.settle()
    assert w.broker.left() == 2


def test_a_message_over_the_limit_is_refused_alone() -> None:
    w = world(max_message=3)
    client = w.client()
    client.outbox.max_message = 100  # as if an older broker had allowed more
    for body in ("abc", "abcd", "ab"):
        client.send("any", body)
    w.settle()
    assert [refusal.code for refusal in refusals(client)] == ["too-large"]
    assert [message[2] for message in w.broker.dispatch.queue("any").ready] == ["abc", "ab"]


def test_messages_to_any_wait_for_a_reader_and_status_says_since_when() -> None:
    w = world()
    send(w, "any", "x")
    since = status(w.broker, w.clock.now())["queues"]["any"]["no_reader_since"]
    assert since == w.broker.started.wall
    mule = w.spawn(1)
    w.settle()
    assert status(w.broker, w.clock.now())["queues"]["any"]["no_reader_since"] is None
    assert finish_all(w, mule) == ["x"]
    w.clock.advance(5)
    mule.kill()
    w.settle()
    assert status(w.broker, w.clock.now())["queues"]["any"]["no_reader_since"] == w.clock.wall


def test_signal_only_mules_take_messages_only_if_their_code_reads() -> None:
    w = world()
    mule = w.spawn(3)
    w.settle()
    early = send(w, "mule:3", "while starting")
    assert refusals(early) == []
    mule.inbox.settle()
    w.settle()
    assert [dead.reason for dead in w.broker.dead.values()] == ["mule 3 is signal-only: it reads none"]
    assert [refusal.code for refusal in refusals(send(w, "mule:3", "later"))] == ["not-programmed"]


def test_a_signal_only_mule_becomes_a_reader() -> None:
    w = world()
    mule = w.spawn(3)
    w.settle()
    mule.threads[0].get()
    mule.inbox.settle()
    w.settle()
    assert refusals(send(w, "mule:3", "x")) == []
    assert started(mule) == ["x"]


def test_a_repeated_message_is_not_queued_twice() -> None:
    w = world()
    client = send(w, "any", "a", "b")
    client.send("any", "c")
    client.pump()
    client.cut()  # the frame with "c" is lost
    client.send("any", "d")
    w.settle()
    assert [message[2] for message in w.broker.dispatch.queue("any").ready] == ["a", "b", "c", "d"]
    client.send("any", "e")
    client.pump()
    assert client.pipe is not None
    w.carry(client.pipe)
    w.answer()
    client.cut()  # its confirm is lost
    w.settle()
    assert [message[2] for message in w.broker.dispatch.queue("any").ready] == list("abcde")
    assert client.outbox.unconfirmed() == 0


def test_a_refusal_that_was_lost_is_told_again() -> None:
    w = world()
    client = send(w, "any", "a")
    client.send("mule:9", "nobody")
    client.pump()
    assert client.pipe is not None
    w.carry(client.pipe)
    w.answer()
    client.cut()
    w.settle()
    assert [refusal.code for refusal in refusals(client)] == ["unknown-mule"]


def test_a_broker_that_has_lost_its_memory_takes_what_is_unconfirmed() -> None:
    w = world()
    client = send(w, "any", "a", "b")
    w.restart()
    client.send("any", "c")
    w.settle()
    assert [message[2] for message in w.broker.dispatch.queue("any").ready] == ["c"]
    assert client.outbox.confirmed == 3


def test_a_gap_in_the_numbers_costs_the_sender_its_session() -> None:
    w = world()
    client = send(w, "any", "a")
    assert client.pipe is not None
    w.receive(client.pipe, Put(5, 0, (Batch("any", ("b",), None),)))
    reset = decode(client.pipe.to_peer[-1])
    assert isinstance(reset, Reset)
    assert reset.code == "protocol"
    assert reset.reason == "message 2 is missing before 5"


def test_a_put_of_nothing_costs_the_sender_its_session() -> None:
    w = world()
    client = send(w, "any", "a")
    assert client.pipe is not None
    w.receive(client.pipe, Put(2, 0, ()))
    reset = decode(client.pipe.to_peer[-1])
    assert isinstance(reset, Reset)
    assert reset.reason == "Put has no messages"


def test_a_stall_of_the_broker_makes_nobody_silent() -> None:
    w = world()
    mule = w.mule(5)
    w.settle()
    w.clock.advance(60)
    w.happened(Stalled(60.0))
    w.tick()
    assert w.broker.roster.known(5) is not None, "it was given up for what it could not say"
    mule.frozen = True
    w.pass_time(19)
    assert w.broker.roster.known(5) is not None
    w.pass_time(2)
    assert w.broker.roster.known(5) is None


def test_a_mule_that_was_silent_is_fenced() -> None:
    w = world(heartbeat_timeout=10.0)
    stopped, other = w.spawn(1), w.spawn(2)
    stopped.threads[0].get()
    w.settle()
    send(w, "any", "x")
    assert started(stopped) == ["x"]
    other.threads[0].get()
    for _ in range(4):
        w.clock.advance(3.0)
        other.pump()
        assert other.pipe is not None
        while other.pipe.to_broker:
            w.carry(other.pipe)
        w.pass_time(0)
    w.settle_only(other)
    assert started(other) == ["x"]
    stopped.threads[0].finish()  # it wakes up and acknowledges what is another's now
    w.settle()
    assert w.broker.left() == 1
    assert stopped.inbox.state == "up"
    assert stopped.inbox.epoch > 1
    other.threads[0].finish()
    w.settle()
    assert w.broker.left() == 0


def test_acks_of_an_old_epoch_are_void() -> None:
    w = world()
    mule = w.spawn(1)
    mule.threads[0].get()
    w.settle()
    send(w, "any", "x")
    delivery = mule.threads[0].delivery
    assert delivery is not None
    assert mule.pipe is not None
    w.receive(mule.pipe, Report(delivery.epoch + 1, (delivery.id,), (1, 0, 0, 0), (), 0))
    assert w.broker.left() == 1


def test_a_number_in_use_is_refused_and_a_configured_one_kept() -> None:
    w = world()
    first, second = w.mule(7), w.mule(7)
    w.settle()
    configured = w.mule(1)
    w.settle()
    assert first.inbox.number == 7
    assert second.inbox.error is not None
    assert second.inbox.error.code == "number-in-use"
    assert configured.inbox.error is not None
    assert configured.inbox.error.code == "not-permitted"


def test_a_free_number_is_the_lowest_that_nobody_has() -> None:
    w = world()
    mules = [w.mule(), w.mule(5), w.mule()]
    w.settle()
    assert sorted(mule.inbox.number for mule in mules) == [4, 5, 6]


def test_an_outsider_that_reconnects_gets_its_number_back() -> None:
    w = world()
    mule = w.mule(farms=["guests"])
    mule.threads[0].get()
    w.settle()
    mule.cut()
    w.settle()
    assert mule.inbox.number == 4
    send(w, "farm:guests", "x")
    assert started(mule) == ["x"]


def test_a_mule_that_leaves_acknowledges_first() -> None:
    w = world()
    mule = w.mule()
    mule.threads[0].get()
    w.settle()
    send(w, "any", "x")
    mule.threads[0].finish()
    mule.inbox.bid_farewell()
    w.settle()
    assert mule.inbox.gone
    assert w.broker.left() == 0
    assert w.broker.roster.known(mule.inbox.number) is None


def test_a_stopping_broker_delivers_no_more_and_still_takes_acknowledgements() -> None:
    w = world()
    mule = w.spawn(1)
    mule.threads[0].get()
    w.settle()
    send(w, "any", "x")
    w.happened(StopRequested())
    assert [effect.frame.what for effect in w.published if isinstance(effect, Publish)] == ["stop"]
    send(w, "any", "y")
    mule.threads[0].get()
    w.settle()
    assert started(mule) == []
    assert w.broker.left() == 1


def test_garbage_costs_its_peer_the_session_and_nobody_else() -> None:
    w = world()
    bad, good = w.spawn(1), w.spawn(2)
    for mule in (bad, good):
        mule.threads[0].get()
        w.settle()
    send(w, "mule:1", "x")
    assert bad.pipe is not None
    w.happened(FrameRejected(bad.pipe.peer, "not msgpack"))
    assert w.broker.dispatch.queue("mule:1").ready[0][3] == 2
    send(w, "any", "y")
    assert started(good) == ["y"]


def test_a_store_that_fails_refuses_and_forgets() -> None:
    w = world()
    w.store_works = False
    client = send(w, "any", "a", "b")
    assert [refusal.code for refusal in refusals(client)] == ["store", "store"]
    assert w.broker.left() == 0
    w.store_works = True
    send(w, "any", "c")
    assert w.broker.left() == 1


def states(w: World, *mules: int) -> list[str]:
    return [str(mule["state"]) for mule in status(w.broker, w.clock.now())["mules"] if mule["id"] in mules]


def test_states_of_mules() -> None:
    w = world()
    assert states(w, 1, 3) == ["gone", "gone"]
    programmed, signal_only = w.spawn(1), w.spawn(3)
    assert states(w, 1, 3) == ["starting", "starting"]
    w.settle()
    assert states(w, 1, 3) == ["starting", "starting"]
    signal_only.inbox.settle()
    programmed.threads[0].get()
    w.settle()
    assert states(w, 1, 3) == ["idle", "idle"]
    send(w, "mule:1", "x")
    assert states(w, 1) == ["busy"]
    programmed.threads[0].get()
    w.settle()
    assert states(w, 1) == ["idle"]
    w.happened(StopRequested())
    assert states(w, 1, 3) == ["stopping", "stopping"]
    w.exited(1)
    assert states(w, 1) == ["gone"]


def test_actors_are_named() -> None:
    w = world()
    actors: list[Actor] = [w.client(), w.mule()]
    assert [str(actor) for actor in actors] == ["client 1", "mule 3"]


def test_nothing_new_follows_what_is_delivered_again() -> None:
    w = world()
    mule = w.spawn(1)
    mule.threads[0].get()
    w.settle()
    send(w, "any", "a", "b")
    w.exited(1)
    mule.kill()
    again = w.spawn(1, threads=2)
    for thread in again.threads:
        thread.get()
    w.settle()
    assert started(again) == ["a"]
    again.threads[0].finish()
    w.settle()
    assert started(again) == ["b"]


def test_one_thread_that_waits_for_all_is_not_promised_to_two_queues() -> None:
    w = world()
    mule = w.spawn(1)
    mule.threads[0].get()
    w.settle()
    client = w.client()
    client.send("farm:busy", "f")
    client.send("mule:1", "d")
    w.settle_only(client)
    assert len(w.delivered) == 1


def test_a_farewell_of_an_old_epoch_gives_nothing_back() -> None:
    w = world()
    mule = w.spawn(1)
    mule.threads[0].get()
    w.settle()
    send(w, "any", "x")
    delivery = mule.threads[0].delivery
    assert delivery is not None
    assert mule.pipe is not None
    w.receive(mule.pipe, Bye(delivery.epoch + 1, (delivery.id,), (delivery.id,), (0, 0, 0, 0)))
    assert [message[3] for message in w.broker.dispatch.queue("any").ready] == [2]


def test_what_crosses_a_farewell_was_not_delivered() -> None:
    w = world()
    leaving, other = w.mule(7, threads=2), w.mule(8)
    for thread in leaving.threads:
        thread.get()
    w.settle()
    send(w, "any", "begun")
    client = w.client()
    w.settle()
    client.send("any", "crossing")
    w.settle_only(client)  # the broker has handed it out, and the mule has not seen it
    leaving.threads[1].time_out()
    leaving.inbox.bid_farewell()
    leaving.pump()
    assert started(leaving) == ["begun"]
    other.threads[0].get()
    w.settle()
    assert leaving.inbox.gone
    assert [(delivery.body, delivery.attempt) for delivery in other.hands()] == [("begun", 2)]
    other.threads[0].get()
    w.settle()
    assert [(delivery.body, delivery.attempt) for delivery in other.hands()] == [("crossing", 1)]


def test_a_farewell_that_counts_too_much_costs_the_mule_its_session() -> None:
    w = world()
    mule = w.mule(7)
    w.settle()
    assert mule.pipe is not None
    w.receive(mule.pipe, Bye(mule.inbox.epoch, (), (), (1, 0, 0, 0)))
    reset = decode(mule.pipe.to_peer[-1])
    assert isinstance(reset, Reset)
    assert reset.reason == "Bye counts more messages than were sent"


def test_what_a_mule_had_buffered_is_dropped_with_its_epoch() -> None:
    w = world()
    mule = w.mule(7)
    mule.threads[0].get()
    w.settle()
    client = w.client()
    w.settle()
    client.send("any", "x")
    w.settle_only(client)
    mule.threads[0].time_out()
    mule.take_in()  # the message finds no thread, and is buffered
    mule.cut()
    w.settle()
    mule.threads[0].get()
    w.settle()
    assert [delivery.epoch for delivery in mule.hands()] == [mule.inbox.epoch]
    mule.threads[0].finish()
    w.settle()
    assert w.broker.left() == 0


def test_a_message_repeated_while_it_is_being_saved_is_not_queued_twice() -> None:
    w = world()
    client = w.client()
    w.settle()
    client.send("any", "a")
    client.pump()
    assert client.pipe is not None
    w.carry(client.pipe)
    client.cut()
    client.send("any", "b")
    for _ in range(3):
        client.pump()
        while client.pipe.to_broker:
            w.carry(client.pipe)
        while client.pipe.to_peer:
            client.take_in()
    assert w.broker.left() == 2
    w.settle()
    assert [message[2] for message in w.broker.dispatch.queue("any").ready] == ["a", "b"]
    assert client.outbox.unconfirmed() == 0


def test_only_its_own_mules_and_its_own_user_may_stop_a_broker() -> None:
    w = World([MuleSetup(1, "a.py")])
    own, guest, client = w.spawn(1), w.mule(7), w.client()
    w.settle()

    def may(actor: Actor) -> bool:
        assert actor.pipe is not None
        effects = w.broker.handle(FrameReceived(actor.pipe.peer, Ask(1, "stop", ())), w.clock.now())
        return any(isinstance(effect, Stop) for effect in effects)

    assert [may(actor) for actor in (own, guest, client)] == [True, False, False]
    assert client.pipe is not None
    hello = Hello(1, "client", client.session, client.link.details())
    w.happened(FrameReceived(client.pipe.peer, hello, owner=True))
    assert may(client)
    w.happened(FrameReceived(client.pipe.peer, hello))
    assert not may(client), "each greeting tells anew"
