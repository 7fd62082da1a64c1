"""A world in which everything can go wrong, and a ledger that says what must not.

A connection has two ends, and they learn of its loss apart from each other: `part` takes the peer's end
away, what the peer has sent may still arrive, and the broker hears of it when `end` says so, if ever. A
DEALER that reconnects by itself (`swap`) does not tell its owner: a client finds out by being taken for a
stranger, a mule by its monitor, some time later. A broker that crashes takes all connections with it, the
mules that it has spawned, and what its store has not committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from zmule.core.effects import Effect, KillMule, Send
from zmule.core.events import (
    BatchLost,
    BatchSaved,
    Event,
    FrameReceived,
    MemoryFine,
    MemoryShort,
    PeersVanished,
    Stalled,
    StoreFailed,
    StoreRecovered,
    Undelivered,
)
from zmule.core.frames import (
    DIRECT,
    FARM,
    SIGNAL,
    Answer,
    Ask,
    Body,
    Bye,
    Deliver,
    Frame,
    Hello,
    Nack,
    Options,
    Report,
    Reset,
    Return,
)
from zmule.core.inbox import Delivery
from zmule.core.lockservice import TOKEN_FACT
from zmule.core.mules import FarmSetup, Mule, MuleSetup
from zmule.core.queues import STRAY_QUEUE, source_of
from zmule.core.setup import Limits
from zmule.core.wire import decode_for_broker, encode
from zmule.stores.store import Changes
from zmule.testing.ledger import BLUR, Ledger
from zmule.testing.letters import Hand, Letter, claim
from zmule.testing.lockbook import NAMES, LockBook, LockUser
from zmule.testing.store import SimStore
from zmule.testing.world import MESSAGE, Actor, Pipe, SimClient, SimMule, World

RESTART_SECONDS = 0.01

BOTH = SIGNAL | MESSAGE


class Cluster(World):
    """A world with faults.

    Args:
        mules: the mules of the configuration.
        farms: its farms.
        limits: the broker's limits.
        durable: whether the store outlives the broker.

    Attributes:
        users: the threads of clients that take locks.
        spawned: the processes of configured mules, dead ones too until their end has been told.
        hung_up: mules whose monitor has something to tell.
        doomed: mules that work on poison.
        log: what happens, in words, if it is a list.
        moved: whether anything has happened since the last `verify`.
        short: whether the broker knows that its memory is short.
    """

    def __init__(
        self, mules: Iterable[MuleSetup], farms: Iterable[FarmSetup], limits: Limits, *, durable: bool
    ) -> None:
        super().__init__(mules, farms, limits, locks=NAMES - 1)
        self.durable = durable
        self.ledger = Ledger(self.clock, limits.max_deliveries, durable, self.setup.ttl)
        self.locks = LockBook()
        self.ledger.expecting = self.clock.mono + limits.returning
        self.users: dict[Actor, LockUser] = {}
        self.disk = self._new_disk()
        self.spawned: dict[int, SimMule] = {}
        self.hung_up: dict[SimMule, None] = {}
        self.doomed: dict[SimMule, None] = {}
        self.log: list[str] | None = None
        self._early = {f"farm:{farm.name}" for farm in self.setup.farms if farm.early}
        self._unanswered: dict[int, list[int]] = {}
        self._drops: dict[tuple[bytes, int], int] = {}
        self._trouble: str | None = None
        self.moved = False
        self.short = False
        self._heard: dict[bytes, float] = {}
        self._latest: dict[tuple[bytes, int], int] = {}
        self._report: tuple[bytes, Report] | None = None
        self._posted = 0
        self._undelivered: list[Undelivered] = []

    def _new_disk(self) -> SimStore:
        self.store = disk = SimStore()
        disk.on_save, disk.on_commit, disk.on_loss = self._saving, self.ledger.committed, self.ledger.lost
        return disk

    def _note(self, *words: object) -> None:
        if self.log is not None:
            self.log.append("    " + " ".join(map(brief, words)))

    # Connections.

    def orphans(self) -> list[Pipe]:
        """Return the connections that have lost their peer, and the broker does not know."""
        return [pipe for pipe in self.pipes.values() if not (pipe.open or pipe.ended)]

    def disconnect(self, pipe: Pipe) -> None:
        """Take the peer's end away: what it has sent may still arrive."""
        pipe.open = False

    def part(self, actor: Actor, arrive: int) -> None:
        """Break an actor's connection, and tell it; of what it has sent, `arrive` frames still arrive."""
        if actor.pipe is not None:
            _shorten(actor.pipe, arrive)
            actor.cut()

    def swap(self, actor: Actor, arrive: int) -> None:
        """Let an actor's socket reconnect by itself: a frame is lost, those after it were not sent yet."""
        old = actor.pipe
        if old is not None:
            unsent = list(old.to_broker)[arrive + 1 :]
            _shorten(old, arrive)
            self._reconnect(actor).to_broker.extend(unsent)

    def _reconnect(self, actor: Actor) -> Pipe:
        """Give an actor a new connection without its knowing. What had reached it, it can still read."""
        old = cast(Pipe, actor.pipe)
        self.disconnect(old)
        new = actor.pipe = self.connect(actor)
        new.to_peer, old.to_peer = old.to_peer, new.to_peer
        if isinstance(actor, SimMule):
            self.hung_up[actor] = None
        return new

    def hear(self, mule: SimMule) -> None:
        """Let a mule's monitor tell it that its connection was lost: it makes another."""
        if mule.awake():
            del self.hung_up[mule]
            mule.cut()

    def end(self, pipe: Pipe) -> None:
        """Let the broker's socket learn that a peer is gone."""
        pipe.ended = True
        self.vanished.append(pipe.peer)
        self._tidy(pipe)

    def _tidy(self, pipe: Pipe) -> None:
        if pipe.ended and not pipe.to_broker:
            del self.pipes[pipe.peer]

    # Processes.

    def client(self) -> SimClient:
        client = super().client()
        self.users[client] = LockUser(client)
        return client

    def post(
        self,
        client: SimClient,
        queue: str,
        body: Body,
        options: Options | None = None,
        patience: float | None = None,
    ) -> None:
        """Let a client send a message, if its outbox has room.

        Args:
            patience: for how many seconds the message may wait for room in its queue.
        """
        if client.outbox.fits():
            self._posted += 1
            until = None if patience is None else self.clock.mono + patience
            ticket = client.outbox.put(queue, body, None, awaited=True, options=options, until=until)
            letter = Letter(
                body,
                queue,
                client.session,
                self._posted,
                early=queue in self._early,
                options=options,
                patient=patience is not None,
            )
            self.ledger.sent(letter, ticket)

    def spawn(self, number: int, *, threads: int = 1) -> SimMule:
        mule = self.spawned[number] = super().spawn(number, threads=threads)
        return mule

    def reap(self, number: int) -> None:
        """Let the supervisor notice that a mule of its own is dead."""
        del self.spawned[number]
        self.exited(number)

    def slay(self, number: int) -> None:
        """Kill the process of a mule of the configuration, as the supervisor does; `reap` tells of it."""
        mule = self.spawned.get(number)
        claim(mule is not None, "killed, and not running", number)
        claim(not (mule and self.registered(mule)), "killed, and at its work", number)
        if mule is not None and mule.alive:
            self.kill(mule)

    def kill(self, actor: Actor) -> None:
        """Let a process die; what it has sent may still arrive."""
        actor.kill()
        self.actors.remove(actor)
        if isinstance(actor, SimMule):
            self.hung_up.pop(actor, None)
            self.doomed.pop(actor, None)
        self.users.pop(actor, None)

    def stand_still(self, seconds: float) -> None:
        """Let the broker do nothing for a time, and then know it: that counts against no mule."""
        self.clock.advance(seconds)
        self._heard = {peer: at + seconds for peer, at in self._heard.items()}
        self.happened(Stalled(seconds))

    def run_short(self, short: bool) -> None:
        """Tell the broker that its memory runs short, or no longer does, if that is news."""
        if short is not self.short:
            self.short = short
            self.happened(MemoryShort(1) if short else MemoryFine())

    def crash(self) -> None:
        """Kill the broker, and start another on what is on the disk."""
        for mule in self.spawned.values():
            if mule.alive:
                self.kill(mule)
        self.spawned.clear()
        self.pipes.clear()
        self.vanished.clear()
        self._unanswered.clear()
        self._drops.clear()
        self._trouble = None
        self.short = False
        self._heard.clear()
        self._latest.clear()
        for actor in self.actors:
            if actor.pipe is not None:
                self._reconnect(actor)
        self._recover()

    def _recover(self) -> None:
        if self.durable:
            self.disk.crash()
        else:
            self.disk = self._new_disk()
        self.clock.advance(RESTART_SECONDS)
        reserved = int(self.disk.recover().facts.get(TOKEN_FACT, b"0"))
        self.locks.crashed(max(reserved, int(self.clock.wall * 1_000_000)))
        self.ledger.crashed(self.disk.recover())
        self.ledger.release()
        self.ledger.expecting = self.clock.mono + self.limits.returning
        self.revive()
        self.check()

    # What the ledger is told.

    def heard(self, actor: Actor) -> None:
        if isinstance(actor, SimClient):
            claim(actor.outbox.error is None, "a client is turned away", actor, actor.outbox.error)
            self.ledger.answered(actor)
            self.users[actor].hear()
        elif actor.link.error is not None:
            claim(actor.link.error.code in ("number-in-use", "not-permitted"), "a mule is turned away", actor)
            self.kill(actor)
        elif isinstance(actor, SimMule) and actor.inbox.gone:
            self.kill(actor)

    def start(self, delivery: Delivery, mule: SimMule) -> None:
        self._note(mule, "works on", delivery.body)
        claim(delivery.epoch == mule.inbox.epoch, "taken up after its epoch", delivery, mule)
        if self.registered(mule):
            for other in self.actors:
                if isinstance(other, SimMule) and other is not mule and self.registered(other):
                    claim(delivery.id not in other.ids(), "in two hands", delivery, mule, other)
        self.ledger.started(delivery.body)
        if str(delivery.body).startswith("poison"):
            self.doomed[mule] = None

    def finish(self, delivery: Delivery, mule: SimMule) -> None:
        self._note(mule, "has finished", delivery.body)
        self.ledger.finished(delivery.id, Hand(mule.session, delivery.epoch))

    def registered(self, actor: SimMule) -> Mule | None:
        """Return the broker's view of a mule, if both believe in the same session and epoch."""
        mule = self.broker.roster.at(actor.pipe.peer) if actor.pipe else None
        return mule if mule and mule.epoch == actor.inbox.epoch and actor.link.state == "up" else None

    def _saving(self, changes: Changes) -> None:
        if changes.messages and changes.senders:
            names = {message[1] for message in changes.messages}
            self._check_room([name for name in names if not name.startswith("signal:")])
        self.ledger.saving(changes)
        if changes.batch:
            self._unanswered[changes.batch] = [message[0] for message in changes.messages]

    def _check_room(self, queues: list[str]) -> None:
        """What senders have sent is taken only if there is room; signals have a limit of their own."""
        claim(not (self.short and queues), "taken although memory is short", queues)
        for queue in queues:
            held, _ = self.broker.dispatch.length(queue)
            claim(held <= self.limits.queue_messages, "more is taken than a queue may hold", queue, held)

    def _check_silence(self, peer: bytes) -> None:
        """Nobody is given up before its time, in which the broker could have heard it."""
        quiet = self.clock.mono - self._heard.get(peer, 0.0)
        claim(quiet > self.limits.heartbeat_timeout - BLUR, "given up and not silent", peer, quiet)

    def send(self, effect: Send) -> None:
        peer, frame = effect
        if isinstance(frame, Reset) and frame.code == "silent":
            self._check_silence(peer)
        self._note("to", peer.decode(), frame)
        if isinstance(frame, Deliver):
            mule = self.broker.roster.at(peer)
            claim(mule, "delivered to a stranger", frame)
            self._check_turn(peer, cast(Mule, mule), frame)
            self.ledger.delivering(frame.parcels, Hand(cast(Mule, mule).session, frame.epoch))
        elif isinstance(frame, Answer):
            self._answering(peer, frame)
        pipe = self.pipes.get(peer)
        if pipe is None or pipe.ended:
            self.vanished.append(peer)
            if isinstance(frame, Deliver):
                self._undelivered.append(Undelivered(peer, frame))
        elif pipe.open:
            pipe.to_peer.append(encode(frame))

    def _check_turn(self, peer: bytes, mule: Mule, frame: Deliver) -> None:
        """Of signals and messages that wait for a mule, the kind has its turn that it did not get last."""
        first, last = source_of(frame.parcels[0].queue), source_of(frame.parcels[-1].queue)
        before = self._latest.get((peer, frame.epoch), 0)
        self._latest[peer, frame.epoch] = last
        if self._report is None or self._report[0] != peer or mule.alone:
            return
        report, sent = self._report[1], sum(len(parcel.ids) for parcel in frame.parcels)
        picky = any(bits & BOTH != BOTH for bits, _ in report.waits)
        alone = any(queue.head_alone() for queue in mule.queues)
        if picky or alone or report.buffered or mule.coming != sent:
            return
        waits = {queue.source for queue in mule.queues if queue.ready}
        if before == SIGNAL:
            claim(first != SIGNAL or not waits & {DIRECT, FARM}, "a message's turn", mule, frame)
        else:
            claim(not (first & MESSAGE and SIGNAL in waits), "a signal's turn", mule, frame)

    def _answering(self, peer: bytes, answer: Answer) -> None:
        self.locks.answered(peer, answer)
        before = self._drops.pop((peer, answer.request), None)
        if before is not None and not answer.code:
            claim(answer.value == self.ledger.dropped - before, "dropped others than it says", answer)

    # What moves.

    def carry(self, pipe: Pipe) -> None:
        if pipe.to_broker:
            frame = decode_for_broker(pipe.to_broker.popleft())
            self._tidy(pipe)
            self._note("from", pipe.peer.decode(), frame)
            self._heard[pipe.peer] = self.clock.mono
            self._hear(pipe.peer, frame)
            self._report = (pipe.peer, frame) if isinstance(frame, Report) else None
            self.happened(FrameReceived(pipe.peer, frame))
            self._report = None

    def _hear(self, peer: bytes, frame: Frame) -> None:
        """Tell those who keep books what a frame means to them."""
        if isinstance(frame, Return | Bye | Nack):
            self._give_back(peer, frame)
        elif isinstance(frame, Ask):
            self.locks.asked(peer, frame)
            if frame.what == "drop_dead":
                self._drops[peer, frame.request] = self.ledger.dropped
        if isinstance(frame, Hello | Bye):
            self.locks.gone(peer)

    def _give_back(self, peer: bytes, frame: Return | Bye | Nack) -> None:
        """Tell the ledger what a mule gives back of what it has."""
        mule = self.broker.roster.at(peer)
        if mule is None or frame.epoch != mule.epoch:
            return
        ids = (*frame.unstarted, *mule.under_way(frame.received)) if isinstance(frame, Bye) else frame.ids
        held = [id for id in dict.fromkeys(ids) if id in mule.in_flight]
        if isinstance(frame, Nack):
            self.ledger.failed(held, frame)
        else:
            self.ledger.returned(held)

    def inject(self, actor: Actor, frame: Frame) -> None:
        """Put a frame into an actor's connection that its session would not send."""
        if actor.pipe is not None:
            actor.pipe.to_broker.append(encode(frame))

    def happened(self, event: Event) -> None:
        if isinstance(event, BatchSaved | BatchLost):
            self._note(event)
            del self._unanswered[event.batch]
        elif isinstance(event, PeersVanished):
            for peer in event.peers:
                self.locks.gone(peer)
        super().happened(event)
        if isinstance(event, PeersVanished):
            for peer in event.peers:
                known = self.broker.roster.at(peer) or self.broker.senders.at(peer)
                claim(not known, "gone, and not forgotten", peer)

    def answer(self) -> int:
        """Tell the broker what the store has done, and whether it can still write."""
        count = super().answer()
        before, self._trouble = self._trouble, self.disk.healthy()
        if before is None and self._trouble is not None:
            self.happened(StoreFailed(self._trouble))
        elif before is not None and self._trouble is None:
            self.happened(StoreRecovered())
        return count

    def turn(self) -> bool:
        for mule in list(self.hung_up):
            self.hear(mule)
        self.disk.commit()
        moved = super().turn()
        if self.moved:
            self.verify()
        return moved or not (self.disk.full or self.disk.idle())

    def tick(self) -> None:
        due, then = self.broker.next_deadline(), self.broker.now
        jumped = abs(self.clock.wall - then.wall - (self.clock.mono - then.mono)) > BLUR
        self.ledger.release()
        connected = {mule.number for mule in self.broker.roster.connected() if mule.token}
        effects = self.broker.tick(self.clock.now())
        early = effects and self.clock.mono < due - BLUR and not jumped
        claim(not early, "something was done before it was due", effects, due)
        given_up = connected - {mule.number for mule in self.broker.roster.connected()}
        left_alive = given_up - {effect.number for effect in effects if isinstance(effect, KillMule)}
        claim(not left_alive, "silent, and not killed", left_alive)
        self.perform(effects)
        if effects:
            self.check()

    def perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send) and isinstance(effect.frame, Reset):
                self.locks.gone(effect.peer)
        super().perform(effects)
        self.ledger.delivered()
        while self._undelivered:
            self._take_back(self._undelivered.pop(0))

    def _take_back(self, event: Undelivered) -> None:
        mule = self.broker.roster.at(event.peer)
        if mule is not None and mule.epoch == event.frame.epoch:
            ids = [id for parcel in event.frame.parcels for id in parcel.ids]
            self.ledger.returned([id for id in ids if id in mule.in_flight])
        self.happened(event)

    # What must hold.

    def check(self) -> None:
        """Note that something has happened; what must hold is looked at once for each step, by `verify`."""
        self.moved = True

    def verify(self) -> None:
        """Raise AssertionError if something is not as it must always be."""
        self.moved = False
        self.broker.validate()
        books = {message[0] for message in self.broker.redelivery.delays}
        for queue in self.broker.dispatch.queues.values():
            books.update([message[0] for message in queue.ready])
        for ids in self._unanswered.values():
            books.update(ids)
        for mule in self.broker.roster:
            books.update(mule.in_flight)
            alone = len(mule.in_flight) < 2 or not any(map(self.ledger.travels_alone, mule.in_flight))
            claim(alone, "a mule died with one, and it is not alone", mule, list(mule.in_flight.values()))
        for message in self.broker.dispatch.queue(STRAY_QUEUE).ready:
            number = int.from_bytes(cast(bytes, message[2]))
            claim(self.broker.services.signals.is_stray(number), "somebody's, and a stray", message)
        self.ledger.check(books, self.broker.dead)

    def check_rest(self) -> None:
        """When nothing moves, nothing waits in a queue that has expired, or that a mule could have."""
        self.tick()
        for queue in self.broker.dispatch.queues.values():
            self.ledger.check_ready([message[0] for message in queue.ready])
        if self.moved:
            self.settle()
        for idle, mule in self._mules():
            for queue in mule.queues:
                waits = queue.ready and self._could_take(idle, mule, queue.source)
                claim(not waits, "waits although a mule is idle", queue, idle)

    def waiting_in_vain(self) -> dict[int, SimMule]:
        """Return the messages that wait at a busy mule, by number, each with a mule that could have it."""
        unstarted = list(self._unstarted())
        return {
            id: idle
            for idle, mule in (self._mules() if unstarted else ())
            for queue in mule.queues
            if self._could_take(idle, mule, queue.source)
            for id, name in unstarted
            if name == queue.name
        }

    def _unstarted(self) -> Iterator[tuple[int, str]]:
        """Yield number and queue of what mules have in their hands and no thread works on."""
        for actor, mule in self._mules():
            started = actor.ids()
            for id, message in mule.in_flight.items():
                if id not in started:
                    yield id, message[1]

    def _mules(self) -> Iterator[tuple[SimMule, Mule]]:
        for actor in self.actors:
            if isinstance(actor, SimMule) and not actor.frozen and (mule := self.registered(actor)):
                yield actor, mule

    def _could_take(self, actor: SimMule, mule: Mule, source: int) -> bool:
        if self.broker.stopping or not any(thread.waits_for(source) for thread in actor.threads):
            return False
        heads = [queue.ready[0][0] for queue in mule.queues if queue.ready]
        alone = any(map(self.ledger.travels_alone, mule.in_flight)) or any(map(self.ledger.must_wait, heads))
        return not mule.in_flight or not alone


def brief(value: object) -> str:
    """Return a frame in one short line: without what is empty, and without what matters to machines only."""
    if isinstance(value, tuple):
        words = " ".join(brief(item) for item in value if item and not isinstance(item, dict | bytes))
        return f"{type(value).__name__} {words}" if hasattr(value, "_fields") else f"({words})"
    return str(value)


def _shorten(pipe: Pipe, length: int) -> None:
    while len(pipe.to_broker) > length:
        pipe.to_broker.pop()
