"""What can happen in a simulation: a short function a step, each with two numbers that say to whom, and how.

A step does nothing, and returns None, where it has nothing to act on; else it returns what it acted upon,
for the trace. The numbers are taken modulo what there is, so that any list of steps can be played, and a
failing one made shorter by leaving steps out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from zmule.core.events import FrameReceived
from zmule.core.frames import DIRECT, FARM, SIGNAL, STRAY, Bye, Nack, Options, Report, Settled
from zmule.testing.lockbook import NAMES, LockUser
from zmule.testing.world import SimMule, SimThread

if TYPE_CHECKING:
    from zmule.testing.simulation import Simulation

T = TypeVar("T")

SECONDS = (0.02, 0.3, 1.1, 3.1, 5.1, 10.1)
JUMPS = (-86_400.0, -1.0, 30.0, 86_400.0)
SOURCES = (DIRECT | FARM | SIGNAL, DIRECT | FARM | SIGNAL, DIRECT | FARM, DIRECT, FARM, SIGNAL, STRAY)
SPANS = (0.1, 1.0, 4.0, 15.0)
PATIENCE = (0.5, 5.0, 60.0)


class Step(NamedTuple):
    """One thing that happens."""

    verb: str
    who: int
    how: int

    def __str__(self) -> str:
        return f"{self.verb} {self.who} {self.how}"


def pick(items: Sequence[T], number: int) -> T | None:
    """Return one of the items, if there are any."""
    return items[number % len(items)] if items else None


# What programs do.


def send(sim: Simulation, who: int, how: int) -> Any:
    """A client sends a message."""
    client = pick(sim.clients, who)
    queue = sim.queues[how % len(sim.queues)]
    return client and sim.send(client, queue)


def poison(sim: Simulation, who: int, how: int) -> Any:
    """A client sends a message that kills whoever works on it."""
    client = pick(sim.clients, who)
    return client and sim.send(client, sim.queues[how % len(sim.queues)], poison=True)


def send_late(sim: Simulation, who: int, how: int) -> Any:
    """A client sends a message that is not due yet: with a delay, or a time of day."""
    client, queue = pick(sim.clients, who), sim.queues[how % len(sim.queues)]
    span, ttl = SPANS[how // 16 % 4], SPANS[how // 4 % 4] if how % 4 == 0 else None
    at = how % 3 == 0
    options = Options(None, sim.cluster.clock.wall + span, ttl) if at else Options(span, None, ttl)
    return client and sim.send(client, queue, options=options)


def send_brief(sim: Simulation, who: int, how: int) -> Any:
    """A client sends a message that nobody wants for long."""
    client, queue = pick(sim.clients, who), sim.queues[how % len(sim.queues)]
    return client and sim.send(client, queue, options=Options(ttl=SPANS[how // 16 % 4]))


def line_up(sim: Simulation, who: int, how: int) -> Any:
    """A client sends some messages that may wait for room."""
    client, queue = pick(sim.clients, who), sim.queues[how % len(sim.queues)]
    for _ in range(1 + how // 16 % 5):
        if client is not None:
            sim.send(client, queue, patience=PATIENCE[how % len(PATIENCE)])
    return client


def abandon(sim: Simulation, who: int, how: int) -> Any:
    """A client waits no longer for a message to be accepted."""
    client = pick(sim.clients, who)
    ticket = pick(sim.cluster.ledger.waiting(client), how) if client else None
    if client is None or ticket is None:
        return None
    sim.cluster.ledger.abandoned(client, ticket)
    return client


def raise_signal(sim: Simulation, who: int, how: int) -> Any:
    """A client raises a signal."""
    client, number = pick(sim.clients, who), how % 5
    if client is not None:
        sim.cluster.post(client, f"signal:{number}", b"")
    return client


def lock(sim: Simulation, who: int, how: int) -> Any:
    """A thread of a client asks for a lock."""
    user, thread = pick(_users(sim), who), how % 2
    if user is None or not user.idle(thread):
        return None
    user.lock(how // 2 % NAMES, thread, (-1.0, 1.0)[how // 4 % 2])
    return user.client


def unlock(sim: Simulation, who: int, how: int) -> Any:
    """A thread lets go of its lock."""
    user = pick([user for user in _users(sim) if user.holding], who)
    if user is None:
        return None
    user.unlock(list(user.holding)[how % len(user.holding)])
    return user.client


def give_up_lock(sim: Simulation, who: int, how: int) -> Any:
    """A thread waits for its lock no longer."""
    waiting = [(user, request) for user in _users(sim) for request in user.wanting()]
    if not waiting:
        return None
    user, request = waiting[who % len(waiting)]
    user.give_up(request)
    return user.client


def _users(sim: Simulation) -> list[LockUser]:
    return list(sim.cluster.users.values())


def requeue(sim: Simulation, who: int, how: int) -> Any:
    """A client requeues dead letters: one, those of a queue, or all."""
    return _decide(sim, "requeue_dead", who, how)


def drop(sim: Simulation, who: int, how: int) -> Any:
    """A client drops dead letters: one, those of a queue, or all."""
    return _decide(sim, "drop_dead", who, how)


def _decide(sim: Simulation, what: str, who: int, how: int) -> Any:
    client, dead = pick(sim.clients, who), sim.cluster.broker.dead
    letter = pick(list(dead.values()), how // 4)
    if client is None or letter is None:
        return None
    id, queue = letter.message[:2]
    client.outbox.questions.ask(what, (((id,), ""), ((id,), ""), ((), queue), ((), ""))[how % 4])
    return client


def ask(sim: Simulation, who: int, how: int) -> Any:
    """A client asks for the status."""
    client = pick(sim.clients, who)
    if client is not None:
        client.outbox.questions.ask("status", ())
    return client


def get(sim: Simulation, who: int, how: int) -> Any:
    """A thread asks for a message, and so acknowledges the one that it had."""
    thread = pick([thread for thread in _threads(sim) if not thread.waiter], who)
    if thread is None:
        return None
    thread.get(SOURCES[how % len(SOURCES)])
    return thread.mule


def look(sim: Simulation, who: int, how: int) -> Any:
    """A thread asks for a message, if there is one."""
    thread = pick([thread for thread in _threads(sim) if not thread.waiter], who)
    if thread is None:
        return None
    thread.get(SOURCES[how % len(SOURCES)], look=True)
    return thread.mule


def time_out(sim: Simulation, who: int, how: int) -> Any:
    """A thread gives up waiting."""
    thread = pick([thread for thread in _threads(sim) if thread.waiter], who)
    if thread is None:
        return None
    thread.time_out()
    return thread.mule


def look_away(sim: Simulation, who: int, how: int) -> Any:
    """All threads of a mule give up waiting, with something for them on its way."""
    mule = pick([mule for mule in sim.awake_mules() if mule.pipe and mule.pipe.to_peer], who)
    for thread in mule.threads if mule else ():
        thread.time_out()
    return mule


def finish(sim: Simulation, who: int, how: int) -> Any:
    """A thread acknowledges, and goes on with something else."""
    thread = pick([thread for thread in _threads(sim) if thread.delivery], who)
    if thread is None:
        return None
    thread.finish()
    return thread.mule


def fail(sim: Simulation, who: int, how: int) -> Any:
    """A thread fails with its message, or dies with it."""
    thread = pick([thread for thread in _threads(sim) if thread.delivery], who)
    if thread is None:
        return None
    thread.fail()
    return thread.mule


def put_off(sim: Simulation, who: int, how: int) -> Any:
    """A thread fails with its message, and wants it again later, or now."""
    thread = pick([thread for thread in _threads(sim) if thread.delivery], who)
    if thread is None:
        return None
    thread.fail(delay=(0.0, *SPANS)[how % 5])
    return thread.mule


def reject(sim: Simulation, who: int, how: int) -> Any:
    """A thread wants its message dead."""
    thread = pick([thread for thread in _threads(sim) if thread.delivery], who)
    if thread is None:
        return None
    thread.fail(dead=True)
    return thread.mule


def settled(sim: Simulation, who: int, how: int) -> Any:
    """A signal-only mule has loaded its application."""
    mule = pick(sim.awake_mules(), who)
    if mule is not None:
        mule.inbox.settle()
    return mule


def leave(sim: Simulation, who: int, how: int) -> Any:
    """A mule's program ends: what its threads have is finished, and it takes its leave."""
    mule = pick(sim.awake_mules(), who)
    return mule and _leave(sim, mule)


