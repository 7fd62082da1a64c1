"""Signals: who gets which, how often and when, in a world where nothing moves unless the test says so."""

from __future__ import annotations

from typing import Any

import pytest

from zmule.core.events import MuleGivenUp
from zmule.core.frames import DIRECT, FARM, SIGNAL, STRAY, Answer, Refusal
from zmule.core.inbox import Inbox
from zmule.core.mules import FarmSetup, MuleSetup
from zmule.core.setup import Limits
from zmule.core.signals import MOST_PENDING
from zmule.core.status import status
from zmule.testing import SimClient, SimMule, World

EVERYTHING = DIRECT | FARM | SIGNAL | STRAY
GET = DIRECT | FARM | SIGNAL


def world(**limits: Any) -> World:
    """Five configured mules; 1 and 2 are the farm `busy`, 3 is `idle`; 4 and 5 are signal-only."""
    mules = [MuleSetup(number, "a.py" if number < 4 else None) for number in range(1, 6)]
    return World(mules, [FarmSetup("busy", (1, 2)), FarmSetup("idle", (3,))], Limits(**limits))


def worker(w: World, number: int = 0, threads: int = 1) -> SimMule:
    """Start a worker."""
    session = w._session()
    inbox = Inbox(session, number=number, farms=(), program="", pid=w._names, token=b"", role="worker")
    mule = SimMule(w, f"worker {w._names}", inbox, threads)
    w.actors.append(mule)
    w.settle()
    return mule


def ask(w: World, mule: SimMule, what: str, *arguments: Any) -> Answer:
    """Let a mule put a question; return the answer."""
    request = mule.inbox.ask(what, *arguments)
    w.settle()
    answer = mule.inbox.questions.answer(request)
    assert answer is not None
    return answer


def want(w: World, mule: SimMule, what: str, *arguments: Any) -> None:
    """Let a mule put a question now and at every registration to come."""
    assert ask(w, mule, what, *arguments).code == ""
    mule.inbox.want(what, *arguments)


def register(w: World, target: str, *mules: SimMule, number: int = 17) -> None:
    for mule in mules:
        want(w, mule, "register_signal", number, target)


def wait(w: World, *mules: SimMule, sources: int = GET) -> None:
    """Let all idle threads of the mules wait."""
    for mule in mules:
        for thread in mule.threads:
            if thread.delivery is None:
                thread.get(sources)
    w.settle()


def send(w: World, queue: str, times: int = 1) -> SimClient:
    client = w.client()
    for _ in range(times):
        client.send(queue, b"")
    w.settle()
    return client


def raise_it(w: World, number: int = 17, times: int = 1) -> SimClient:
    return send(w, f"signal:{number}", times)


def running(mule: SimMule) -> list[Any]:
    """What the mule's threads work on: signals by number, messages by queue."""
    deliveries = [thread.delivery for thread in mule.threads if thread.delivery is not None]
    return [each.body[0] if each.queue.startswith("signal:") else each.queue for each in deliveries]


def run_all(w: World, mule: SimMule, sources: int = GET) -> list[Any]:
    """Let the mule's first thread work until nothing is left; return what it ran, in order."""
    done: list[Any] = []
    while True:
        mule.threads[0].get(sources)
        w.settle()
        if mule.threads[0].delivery is None:
            mule.threads[0].time_out()
            w.settle()
            return done
        done += running(mule)


def die(w: World, mule: SimMule) -> None:
    mule.kill()
    w.exited(mule.inbox.number)
    w.settle()


def table(w: World) -> dict[int, dict[str, Any]]:
    return {entry["number"]: entry for entry in status(w.broker, w.clock.now())["signals"]}


def five(w: World) -> list[SimMule]:
    mules = [w.spawn(number) for number in range(1, 6)]
    w.settle()
    return mules


# Routing.


