"""The broker as a state machine: `handle(event)` gives the effects that the event calls for.

A message's way: `Put` → `_put` numbers it and asks for a `Save` → `BatchSaved` → `_saved` confirms it to
the sender and puts it into its queue → the dispatcher hands it to a mule → `Report` brings its
acknowledgement → `Forget`. If the mule vanishes first, the message goes back to the head.

A peer can do nothing but send frames, and a frame can do nothing but what its handler here does; one
that may not be sent raises `ProtocolError` before anything has changed, which costs that peer its
session and nobody else anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import starmap
from typing import Any, NamedTuple, cast

from zmule.core import greeting
from zmule.core.dispatch import Dispatcher
from zmule.core.effects import Bury, Effect, Forget, Note, Publish, Recovery, Reload, Send, Stop
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
    PeerVanished,
    StopRequested,
)
from zmule.core.frames import (
    DIRECT,
    FARM,
    PROTOCOL_VERSION,
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
    Refused,
    Report,
    Reset,
    Return,
    Settled,
    Welcome,
)
from zmule.core.instant import Instant
from zmule.core.intake import Intake, Pending
from zmule.core.mules import FarmSetup, Mule, MuleSetup, Roster
from zmule.core.queues import ANY, Dead, Message, again, farm_queue, mule_queue
from zmule.core.senders import Sender, Senders
from zmule.core.services import LATER, Asked, Schedules, Services
from zmule.core.status import status
from zmule.core.wire import MAX_REASON
from zmule.errors import NotPermitted, NumberInUse, ProtocolError, ZmuleError

HOUSEKEEPING_SECONDS = 60.0


class Limits(NamedTuple):
    """What the broker bounds: sizes in bytes, times in seconds."""

    max_message: int = 1 << 20
    queue_messages: int = 2_000_000
    queue_bytes: int = 1 << 30
    max_deliveries: int = 5
    heartbeat: float = 3.0
    heartbeat_timeout: float = 10.0


class Setup(NamedTuple):
    """What a broker is made of.

    `id` is 16 bytes of its own; `about` goes into its status as it stands; `publish` pairs each endpoint
    with the one its broadcasts leave by; `schedules` makes those of crons; `locks` is the highest number
    of a lock.
    """

    id: bytes
    mules: tuple[MuleSetup, ...] = ()
    farms: tuple[FarmSetup, ...] = ()
    limits: Limits = Limits()
    publish: tuple[tuple[str, str], ...] = ()
    about: Mapping[str, Any] = {}
    schedules: Schedules | None = None
    locks: int = 0


class Broker:
    """All that the broker knows, and what it does about what happens."""

    def __init__(self, setup: Setup, now: Instant) -> None:
        self.setup = setup
        self.limits = setup.limits
        self.started = self.now = now
        self.roster = Roster(setup.mules, setup.farms)
        self.senders = Senders()
        self.dispatch = Dispatcher(farm_queue(farm.name) for farm in setup.farms if farm.early)
        self.services = Services(self, setup.schedules, setup.locks)
        self.intake = Intake(self.roster, self.dispatch, self.services.signals, self.limits)
        self.dead: dict[int, Dead] = {}
        self.acked = 0
        self.stopping = False
        self._epoch = 0
        self._broadcast = 0
        self._housekeeping = now.mono + HOUSEKEEPING_SECONDS
        self._effects: list[Effect] = []
        self.questions: dict[str, Callable[[Asked], Any]] = {
            "ping": lambda _: None,
            "status": lambda _: status(self, self.now),
            "stop": lambda asked: self._order(asked, Stop()),
            "reload": lambda asked: self._order(asked, Reload()),
            **self.services.questions(),
        }
        self.dispatch.queue(ANY).unread_since = now.wall

    def recover(self, recovery: Recovery) -> None:
        """Take up what the store has kept; to be called once, before anything else."""
        self.intake.recover(recovery.next_id, len(recovery.messages) + len(recovery.dead))
        self.services.restore(recovery.facts)
        for mark in recovery.senders:
            self.senders.restore(mark.session, mark.last, starmap(Refusal, mark.refusals))
        for message in recovery.messages:
            self.dispatch.restore(message)
        self.dead.update((dead.message[0], dead) for dead in recovery.dead)

    # What goes in and what comes out.

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """Take note of an event; return what is to be done about it, in order."""
        self.now, self.dispatch.now = now, now.mono
        _HANDLERS[type(event)](self, event)
        return self._flush()

    def tick(self, now: Instant) -> list[Effect]:
        """Do what is due; return what is to be done about it, in order."""
        self.now = now
        while (mule := next(iter(self.roster.connected()), None)) and self._silent_since(mule) <= now.mono:
            self._note(
                "warning", f"mule {mule.number} has been silent for {self.limits.heartbeat_timeout:g} s"
            )
            peer = cast(Peer, mule.peer)
            self._lose(mule)
            self.send(peer, Reset("silent", "no heartbeat in time: register anew"))
        self.dispatch.recall_stale(now.mono)
        self.services.tick()
        if now.mono >= self._housekeeping:
            self.senders.expire(now.mono)
            self._housekeeping = now.mono + HOUSEKEEPING_SECONDS
        return self._flush()

    def next_deadline(self) -> float:
        """Return when `tick` has something to do, on the monotonic clock."""
        deadlines = [self._housekeeping]
        if (mule := next(iter(self.roster.connected()), None)) is not None:
            deadlines.append(self._silent_since(mule))
        for due in (self.services.next_deadline(), self.dispatch.next_deadline()):
            if due is not None:
                deadlines.append(due)
        return min(deadlines)

    def _silent_since(self, mule: Mule) -> float:
        return mule.heard + self.limits.heartbeat_timeout

    def _flush(self) -> list[Effect]:
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
        self.services.heard(peer)
        try:
            handler = _FRAMES.get(type(frame))
            if handler is None:
                raise ProtocolError(f"{type(frame).__name__} is not for a broker")
            handler(self, peer, frame)
        except ProtocolError as error:
            self._reject(FrameRejected(peer, str(error)))

    def _reject(self, event: FrameRejected) -> None:
        self._vanished(PeerVanished(event.peer))
        self._note("warning", f"a peer broke the protocol: {event.reason}")
        self.send(event.peer, Reset(ProtocolError.code, event.reason))

    def _vanished(self, event: PeerVanished) -> None:
        self.senders.disconnect(event.peer, self.now.mono)
        self.services.gone(event.peer)
        mule = self.roster.at(event.peer)
        if mule is not None:
            if mule.in_flight:
                self._note("warning", f"mule {mule.number} vanished with {len(mule.in_flight)} in flight")
            self._lose(mule)

    def vanished(self, peer: Peer, why: str) -> None:
        """Give up a peer that is still connected, and tell it."""
        self._note("warning", f"a peer {why}")
        self._vanished(PeerVanished(peer))
        self.send(peer, Reset("silent", why))

    def _stranger(self, peer: Peer) -> None:
        self.send(peer, Reset("unknown", "say HELLO first"))

    def _hello(self, peer: Peer, frame: Hello) -> None:
        if frame.version != PROTOCOL_VERSION:
            text = f"this broker speaks version {PROTOCOL_VERSION} of the protocol, not {frame.version}"
            self.send(peer, Refused(ProtocolError.code, text))
        elif frame.role == "client":
            self._hello_client(peer, frame)
        elif frame.role in ("mule", "worker"):
            self._hello_mule(peer, frame)
        else:
            raise ProtocolError(f"there is no role {frame.role[:20]!r}")

    def _hello_client(self, peer: Peer, frame: Hello) -> None:
        floor, pid = greeting.client(frame.details)
        self.senders.disconnect(peer, self.now.mono)
        self.services.gone(peer)
        sender = self.senders.connect(peer, frame.session, floor)
        sender.pid = pid
        details = {"max_message": self.limits.max_message, "heartbeat": float(self.limits.heartbeat)}
        self.send(peer, Welcome(PROTOCOL_VERSION, self.setup.id, 0, details))
        self._confirm(sender, sender.refused_after(floor))

    def _hello_mule(self, peer: Peer, frame: Hello) -> None:
        if self.stopping:
            self.send(peer, Reset("stopping", "the broker is stopping"))
            return
        wish = greeting.mule(frame.details)
        if (former := self.roster.at(peer)) is not None:
            self._lose(former)
        try:
            mule = self._admit(wish, frame.session, worker=frame.role == "worker")
        except ZmuleError as error:
            self.send(peer, Refused(error.code, str(error)))
            return
        self._epoch += 1
        self.roster.connect(mule, peer, frame.session, self._epoch, self.now.mono)
        if mule.programmed:
            mule.turn("joined")
        self.reads_changed(mule)
        self.send(peer, Welcome(PROTOCOL_VERSION, self.setup.id, mule.epoch, self._welcome_mule(mule)))

    def reads_messages(self, mule: Mule) -> None:
        """Let a mule read messages: it is not signal-only, or its application has taken it over."""
        mule.reads = True
        self.reads_changed(mule)

    def reads_changed(self, mule: Mule) -> None:
        """Let a mule read what it reads by now: signals that it has handlers for, then messages."""
        names = [*self.services.signals.queues(mule), *mule.reads_queues()]
        self.dispatch.read(mule, names, self.now.wall)
        self.dispatch.feed(mule)

    def _admit(self, wish: greeting.MuleWish, session: bytes, *, worker: bool) -> Mule:
        """Return the mule, or worker, that a process may be.

        Raises:
            NumberInUse: another process is that mule.
            NotPermitted: the number is configured, and the process is not the one that was started for it.
        """
        number = self._number(wish.number, worker)
        mule = self.roster.join(number, wish.program)
        if mule.configured and (not mule.token or wish.token != mule.token):
            raise NotPermitted(f"mule {number} is one that zmuled starts itself; take another number")
        if mule.peer is not None:
            if mule.session != session:
                raise NumberInUse(f"mule {number} is another process already (pid {mule.pid})")
            self._lose(mule)
            mule = self.roster.join(number, wish.program)
        if not mule.configured:
            mule.farms, mule.program = wish.farms, wish.program
        mule.pid = wish.pid
        return mule

    def _number(self, wished: int, worker: bool) -> int:
        """Return a mule's number, or that of a worker, which is kept as a negative one."""
        if worker:
            return -wished or self.roster.free_worker()
        waiting = (int(name[5:]) for name in self.dispatch.queues if name.startswith("mule:"))
        return wished or self.roster.free_number(waiting)

    def _welcome_mule(self, mule: Mule) -> dict[str, Any]:
        return {
            "number": abs(mule.number),
            "farms": mule.farms,
            "publish": self.setup.publish,
            "broadcast": self._broadcast,
            "heartbeat": self.limits.heartbeat,
            "heartbeat_timeout": self.limits.heartbeat_timeout,
        }

    def _ping(self, peer: Peer, frame: Ping) -> None:
        if self._registered(peer):
            self.send(peer, Pong(frame.number, self._broadcast))

    def _bye(self, peer: Peer, frame: Bye) -> None:
        mule = self.roster.at(peer)
        if mule is not None:
            self._acknowledge(mule, frame.epoch, frame.acks)
            self._lose(mule)
        self.senders.disconnect(peer, self.now.mono)
        self.services.gone(peer)
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
        save = self.intake.put(sender, frame, self.now.wall)
        if save is None:
            self._confirm(sender, ())
        else:
            self._effects.append(save)

    def _saved(self, event: BatchSaved) -> None:
        pending = self.intake.saved(event.batch)
        self._answered(pending)
        for name, messages in pending.messages:
            self.dispatch.enqueue(name, messages)

    def _lost(self, event: BatchLost) -> None:
        pending = self.intake.lost(event.batch, event.reason)
        self._note("error", f"the store could not write: {event.reason}")
        self._answered(pending)

    def _answered(self, pending: Pending) -> None:
        """Tell the sender of a batch how it went."""
        if pending.sender is not None:
            pending.sender.confirmed = max(pending.sender.confirmed, pending.upto)
            self._confirm(pending.sender, pending.refusals)

    def raise_signal(self, number: int) -> None:
        """Raise a signal that a timer, cron or file monitor has caused."""
        save = self.intake.raised(number, self.now.wall)
        if save is not None:
            self._effects.append(save)

    def _path_watched(self, event: PathWatched) -> None:
        self.services.watched(event.path, None)

    def _path_refused(self, event: PathRefused) -> None:
        self.services.watched(event.path, event.reason)

    def _path_changed(self, event: PathChanged) -> None:
        self.services.changed(event.path)

    def _confirm(self, sender: Sender, refusals: Iterable[Any]) -> None:
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

    def _check_received(self, mule: Mule, frame: Report) -> None:
        if any(count > sent for count, sent in zip(frame.received, mule.sent.values(), strict=True)):
            raise ProtocolError("Report counts more messages than were sent")

    def _acknowledge(self, mule: Mule, epoch: int, ids: Iterable[int]) -> None:
        """Finish messages. Acks of an epoch that is over are void: others may hold those messages."""
        if epoch == mule.epoch and ids:
            finished = mule.release(ids)
            mule.messages += len(finished)
            self._finish(finished)

    def _finish(self, messages: list[Message]) -> None:
        self.acked += len(messages)
        self.dispatch.account_for(messages)
        if messages:
            self._effects.append(Forget([message[0] for message in messages]))

    def _nack(self, peer: Peer, frame: Nack) -> None:
        mule = self._mule(peer)
        if mule is not None and frame.epoch == mule.epoch:
            self._retry(mule.release(frame.ids), mule, f"mule {mule.number} failed with it")
            self.dispatch.feed(mule)

    def _return(self, peer: Peer, frame: Return) -> None:
        mule = self._mule(peer)
        if mule is not None and frame.epoch == mule.epoch:
            self.dispatch.returned(mule)
            self.dispatch.put_back(mule.release(frame.ids))
            self.dispatch.feed(mule)

    def _settled(self, peer: Peer, frame: Settled) -> None:
        mule = self._mule(peer)
        if mule is None or frame.epoch != mule.epoch or mule.settled or mule.programmed:
            return
        self._settle(mule)
        if not mule.reads:
            mule.reads = False
            self._bury_all(mule_queue(mule.number), f"mule {mule.number} is signal-only: it reads none")
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

    def _lose(self, mule: Mule) -> None:
        """End a mule's session: what it had in flight goes back, or is done with if delivery was early."""
        number = mule.number
        self.dispatch.detach(mule, self.now.wall)
        self.services.lost(mule)
        held = self.roster.disconnect(mule)
        mule.turn("vanished")
        self.dispatch.suspect(held)
        self._retry(held, mule, f"mule {number} died with it")

    def _retry(self, messages: list[Message], mule: Mule, reason: str) -> None:
        """Deal with messages whose delivery came to nothing."""
        back = []
        for message in messages:
            if self._is_early(mule, message):
                self._finish([message])
            elif message[3] < self.limits.max_deliveries:
                back.append(again(message))
            else:
                spent = f"{reason}, at delivery {message[3]} of {self.limits.max_deliveries}"
                self._bury(message, spent, mule.number)
        self.dispatch.put_back(back)

    def _is_early(self, mule: Mule, message: Message) -> bool:
        """Return whether the message counted as done when it was delivered. A signal never does."""
        queue = self.dispatch.queue(message[1])
        return queue.early or (mule.early and queue.source in (DIRECT, FARM))

    def _bury(self, message: Message, reason: str, number: int) -> None:
        dead = self.dead[message[0]] = Dead(message, reason, number, self.now.wall)
        self.dispatch.account_for([message])
        self._effects.append(Bury(dead))
        self._note("error", f"message {message[0]} of queue {message[1]} is a dead letter: {reason}")

    def _bury_all(self, name: str, reason: str) -> None:
        for message in self.dispatch.empty(name):
            self._bury(message, reason, 0)

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
            self._lose(mule)
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
        self._broadcast += 1
        self._effects.append(Publish(Broadcast(self._broadcast, "stop")))
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
        return sum(queue.count for queue in self.dispatch.queues.values())

    # What must always hold.

    def validate(self) -> None:
        """Raise AssertionError if an invariant is broken; tests call it after every step."""
        self.dispatch.validate(self.roster, self.intake.unsaved())
        self.services.validate()
        for mule in self.roster:
            assert mule.peer is not None or not mule.in_flight, f"{mule} is not connected"
        on_books = sum(queue.count for queue in self.dispatch.queues.values()) - self.intake.unsaved()
        assert self.intake.accepted == self.acked + len(self.dead) + on_books, "a message is lost or doubled"


_HANDLERS: dict[type[Event], Callable[..., None]] = {
    FrameReceived: Broker._received,
    FrameRejected: Broker._reject,
    PeerVanished: Broker._vanished,
    BatchSaved: Broker._saved,
    BatchLost: Broker._lost,
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
