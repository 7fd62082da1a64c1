"""What peers ask for: sources of signals and locks, and whatever else is thrown at the broker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmule.core.broker import Broker
from zmule.core.effects import Changes, Effect, Note, Send
from zmule.core.events import FrameReceived, MuleGivenUp
from zmule.core.frames import DIRECT, FARM, SIGNAL, STRAY, Answer, Ask
from zmule.core.instant import Instant
from zmule.core.lockservice import RESERVE
from zmule.core.mules import FarmSetup, MuleSetup
from zmule.core.services import Schedules
from zmule.core.setup import Limits
from zmule.core.status import status
from zmule.daemon.cronstring import integer_schedule, string_schedule
from zmule.errors import BY_CODE
from zmule.testing import Actor, SimClient, SimMule, World

SCHEDULES = Schedules(integer_schedule, string_schedule)
MINUTE = 1_800_000_000  # where the world's wall clock begins: at the start of a minute


class Recorder(World):
    """A world that notes what the operator is told, and which questions are answered."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.notes: list[Note] = []
        self.answers: list[Answer] = []
        super().__init__(*arguments, **options)

    def perform(self, effects: Iterable[Effect]) -> None:
        effects = list(effects)
        self.notes += [effect for effect in effects if isinstance(effect, Note)]
        super().perform(effects)

    def send(self, effect: Send) -> None:
        if isinstance(effect.frame, Answer):
            self.answers.append(effect.frame)
        super().send(effect)


def world(locks: int = 2, **limits: Any) -> Recorder:
    """Two programmed mules and a signal-only one."""
    mules = [MuleSetup(1, "a.py"), MuleSetup(2, "b.py"), MuleSetup(3, None)]
    farms = [FarmSetup("busy", (1, 2))]
    return Recorder(mules, farms, Limits(**limits), schedules=SCHEDULES, locks=locks)


def start(w: World, actor: Actor, what: str, *arguments: Any) -> int:
    """Let an actor put a question; return its number."""
    if isinstance(actor, SimMule):
        return actor.inbox.ask(what, *arguments)
    assert isinstance(actor, SimClient)
    return actor.outbox.questions.ask(what, arguments)


def heard(actor: Actor, request: int) -> Answer | None:
    link = actor.inbox if isinstance(actor, SimMule) else actor.link
    answer: Answer | None = link.questions.answer(request)  # type: ignore[attr-defined]
    return answer


def ask(w: World, actor: Actor, what: str, *arguments: Any) -> Answer:
    """Let an actor put a question; return the answer."""
    request = start(w, actor, what, *arguments)
    w.settle()
    answer = heard(actor, request)
    assert answer is not None, f"no answer to {what}"
    return answer


def want(w: World, mule: SimMule, what: str, *arguments: Any) -> None:
    assert ask(w, mule, what, *arguments).code == ""
    mule.inbox.want(what, *arguments)


def spawn(w: World, number: int, *wishes: tuple[Any, ...]) -> SimMule:
    """Start a configured mule that asks for this and then waits, as a program does."""
    mule = w.spawn(number)
    w.settle()
    for what, *arguments in wishes:
        want(w, mule, what, *arguments)
    mule.threads[0].get(DIRECT | FARM | SIGNAL)
    w.settle()
    return mule


def die(w: World, mule: SimMule) -> None:
    mule.kill()
    w.exited(mule.inbox.number)
    w.settle()


def sources(w: World) -> list[tuple[Any, ...]]:
    entries = status(w.broker, w.clock.now())["timers"]
    return [(entry["kind"], entry["signal"], entry["spec"]) for entry in entries]


def fired(w: World) -> list[int]:
    return [entry["fired"] for entry in status(w.broker, w.clock.now())["timers"]]


def pending(w: World, number: int = 17) -> int:
    entries = {entry["number"]: entry for entry in status(w.broker, w.clock.now())["signals"]}
    count: int = entries[number]["pending"]
    return count


def run(w: World, mule: SimMule) -> list[int]:
    """Let the mule run what waits for it; return the signals."""
    thread, done = mule.threads[0], []
    while thread.delivery is not None:
        body = thread.delivery.body
        assert isinstance(body, bytes)
        done.append(body[0])
        thread.get(DIRECT | FARM | SIGNAL)
        w.settle()
    return done