def listen(sim: Simulation, who: int, how: int) -> Any:
    """A mule hears the last broadcast, and does what it says."""
    mule = pick(sim.awake_mules(), who)
    if mule is None or not sim.cluster.published:
        return None
    mule.inbox.broadcast(sim.cluster.published[-1].frame)
    return _leave(sim, mule) if mule.inbox.stop_asked else mule


def _leave(sim: Simulation, mule: SimMule) -> SimMule:
    if mule not in sim.cluster.doomed:
        for thread in mule.threads:
            thread.time_out()
            thread.finish()
        mule.inbox.bid_farewell()
    return mule


def _threads(sim: Simulation) -> list[SimThread]:
    """Return the threads that can do something."""
    doomed = sim.cluster.doomed
    return [thread for mule in sim.awake_mules() if mule not in doomed for thread in mule.threads]


# What moves.


def pump(sim: Simulation, who: int, how: int) -> Any:
    """An actor puts what it has to say into its connection."""
    actor = pick(sim.cluster.actors, who)
    if actor is None:
        return None
    before = actor.pipe, len(actor.pipe.to_broker) if actor.pipe else 0
    actor.pump()
    return None if before == (actor.pipe, len(actor.pipe.to_broker) if actor.pipe else 0) else actor


def carry(sim: Simulation, who: int, how: int) -> Any:
    """Some frames of a connection reach the broker."""
    pipe = pick([pipe for pipe in sim.cluster.pipes.values() if pipe.to_broker], who)
    for _ in range(1 + how % 3):
        if pipe is not None:
            sim.cluster.carry(pipe)
    return pipe and pipe.peer