@pytest.mark.parametrize(
    ("target", "runs"),
    [
        ("mule", [1]),
        ("mule0", [1]),
        ("mules", [1, 2, 3, 4, 5]),
        ("mule1", [1]),
        ("mule3", [3]),
        ("mule5", [5]),
        ("farm_busy", [1]),
        ("farm_idle", [3]),
        ("farm1", [1]),
        ("farm2", [3]),
        ("", [-1]),
        ("worker", [-1]),
        ("worker0", [-1]),
        ("worker1", [-1]),
        ("worker2", [-2]),
        ("workers", [-1, -2]),
        ("active-workers", [-1, -2]),
    ],
)
def test_each_target_is_who_it_says(target: str, runs: list[int]) -> None:
    w = world()
    peers = dict(enumerate(five(w), 1)) | {-1: worker(w), -2: worker(w)}
    register(w, target, *peers.values())
    wait(w, *peers.values())
    raise_it(w)
    assert [number for number, peer in peers.items() if running(peer)] == runs
    assert table(w)[17] == {
        "number": 17,
        "target": target,
        "mules": [1, 2, 3, 4, 5],
        "workers": [1, 2],
        "raised": 1,
        "pending": len(runs),
    }


def test_the_first_available_is_the_one_that_has_waited_longest() -> None:
    w = world()
    first, second, third, *_ = five(w)
    register(w, "mule", first, second, third)
    for mule in (third, first, second):
        wait(w, mule)
    raise_it(w)
    assert running(third) == [17]
    wait(w, third)
    raise_it(w)
    assert running(first) == [17]


def test_the_first_available_of_a_farm_is_a_member_that_is_free() -> None:
    w = world()
    first, second, third, *_ = five(w)
    register(w, "farm_busy", first, second, third)
    wait(w, second, third)
    raise_it(w)
    assert (running(first), running(second), running(third)) == ([], [17], [])
    raise_it(w)
    wait(w, first)
    assert (running(first), running(third)) == ([17], [])


def test_only_who_has_a_handler_runs_it() -> None:
    w = world()
    mules = five(w)
    register(w, "mules", mules[1], mules[4])
    wait(w, *mules)
    raise_it(w)
    assert [bool(running(mule)) for mule in mules] == [False, True, False, False, True]


def test_a_thread_that_does_not_wait_for_signals_gets_none() -> None:
    w = world()
    mule = w.spawn(1)
    w.settle()
    register(w, "mule1", mule)
    wait(w, mule, sources=DIRECT | FARM)
    raise_it(w)
    assert running(mule) == []
    assert table(w)[17]["pending"] == 1
    mule.threads[0].time_out()
    wait(w, mule)
    assert running(mule) == [17]


def test_a_farm_of_mules_from_outside() -> None:
    w = World()
    guest = w.mule(7, farms=["guests"])
    w.settle()
    register(w, "farm_guests", guest)
    wait(w, guest)
    raise_it(w)
    assert running(guest) == [17]


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("spooler", "unknown-target"),
        ("subscribed", "unknown-target"),
        ("mulex", "unknown-target"),
        ("mule-1", "unknown-target"),
        ("mule 1", "unknown-target"),
        ("mule1 ", "unknown-target"),
        ("MULE", "unknown-target"),
        ("mule١", "unknown-target"),
        ("farm", "unknown-target"),
        ("farmbusy", "unknown-target"),
        ("x" * 1000, "unknown-target"),
        ("mule6", "unknown-mule"),
        ("mule999999", "unknown-mule"),
        ("mule9999999", "unknown-target"),
        ("farm_", "unknown-farm"),
        ("farm_none", "unknown-farm"),
        ("farm0", "unknown-farm"),
        ("farm3", "unknown-farm"),
    ],
)
def test_no_targets(target: str, code: str) -> None:
    w = world()
    mule = w.spawn(1)
    w.settle()
    assert ask(w, mule, "register_signal", 17, target).code == code
    assert not table(w)


