"""A world without sockets, threads or clocks: the real cores, joined by pipes that a test holds in its hand.

`World` has one broker, and any number of clients and mules. Nothing moves by itself: a test (or a
scheduler with a seed) says which pipe carries a frame next, when the store answers, when time passes and
who dies. Every frame goes through the real wire. `World.settle` lets everything happen that can.

For users it is the way to test code that talks to mules: see docs/client.rst.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from zmule.core.broker import Broker
from zmule.core.effects import (
    Backup,
    Bury,
    Effect,
    Forget,
    KillMule,
    Note,
    Publish,
    Reload,
    Save,
    Send,
    Stop,
    Unwatch,
    Watch,
)
from zmule.core.events import (
    BackupEnded,
    BatchLost,
    BatchSaved,
    Event,
    FrameReceived,
    MuleExited,
    MuleSpawned,
    PathChanged,
    PathRefused,
    PathWatched,
    PeersVanished,
)
from zmule.core.frames import DIRECT, FARM, SIGNAL, STRAY, Body, Deliver, Frame, Options, Return
from zmule.core.inbox import Delivery, Hand, Inbox, Waiter
from zmule.core.instant import Instant
from zmule.core.mules import FarmSetup, MuleSetup
from zmule.core.outbox import Outbox
from zmule.core.services import Schedules
from zmule.core.session import Link
from zmule.core.setup import Limits, Setup
from zmule.core.wire import decode, decode_for_broker, encode
from zmule.stores.store import Changes, Saved, Store
from zmule.testing.letters import claim
from zmule.testing.memory import MemoryStore

__all__ = ["Actor", "SimClient", "SimMule", "SimThread", "World"]

MESSAGE = DIRECT | FARM


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.mono = 1000.0
        self.wall = 1_800_000_000.0

    def now(self) -> Instant:
        """Return the present moment."""
        return Instant(self.mono, self.wall)

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.mono += seconds
        self.wall += seconds


class Pipe:
    """One connection: what is on its way in each direction, as bytes.

    Attributes:
        open: whether the peer's end is still there.
        ended: whether the broker's end knows that it is not.
    """

    def __init__(self, peer: bytes) -> None:
        self.peer = peer
        self.open = True
        self.ended = False
        self.to_broker: deque[bytes] = deque()
        self.to_peer: deque[bytes] = deque()


class Actor:
    """A process with a session: it may have a connection, be cut off from it, or be dead."""

    def __init__(self, world: World, name: str, link: Link) -> None:
        self.world = world
        self.name = name
        self.link = link
        self.session = link.session
        self.alive = True
        self.frozen = False
        self.pipe: Pipe | None = None

    def __repr__(self) -> str:
        return self.name

    def awake(self) -> bool:
        """Return whether it can do anything: it is neither dead nor frozen."""
        return self.alive and not self.frozen

    def pump(self) -> None:
        """Put what the session has to say into the pipe; connect first if there is none."""
        now = self.world.clock.mono
        if not self.awake():
            return
        if self.pipe is not None and self.link.broken(now):
            self.cut()
        if self.pipe is None:
            self.pipe = self.world.connect(self)
        self.pipe.to_broker.extend(map(encode, self.link.outgoing(now)))

    def take_in(self) -> None:
        """Take the next frame out of the pipe."""
        if self.awake() and self.pipe is not None and self.pipe.to_peer:
            self.link.receive(decode(self.pipe.to_peer.popleft()), self.world.clock.mono)
            self.world.heard(self)

    def cut(self) -> None:
        """Lose the connection with all that is in it. The broker hears of it when the world tells it."""
        if self.pipe is not None:
            self.world.disconnect(self.pipe)
            self.pipe = None
            self.link.disconnected(self.world.clock.mono)

    def kill(self) -> None:
        """Die."""
        self.cut()
        self.alive = False


class SimClient(Actor):
    """A client."""

    def __init__(self, world: World, name: str, session: bytes) -> None:
        self.outbox = Outbox(session, most_messages=1000, most_bytes=1 << 20)
        self.outbox.max_message = world.limits.max_message
        super().__init__(world, name, self.outbox)
        self.sent: dict[int, Body] = {}

    def send(self, queue: str, body: Body, options: Options | None = None) -> int:
        """Put a message into the outbox; return its sequence number."""
        sequence = self.outbox.put(queue, body, None, awaited=False, options=options)
        self.sent[sequence] = body
        return sequence


class SimWaiter(Waiter):
    """What a thread waits by, in one get."""

    __slots__ = ("thread",)

    def __init__(self, thread: SimThread, bits: int) -> None:
        super().__init__(bits)
        self.thread = thread

    def wake(self) -> None:
        if self is self.thread.waiter:
            self.thread.wake()


class SimThread:
    """A thread of a mule's program: idle, blocked in a get, or working on a message.

    Attributes:
        waiter: what it waits by, if it is blocked.
        delivery: what it works on.
        signalled: whether it got a signal last.
    """

    def __init__(self, mule: SimMule) -> None:
        self.mule = mule
        self.hand = Hand()
        self.signalled = False
        self.waiter: SimWaiter | None = None
        self.delivery: Delivery | None = None

    def get(self, sources: int = DIRECT | FARM, *, look: bool = False) -> None:
        """Acknowledge what it works on, and block in a get; with `look`, until the broker has nothing."""
        if self.waiter is None:
            self.finish()
            self.waiter = SimWaiter(self, sources)
            self.mule.inbox.wait(self.waiter, probe=look)

    def time_out(self) -> None:
        """Give up the get."""
        if self.waiter is not None:
            self.mule.inbox.leave(self.waiter)
            self.waiter = None

    def finish(self) -> None:
        """Acknowledge what it works on."""
        if self.delivery is not None:
            self.mule.inbox.done(self.hand)
            self.mule.world.finish(self.delivery, self.mule)
            self.delivery = None

    def fail(self, *, delay: float | None = None, dead: bool = False) -> None:
        """Give up on what it works on: `nack()`."""
        if self.delivery is not None:
            self.hand.verdict = delay, dead
            self.mule.inbox.give_up(self.hand)
            self.delivery = None

    def waits_for(self, source: int) -> bool:
        """Return whether it is blocked in a get that a message from the source would end."""
        return self.waiter is not None and bool(self.waiter.bits & source)

    def wake(self) -> None:
        """Go on with what the get has brought, if anything."""
        self.delivery = self._take(self.waiter.bits) if self.waiter else None
        self.time_out()
        if self.delivery is not None:
            self.mule.world.start(self.delivery, self.mule)

    def _take(self, bits: int) -> Delivery | None:
        """Take the next message; if signals and messages lie there, they take turns."""
        holds = self.mule.inbox.holds
        both = holds(bits & SIGNAL) and holds(bits & MESSAGE) and not holds(bits & STRAY)
        self.hand.arrival = None  # if a test has told the inbox by itself what became of it
        arrival = self.mule.inbox.advance(self.hand, bits)
        if arrival is None:
            return None
        signal = arrival[2].source == SIGNAL
        claim(not both or signal is not self.signalled, "out of turn", self.mule, arrival)
        self.signalled = signal
        return Delivery(*arrival)


class SimMule(Actor):
    """A mule with some threads."""

    def __init__(self, world: World, name: str, inbox: Inbox, threads: int) -> None:
        self.inbox = inbox
        super().__init__(world, name, inbox)
        self.threads = [SimThread(self) for _ in range(threads)]

    def hands(self) -> Iterator[Delivery]:
        """Yield what its threads work on in the present epoch."""
        for thread in self.threads:
            if thread.delivery is not None and thread.delivery.epoch == self.inbox.epoch:
                yield thread.delivery

    def ids(self) -> set[int]:
        """Return the numbers of these messages."""
        return {delivery.id for delivery in self.hands()}


class Handed(NamedTuple):
    """One delivery that the broker has sent."""

    id: int
    queue: str
    attempt: int


class World:
    """A broker and its peers.

    Args:
        mules: the mules of the configuration.
        farms: its farms.
        limits: the broker's limits.
        schedules: makes the schedules of crons; None: there can be none.
        locks: the highest number of a lock.

    Attributes:
        watched: the paths that the broker has watched.
        unwatchable: the paths that it cannot have watched.
    """

    def __init__(
        self,
        mules: Iterable[MuleSetup] = (),
        farms: Iterable[FarmSetup] = (),
        limits: Limits | None = None,
        *,
        schedules: Schedules | None = None,
        locks: int = 0,
    ) -> None:
        self.clock = Clock()
        self.limits = limits or Limits()
        self.setup = Setup(
            bytes(16), tuple(mules), tuple(farms), self.limits, schedules=schedules, locks=locks
        )
        self.broker = Broker(self.setup, self.clock.now())
        self.lives = 0
        self.store: Store = MemoryStore()
        self.store_works = True
        self.pipes: dict[bytes, Pipe] = {}
        self.vanished: deque[bytes] = deque()
        self.actors: list[Actor] = []
        self.published: list[Publish] = []
        self.watched: dict[str, None] = {}
        self.unwatchable: set[str] = set()
        self.slain: list[int] = []
        self.delivered: list[Handed] = []
        self.returned: set[int] = set()
        self.started: list[Delivery] = []
        self.finished: list[Delivery] = []
        self._names = 0
        self._watches: list[Event] = []

    # Who is there.

    def client(self) -> SimClient:
        """Start a client."""
        client = SimClient(self, f"client {self._name()}", self._session())
        self.actors.append(client)
        return client

    def mule(
        self, number: int = 0, *, farms: Iterable[str] = (), threads: int = 1, token: bytes = b""
    ) -> SimMule:
        """Start a mule from outside or, with its token, one of the configuration."""
        session = self._session()
        inbox = Inbox(session, number=number, farms=farms, program="p", pid=self._names, token=token)
        mule = SimMule(self, f"mule {self._names}", inbox, threads)
        self.actors.append(mule)
        return mule

    def spawn(self, number: int, *, threads: int = 1) -> SimMule:
        """Start the process of a configured mule, as the supervisor does."""
        token = self._session()
        self.happened(MuleSpawned(number, self._names, token))
        return self.mule(number, threads=threads, token=token)

    def exited(self, number: int) -> None:
        """Tell the broker that the process of a configured mule has ended."""
        self.happened(MuleExited(number, 0, -9))

    def _name(self) -> int:
        self._names += 1
        return self._names

    def _session(self) -> bytes:
        return self._name().to_bytes(16, "big")

    # What moves.

    def connect(self, actor: Actor) -> Pipe:
        """Give an actor a new connection."""
        pipe = Pipe(b"peer %d of " % self._name() + actor.name.encode())
        self.pipes[pipe.peer] = pipe
        return pipe

    def disconnect(self, pipe: Pipe) -> None:
        """Take a connection away; `notice` tells the broker."""
        if self.pipes.pop(pipe.peer, None) is not None:
            pipe.open = False
            self.vanished.append(pipe.peer)

    def notice(self, most: int = 1) -> None:
        """Tell the broker of the next connections that are gone, all in one go."""
        gone = [self.vanished.popleft() for _ in range(min(most, len(self.vanished)))]
        if gone:
            self.happened(PeersVanished(tuple(gone)))

    def carry(self, pipe: Pipe) -> None:
        """Carry the next frame of a pipe to the broker."""
        if pipe.to_broker:
            frame = decode_for_broker(pipe.to_broker.popleft())
            if isinstance(frame, Return):
                self.returned.update(frame.ids)
            self.happened(FrameReceived(pipe.peer, frame))

    def receive(self, pipe: Pipe, frame: Frame) -> None:
        """Hand the broker a frame that no session would send."""
        self.happened(FrameReceived(pipe.peer, decode_for_broker(encode(frame))))

    def restart(self) -> None:
        """Kill the broker and start another, which knows nothing; connections break."""
        for actor in self.actors:
            actor.cut()
        self.vanished.clear()
        self.store = MemoryStore()
        self.revive()

    def revive(self) -> None:
        """Start another broker, with an id of its own, on what the store holds."""
        self.lives += 1
        self.setup = self.setup._replace(id=bytes([self.lives % 256] * 16))
        self.broker = Broker(self.setup, self.clock.now())
        self.broker.recover(self.store.recover())
        self.perform(self.broker.tick(self.clock.now()))

    def answer(self) -> int:
        """Tell the broker what the store has done, or failed to do; return how much it was."""
        answers = self.store.completed()
        for answer in answers:
            saved = isinstance(answer, Saved) and self.store_works
            self.happened(BatchSaved(answer.batch) if saved else BatchLost(answer.batch, "full"))
        return len(answers)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and the broker notice."""
        self.clock.advance(seconds)
        self.tick()

    def tick(self) -> None:
        """Let the broker do what is due."""
        self.perform(self.broker.tick(self.clock.now()))
        self.check()

    def happened(self, event: Event) -> None:
        """Hand an event to the broker, do what it says, and hold it to its invariants."""
        self.perform(self.broker.handle(event, self.clock.now()))
        self.check()

    def check(self) -> None:
        """Raise AssertionError if something is not as it must always be."""
        self.broker.validate()

    def perform(self, effects: Iterable[Effect]) -> None:
        """Do what the broker says."""
        for effect in effects:
            if isinstance(effect, Send):
                self.send(effect)
            elif isinstance(effect, Publish):
                self.published.append(effect)
            elif isinstance(effect, Changes):
                self.store.save(effect)
            elif isinstance(effect, (Watch, Unwatch)):
                self.watch(effect)
            elif isinstance(effect, KillMule):
                self.slay(effect.number)
            elif isinstance(effect, Backup):
                self._watches.append(BackupEnded(effect.peer, effect.request, "", "there is no disk here"))
            elif not isinstance(effect, (Note, Stop, Reload)):
                self.keep(effect)

    def slay(self, number: int) -> None:
        """Note that the process of a mule of the configuration is to be killed."""
        self.slain.append(number)

    def watch(self, effect: Watch | Unwatch) -> None:
        """Watch a path, or no longer; the next `turn` tells the broker whether that can be."""
        if isinstance(effect, Unwatch):
            self.watched.pop(effect.path, None)
        elif effect.path in self.unwatchable:
            self._watches.append(PathRefused(effect.path, "it cannot be watched"))
        else:
            self.watched[effect.path] = None
            self._watches.append(PathWatched(effect.path))

    def touch(self, path: str) -> None:
        """Tell the broker that something at a path has changed, if that is watched."""
        if path in self.watched:
            self.happened(PathChanged(path))

    def keep(self, effect: Save | Forget | Bury) -> None:
        """Give the store what it is to keep."""
        self.store.save(effect.changes())

    def send(self, effect: Send) -> None:
        """Put a frame of the broker's into the pipe of its peer, if that has one."""
        pipe = self.pipes.get(effect.peer)
        if isinstance(effect.frame, Deliver):
            for parcel in effect.frame.parcels:
                self.delivered += [Handed(id, parcel.queue, parcel.attempt) for id in parcel.ids]
        if pipe is not None:
            pipe.to_peer.append(encode(effect.frame))

    # What actors have done; for worlds that keep a ledger.

    def heard(self, actor: Actor) -> None:
        """An actor has taken in a frame."""

    def start(self, delivery: Delivery, mule: SimMule) -> None:
        """A thread has begun to work on a message."""
        self.started.append(delivery)

    def finish(self, delivery: Delivery, mule: SimMule) -> None:
        """A thread has acknowledged a message, whether or not the mule still may."""
        self.finished.append(delivery)

    def settle(self, turns: int = 200) -> None:
        """Let everything happen that can without time passing, until nothing moves.

        Raises:
            AssertionError: it does not come to rest.
        """
        for _ in range(turns):
            if not self.turn():
                return
        raise AssertionError("the world does not come to rest")

    def settle_only(self, actor: Actor) -> None:
        """Let everything happen that can to one actor, while the others do nothing."""
        others = [other for other in self.actors if other is not actor]
        self.actors = [actor]
        self.settle()
        self.actors += others

    def turn(self) -> bool:
        """Let everybody move once; return whether anything did."""
        moved = bool(self.vanished or self._watches)
        while self.vanished:
            self.notice()
        while self._watches:
            self.happened(self._watches.pop(0))
        for actor in self.actors:
            actor.pump()
        for pipe in list(self.pipes.values()):
            while pipe.to_broker:
                moved = True
                self.carry(pipe)
        self.answer()
        for actor in self.actors:
            while actor.awake() and actor.pipe is not None and actor.pipe.to_peer:
                moved = True
                actor.take_in()
        return moved