def take(sim: Simulation, who: int, how: int) -> Any:
    """Some frames from the broker reach an actor."""
    actor = pick([actor for actor in sim.cluster.actors if actor.pipe and actor.pipe.to_peer], who)
    for _ in range(1 + how % 3):
        if actor is not None:
            actor.take_in()
    return actor


def commit(sim: Simulation, who: int, how: int) -> Any:
    """The store writes some of what it was given."""
    if not sim.cluster.disk.laden():
        return None
    sim.cluster.disk.commit(1 + how % 4)
    return "the store"


def answer(sim: Simulation, who: int, how: int) -> Any:
    """The broker hears what the store has written."""
    return sim.cluster.answer() or None


def notice(sim: Simulation, who: int, how: int) -> Any:
    """The broker hears of connections that are gone."""
    peer = pick(sim.cluster.vanished, 0)
    sim.cluster.notice(1 + how % 4)
    return peer


def turn(sim: Simulation, who: int, how: int) -> Any:
    """Everything moves one step."""
    return sim.cluster.turn()


def rest(sim: Simulation, who: int, how: int) -> Any:
    """Everything moves until nothing does."""
    sim.rest()
    return "the world"


def toil(sim: Simulation, who: int, how: int) -> Any:
    """Nothing goes wrong for a while, and mules work, each on what takes its time."""
    client = pick(sim.clients, who)
    for place in range(how % 16):
        if client is not None:
            sim.send(client, sim.queues[place % 3 % len(sim.queues)])
    sim.toil()
    return "the mules"


# What goes wrong.