def test_there_is_no_spooler_and_what_to_do_instead() -> None:
    w = world()
    mule = w.spawn(1)
    w.settle()
    said = ask(w, mule, "register_signal", 17, "spooler").value
    assert said == "there is no spooler in zmule: send a message to a mule instead"


# The table.


def test_five_mules_that_load_one_module_make_one_entry() -> None:
    w = world()
    mules = five(w)
    register(w, "mule2", *mules)
    register(w, "mule2", *mules)
    assert [(entry["target"], entry["mules"]) for entry in table(w).values()] == [("mule2", [1, 2, 3, 4, 5])]
    wait(w, *mules)
    raise_it(w)
    assert [running(mule) for mule in mules] == [[], [17], [], [], []]


def test_another_target_for_the_same_signal_is_an_error_to_who_makes_it() -> None:
    w = world()
    first, second, *_ = five(w)
    register(w, "mules", first)
    answer = ask(w, second, "register_signal", 17, "mule2")
    assert (answer.code, answer.value) == ("signal-conflict", "signal 17 is registered for 'mules' already")
    answer = ask(w, first, "register_signal", 17, "mule1")
    assert answer.code == "signal-conflict"
    assert table(w)[17]["mules"] == [1]
    register(w, "mule0", second, number=18)
    register(w, "mule", first, number=18)  # another spelling of the same target


def test_new_code_may_choose_another_target_when_the_old_is_gone() -> None:
    w = world()
    first, second, *_ = five(w)
    register(w, "mules", first, second)
    die(w, first)
    first = w.spawn(1)
    w.settle()
    assert ask(w, first, "register_signal", 17, "mule1").code == "signal-conflict"
    die(w, second)
    register(w, "mule1", first)
    assert (table(w)[17]["target"], table(w)[17]["mules"]) == ("mule1", [1])


def test_signal_registered() -> None:
    w = world()
    first, second, *_ = five(w)
    assert ask(w, first, "signal_registered", 17).value is False
    register(w, "mule1", second)
    assert ask(w, first, "signal_registered", 17).value is True


def test_unregistered_signals_go_to_signal_wait() -> None:
    w = world()
    first, second, *_ = five(w)
    register(w, "mules", first, second)
    assert ask(w, first, "unregister_signal", 17).code == ""
    wait(w, first, second)
    raise_it(w)
    assert (running(first), running(second)) == ([], [17])
    assert ask(w, second, "unregister_signal", 17).code == ""
    assert not table(w)
    assert ask(w, second, "unregister_signal", 17).code == "", "once more is fine"
    first.threads[0].time_out()
    wait(w, first, sources=SIGNAL | STRAY)
    raise_it(w)
    assert running(first) == [17]


def test_only_mules_and_workers_register() -> None:
    w = world()
    client = w.client()
    request = client.outbox.questions.ask("register_signal", (17, "mule"))
    w.settle()
    answer = client.outbox.questions.answer(request)
    assert answer is not None
    assert answer.code == "protocol"


# Strays.


def test_what_nobody_has_registered_goes_to_the_first_in_signal_wait() -> None:
    w = world()
    first, second, third, *_ = five(w)
    wait(w, first)
    wait(w, second, third, sources=SIGNAL | STRAY)
    raise_it(w, 200)
    assert [running(mule) for mule in (first, second, third)] == [[], [200], []]
    raise_it(w, 201, times=2)
    assert running(third) == [201]
    strays = status(w.broker, w.clock.now())["queues"]["signal:stray"]
    assert (strays["ready"], strays["in_flight"]) == (1, 2)


def test_strays_of_one_signal_do_not_swallow_those_of_another() -> None:
    w = world()
    first, *_ = five(w)
    for number in (17, 18):
        w.broker.services.timers.add_rb_timer(number, 1.0, 1, "somebody", w.clock.mono)
    w.pass_time(1.0)
    w.settle()
    strays = status(w.broker, w.clock.now())["queues"]["signal:stray"]
    assert strays["ready"] == 2
    for number in (17, 18):
        assert ask(w, first, "register_signal", number, "mule").code == ""
    wait(w, first)
    assert running(first) == [17]
    first.threads[0].get(SIGNAL)
    w.settle()
    assert running(first) == [18]