HANDLER = ("register_signal", 17, "mule1")


# Timers.


def test_a_timer_raises_its_signal_on_its_grid() -> None:
    w = world()
    mule = spawn(w, 1, HANDLER, ("add_timer", 17, 10.0))
    for _ in range(3):
        w.pass_time(9.5)
        assert not run(w, mule)
        w.pass_time(0.5)
        w.settle()
        assert run(w, mule) == [17]


def test_what_a_source_raises_waits_at_most_once() -> None:
    w = world(heartbeat_timeout=1000.0)
    mule = spawn(w, 1, HANDLER, ("add_timer", 17, 1.0))
    for _ in range(5):
        w.pass_time(1)
        w.settle()
    assert pending(w) == 2, "one is being handled, one waits"
    assert run(w, mule) == [17, 17]
    assert fired(w) == [5]


def test_it_waits_at_most_once_for_a_slow_store_too() -> None:
    w = world(heartbeat_timeout=1000.0)
    spawn(w, 1, HANDLER, ("add_timer", 17, 1.0))
    for _ in range(5):
        w.pass_time(1)  # and the store says nothing
    assert pending(w) == 1


def test_a_raise_by_hand_is_never_swallowed_by_one_of_a_timer() -> None:
    w = world(heartbeat_timeout=1000.0)
    mule = spawn(w, 1, HANDLER, ("add_timer", 17, 1.0))
    w.pass_time(1)
    w.settle()
    client = w.client()
    for _ in range(3):
        client.send("signal:17", b"")
    w.settle()
    w.pass_time(1)
    w.settle()
    assert run(w, mule) == [17] * 4


def test_five_mules_that_load_one_module_have_one_timer() -> None:
    w = world()
    for number in (1, 2):
        spawn(w, number, ("add_timer", 17, 1.0), ("add_rb_timer", 17, 1.0, 3), ("add_timer", 17, 1.0))
    assert sources(w) == [("timer", 17, "every 1.0 s"), ("rb_timer", 17, "every 1.0 s, 3 times")]


def test_a_timer_keeps_its_beat_while_its_mule_is_respawned() -> None:
    w = world()
    mule = spawn(w, 1, HANDLER, ("add_timer", 17, 10.0))
    w.pass_time(6)
    die(w, mule)
    w.pass_time(2)
    mule = spawn(w, 1, HANDLER, ("add_timer", 17, 10.0))
    w.pass_time(2)
    w.settle()
    assert run(w, mule) == [17]
    assert len(sources(w)) == 1


def test_a_timer_is_gone_when_the_new_life_does_not_ask_for_it() -> None:
    w = world()
    die(w, spawn(w, 1, HANDLER, ("add_timer", 17, 10.0), ("add_timer", 18, 5.0)))
    assert len(sources(w)) == 2
    spawn(w, 1, HANDLER, ("add_timer", 17, 10.0))
    assert sources(w) == [("timer", 17, "every 10.0 s")]


def test_a_life_that_did_not_get_so_far_changes_nothing() -> None:
    w = world()
    die(w, spawn(w, 1, HANDLER, ("add_timer", 17, 10.0)))
    short = w.spawn(1)
    w.settle()
    want(w, short, "add_timer", 18, 5.0)
    die(w, short)
    assert sources(w) == [("timer", 17, "every 10.0 s")]


def test_a_mule_that_is_given_up_asks_for_nothing_any_more() -> None:
    w = world()
    die(w, spawn(w, 1, HANDLER, ("add_timer", 17, 10.0), ("add_file_monitor", 17, "/a")))
    w.happened(MuleGivenUp(1, "it crashes"))
    assert sources(w) == []
    assert not w.watched


def test_a_mule_from_outside_takes_its_timers_along() -> None:
    w = world()
    guest = w.mule(7)
    w.settle()
    want(w, guest, "add_timer", 17, 1.0)
    want(w, guest, "add_cron_text", 18, "* * * * *", "")
    want(w, guest, "add_file_monitor", 19, "/a")
    assert len(sources(w)) == 3
    guest.kill()
    w.settle()
    assert sources(w) == []
    assert not w.watched


def test_a_client_takes_its_timers_along() -> None:
    w = world()
    client = w.client()
    w.settle()
    ask(w, client, "add_timer", 17, 1.0)
    client.cut()
    w.notice()
    assert sources(w) == []