def cut(sim: Simulation, who: int, how: int) -> Any:
    """A connection breaks, and the peer knows."""
    actor = pick(sim.connected(), who)
    if actor is not None:
        sim.cluster.part(actor, how % 4)
    return actor


def swap(sim: Simulation, who: int, how: int) -> Any:
    """A connection breaks, and is made again behind the peer's back."""
    actor = pick(sim.connected(), who)
    if actor is not None:
        sim.cluster.swap(actor, how % 4)
    return actor


def evict(sim: Simulation, who: int, how: int) -> Any:
    """The broker cuts a peer off, which has done nothing wrong."""
    actor = pick(sim.connected(), who)
    if actor is not None and actor.pipe is not None:
        pipe = actor.pipe
        sim.cluster.part(actor, 0)
        sim.cluster.end(pipe)
    return actor


def end(sim: Simulation, who: int, how: int) -> Any:
    """The broker's socket learns that a peer is gone."""
    pipe = pick(sim.cluster.orphans(), who)
    if pipe is not None:
        sim.cluster.end(pipe)
    return pipe and pipe.peer


def hear(sim: Simulation, who: int, how: int) -> Any:
    """A mule learns that its connection was lost."""
    mule = pick(list(sim.cluster.hung_up), who)
    if mule is not None:
        sim.cluster.hear(mule)
    return mule


def kill(sim: Simulation, who: int, how: int) -> Any:
    """A mule's process dies; one that works on poison first."""
    mule = pick(list(sim.cluster.doomed) or sim.mules(), who)
    if mule is not None:
        sim.cluster.kill(mule)
    return mule


def die(sim: Simulation, who: int, how: int) -> Any:
    """A mule's process dies of its poison."""
    mule = pick(list(sim.cluster.doomed), who)
    if mule is not None:
        sim.cluster.kill(mule)
    return mule


def start(sim: Simulation, who: int, how: int) -> Any:
    """A mule that is not running is started, once its end has been noticed."""
    return sim.start(who)


def give_up(sim: Simulation, who: int, how: int) -> Any:
    """The supervisor starts a mule no more, or not yet."""
    return sim.give_up(who)


def replace(sim: Simulation, who: int, how: int) -> Any:
    """A client's process dies, and another is started."""
    return sim.replace(who % len(sim.clients))


def freeze(sim: Simulation, who: int, how: int) -> Any:
    """A process is stopped."""
    actor = pick(sim.cluster.actors, who)
    if actor is not None:
        actor.frozen = True
    return actor


def thaw(sim: Simulation, who: int, how: int) -> Any:
    """A process goes on."""
    actor = pick([actor for actor in sim.cluster.actors if actor.frozen], who)
    if actor is not None:
        actor.frozen = False
    return actor


def wait(sim: Simulation, who: int, how: int) -> Any:
    """Time passes, and the broker is too busy to look."""
    seconds = SECONDS[how % len(SECONDS)]
    sim.cluster.clock.advance(seconds)
    return seconds


def stand_still(sim: Simulation, who: int, how: int) -> Any:
    """The broker stands still, and notices that it has."""
    seconds = SECONDS[how % len(SECONDS)]
    sim.cluster.stand_still(seconds)
    return seconds


def nap(sim: Simulation, who: int, how: int) -> Any:
    """Little time passes."""
    sim.cluster.pass_time(SECONDS[how % 3])
    return SECONDS[how % 3]


def tick(sim: Simulation, who: int, how: int) -> Any:
    """The broker does what is due."""
    due = sim.cluster.broker.next_deadline() <= sim.cluster.clock.mono
    sim.cluster.tick()
    return "the broker" if due else None


def jump(sim: Simulation, who: int, how: int) -> Any:
    """The wall clock is set."""
    seconds = JUMPS[how % len(JUMPS)]
    sim.cluster.clock.wall += seconds
    return seconds


def crash(sim: Simulation, who: int, how: int) -> Any:
    """The broker dies, and is started anew."""
    sim.cluster.crash()
    return "the broker"