def test_many_strays_of_one_signal_leave_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (("MOST_PENDING", 3), ("MOST_STRAY", 5)):
        monkeypatch.setattr(f"zmule.core.intake.{name}", most)
    w = world()
    raise_it(w, 200, times=9)
    raise_it(w, 201, times=9)
    strays = status(w.broker, w.clock.now())["queues"]["signal:stray"]
    assert strays["ready"] == 5, "three of one, two of the other: together they are bounded, too"


def test_raised_before_anybody_has_registered_it_runs_where_it_is_at_last() -> None:
    w = world()
    raise_it(w, times=2)
    raise_it(w, 99)
    first, second, *_ = five(w)
    register(w, "mules", first)
    register(w, "mules", second)
    assert table(w)[17] == {
        "number": 17,
        "target": "mules",
        "mules": [1, 2],
        "workers": [],
        "raised": 2,
        "pending": 2,
    }
    kept = [message[1] for message in w.store.recover().messages]
    assert kept == ["signal:17:1", "signal:17:1", "signal:stray"]
    raise_it(w)
    assert run_all(w, first) == [17, 17, 17]
    assert run_all(w, second) == [17]
    wait(w, second, sources=SIGNAL | STRAY)
    assert running(second) == [99]


def test_a_stray_that_comes_back_goes_to_who_has_registered_it_meanwhile() -> None:
    w = world()
    raise_it(w)
    first, second, *_ = five(w)
    wait(w, first, sources=STRAY)
    assert running(first) == [17]
    register(w, "mule", second)
    first.threads[0].fail()
    wait(w, second, sources=SIGNAL)
    assert running(second) == [17]


def test_registered_between_the_raise_and_its_way_to_the_disk() -> None:
    w = world()
    mule, client = w.spawn(1), w.client()
    w.settle()
    client.send("signal:17", b"")
    client.pump()
    request = mule.inbox.ask("register_signal", 17, "mule1")
    mule.pump()
    for actor in (client, mule):
        assert actor.pipe is not None
        while actor.pipe.to_broker:
            w.carry(actor.pipe)  # and the store says nothing yet
    w.settle()
    assert mule.inbox.questions.answer(request) is not None
    assert run_all(w, mule) == [17]


def test_registered_by_two_meanwhile_it_is_a_run_for_each() -> None:
    w = world()
    mules, client = [w.spawn(1), w.spawn(2)], w.client()
    w.settle()
    client.send("signal:17", b"")
    client.pump()
    for mule in mules:
        mule.inbox.ask("register_signal", 17, "mules")
        mule.pump()
    for actor in (client, *mules):
        assert actor.pipe is not None
        while actor.pipe.to_broker:
            w.carry(actor.pipe)  # and the store says nothing yet
    w.settle()
    kept = [(message[0], message[1]) for message in w.store.recover().messages]
    assert kept == [(1, "signal:17:1"), (2, "signal:17:2")]
    assert [run_all(w, mule) for mule in mules] == [[17], [17]]


def test_what_came_too_late_for_its_threads_does_not_go_back_and_forth() -> None:
    w = world()
    mule = w.spawn(1, threads=2)
    w.settle()
    register(w, "mule1", mule)
    wait(w, mule)
    client = w.client()
    w.settle()
    for _ in range(2):
        client.send("signal:17", b"")
    client.pump()
    assert client.pipe is not None
    w.carry(client.pipe)
    w.answer()
    for thread in mule.threads:  # and two runs are on their way
        thread.time_out()
    mule.threads[0].get(DIRECT)
    w.settle()
    assert running(mule) == []
    mule.threads[0].time_out()
    assert run_all(w, mule, SIGNAL) == [17, 17]