def test_one_that_two_ask_for_stays_for_the_other() -> None:
    w = world()
    guest = w.mule(7)
    w.settle()
    want(w, guest, "add_timer", 17, 1.0)
    spawn(w, 1, ("add_timer", 17, 1.0))
    guest.kill()
    w.settle()
    assert sources(w) == [("timer", 17, "every 1.0 s")]


def test_a_reconnect_asks_again_and_the_beat_goes_on() -> None:
    w = world()
    mule = spawn(w, 1, HANDLER, ("add_timer", 17, 10.0))
    w.pass_time(5)
    mule.cut()
    w.settle()
    w.pass_time(1)
    w.settle()
    w.pass_time(4)
    w.settle()
    assert run(w, mule) == [17]


def test_iterations() -> None:
    w = world()
    mule = spawn(w, 1, HANDLER, ("add_rb_timer", 17, 1.0, 2))
    done = []
    for _ in range(4):
        w.pass_time(1)
        w.settle()
        done += run(w, mule)
    assert done == [17, 17]
    assert sources(w) == []


def test_removed_whoever_asked() -> None:
    w = world()
    mule = spawn(w, 1, ("add_timer", 17, 1.0), ("add_timer", 17, 2.0), ("add_timer", 18, 1.0))
    other = spawn(w, 2, ("add_file_monitor", 17, "/a"), ("add_file_monitor", 17, "/b"))
    assert ask(w, other, "remove_source", "timer", 17).value == 2
    assert ask(w, other, "remove_source", "cron", 17).value == 0
    assert ask(w, mule, "remove_source", "filemon", 17).value == 2
    assert sources(w) == [("timer", 18, "every 1.0 s")]
    assert not w.watched
    answer = ask(w, mule, "remove_source", "tmer", 17)
    assert (answer.code, answer.value) == (
        "wrong-value",
        "a kind of source is one of timer, rb_timer, cron, filemon, not 'tmer'",
    )


# Cron.


def test_a_cron_fires_at_the_minute_and_not_before() -> None:
    w = world()
    mule = spawn(w, 1, HANDLER, ("add_cron", 17, -1, -1, -1, -1, -1))
    assert w.clock.wall == MINUTE
    w.pass_time(59.9)
    w.settle()
    assert not run(w, mule)
    w.pass_time(0.1)
    w.settle()
    assert run(w, mule) == [17]


def restarted(w: World, mule: SimMule) -> None:
    """Kill the broker, with its mules; start another one on the same store."""
    mule.kill()
    w.vanished.clear()
    w.broker = Broker(w.setup, w.clock.now())
    w.broker.recover(w.store.recover())


CRON = ("add_cron_text", 17, "* * * * *", "")


def test_no_minute_fires_twice_over_a_restart() -> None:
    w = world()
    mule = spawn(w, 1, HANDLER, CRON)
    w.pass_time(60)
    w.settle()
    assert run(w, mule) == [17]
    for _ in range(2):
        restarted(w, mule)
        mule = spawn(w, 1, HANDLER, CRON)
        w.pass_time(10)
        w.settle()
        assert not run(w, mule)
    w.pass_time(40)
    w.settle()
    assert run(w, mule) == [17]


def test_the_minute_of_the_restart_is_made_up_for_once() -> None:
    w = world()
    mule = spawn(w, 1, HANDLER, CRON)
    w.pass_time(50)
    w.clock.advance(15)  # the broker is dead over the boundary
    restarted(w, mule)
    mule = spawn(w, 1, HANDLER, CRON)
    w.tick()
    w.settle()
    assert run(w, mule) == [17]
    restarted(w, mule)
    mule = spawn(w, 1, HANDLER, CRON)
    w.tick()
    w.settle()
    assert not run(w, mule)


def test_a_name_has_its_number_over_a_restart_whoever_comes_back_first() -> None:
    w = world()
    first, second = w.mule(7), w.mule(8)
    w.settle()
    assert ask(w, first, "name_signal", "a", -1).value == 0
    assert ask(w, second, "name_signal", "b", -1).value == 1
    first.kill()
    second.kill()
    w.vanished.clear()
    w.revive()
    second = w.mule(8)
    w.settle()
    assert ask(w, second, "name_signal", "c", 0).value == 2
    assert ask(w, second, "name_signal", "b", -1).value == 1
    assert kept(w, "name ") == {"name a": b"0", "name b": b"1", "name c": b"2"}