def stop(sim: Simulation, who: int, how: int) -> Any:
    """The broker is told to stop; it ends at the next crash."""
    return sim.stop()


def forge(sim: Simulation, who: int, how: int) -> Any:
    """A mule claims to have finished what it has not: another one's, or its own under another epoch."""
    cluster = sim.cluster
    mule = pick([mule for mule in sim.awake_mules() if cluster.registered(mule)], who)
    if mule is not None:
        _drain(sim, mule)
        number, epoch = mule.inbox.number, mule.inbox.epoch
        own, foreign = sim.in_flight(number)
        for frame in mule.link.outgoing(cluster.clock.mono):
            if isinstance(frame, Report):
                cluster.inject(mule, frame._replace(acks=(*frame.acks, *foreign)))
                cluster.inject(mule, frame._replace(epoch=epoch - 1 + 2 * (how % 2), acks=own))
            else:
                cluster.inject(mule, frame)
        cluster.inject(mule, Nack(epoch - 1, own))
        _drain(sim, mule)
    return mule


def _drain(sim: Simulation, mule: SimMule) -> None:
    while mule.pipe and mule.pipe.to_broker:
        sim.cluster.carry(mule.pipe)


def intrude(sim: Simulation, who: int, how: int) -> Any:
    """Somebody who is not known claims to have finished what others have."""
    epoch, ids = how % 8, tuple(range(1, 20))
    frames = (Bye(epoch, ids, ids, (0, 0, 0, 0)), Nack(epoch, ids), Settled(epoch))
    frame = frames[who % len(frames)]
    sim.cluster.happened(FrameReceived(b"intruder", frame))
    return frame


def fill(sim: Simulation, who: int, how: int) -> Any:
    """The disk is full."""
    sim.cluster.disk.full = True
    return "the store"


def clear(sim: Simulation, who: int, how: int) -> Any:
    """The disk has room again."""
    sim.cluster.disk.full = False
    return "the store"


def run_short(sim: Simulation, who: int, how: int) -> Any:
    """The broker's memory runs short."""
    sim.cluster.run_short(True)
    return "the broker"


def find_memory(sim: Simulation, who: int, how: int) -> Any:
    """There is memory again."""
    sim.cluster.run_short(False)
    return "the broker"


ALWAYS = {
    send: 8, get: 60, pump: 40, carry: 50, take: 50, commit: 20, answer: 20,
    notice: 10, end: 6, hear: 6, turn: 5, rest: 1, start: 16, die: 10, nap: 2, tick: 10,
}  # fmt: skip
"""Steps that every simulation has, with how often each is tried."""

SOMETIMES: tuple[dict[Callable[..., Any], int], ...] = (
    {poison: 4}, {ask: 2}, {look: 6}, {time_out: 6}, {look_away: 10}, {finish: 20}, {fail: 20}, {settled: 2},
    {leave: 1}, {cut: 2, evict: 1}, {swap: 2}, {kill: 2}, {give_up: 4}, {replace: 1}, {freeze: 2, thaw: 10},
    {wait: 2, stand_still: 1}, {jump: 1}, {crash: 1}, {stop: 1, listen: 4, crash: 1}, {forge: 2, intrude: 1},
    {fill: 1, clear: 3, run_short: 1, find_memory: 3},
    {send_late: 6, nap: 4}, {send_brief: 6, nap: 2}, {line_up: 4}, {line_up: 2, abandon: 2}, {put_off: 10},
    {raise_signal: 8}, {lock: 12, unlock: 6}, {lock: 6, give_up_lock: 2}, {toil: 1},
    {reject: 10, requeue: 8, drop: 3},
)  # fmt: skip
"""Groups of steps that a seed switches on or off, so that rare meetings of few faults are not drowned."""

VERBS: dict[str, Callable[[Simulation, int, int], Any]] = {
    verb.__name__: verb for group in (ALWAYS, *SOMETIMES) for verb in group
}