def test_a_stray_suspect_that_finds_its_mule_keeps_no_other_waiting() -> None:
    w = world()
    first, second = w.spawn(1), w.spawn(2, threads=2)
    wait(w, first, sources=SIGNAL | STRAY)
    raise_it(w, 99)
    register(w, "mule2", second, number=17)
    second.threads[0].get(GET)
    w.settle()
    raise_it(w, 17)
    die(w, first)
    second.threads[1].get(GET)
    w.settle()
    send(w, "any")
    assert running(second) == [17], "what killed the first must travel alone"
    first = w.spawn(1)
    register(w, "mule1", first, number=99)
    assert sorted(map(str, running(second))) == ["17", "any"]


def test_what_only_workers_have_registered_for_mules_waits_for_a_mule() -> None:
    w = world()
    one, mule = worker(w), w.spawn(1)
    w.settle()
    register(w, "mules", one)
    raise_it(w)
    assert (table(w)[17]["raised"], w.broker.dispatch.length("signal:stray")[0]) == (1, 1)
    register(w, "mules", mule)
    assert run_all(w, mule) == [17]


def test_a_raise_for_workers_waits_for_the_first_of_them() -> None:
    w = world()
    mule = w.spawn(1)
    w.settle()
    register(w, "workers", mule)
    raise_it(w)
    one = worker(w)
    register(w, "workers", one)
    assert run_all(w, one, SIGNAL) == [17]


@pytest.mark.parametrize("target", ["", "workers", "worker1"])
def test_a_signal_for_workers_goes_to_signal_wait_when_there_is_none(target: str) -> None:
    w = world()
    mule = w.spawn(1)
    w.settle()
    register(w, target, mule)
    wait(w, mule, sources=SIGNAL | STRAY)
    raise_it(w)
    assert running(mule) == [17]


def test_workers_that_leave_are_forgotten_with_their_registrations() -> None:
    w = world()
    one = worker(w)
    register(w, "workers", one)
    assert table(w)[17]["workers"] == [1]
    one.kill()
    w.settle()
    assert not table(w)


def test_workers_see_strays_where_they_wait_for_them_and_no_messages() -> None:
    w = world()
    one = worker(w)
    wait(w, one, sources=EVERYTHING)
    send(w, "any")
    assert running(one) == []
    raise_it(w)
    assert running(one) == [17]


# Kept, in order, each raise one run.


def test_each_raise_is_one_run_in_order() -> None:
    w = world()
    mule = w.spawn(1)
    w.settle()
    for number in (1, 2, 3):
        register(w, "mule1", mule, number=number)
    client = w.client()
    numbers = [3, 1, 1, 2, 3, 3, 1]
    for number in numbers:
        client.send(f"signal:{number}", b"")
    w.settle()
    assert run_all(w, mule) == numbers


def test_raised_while_the_mule_is_away_they_run_when_it_has_registered_again() -> None:
    w = world()
    mule = w.spawn(1)
    w.settle()
    register(w, "mule1", mule)
    die(w, mule)
    raise_it(w, times=3)
    assert (table(w)[17]["mules"], table(w)[17]["pending"]) == ([1], 3)
    mule = w.spawn(1)
    wait(w, mule)
    assert running(mule) == [], "it has no handler yet"
    mule.threads[0].time_out()
    register(w, "mule1", mule)
    assert run_all(w, mule) == [17, 17, 17]
    assert table(w)[17]["pending"] == 0


def test_the_run_that_was_cut_comes_again_and_before_the_others() -> None:
    w = world()
    mule = w.spawn(1)
    w.settle()
    register(w, "mule1", mule)
    register(w, "mule1", mule, number=18)
    wait(w, mule)
    raise_it(w, 17)
    raise_it(w, 18)
    assert running(mule) == [17]
    die(w, mule)
    mule = w.spawn(1)
    w.settle()
    register(w, "mule1", mule, number=18)
    register(w, "mule1", mule)
    assert run_all(w, mule) == [17, 18]
    assert [handed.attempt for handed in w.delivered] == [1, 2, 1]