def test_the_store_is_given_a_name_before_anybody_is_told_its_number() -> None:
    w = world()
    client = w.client()
    w.settle()
    assert client.pipe is not None
    told = FrameReceived(client.pipe.peer, Ask(1, "name_signal", ("a", 5)))
    changes, answer = w.broker.handle(told, w.clock.now())
    assert isinstance(changes, Changes)
    assert changes.facts == {"name a": b"5"}
    assert isinstance(answer, Send)
    assert [type(effect) for effect in w.broker.handle(told, w.clock.now())] == [Send]


def test_names_that_made_room_are_forgotten_by_the_store() -> None:
    w = world()
    client = w.client()
    w.settle()
    for number in range(257):
        ask(w, client, "name_signal", f"name {number}", -1)
    assert kept(w, "name ") == {"name name 256": b"0"}


def kept(w: World, kind: str) -> dict[str, bytes]:
    """Return the facts of a kind that the store has."""
    return {name: value for name, value in w.store.recover().facts.items() if name.startswith(kind)}


def test_a_cron_that_nobody_wants_any_more_is_forgotten_by_the_store() -> None:
    w = world()
    guest = w.mule(7)
    w.settle()
    want(w, guest, "add_cron_text", 17, "5 * * * *", "")
    want(w, guest, "add_cron_text", 18, "* * * * *", "Europe/Rome")
    w.tick()
    facts = kept(w, "cron ")
    minute = b"%d" % (MINUTE // 60)
    assert facts == {"cron 17 5 * * * *": minute, "cron 18 * * * * * Europe/Rome": minute}
    assert ask(w, guest, "remove_source", "cron", 17).value == 1
    w.tick()
    assert list(kept(w, "cron ")) == ["cron 18 * * * * * Europe/Rome"]
    guest.kill()
    w.settle()
    other = w.mule(8)
    w.pass_time(300)
    w.settle()
    want(w, other, "add_cron_text", 19, "5 * * * *", "")
    w.tick()
    assert list(kept(w, "cron ")) == ["cron 19 5 * * * *"]


def test_only_what_has_changed_is_kept() -> None:
    w = world()
    spawn(w, 1, HANDLER, CRON, ("add_cron_text", 17, "0 0 1 1 *", ""), ("add_timer", 17, 1.0))
    w.clock.advance(59)
    w.tick()
    w.settle()
    w.clock.advance(1)
    effects = w.broker.tick(w.clock.now())
    (changes,) = [effect for effect in effects if isinstance(effect, Changes)]
    assert changes.facts == {"cron 17 * * * * *": b"%d" % (MINUTE // 60 + 1)}
    assert effects.index(changes) == len(effects) - 1, "after what it has raised"


def test_without_a_clock_for_crons() -> None:
    w = World()
    mule = w.mule()
    w.settle()
    assert ask(w, mule, "add_cron_text", 1, "* * * * *", "").value == "this broker has no clock for cron"


# File monitors.


def test_a_change_raises_the_signal_of_each_who_asked() -> None:
    w = world()
    mule = spawn(w, 1, HANDLER, ("register_signal", 18, "mule1"), ("add_file_monitor", 17, "/a"))
    spawn(w, 2, ("add_file_monitor", 17, "/a"), ("add_file_monitor", 18, "/a"))
    w.touch("/a")
    w.touch("/b")
    w.settle()
    assert run(w, mule) == [17, 18]


def test_it_is_answered_when_the_watch_has_begun() -> None:
    w = world()
    mule = spawn(w, 1)
    w.unwatchable.add("/secret")
    answer = ask(w, mule, "add_file_monitor", 17, "/secret")
    assert (answer.code, answer.value) == ("wrong-value", "it cannot be watched")
    assert sources(w) == []
    w.unwatchable.clear()
    assert ask(w, mule, "add_file_monitor", 17, "/secret").code == ""


@pytest.mark.parametrize("signal", [17, 18])
def test_a_monitor_that_is_removed_before_its_watch_began_has_its_answer(signal: int) -> None:
    w = world()
    mule, other = spawn(w, 1), spawn(w, 2)
    asked = [start(w, mule, "add_file_monitor", 17, "/a"), start(w, mule, "add_file_monitor", signal, "/a")]
    removed = start(w, other, "remove_source", "filemon", 17)
    w.settle()
    answers = [heard(mule, request) for request in asked]
    assert [answer and (answer.code, answer.value) for answer in answers] == [("", None)] * 2
    answer = heard(other, removed)
    assert answer is not None
    assert answer.value == 1
    assert list(w.watched) == ["/a"] * (signal == 18)


@pytest.mark.parametrize("path", ["", "x" * 4096])
def test_no_paths(path: str) -> None:
    w = world()
    assert ask(w, spawn(w, 1), "add_file_monitor", 17, path).code == "wrong-value"


# The configuration asks, too.


def test_what_the_configuration_asks_for_stays() -> None:
    w = world()
    wishes = [
        ("add_timer", (17, 1.0)),
        ("add_cron_text", (17, "* * * * *", "")),
        ("add_file_monitor", (17, "/a")),
    ]
    w.broker.services.configure(wishes)
    w.tick()
    w.settle()
    die(w, spawn(w, 1, HANDLER, ("add_timer", 17, 1.0), ("add_file_monitor", 17, "/a")))
    spawn(w, 1)
    assert len(sources(w)) == 3
    assert list(w.watched) == ["/a"]


def test_no_peer_can_pass_for_the_configuration() -> None:
    w = world()
    w.broker.services.configure([("add_timer", (17, 1.0))])
    client = w.client()
    w.settle()
    assert client.pipe is not None
    assert client.pipe.peer
    client.cut()
    w.settle()
    assert len(sources(w)) == 1


def test_a_path_of_the_configuration_that_cannot_be_watched_is_told_to_the_operator() -> None:
    w = world()
    w.unwatchable.add("/secret")
    w.broker.services.configure([("add_file_monitor", (17, "/secret"))])
    w.tick()
    w.settle()
    assert w.notes == [Note("error", "configuration: it cannot be watched")]
    assert sources(w) == []


# Locks.


def test_a_lock_is_granted_in_order_and_freed_with_its_holder() -> None:
    w = world()
    clients = [w.client() for _ in range(3)]
    w.settle()
    requests = []
    for client in clients:
        requests.append(start(w, client, "lock", 0, 1, -1.0, True))
        w.settle()
    answers = [heard(client, request) for client, request in zip(clients, requests, strict=True)]
    assert [answer is not None for answer in answers] == [True, False, False]
    clients[0].kill()
    w.settle()
    second = heard(clients[1], requests[1])
    assert second is not None
    assert answers[0] is not None
    assert second.value > answers[0].value, "the fencing token grows"
    assert ask(w, clients[1], "unlock", 0, 1).code == ""
    assert heard(clients[2], requests[2]) is not None


def test_two_threads_of_one_process_exclude_each_other() -> None:
    w = world()
    client = w.client()
    w.settle()
    assert ask(w, client, "lock", "name", 1, -1.0, True).code == ""
    assert ask(w, client, "lock", "name", 2, -1.0, False).code == "lock-busy"
    assert ask(w, client, "unlock", "name", 2).code == "not-holder"
    assert ask(w, client, "is_locked", "name").value is True
    assert ask(w, client, "unlock", "name", 1).code == ""
    assert ask(w, client, "is_locked", "name").value is False


def test_a_lock_that_is_asked_for_twice_under_one_number_is_not_granted_to_nobody() -> None:
    w = world()
    holder, other = w.client(), w.client()
    w.settle()
    assert ask(w, holder, "lock", 0, 1, -1.0, True).code == ""
    request = start(w, other, "lock", 0, 1, -1.0, False)
    w.settle()
    assert ask(w, holder, "unlock", 0, 1).code == ""
    again = other.outbox.questions
    again._open[request] = Ask(request, "lock", (0, 1, -1.0, False))
    again.mend()
    w.settle()
    assert ask(w, other, "is_locked", 0).value is False


def test_a_silent_holder_loses_its_lock_and_is_told() -> None:
    w = world(heartbeat_timeout=5.0)
    holder, waiter = w.client(), w.client()
    w.settle()
    assert ask(w, holder, "lock", 0, 1, -1.0, True).code == ""
    holder.outbox.holds = 1
    request = start(w, waiter, "lock", 0, 1, -1.0, True)
    w.settle()
    holder.frozen = True
    for _ in range(4):
        w.pass_time(1)
        w.settle()
        assert heard(waiter, request) is None
    w.pass_time(1)
    w.settle()
    answer = heard(waiter, request)
    assert answer is not None
    assert answer.code == ""
    holder.frozen = False
    w.settle()
    assert holder.outbox.holds == 0
    assert ask(w, holder, "unlock", 0, 1).code == "not-holder"


def test_a_holder_that_lives_keeps_its_lock_however_short_the_patience() -> None:
    w = world(heartbeat=0.1, heartbeat_timeout=0.5)
    holder = w.client()
    w.settle()
    assert ask(w, holder, "lock", 0, 1, -1.0, True).code == ""
    holder.outbox.holds = 1
    for _ in range(100):
        w.pass_time(0.1)
        w.settle()
    assert ask(w, holder, "unlock", 0, 1).code == ""


def test_waiting_ends_in_time() -> None:
    w = world()
    holder, waiter = w.client(), w.client()
    w.settle()
    ask(w, holder, "lock", 0, 1, -1.0, True)
    holder.outbox.holds = 1
    request = start(w, waiter, "lock", 0, 1, 3.0, True)
    w.settle()
    for _ in range(3):
        assert heard(waiter, request) is None
        w.pass_time(1)
        w.settle()
    answer = heard(waiter, request)
    assert answer is not None
    assert answer.code == "lock-timeout"


@pytest.mark.parametrize("name", [3, -1, 2**40, "", "x" * 201])
def test_no_locks(name: int | str) -> None:
    w = world(locks=2)
    client = w.client()
    w.settle()
    for question in (("lock", name, 1, -1.0, True), ("unlock", name, 1), ("is_locked", name)):
        assert ask(w, client, *question).code == "unknown-lock"


def test_tokens_grow_over_a_restart_of_the_broker() -> None:
    w = world()
    client = w.client()
    w.settle()
    before = ask(w, client, "lock", 0, 1, -1.0, True).value
    w.clock.advance(1)
    w.restart()
    w.settle()
    assert ask(w, client, "lock", 0, 1, -1.0, True).value > before


def test_tokens_grow_over_a_restart_even_if_the_clock_goes_back() -> None:
    w = world()
    w.revive()
    before = 0
    for _ in range(3):
        client = w.client()
        w.settle()
        token = ask(w, client, "lock", 0, 1, -1.0, True).value
        assert token > before
        before = token
        client.kill()
        w.clock.wall -= 3600
        w.revive()


def test_the_store_is_told_of_tokens_before_they_are_used_up() -> None:
    w = world()
    w.revive()
    locks = w.broker.services.locks._locks
    noted = int(kept(w, "lock token")["lock token"])
    assert noted > locks.next_token + RESERVE
    client = w.client()
    w.settle()
    locks.next_token = noted - RESERVE - 1
    for name, expected in (("a", noted), ("b", noted + RESERVE + 1)):
        ask(w, client, "lock", name, 1, -1.0, True)
        assert int(kept(w, "lock token")["lock token"]) == expected


def test_status_says_which_processes_hold_and_wait() -> None:
    w = world(locks=1)
    holder, waiter = w.client(), w.client()
    holder.outbox._pid, waiter.outbox._pid = 101, 102
    w.settle()
    token = ask(w, holder, "lock", 1, 7, -1.0, True).value
    start(w, waiter, "lock", 1, 8, -1.0, True)
    w.settle()
    assert status(w.broker, w.clock.now())["locks"] == [
        {"name": 0, "holder": None, "token": None, "waiting": []},
        {
            "name": 1,
            "holder": {"pid": 101, "thread": 7},
            "token": token,
            "waiting": [{"pid": 102, "thread": 8}],
        },
    ]
    assert ask(w, waiter, "status").code == "", "and it can travel"


# Whatever is thrown at it.

QUESTIONS = sorted(Broker(World().setup, Instant(0.0, 0.0)).questions)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.integers(-2, 300)
WORDS = st.sampled_from(
    ["mule", "mules", "mule1", "worker", "farm_busy", "spooler", "timer", "rb_timer", "cron", "filemon", "f",
     "* * * * *", "*/5 8-18 * * mon-fri", "0 0 30 2 *", "0 0 L * 5#2", "Europe/Rome", "/a", ".."]
)  # fmt: skip
PLAIN = (
    st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=9) | WORDS | st.binary(max_size=9)
)
LONG = st.just("x" * 5000)
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=5,
)
LIKELY = st.tuples(
    st.integers(0, 255) | WORDS | LONG, *[NUMBERS | st.floats() | WORDS | LONG | st.booleans()] * 5
)
ARGUMENTS = st.lists(VALUES, max_size=7).map(tuple) | st.integers(0, 6).flatmap(
    lambda count: LIKELY.map(lambda values: values[:count])
)
ASKS = st.tuples(st.integers(0, 2), st.sampled_from(QUESTIONS), ARGUMENTS)


@settings(max_examples=300)
@given(st.lists(ASKS, max_size=20))
def test_any_question_has_an_answer_and_harms_nothing(asks: list[tuple[int, str, tuple[Any, ...]]]) -> None:
    """Any arguments give one answer, with a code that is known; or, for a lock, none for the time being."""
    w = world()
    actors: list[Actor] = [w.client(), w.mule(7), w.spawn(1)]
    w.settle()
    for request, (who, what, arguments) in enumerate(asks, 1):
        pipe = actors[who].pipe
        assert pipe is not None
        w.receive(pipe, Ask(request, what, arguments))
        w.turn()
        answers = [answer for answer in w.answers if answer.request == request]
        assert len(answers) == 1 or (what == "lock" and not answers)
        assert all(answer.code == "" or answer.code in BY_CODE for answer in answers)
        w.pass_time(0.1)
    w.pass_time(100)


def test_questions_of_a_stranger_are_not_answered() -> None:
    w = world()
    for what in QUESTIONS:
        w.receive(w.connect(w.client()), Ask(1, what, ("timer", 1)))
    assert not sources(w)


def test_stray_bits_are_for_signal_wait_alone() -> None:
    w = world()
    mule = spawn(w, 1)
    mule.threads[0].time_out()
    mule.threads[0].get(SIGNAL | STRAY)
    w.settle()
    w.client().send("signal:99", b"")
    w.settle()
    assert run(w, mule) == [99]


# What all peers together may ask for.


def test_functions_of_a_mule_in_many_farms_are_few() -> None:
    w = world()
    mule = w.mule(7, farms=tuple(f"f{number}" for number in range(64)))
    w.settle()
    assert mule.pipe is not None
    for number in range(200):
        w.receive(mule.pipe, Ask(number + 1, "register_function", (f"f{number}",)))
    w.turn()
    codes = [answer.code for answer in w.answers[-200:]]
    assert codes[:75] == [""] * 75
    assert codes[75:] == ["wrong-value"] * 125
    assert len(w.broker.dispatch.queues) < 5200


@pytest.mark.parametrize(
    ("limit", "what", "more"),
    [
        ("zmule.core.timers.ENTRIES_OF_ALL", "add_timer", (1000.0,)),
        ("zmule.core.monitors.MONITORS_OF_ALL", "add_file_monitor", ("/a",)),
    ],
)
def test_all_peers_together_ask_for_no_more_than_may_be(
    monkeypatch: pytest.MonkeyPatch, limit: str, what: str, more: tuple[object, ...]
) -> None:
    monkeypatch.setattr(limit, 3)
    w = world()
    clients = [w.client(), w.client()]
    w.settle()
    for request, client in enumerate(clients * 3, 1):
        assert client.pipe is not None
        w.receive(client.pipe, Ask(request, what, (request, *more)))
    w.turn()
    assert sorted(answer.code for answer in w.answers[-6:]) == [""] * 3 + ["wrong-value"] * 3
    clients[0].kill()
    w.settle()
    w.receive(clients[1].pipe, Ask(9, what, (9, *more)))  # type: ignore[arg-type]
    w.turn()
    assert w.answers[-1].code == ""


def test_all_peers_together_have_no_more_locks_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmule.core.locks.CLAIMS_OF_ALL", 2)
    w = world()
    clients = [w.client(), w.client(), w.client()]
    w.settle()
    for request, client in enumerate(clients, 1):
        assert client.pipe is not None
        w.receive(client.pipe, Ask(request, "lock", (f"lock {request}", 1, -1.0, True)))
    w.turn()
    assert [answer.code for answer in w.answers[-3:]] == ["", "", "lock-limit"]
    w.broker.validate()
