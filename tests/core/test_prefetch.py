"""How far ahead a mule is served, and that nothing waits behind it."""

from __future__ import annotations

from zmule.core.mules import FarmSetup, MuleSetup
from zmule.core.prefetch import MOST_MESSAGES, Pace
from zmule.core.setup import Limits
from zmule.testing import SimClient, SimMule, World


def world(**limits: int) -> World:
    mules = [MuleSetup(1, "a.py"), MuleSetup(2, "b.py"), MuleSetup(3, "c.py", early=True)]
    return World(mules, [FarmSetup("busy", (1, 2))], Limits(**limits))


def send(world: World, queue: str, count: int, size: int = 3) -> SimClient:
    client = world.client()
    for number in range(count):
        client.send(queue, f"{number:0{size}}")
    world.settle()
    return client


def send_only(world: World, queue: str, count: int) -> None:
    """Have messages queued while nothing else moves."""
    client = world.client()
    for number in range(count):
        client.send(queue, str(number))
    world.settle_only(client)


def warm(world: World, mule: SimMule, seconds: float = 0.001, turns: int = 4) -> None:
    """Let the mule work off messages at a pace, one by one, so that the broker learns it."""
    for _ in range(turns):
        mule.threads[0].get()
        world.settle()
        world.clock.advance(seconds)


def ahead(world: World, number: int) -> int:
    """How many messages a mule has that none of its threads has started."""
    return sum(map(len, next(m for m in mules(world) if m.inbox.number == number).inbox._buffers.values()))


def mules(world: World) -> list[SimMule]:
    return [actor for actor in world.actors if isinstance(actor, SimMule)]


def test_a_quick_mule_is_served_ahead_more_and_more() -> None:
    w = world()
    mule = w.spawn(1)
    send(w, "any", 200)
    windows = []
    for _ in range(4):
        warm(w, mule, 0.0001, turns=1)
        windows.append(ahead(w, 1))
    assert windows[0] == 0
    assert windows == sorted(windows)
    assert windows[-1] >= 20


def test_a_mule_with_long_jobs_is_not() -> None:
    w = world()
    mule = w.spawn(1)
    send(w, "any", 20)
    warm(w, mule, 1.0)
    assert ahead(w, 1) == 0


def test_what_was_given_ahead_is_recalled_for_an_idle_mule() -> None:
    w = world()
    busy = w.spawn(1)
    send(w, "any", 20)
    warm(w, busy)
    held = ahead(w, 1)
    assert held > 2
    assert len(w.broker.dispatch.queue("any").ready) + held + 5 >= 20 - 4
    idle = w.spawn(2)
    while w.broker.dispatch.queue("any").ready:
        idle.threads[0].get()
        w.settle()
    before = ahead(w, 1)
    idle.threads[0].get()
    w.settle()
    assert idle.threads[0].delivery is not None
    assert idle.threads[0].delivery.attempt == 1
    assert ahead(w, 1) < before


def test_everything_gets_done_by_the_idle_one_while_the_other_is_stuck() -> None:
    w = world()
    stuck = w.spawn(1)
    send(w, "any", 20)
    warm(w, stuck)
    idle = w.spawn(2)
    done = []
    while True:
        idle.threads[0].get()
        w.settle()
        if idle.threads[0].delivery is None:
            break
        done.append(idle.threads[0].delivery.body)
    assert len(set(done)) == len(done) == 16
    assert w.broker.left() == 1


def test_no_progress_is_a_recall_too() -> None:
    w = world()
    mule = w.spawn(1)
    send(w, "any", 20)
    warm(w, mule)
    assert ahead(w, 1) > 0
    deadline = w.broker.next_deadline()
    w.pass_time(deadline - w.clock.mono + 0.001)
    w.settle()
    assert ahead(w, 1) == 0
    ids = [message[0] for message in w.broker.dispatch.queue("any").ready]
    assert ids == sorted(ids)
    assert {message[3] for message in w.broker.dispatch.queue("any").ready} == {1}


def test_nothing_overtakes_what_is_on_its_way_back() -> None:
    w = world()
    mule = w.spawn(1)
    send(w, "mule:1", 30)
    warm(w, mule, turns=20)
    assert ahead(w, 1) == 10
    w.pass_time(0.06)  # no progress: a recall is on its way
    send_only(w, "mule:1", 10)
    for _ in range(8):
        mule.threads[0].get()
    mule.pump()
    assert mule.pipe is not None
    w.carry(mule.pipe)  # and crosses a report of progress after all
    while w.broker.left():
        w.settle()
        mule.threads[0].get()
    ids = [delivery.id for delivery in w.started]
    assert ids == sorted(ids)


def test_only_what_the_threads_have_asked_for_is_given_ahead() -> None:
    w = world()
    mule = w.spawn(1)
    send(w, "any", 20)
    send(w, "farm:busy", 20)
    for _ in range(4):
        mule.threads[0].get(1)
        w.settle()
        w.clock.advance(0.001)
    assert ahead(w, 1) > 0
    assert len(w.broker.dispatch.queue("farm:busy").ready) == 20


def test_nothing_is_given_ahead_that_would_be_lost() -> None:
    w = world()
    mule = w.spawn(3)
    send(w, "any", 20)
    warm(w, mule)
    assert ahead(w, 3) == 0


def test_who_leaves_gives_back_what_it_was_given_ahead() -> None:
    w = world()
    mule = w.spawn(1)
    send(w, "any", 20)
    warm(w, mule)
    assert ahead(w, 1) > 0
    mule.threads[0].finish()
    mule.inbox.bid_farewell()
    w.settle()
    ready = w.broker.dispatch.queue("any").ready
    assert {message[3] for message in ready} == {1}
    assert len(ready) == 16


def test_large_messages_are_given_ahead_by_their_size() -> None:
    w = world()
    mule = w.spawn(1)
    send(w, "any", 20, size=50_000)
    warm(w, mule, 0.0001)
    assert ahead(w, 1) * 50_000 <= 1 << 20


def test_the_pace_grows_by_doubling_and_falls_at_once() -> None:
    pace = Pace()
    pace.begun(0.0)
    windows = []
    for turn in range(1, 20):
        pace.finished(10_000, turn * 0.001)
        windows.append(pace.window)
    assert windows[:3] == [4, 12, 28]
    assert windows[-1] == MOST_MESSAGES
    pace.finished(1, 10.0)
    assert pace.window == 0
