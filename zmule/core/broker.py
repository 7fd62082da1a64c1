"""The broker as a state machine: `handle(event)` gives the effects that the event calls for.

A message's way: `Put` → `_put` numbers it and asks for a `Save` → `BatchSaved` → `_saved` confirms it to
the sender and puts it into its queue → the dispatcher hands it to a mule → `Report` brings its
acknowledgement → `Forget`. If the mule vanishes first, the message goes back to the head.

A peer can do nothing but send frames, and a frame can do nothing but what its handler in `_frames` does; one
that may not be sent raises `ProtocolError` before anything has changed, which costs that peer its
session and nobody else anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice, takewhile
from typing import Any, cast

from zmule.core.admission import Admission
from zmule.core.asking import LATER, Asked, arguments
from zmule.core.dead import DeadLetters
from zmule.core.dispatch import Dispatcher
from zmule.core.effects import Backup, Changes, Effect, Note, Publish, Recovery, Reload, Save, Send, Stop
from zmule.core.events import (
    BackupEnded,
    BatchLost,
    BatchSaved,
    Event,
    FrameReceived,
    FrameRejected,
    MemoryFine,
    MemoryShort,
    MuleExited,
    MuleGivenUp,
    MuleSpawned,
    PathChanged,
    PathRefused,
    PathWatched,
    Peer,
    PeersVanished,
    Stalled,
    StopRequested,
    StoreFailed,
    StoreRecovered,
    StrangerSpoke,
    Undelivered,
)
from zmule.core.frames import (
    Answer,
    Ask,
    Broadcast,
    Bye,
    Confirm,
    Deliver,
    Frame,
    Hello,
    Nack,
    Ping,
    Pong,
    Put,
    Recall,
    Report,
    Reset,
    Return,
    Settled,
)
from zmule.core.hangs import Hangs
from zmule.core.instant import Instant
from zmule.core.intake import Intake, Pending
from zmule.core.mules import Mule, Roster
from zmule.core.queues import ANY, STRAY_QUEUE, Dead, farm_queue
from zmule.core.redelivery import Redelivery
from zmule.core.returns import Returns
from zmule.core.room import Room
from zmule.core.senders import Run, Sender, Senders
from zmule.core.services import Services
from zmule.core.setup import Setup
from zmule.core.status import status
from zmule.core.turns import Turns
from zmule.core.wire import MAX_REASON
from zmule.errors import NotPermitted, ProtocolError, StoreUnavailable, ZmuleError

HOUSEKEEPING_SECONDS = 60.0
MOST_TROUBLES = 3


class Broker:
    """All that the broker knows, and what it does about what happens."""

    def __init__(self, setup: Setup, now: Instant) -> None:
        self.setup = setup
        self.limits = setup.limits
        self.started = self.now = now
        self.roster = Roster(setup.mules, setup.farms)
        self.senders = Senders()
        early = [farm_queue(farm.name) for farm in setup.farms if farm.early]
        self.dispatch = Dispatcher(early, setup.ttl)
        self.dispatch.now, self.dispatch.offset = now.mono, now.wall - now.mono
        self.services = Services(self, setup.schedules, setup.locks)
        self.room = Room(self)
        self.intake = Intake(self.roster, self.dispatch, self.services.signals, self.room, self.limits)
        self.returns = Returns(now.mono + self.limits.returning, self.intake.closed)
        self.dead: dict[int, Dead] = {}
        self.letters = DeadLetters(self)
        self.redelivery = Redelivery(self)
        self.store_error: str | None = None
        self.memory_error: str | None = None
        self.stopping = False
        self.hangs = Hangs(self)
        self.turns = Turns(self)
        self.admission = Admission(self)
        self.broadcast = 0
        self._owners: set[Peer] = set()
        self._housekeeping = now.mono + HOUSEKEEPING_SECONDS
        self._effects: list[Effect] = []
        self.questions: dict[str, Callable[[Asked], Any]] = {
            "ping": lambda _: None,
            "status": lambda _: status(self, self.now),
            "stop": lambda asked: self._order(asked, Stop()),
            "reload": lambda asked: self._order(asked, Reload()),
            "room": self.room.ask,
            "backup": self._back_up,
            **self.hangs.questions(),
            **self.services.questions(),
            **self.letters.questions(),
        }
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            FrameReceived: self._received,
            FrameRejected: self._reject,
            PeersVanished: self._vanished,
            StrangerSpoke: lambda event: self.stranger(event.peer),
            MemoryShort: self._memory_short,
            MemoryFine: self._memory_fine,
            Stalled: self._stalled,
            Undelivered: self.turns.undelivered,
            BatchSaved: self._saved,
            BackupEnded: self._backed_up,
            BatchLost: self._lost,
            StoreFailed: self._store_failed,
            StoreRecovered: self._store_recovered,
            MuleSpawned: self.turns.spawned,
            MuleExited: self.turns.exited,
            MuleGivenUp: self.turns.given_up,
            PathWatched: self._path_watched,
            PathRefused: self._path_refused,
            PathChanged: self._path_changed,
            StopRequested: self._stop,
        }
        self._frames: dict[type[Frame], Callable[[Peer, Any], None]] = {
            Hello: self.admission.hello,
            Put: self._put,
            Report: self.turns.report,
            Nack: self.turns.nack,
            Return: self.turns.give_back,
            Settled: self.turns.settled,
            Ping: self._ping,
            Bye: self.turns.bye,
            Ask: self._ask,
        }
        self.dispatch.queue(ANY).unread_since = now.wall

    def recover(self, recovery: Recovery) -> None:
        """Take up what the store has kept; to be called once, before anything else."""
        self.intake.recover(recovery.next_id, len(recovery.messages) + len(recovery.dead))
        self.services.restore(recovery.facts)
        for mark in recovery.senders:
            self.senders.restore(mark.session, mark.last, map(Run.kept, mark.refusals), self.now.mono)
        self.redelivery.restore(recovery.messages)
        self.letters.restore(recovery.dead)

    # What goes in and what comes out.

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Take note of an event; return what is to be done about it, in order."""
        self.now, self.dispatch.now = now, now.mono
        self._handlers[type(event)](event)
        return self._flush()

    def tick(self, now: Instant) -> list[Effect]:
        """Do what is due; return what is to be done about it, in order."""
        self.now, self.dispatch.now = now, now.mono
        self._give_up_silent()
        self.hangs.tick()
        self.dispatch.recall_stale(now.mono)
        self.services.tick()
        self.returned()
        self.redelivery.tick()
        self.turns.tick()
        if now.mono >= self._housekeeping:
            self._forget_senders()
            self._housekeeping = now.mono + HOUSEKEEPING_SECONDS
        return self._flush()

    def _give_up_silent(self) -> None:
        """Give up the mules that have not been heard of for too long."""
        now, mules = self.now.mono, self.roster.connected()
        silent = list(takewhile(lambda mule: self._silent_since(mule) <= now, mules))
        peers = tuple(cast(Peer, mule.peer) for mule in silent)
        for mule in silent:
            self.hangs.silent(mule)
        self._vanished(PeersVanished(peers))
        for peer in peers:
            self.send(peer, Reset("silent", "no heartbeat in time: register anew"))

    def next_deadline(self) -> float:
        """Return when `tick` has something to do, on the monotonic clock."""
        deadlines = [self._housekeeping]
        if (mule := next(iter(self.roster.connected()), None)) is not None:
            deadlines.append(self._silent_since(mule))
        timed = (
            self.hangs,
            self.returns,
            self.services,
            self.dispatch,
            self.redelivery,
            self.turns,
            self.room,
        )
        others = [each.next_deadline() for each in timed]
        return min(deadlines + [due for due in others if due is not None])

    def _silent_since(self, mule: Mule) -> float:
        return mule.heard + self.limits.heartbeat_timeout

    def steady(self) -> float:
        """Return the time on the steady clock of `zmule.core.terms`."""
        return self.dispatch.steady()

    def _flush(self) -> list[Effect]:
        if self.dispatch.strays:
            strays, self.dispatch.strays = self.dispatch.strays, []
            self.services.strayed(strays)
        if self.dispatch.expired:
            expired, self.dispatch.expired = self.dispatch.expired, []
            self.letters.bury_expired(expired)
        for asked in self.room.grant():
            self.send(asked.peer, Answer(asked.request, "", None))
        for mule, parcels in self.dispatch.parcels():
            self.send(cast(Peer, mule.peer), Deliver(mule.epoch, parcels))
            self.turns.update_state(mule)
        for mule, most in self.dispatch.recalls():
            self.send(cast(Peer, mule.peer), Recall(mule.epoch, most))
        effects, self._effects = self._effects, []
        return effects

    def do(self, effect: Effect) -> None:
        """Have something done, after what was asked for before."""
        self._effects.append(effect)

    def send(self, peer: Peer, frame: Frame) -> None:
        """Have a frame sent."""
        self._effects.append(Send(peer, frame))

    def note(self, level: str, text: str) -> None:
        """Have a line logged."""
        self._effects.append(Note(level, text))

    # Peers come and go.

    def _received(self, event: FrameReceived) -> None:
        peer, frame, owner = event
        if type(frame) is Hello:
            (self._owners.add if owner else self._owners.discard)(peer)
        self.roster.heard(peer, self.now.mono)
        self.services.locks.heard(peer)
        try:
            handler = self._frames.get(type(frame))
            if handler is None:
                raise ProtocolError(f"{type(frame).__name__} is not for a broker")
            handler(peer, frame)
        except ProtocolError as error:
            self._reject(FrameRejected(peer, str(error)))

    def _reject(self, event: FrameRejected) -> None:
        self._vanished(PeersVanished((event.peer,)))
        self.note("warning", f"a peer broke the protocol: {event.reason}")
        self.send(event.peer, Reset(ProtocolError.code, event.reason))

    def _vanished(self, event: PeersVanished) -> None:
        self._owners.difference_update(event.peers)
        peers = dict.fromkeys(event.peers)  # one may be told of twice: by the monitor, and by a send
        mules = [mule for peer in peers if (mule := self.roster.at(peer)) is not None]
        for mule in mules:
            self.dispatch.detach(mule, self.now.wall)
        for peer in peers:
            self.gone(peer)
        for mule in mules:
            if mule.in_flight:
                self.note("warning", f"mule {mule.number} vanished with {len(mule.in_flight)} in flight")
            self.turns.lose(mule)

    def vanished(self, peer: Peer, why: str) -> None:
        """Give up a peer that is still connected, and tell it."""
        self.note("warning", f"a peer {why}")
        self._vanished(PeersVanished((peer,)))
        self.send(peer, Reset("silent", why))

    def gone(self, peer: Peer) -> None:
        """Note that a connection is a client's no longer."""
        self.senders.disconnect(peer, self.now.mono)
        if self.senders.crowded():
            self._forget_senders()
        self.services.gone(peer)
        self.returns.gone(peer)
        self.room.gone(peer)

    def _forget_senders(self) -> None:
        """Forget sessions that nobody has come back to for long, or that are too many."""
        if gone := self.senders.expire(self.now.mono):
            self.do(Changes(forgotten=gone))

    def stranger(self, peer: Peer) -> None:
        """Tell a peer without a session to greet first."""
        self.send(peer, Reset("unknown", "say HELLO first"))

    def _ping(self, peer: Peer, frame: Ping) -> None:
        if self._registered(peer):
            self.send(peer, Pong(frame.number, self.broadcast))

    def _registered(self, peer: Peer) -> bool:
        if self.roster.at(peer) or self.senders.at(peer):
            return True
        self.stranger(peer)
        return False

    # Messages come in.

    def _put(self, peer: Peer, frame: Put) -> None:
        sender = self.senders.at(peer)
        if sender is None:
            self.stranger(peer)
            return
        if self.returns.hold(peer, frame, self.now.mono):
            return
        self.returned()  # if this one is too much to hold, what is held goes first
        save = self.intake.put(sender, frame, self.steady())
        if save is None:
            self.confirm(sender, ())
        else:
            self._keep(save)

    def returned(self) -> None:
        """Take up messages that have waited for a mule or farm to come back, and need not any more."""
        for peer, frame in self.returns.ready(self.now.mono):
            self._received(FrameReceived(peer, frame))

    def _keep(self, save: Save) -> None:
        """Have a batch kept, and what follows then done; at once if nothing is kept anyway."""
        if self.setup.keeps:
            self._effects.append(save)
        else:
            self._saved(BatchSaved(save.batch))

    def _saved(self, event: BatchSaved) -> None:
        if self.letters.saved(event.batch):
            return
        pending = self.intake.saved(event.batch)
        self._answered(pending)
        for name, messages in pending.messages:
            self.redelivery.enqueue(name, messages)
            if name == STRAY_QUEUE:
                self.services.strayed(messages)

    def _lost(self, event: BatchLost) -> None:
        if self.letters.lost(event.batch, event.reason):
            return
        self._answered(self.intake.lost(event.batch, event.reason))

    def _store_failed(self, event: StoreFailed) -> None:
        self.store_error = event.reason
        self.note("error", f"the store cannot write, so new messages are refused: {event.reason}")

    def _store_recovered(self, event: StoreRecovered) -> None:
        self.store_error = None
        self.note("warning", "the store writes again")

    def _memory_short(self, event: MemoryShort) -> None:
        most = self.limits.max_memory
        self.memory_error = f"the broker has {event.used} bytes of memory (limit: max_memory, {most} bytes)"
        self.note("error", f"new messages are refused: {self.memory_error}")

    def _memory_fine(self, _: MemoryFine) -> None:
        self.memory_error = None
        self.note("warning", "memory is no longer short: new messages are taken again")

    def _stalled(self, event: Stalled) -> None:
        """Nobody is silent for as long as nobody could be heard."""
        self.note("warning", f"the broker stood still for {event.seconds:.1f} s")
        self.roster.credit(event.seconds)
        self.hangs.credit(event.seconds)
        self.services.locks.credit(event.seconds)

    def _answered(self, pending: Pending) -> None:
        """Tell the sender of a batch how it went."""
        if pending.sender is not None:
            pending.sender.confirmed = max(pending.sender.confirmed, pending.upto)
            self.confirm(pending.sender, pending.refusals)

    def raise_signal(self, number: int) -> bool:
        """Raise a signal that a timer, cron or file monitor has caused; return whether that was needed."""
        save = self.intake.raised(number, self.steady())
        if save is not None:
            self._keep(save)
        return save is not None

    def _path_watched(self, event: PathWatched) -> None:
        self.services.watched(event.path, None)

    def _path_refused(self, event: PathRefused) -> None:
        self.services.watched(event.path, event.reason)

    def _path_changed(self, event: PathChanged) -> None:
        self.services.changed(event.path)

    def confirm(self, sender: Sender, refusals: Iterable[Any]) -> None:
        """Tell a sender, if it is there, up to where it has been answered."""
        if sender.peer is not None:
            self.send(sender.peer, Confirm(sender.confirmed, tuple(refusals)))

    # What the supervisor and the operator do.

    def _stop(self, event: StopRequested) -> None:
        if self.stopping:
            return
        self.stopping = self.dispatch.paused = True
        self.broadcast += 1
        self._effects.append(Publish(Broadcast(self.broadcast, "stop")))
        for mule in self.roster.connected():
            if mule.state in ("idle", "busy"):
                mule.turn("told to stop", self.now.mono)

    # Questions.

    def _ask(self, peer: Peer, frame: Ask) -> None:
        if not self._registered(peer):
            return
        question = self.questions.get(frame.what)
        try:
            if question is None:
                raise ProtocolError(f"there is no question {frame.what!r}")
            answer = question(Asked(peer, frame.request, frame.arguments))
        except ZmuleError as error:
            self.send(peer, Answer(frame.request, error.code, str(error)[:MAX_REASON]))
        else:
            if answer is not LATER:
                self.send(peer, Answer(frame.request, "", answer))

    def _order(self, asked: Asked, effect: Stop | Reload) -> None:
        mule = self.roster.at(asked.peer)
        if not (asked.peer in self._owners or (mule is not None and mule.configured)):
            who = f"{'mule' if mule.number > 0 else 'worker'} {abs(mule.number)}" if mule else "a client"
            self.note(
                "warning",
                f"{who} of another user, or from a network, may not {type(effect).__name__.lower()}",
            )
            raise NotPermitted("only mules that zmuled has started, and processes of its user, may do that")
        self.do(effect)

    def _back_up(self, asked: Asked) -> object:
        arguments(asked)
        self.do(Backup(asked.peer, asked.request))
        return LATER

    def _backed_up(self, event: BackupEnded) -> None:
        if self.roster.at(event.peer) or self.senders.at(event.peer):
            code = StoreUnavailable.code if event.error else ""
            self.send(event.peer, Answer(event.request, code, event.error or event.path))

    def manned(self) -> bool:
        """Return whether every configured mule is at its work."""
        return all(mule.settled for mule in self.roster if mule.configured)

    def summary(self) -> str:
        """Return one line on how things stand, for the service manager."""
        mules = [mule for mule in self.roster if mule.configured]
        at_work = sum(mule.settled for mule in mules)
        return "; ".join([f"{at_work} of {len(mules)} mules are at work", *self.troubles()])

    def troubles(self) -> list[str]:
        """Return which mules do not come to their work, and why: the first few."""
        ended = (mule for mule in self.roster if mule.configured and mule.last_exit and not mule.settled)
        return [f"mule {mule.number} does not: {mule.last_exit}" for mule in islice(ended, MOST_TROUBLES)]

    def left(self) -> int:
        """Return how many messages are on the books."""
        return self.dispatch.count

    # What must always hold.

    def validate(self) -> None:
        """Raise AssertionError if an invariant is broken; tests call it after every step."""
        unsaved = self.intake.unsaved() + self.letters.rising()
        self.dispatch.validate(self.roster, unsaved + len(self.redelivery.delays))
        self.services.validate()
        for part in (self.hangs, self.returns, self.letters, self.redelivery.delays, self.room):
            part.validate()
        for mule in self.roster:
            assert mule.peer is not None or not mule.in_flight, f"{mule} is not connected"
        kept = self.left() - unsaved + len(self.dead)
        gone = self.turns.acked + self.letters.dropped
        assert self.intake.accepted == kept + gone, "a message is lost or doubled"
