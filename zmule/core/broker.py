"""The broker as a state machine: `handle(event)` gives the effects that the event calls for.

A message's way: `Put` → `_put` numbers it and asks for a `Save` → `BatchSaved` → `_saved` confirms it to
the sender and puts it into its queue → the dispatcher hands it to a mule → `Report` brings its
acknowledgement → `Forget`. If the mule vanishes first, the message goes back to the head.

A peer can do nothing but send frames, and a frame can do nothing but what its handler here does; one
that may not be sent raises `ProtocolError` before anything has changed, which costs that peer its
session and nobody else anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import starmap, takewhile
from operator import ge
from typing import Any, cast

from zmule.core.admission import Admission
from zmule.core.asking import LATER, Asked
from zmule.core.dead import DeadLetters
from zmule.core.dispatch import Dispatcher
from zmule.core.effects import Changes, Effect, Forget, Note, Publish, Recovery, Reload, Save, Send, Stop
from zmule.core.events import (
    BatchLost,
    BatchSaved,
    Event,
    FrameReceived,
    FrameRejected,
    MuleExited,
    MuleGivenUp,
    MuleSpawned,
    PathChanged,
    PathRefused,
    PathWatched,
    Peer,
    PeersVanished,
    StopRequested,
    StoreFailed,
    StoreRecovered,
    Undelivered,
)
from zmule.core.frames import (
    DIRECT,
    FARM,
    Answer,
    Ask,
    Broadcast,
    Bye,
    Confirm,
    Deliver,
    Farewell,
    Frame,
    Hello,
    Nack,
    Ping,
    Pong,
    Put,
    Recall,
    Refusal,
    Report,
    Reset,
    Return,
    Settled,
)
from zmule.core.instant import Instant
from zmule.core.intake import Intake, Pending
from zmule.core.mules import Mule, Roster
from zmule.core.queues import ANY, STRAY_QUEUE, Dead, Message, farm_queue, mule_queue, number_of
from zmule.core.redelivery import Redelivery
from zmule.core.room import Room
from zmule.core.senders import Sender, Senders
from zmule.core.services import Services
from zmule.core.setup import Setup
from zmule.core.status import status
from zmule.core.wire import MAX_REASON
from zmule.errors import NotPermitted, ProtocolError, ZmuleError

HOUSEKEEPING_SECONDS = 60.0


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
        self.dead: dict[int, Dead] = {}
        self.letters = DeadLetters(self)
        self.redelivery = Redelivery(self)
        self.acked = 0
        self.store_error: str | None = None
        self.stopping = False
        self.admission = Admission(self)
        self.broadcast = 0
        self._housekeeping = now.mono + HOUSEKEEPING_SECONDS
        self._effects: list[Effect] = []
        self.questions: dict[str, Callable[[Asked], Any]] = {
            "ping": lambda _: None,
            "status": lambda _: status(self, self.now),
            "stop": lambda asked: self._order(asked, Stop()),
            "reload": lambda asked: self._order(asked, Reload()),
            "room": self.room.ask,
            **self.services.questions(),
            **self.letters.questions(),
        }
        self.dispatch.queue(ANY).unread_since = now.wall

    def recover(self, recovery: Recovery) -> None:
        """Take up what the store has kept; to be called once, before anything else."""
        self.intake.recover(recovery.next_id, len(recovery.messages) + len(recovery.dead))
        self.services.restore(recovery.facts)
        for mark in recovery.senders:
            refusals = starmap(Refusal, mark.refusals)
            self.senders.restore(mark.session, mark.last, refusals, self.now.mono)
        self.redelivery.restore(recovery.messages)
        self.letters.restore(recovery.dead)

    # What goes in and what comes out.

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Take note of an event; return what is to be done about it, in order."""
        self.now, self.dispatch.now = now, now.mono
        _HANDLERS[type(event)](self, event)
        return self._flush()

    def tick(self, now: Instant) -> list[Effect]:
        """Do what is due; return what is to be done about it, in order."""
        self.now, self.dispatch.now = now, now.mono
        self._give_up_silent()
        self.dispatch.recall_stale(now.mono)
        self.services.tick()
        self.redelivery.tick()
        if now.mono >= self._housekeeping:
            if gone := self.senders.expire(now.mono):
                self.do(Changes(forgotten=gone))
            self._housekeeping = now.mono + HOUSEKEEPING_SECONDS
        return self._flush()

    def _give_up_silent(self) -> None:
        """Give up the mules that have not been heard of for too long."""
        now, mules = self.now.mono, self.roster.connected()
        silent = list(takewhile(lambda mule: self._silent_since(mule) <= now, mules))
        peers = tuple(cast(Peer, mule.peer) for mule in silent)
        for mule in silent:
            silence = f"{self.limits.heartbeat_timeout:g} s"
            self._note("warning", f"mule {mule.number} has been silent for {silence}")
        self._vanished(PeersVanished(peers))
        for peer in peers:
            self.send(peer, Reset("silent", "no heartbeat in time: register anew"))

    def next_deadline(self) -> float:
        """Return when `tick` has something to do, on the monotonic clock."""
        deadlines = [self._housekeeping]
        if (mule := next(iter(self.roster.connected()), None)) is not None:
            deadlines.append(self._silent_since(mule))
        timed = (self.services, self.dispatch, self.redelivery, self.room)
        others = [each.next_deadline() for each in timed]
        return min(deadlines + [due for due in others if due is not None])

    def _silent_since(self, mule: Mule) -> float:
        return mule.heard + self.limits.heartbeat_timeout

    def steady(self) -> float:
        """Return the time on the steady clock of `zmule.core.terms`."""
        return self.dispatch.steady()

    def _flush(self) -> list[Effect]:
        if self.dispatch.expired:
            expired, self.dispatch.expired = self.dispatch.expired, []
            self.letters.bury_expired(expired)
        for asked in self.room.grant():
            self.send(asked.peer, Answer(asked.request, "", None))
        for mule, parcels in self.dispatch.parcels():
            self.send(cast(Peer, mule.peer), Deliver(mule.epoch, parcels))
            self._settle_state(mule)
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

    def _note(self, level: str, text: str) -> None:
        self._effects.append(Note(level, text))

    # Peers come and go.

    def _received(self, event: FrameReceived) -> None:
        peer, frame = event
        self.roster.heard(peer, self.now.mono)
        self.services.locks.heard(peer)
        try:
            handler = _FRAMES.get(type(frame))
            if handler is None:
                raise ProtocolError(f"{type(frame).__name__} is not for a broker")
            handler(self, peer, frame)
        except ProtocolError as error:
            self._reject(FrameRejected(peer, str(error)))

    def _reject(self, event: FrameRejected) -> None:
        self._vanished(PeersVanished((event.peer,)))
        self._note("warning", f"a peer broke the protocol: {event.reason}")
        self.send(event.peer, Reset(ProtocolError.code, event.reason))

    def _vanished(self, event: PeersVanished) -> None:
        peers = dict.fromkeys(event.peers)  # one may be told of twice: by the monitor, and by a send
        mules = [mule for peer in peers if (mule := self.roster.at(peer)) is not None]
        for mule in mules:
            self.dispatch.detach(mule, self.now.wall)
        for peer in peers:
            self.gone(peer)
        for mule in mules:
            if mule.in_flight:
                self._note("warning", f"mule {mule.number} vanished with {len(mule.in_flight)} in flight")
            self.lose(mule)

    def _undelivered(self, event: Undelivered) -> None:
        mule = self.roster.at(event.peer)
        if mule is not None and mule.epoch == event.frame.epoch:
            self.dispatch.detach(mule, self.now.wall)
            for parcel in event.frame.parcels:
                self.dispatch.put_back(mule.release(parcel.ids))

    def vanished(self, peer: Peer, why: str) -> None:
        """Give up a peer that is still connected, and tell it."""
        self._note("warning", f"a peer {why}")
        self._vanished(PeersVanished((peer,)))
        self.send(peer, Reset("silent", why))

    def gone(self, peer: Peer) -> None:
        """Note that a connection is a client's no longer."""
        self.senders.disconnect(peer, self.now.mono)
        self.services.gone(peer)
        self.room.gone(peer)

    def _stranger(self, peer: Peer) -> None:
        self.send(peer, Reset("unknown", "say HELLO first"))

    def _hello(self, peer: Peer, frame: Hello) -> None:
        self.admission.hello(peer, frame)

    def reads_messages(self, mule: Mule) -> None:
        """Let a mule read messages: it is not signal-only, or its application has taken it over."""
        mule.reads = True
        self.reads_changed(mule)

    def reads_changed(self, mule: Mule) -> None:
        """Let a mule read what it reads by now: signals that it has handlers for, then messages."""
        names = [*self.services.signals.queues(mule), *mule.reads_queues()]
        self.dispatch.read(mule, names, self.now.wall)
        self.dispatch.feed(mule)

    def _ping(self, peer: Peer, frame: Ping) -> None:
        if self._registered(peer):
            self.send(peer, Pong(frame.number, self.broadcast))

    def _bye(self, peer: Peer, frame: Bye) -> None:
        mule = self.roster.at(peer)
        if mule is not None:
            current = frame.epoch == mule.epoch
            if current:
                self._check_received(mule, frame)
            self.dispatch.detach(mule, self.now.wall)
            self._acknowledge(mule, frame.epoch, frame.acks)
            if current:
                undelivered = (*frame.unstarted, *mule.under_way(frame.received))
                self.dispatch.put_back(mule.release(undelivered))
            self.lose(mule)
        self.gone(peer)
        self.send(peer, Farewell())

    def _registered(self, peer: Peer) -> bool:
        if self.roster.at(peer) or self.senders.at(peer):
            return True
        self._stranger(peer)
        return False

    # Messages come in.

    def _put(self, peer: Peer, frame: Put) -> None:
        sender = self.senders.at(peer)
        if sender is None:
            self._stranger(peer)
            return
        save = self.intake.put(sender, frame, self.steady())
        if save is None:
            self.confirm(sender, ())
        else:
            self._keep(save)

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
        self._note("error", f"the store cannot write, so new messages are refused: {event.reason}")

    def _store_recovered(self, event: StoreRecovered) -> None:
        self.store_error = None
        self._note("warning", "the store writes again")

    def _answered(self, pending: Pending) -> None:
        """Tell the sender of a batch how it went."""
        if pending.sender is not None:
            pending.sender.confirmed = max(pending.sender.confirmed, pending.upto)
            self.confirm(pending.sender, pending.refusals)

    def raise_signal(self, number: int) -> None:
        """Raise a signal that a timer, cron or file monitor has caused."""
        save = self.intake.raised(number, self.steady())
        if save is not None:
            self._keep(save)

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

    # Mules take their turns.

    def _mule(self, peer: Peer) -> Mule | None:
        mule = self.roster.at(peer)
        if mule is None:
            self._stranger(peer)
        return mule

    def _report(self, peer: Peer, frame: Report) -> None:
        mule = self._mule(peer)
        if mule is None or frame.epoch != mule.epoch:
            return
        self._check_received(mule, frame)
        if frame.acks:
            mule.pace.finished(len(frame.acks), self.now.mono)
        self._acknowledge(mule, frame.epoch, frame.acks)
        mule.report(frame.received, frame.waits, frame.buffered)
        if mule.threads[DIRECT | FARM] and not mule.reads:
            self.reads_messages(mule)
        if mule.waiting and not mule.settled and (mule.programmed or mule.threads[DIRECT | FARM]):
            self._settle(mule)
        self.dispatch.feed(mule)
        self._settle_state(mule)

    def _check_received(self, mule: Mule, frame: Report | Bye) -> None:
        if not all(map(ge, mule.sent.values(), frame.received)):
            raise ProtocolError(f"{type(frame).__name__} counts more messages than were sent")

    def _acknowledge(self, mule: Mule, epoch: int, ids: Iterable[int]) -> None:
        """Finish messages. Acks of an epoch that is over are void: others may hold those messages."""
        if epoch == mule.epoch and ids:
            finished = mule.release(ids)
            mule.messages += len(finished)
            self.finish(finished)

    def finish(self, messages: list[Message]) -> None:
        """Take messages off the books that are done with."""
        self.acked += len(messages)
        self.dispatch.account_for(messages)
        if messages and self.setup.keeps:
            self._effects.append(Forget(list(map(number_of, messages))))

    def _nack(self, peer: Peer, frame: Nack) -> None:
        mule = self._mule(peer)
        if mule is not None and frame.epoch == mule.epoch:
            reason = f"mule {mule.number} " + ("rejected it" if frame.dead else "failed with it")
            messages = mule.release(frame.ids)
            self.redelivery.retry(messages, mule, reason, delay=frame.delay, dead=frame.dead)
            self.dispatch.feed(mule)

    def _return(self, peer: Peer, frame: Return) -> None:
        mule = self._mule(peer)
        if mule is not None and frame.epoch == mule.epoch:
            back = mule.release(frame.ids)
            self.dispatch.returned(mule, back)
            self.dispatch.put_back(back)
            self.dispatch.feed(mule)

    def _settled(self, peer: Peer, frame: Settled) -> None:
        mule = self._mule(peer)
        if mule is None or frame.epoch != mule.epoch or mule.settled or mule.programmed:
            return
        self._settle(mule)
        if not mule.reads:
            mule.reads = False
            queue = mule_queue(mule.number)
            for message in self.dispatch.empty(queue):
                self.letters.bury(message, self.roster.unread(queue) or "", 0)
        self._settle_state(mule)

    def _settle(self, mule: Mule) -> None:
        mule.settled = True
        self.services.settled(mule)
        if not mule.programmed:
            mule.turn("joined")

    def _settle_state(self, mule: Mule) -> None:
        """Make idle and busy true again: idle is a mule with nothing in its hands and a thread that waits."""
        reads = mule.waiting > 0 or mule.reads is False
        if mule.state == "busy" and reads and not mule.in_flight:
            mule.turn("waited")
        elif mule.state == "idle" and (mule.in_flight or not reads):
            mule.turn("worked")

    # Mules die.

    def lose(self, mule: Mule) -> None:
        """End a mule's session: what it had in flight goes back, or is done with if delivery was early."""
        number = mule.number
        self.dispatch.detach(mule, self.now.wall)
        self.services.lost(mule)
        held = self.roster.disconnect(mule)
        mule.turn("vanished")
        self.dispatch.suspect(held)
        self.redelivery.retry(held, mule, f"mule {number} died with it")

    # What the supervisor and the operator do.

    def _spawned(self, event: MuleSpawned) -> None:
        mule = self._configured(event.number)
        mule.pid, mule.token = event.pid, event.token
        mule.turn("spawned")

    def _exited(self, event: MuleExited) -> None:
        mule = self._configured(event.number)
        mule.token = b""
        mule.pid = 0
        mule.restarts += 1
        if mule.peer is not None:
            self.lose(mule)
        if mule.state != "gone":
            mule.turn("vanished")

    def _given_up(self, event: MuleGivenUp) -> None:
        mule = self._configured(event.number)
        mule.turn("given up")
        self.services.settled(mule)
        self._note("error", f"mule {event.number} is given up: {event.reason}")

    def _configured(self, number: int) -> Mule:
        mule = self.roster.get(number)
        if mule is None or not mule.configured:
            raise KeyError(f"mule {number} is not configured")
        return mule

    def _stop(self, event: StopRequested) -> None:
        if self.stopping:
            return
        self.stopping = self.dispatch.paused = True
        self.broadcast += 1
        self._effects.append(Publish(Broadcast(self.broadcast, "stop")))
        for mule in self.roster.connected():
            if mule.state in ("idle", "busy"):
                mule.turn("told to stop")

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
        if self.roster.at(asked.peer) is None:
            raise NotPermitted("only mules and workers may stop or reload the mules")
        self.do(effect)

    def manned(self) -> bool:
        """Return whether every configured mule is at its work, or given up."""
        return all(mule.state not in ("gone", "starting") for mule in self.roster if mule.configured)

    def summary(self) -> str:
        """Return one line on how things stand, for the service manager."""
        mules = [mule for mule in self.roster if mule.configured]
        failed = sum(mule.state == "failed" for mule in mules)
        return f"{len(mules) - failed} of {len(mules)} mules are at work"

    def left(self) -> int:
        """Return how many messages are on the books."""
        return self.dispatch.count

    # What must always hold.

    def validate(self) -> None:
        """Raise AssertionError if an invariant is broken; tests call it after every step."""
        unsaved = self.intake.unsaved() + self.letters.rising()
        self.dispatch.validate(self.roster, unsaved + len(self.redelivery.delays))
        self.services.validate()
        for part in (self.letters, self.redelivery.delays, self.room):
            part.validate()
        for mule in self.roster:
            assert mule.peer is not None or not mule.in_flight, f"{mule} is not connected"
        kept = self.left() - unsaved + len(self.dead)
        gone = self.acked + self.letters.dropped
        assert self.intake.accepted == kept + gone, "a message is lost or doubled"


_HANDLERS: dict[type[Event], Callable[..., None]] = {
    FrameReceived: Broker._received,
    FrameRejected: Broker._reject,
    PeersVanished: Broker._vanished,
    Undelivered: Broker._undelivered,
    BatchSaved: Broker._saved,
    BatchLost: Broker._lost,
    StoreFailed: Broker._store_failed,
    StoreRecovered: Broker._store_recovered,
    MuleSpawned: Broker._spawned,
    MuleExited: Broker._exited,
    PathWatched: Broker._path_watched,
    PathRefused: Broker._path_refused,
    PathChanged: Broker._path_changed,
    MuleGivenUp: Broker._given_up,
    StopRequested: Broker._stop,
}
_FRAMES: dict[type[Frame], Callable[..., None]] = {
    Hello: Broker._hello,
    Put: Broker._put,
    Report: Broker._report,
    Nack: Broker._nack,
    Return: Broker._return,
    Settled: Broker._settled,
    Ping: Broker._ping,
    Bye: Broker._bye,
    Ask: Broker._ask,
}