def test_a_signal_for_all_waits_for_each_that_is_away() -> None:
    w = world()
    first, second, *_ = five(w)
    register(w, "mules", first, second)
    die(w, second)
    wait(w, first)
    raise_it(w)
    assert running(first) == [17]
    second = w.spawn(2)
    w.settle()
    register(w, "mules", second)
    assert run_all(w, second) == [17]


def test_a_first_available_signal_goes_to_another_when_one_dies_with_it() -> None:
    w = world()
    first, second, *_ = five(w)
    register(w, "mule", first, second)
    wait(w, first)
    raise_it(w)
    wait(w, second)
    die(w, first)
    assert running(second) == [17]


def test_a_new_life_that_does_not_register_any_more_gets_no_more() -> None:
    w = world()
    first, second, *_ = five(w)
    register(w, "mules", first, second)
    die(w, first)
    first = w.spawn(1)
    wait(w, first)
    assert table(w)[17]["mules"] == [2]
    die(w, second)
    second = w.spawn(2)
    wait(w, second)
    assert not table(w)


def test_a_mule_that_is_given_up_does_not_hold_up_the_others() -> None:
    w = world()
    first, second, *_ = five(w)
    register(w, "mules", first, second)
    die(w, first)
    w.happened(MuleGivenUp(1, "it crashes"))
    assert table(w)[17]["mules"] == [2]
    raise_it(w, times=2)
    assert table(w)[17]["pending"] == 2


def test_a_reconnect_of_the_same_life_registers_by_itself() -> None:
    w = world()
    mule = w.spawn(1)
    w.settle()
    register(w, "mule1", mule)
    wait(w, mule)
    mule.cut()
    w.settle()
    w.pass_time(1)
    w.settle()
    assert table(w)[17]["mules"] == [1]
    raise_it(w)
    assert running(mule) == [17]


def test_poison_is_buried_here_too() -> None:
    w = world(max_deliveries=2)
    mule = w.spawn(1)
    w.settle()
    for _ in range(2):
        register(w, "mule1", mule)
        wait(w, mule)
        raise_it(w)
        assert running(mule) == [17]
        die(w, mule)
        mule = w.spawn(1)
        w.settle()
    assert [dead.message[1] for dead in w.broker.dead.values()] == ["signal:17:1"]
    register(w, "mule1", mule)
    assert run_all(w, mule) == [17]


# Signals and messages.


def test_a_waiting_signal_runs_before_the_next_message() -> None:
    w = world()
    mule = w.spawn(1)
    w.settle()
    register(w, "mule1", mule)
    send(w, "mule:1", 3)
    wait(w, mule)
    assert running(mule) == ["mule:1"]
    raise_it(w, times=2)
    assert run_all(w, mule) == [17, "mule:1", 17, "mule:1"], "and then they take turns"


def test_a_signal_that_is_always_waiting_does_not_keep_messages_waiting() -> None:
    w = world()
    mule = w.spawn(1)
    w.settle()
    register(w, "mule1", mule)
    raise_it(w)
    wait(w, mule)
    send(w, "mule:1", 2)
    send(w, "farm:busy", 1)
    seen = []
    for _ in range(6):
        seen += running(mule)
        raise_it(w)  # the next is raised while the handler is at work
        mule.threads[0].get(GET)
        w.settle()
    assert seen == [17, "mule:1", 17, "mule:1", 17, "farm:busy"]


def test_only_one_message_is_given_out_before_the_next_signal() -> None:
    w = world()
    mule = w.spawn(1, threads=3)
    w.settle()
    register(w, "mule1", mule)
    raise_it(w, times=5)
    send(w, "mule:1", 5)
    wait(w, mule)
    assert running(mule) == [17, "mule:1", 17]


