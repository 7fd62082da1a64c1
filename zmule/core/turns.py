"""The turns that mules take: what they say of their work, and what their end means for what they hold.

A `Report` says which messages are finished, which threads wait, and how much is buffered; a `Nack`, a
`Return` or a `Bye` what comes back. What a mule held when it died is for `core.redelivery`. What it says of
an epoch that is over is void: others may hold those messages by now. And what the supervisor says of the
processes of configured mules is for here, too.

A mule has loaded what it runs when it first waits for something, or says so. A program that does neither has
`LOADING_SECONDS`, for there are some that never ask: they poll something else, or leave that to threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from operator import ge
from typing import TYPE_CHECKING

from zmule.core.effects import Forget, Note
from zmule.core.events import MuleExited, MuleGivenUp, MuleSpawned, Peer, Undelivered
from zmule.core.frames import DIRECT, FARM, Bye, Farewell, Nack, Report, Return, Settled
from zmule.core.mules import DIED, Exit, Mule
from zmule.core.queues import Message, mule_queue, number_of
from zmule.errors import ProtocolError

if TYPE_CHECKING:
    from zmule.core.broker import Broker


LOADING_SECONDS = 10.0


class Turns:
    """What mules do, for a broker.

    Attributes:
        acked: how many messages were finished.
        changes: how often a configured mule has come to its work or ended.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._roster, self._dispatch = broker.roster, broker.dispatch
        self.acked = self.changes = 0
        self._loading: dict[Mule, float] = {}

    # What mules say.

    def report(self, peer: Peer, frame: Report) -> None:
        """Take note of what is finished, and of who waits; give the mule what it has room for."""
        mule = self._mule(peer)
        if mule is None or frame.epoch != mule.epoch:
            return
        self._check_received(mule, frame)
        if frame.acks:
            mule.pace.finished(len(frame.acks), self._broker.now.mono)
        self._acknowledge(mule, frame.epoch, frame.acks)
        mule.report(frame.received, frame.waits, frame.buffered)
        if mule.threads[DIRECT | FARM] and not mule.reads:
            self.reads_messages(mule)
        if mule.waiting and not mule.settled and (mule.programmed or mule.threads[DIRECT | FARM]):
            self._settle(mule)
        self._dispatch.feed(mule)
        self.update_state(mule)

    def nack(self, peer: Peer, frame: Nack) -> None:
        """Have what a mule has failed with, or rejects, delivered again or made dead letters."""
        mule = self._mule(peer)
        if mule is not None and frame.epoch == mule.epoch:
            reason = f"mule {mule.number} " + ("rejected it" if frame.dead else "failed with it")
            messages = mule.release(frame.ids)
            self._broker.redelivery.retry(messages, mule, reason, delay=frame.delay, dead=frame.dead)
            self._dispatch.feed(mule)

    def give_back(self, peer: Peer, frame: Return) -> None:
        """Put back what a mule has not begun, and now knows that it is not to."""
        mule = self._mule(peer)
        if mule is not None and frame.epoch == mule.epoch:
            back = mule.release(frame.ids)
            self._dispatch.unseen.add(back)
            self._dispatch.returned(mule, back)
            self._dispatch.put_back(back)
            self._dispatch.feed(mule)

    def settled(self, peer: Peer, frame: Settled) -> None:
        """A mule has loaded what it runs: if nothing in it waits for messages, it is signal-only."""
        mule = self._mule(peer)
        if mule is None or frame.epoch != mule.epoch or mule.settled:
            return
        self._settle(mule)
        if not mule.reads:
            mule.reads = False
            queue = mule_queue(mule.number)
            for message in self._dispatch.empty(queue):
                self._broker.letters.bury(message, self._roster.unread(queue) or "", 0)
        self.update_state(mule)

    def bye(self, peer: Peer, frame: Bye) -> None:
        """Let a mule go, or a client."""
        mule = self._roster.at(peer)
        if mule is not None:
            current = frame.epoch == mule.epoch
            if current:
                self._check_received(mule, frame)
            self._dispatch.detach(mule, self._broker.now.wall)
            self._acknowledge(mule, frame.epoch, frame.acks)
            if current:
                back = mule.release((*frame.unstarted, *mule.under_way(frame.received)))
                self._dispatch.unseen.add(back)
                self._dispatch.put_back(back)
            self.lose(mule)
            self._broker.hangs.left(mule)
        self._broker.gone(peer)
        self._broker.send(peer, Farewell())

    def _mule(self, peer: Peer) -> Mule | None:
        mule = self._roster.at(peer)
        if mule is None:
            self._broker.stranger(peer)
        return mule

    def _check_received(self, mule: Mule, frame: Report | Bye) -> None:
        if not all(map(ge, mule.sent.values(), frame.received)):
            raise ProtocolError(f"{type(frame).__name__} counts more messages than were sent")

    def _acknowledge(self, mule: Mule, epoch: int, ids: Iterable[int]) -> None:
        if epoch == mule.epoch and ids:
            finished = mule.release(ids)
            mule.messages += len(finished)
            self.finish(finished)

    def finish(self, messages: list[Message]) -> None:
        """Take messages off the books that are done with."""
        self.acked += len(messages)
        self._dispatch.account_for(messages)
        if messages and self._broker.setup.keeps:
            self._broker.do(Forget(list(map(number_of, messages))))

    # What they are good for.

    def reads_messages(self, mule: Mule) -> None:
        """Let a mule read messages: it is not signal-only, or its application has taken it over."""
        mule.reads = True
        self.reads_changed(mule)

    def reads_changed(self, mule: Mule) -> None:
        """Let a mule read what it reads by now: signals that it has handlers for, then messages."""
        names = [*self._broker.services.signals.queues(mule), *mule.reads_queues()]
        self._dispatch.read(mule, names, self._broker.now.wall)
        self._dispatch.feed(mule)

    def joined(self, mule: Mule) -> None:
        """A mule is connected. One of the configuration has still to load what it runs."""
        self._broker.hangs.connected(mule)
        if not mule.configured:
            mule.started = self._broker.now.mono
            mule.turn("joined", self._broker.now.mono)
        elif mule.programmed:
            self._loading[mule] = self._broker.now.mono + LOADING_SECONDS
        self.reads_changed(mule)

    def _settle(self, mule: Mule) -> None:
        mule.settled = True
        self._loading.pop(mule, None)
        self._broker.services.settled(mule)
        if mule.configured:
            mule.turn("joined", self._broker.now.mono)
            self.changes += 1

    def tick(self) -> None:
        """Take mules for loaded that have had the time for it."""
        now = self._broker.now.mono
        for mule in list(takewhile(lambda mule: self._loading[mule] <= now, self._loading)):
            self._broker.note("info", f"mule {mule.number} asks for nothing: taken for loaded")
            self._settle(mule)

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do, on the monotonic clock."""
        return next(iter(self._loading.values()), None)

    def update_state(self, mule: Mule) -> None:
        """Make idle and busy true again: idle is a mule with nothing in its hands and a thread that waits."""
        reads = mule.waiting > 0 or mule.reads is False
        if mule.state == "busy" and reads and not mule.in_flight:
            mule.turn("waited", self._broker.now.mono)
        elif mule.state == "idle" and (mule.in_flight or not reads):
            mule.turn("worked", self._broker.now.mono)

    # Their end.

    def undelivered(self, event: Undelivered) -> None:
        """Put back what could not be sent: the mule is gone, of which the broker will hear in a moment."""
        mule = self._roster.at(event.peer)
        if mule is not None and mule.epoch == event.frame.epoch:
            self._dispatch.detach(mule, self._broker.now.wall)
            for parcel in event.frame.parcels:
                back = mule.release(parcel.ids)
                self._dispatch.unseen.add(back)
                self._dispatch.put_back(back)

    def lose(self, mule: Mule) -> None:
        """End a mule's session: what it had in flight goes back, or is done with if delivery was early."""
        number = mule.number
        self._loading.pop(mule, None)
        self._dispatch.detach(mule, self._broker.now.wall)
        self._dispatch.unseen.add(mule.unseen())
        self._broker.services.lost(mule)
        held = self._roster.disconnect(mule)
        mule.left_behind = len(held)
        self._broker.hangs.lost(mule)
        mule.turn("vanished", self._broker.now.mono)
        self._dispatch.suspect(held)
        self._broker.redelivery.retry(held, mule, f"mule {number} {mule.doom}")

    # What the supervisor says of their processes.

    def spawned(self, event: MuleSpawned) -> None:
        """A configured mule has been started."""
        mule = self._configured(event.number)
        mule.pid, mule.token = event.pid, event.token
        mule.started = self._broker.now.mono
        mule.turn("spawned", self._broker.now.mono)
        mule.doom = DIED
        self._broker.hangs.spawned(mule)
        self._tell("info", f"mule {mule.number} started: pid {mule.pid}")

    def exited(self, event: MuleExited) -> None:
        """A configured mule's process has ended."""
        mule = self._configured(event.number)
        mule.token = b""
        mule.pid = 0
        mule.restarts += 1
        mule.last_exit = Exit(event.status, self._broker.now.mono)
        if mule.peer is not None:
            self.lose(mule)
        self._broker.hangs.exited(mule)
        if mule.state != "gone":
            mule.turn("vanished", self._broker.now.mono)
        self.changes += 1
        in_hand = f", with {mule.left_behind} in flight" if mule.left_behind else ""
        level = "info" if event.status == 0 or self._broker.stopping else "warning"
        self._tell(level, f"mule {mule.number} ended: pid {event.pid}, {event.how}{in_hand}{event.then}")

    def _tell(self, level: str, text: str) -> None:
        """Log each start and end, however many there are: the supervisor has set the pace of them."""
        self._broker.do(Note(level, text, damped=False))

    def given_up(self, event: MuleGivenUp) -> None:
        """A configured mule keeps crashing, and is not started again soon."""
        mule = self._configured(event.number)
        mule.turn("given up", self._broker.now.mono)
        self.changes += 1
        self._broker.services.settled(mule)
        self._broker.note("error", f"mule {event.number} has failed: {event.reason}")

    def _configured(self, number: int) -> Mule:
        mule = self._roster.get(number)
        if mule is None or not mule.configured:
            raise KeyError(f"mule {number} is not configured")
        return mule