def hoarding(w: World, *registered: SimMule) -> SimMule:
    """Return the first of the mules at work on a message, with more of them at hand that nobody waits for."""
    register(w, "mule" if len(registered) > 1 else "mule1", *registered)
    register(w, "mule1", registered[0], number=18)
    send(w, "mule:1", 100)
    mule = registered[0]
    for _ in range(4):
        mule.threads[0].get(GET)
        w.settle()
    assert mule.inbox._unstarted() > 5
    return mule


def test_a_signal_for_one_mule_goes_past_what_it_was_given_ahead() -> None:
    w = world()
    mule = w.spawn(1)
    w.settle()
    hoarding(w, mule)
    for number in (17, 18, 17):
        raise_it(w, number)
    done = run_all(w, mule)
    assert done[:6] == [17, "mule:1", 18, "mule:1", 17, "mule:1"]
    assert set(done[6:]) == {"mule:1"}


def test_while_a_signal_waits_nothing_more_is_given_ahead() -> None:
    w = world()
    first, second = w.spawn(1), w.spawn(2)
    w.settle()
    mule = hoarding(w, first, second)
    at_hand = mule.inbox._unstarted()
    raise_it(w)
    done = run_all(w, mule)
    assert done.index(17) <= at_hand
    assert len(done) == 1 + 100 - 4


def test_an_idle_mule_runs_the_signal_that_a_busy_one_would_have_to_wait_for() -> None:
    w = world()
    first, second = w.spawn(1), w.spawn(2)
    w.settle()
    hoarding(w, first, second)
    wait(w, second)
    raise_it(w)
    assert running(second) == [17]


def test_signals_reach_a_mule_that_reads_no_messages() -> None:
    w = world()
    mule = w.spawn(4)
    w.settle()
    register(w, "mule4", mule)
    mule.inbox.settle()
    w.settle()
    client = send(w, "mule:4")
    assert [refusal.code for refusal in client.outbox.failures] == ["not-programmed"]
    wait(w, mule, sources=SIGNAL)
    raise_it(w)
    assert running(mule) == [17]


# Limits and hostile senders.


def test_the_raiser_is_told_when_too_many_wait() -> None:
    w = world()
    mule = w.spawn(1)
    w.settle()
    register(w, "mule1", mule)
    client = w.client()
    client.outbox.most_messages = 2 * MOST_PENDING
    for _ in range(MOST_PENDING + 2):
        client.send("signal:17", b"")
    w.settle()
    full = Refusal(MOST_PENDING + 1, "queue-full", f"signal 17 waits {MOST_PENDING} times already")
    assert list(client.outbox.failures) == [full, full._replace(sequence=MOST_PENDING + 2)]
    assert table(w)[17]["pending"] == MOST_PENDING
    wait(w, mule)
    mule.threads[0].finish()
    w.settle()
    assert not raise_it(w).outbox.failures


@pytest.mark.parametrize(
    "queue",
    ["signal:", "signal:256", "signal:-1", "signal:17:1", "signal:stray", "signal:x", "signal:1.0",
     "signal:١", "signal:" + "9" * 190, "signal: 1"],
)  # fmt: skip
def test_what_is_no_signal_is_refused(queue: str) -> None:
    w = world()
    client = send(w, queue)
    assert [refusal.code for refusal in client.outbox.failures] == ["protocol"]
    assert not w.broker.dispatch.queues.get(queue)


def test_what_a_raise_carries_is_dropped() -> None:
    w = world()
    mule = w.spawn(1)
    w.settle()
    register(w, "mule1", mule)
    client = w.client()
    client.send("signal:17", "x" * 1000)
    w.settle()
    assert run_all(w, mule) == [17]


def test_a_store_that_cannot_write_refuses_raises() -> None:
    w = world()
    mule = w.spawn(1)
    w.settle()
    register(w, "mule1", mule)
    w.store_works = False
    client = raise_it(w)
    assert [refusal.code for refusal in client.outbox.failures] == ["store"]
    assert table(w)[17]["pending"] == 0
