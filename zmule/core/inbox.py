"""A mule's session: who waits, what has come, what is finished.

A message that arrives goes straight to a thread that waits for its kind; only what finds none is
buffered. All that the broker must know goes into one `Report`, made when there is something new to say
and the connection takes it: what happens in the meantime rides along, so that the busier the mule, the
fewer frames for each message.

Every welcome begins an epoch. What was delivered in an earlier one is the broker's to deliver again, so
the buffer is dropped, and acknowledgements of it are not sent.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from math import inf
from typing import Any, NamedTuple

from zmule.core.frames import (
    EVERY_SOURCE,
    SIGNAL,
    SOURCES,
    Answer,
    Body,
    Broadcast,
    Bye,
    Deliver,
    Farewell,
    Frame,
    Headers,
    Nack,
    Parcel,
    Ping,
    Pong,
    Recall,
    Report,
    Return,
    Settled,
    Welcome,
)
from zmule.core.questions import Questions
from zmule.core.queues import ANY, STRAY_QUEUE, farm_queue, mule_queue, source_of
from zmule.core.session import Link, taken
from zmule.core.wire import detail, span
from zmule.errors import ProtocolError

SIGNAL_BUFFER = "signal:"


@dataclass(frozen=True, slots=True)
class Lot:
    """What messages that came in one parcel have in common."""

    epoch: int
    queue: str
    source: int
    attempt: int
    headers: Headers | None


Arrival = tuple[int, Body, Lot]
"""A message that has come to a mule, as it lies in the buffer: a plain tuple, for there are many."""


class Delivery(NamedTuple):
    """The same, with names: one message in a mule's hands."""

    id: int
    body: Body
    lot: Lot

    @property
    def epoch(self) -> int:
        """The epoch in which it came."""
        return self.lot.epoch

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return self.lot.queue

    @property
    def attempt(self) -> int:
        """Which delivery of the message it is, from 1."""
        return self.lot.attempt

    @property
    def headers(self) -> Headers | None:
        """What its sender let travel along."""
        return self.lot.headers


class Hand:
    """What one thread is working on, and since when.

    Attributes:
        arrival: the message; `TAKING` while the thread looks for one.
        peeked: the message that it is about to take, or has just taken, out of a buffer.
        signalled: whether what it got last was a signal: then messages have their turn.
        verdict: the delay, and whether to make a dead letter of it, if it has come to nothing.
    """

    __slots__ = ("arrival", "peeked", "signalled", "since", "verdict")

    def __init__(self) -> None:
        self.arrival: Arrival | None = None
        self.peeked: Arrival | None = None
        self.signalled = False
        self.verdict: tuple[float | None, bool] | None = None
        self.since = 0.0


TAKING: Arrival = (0, b"", Lot(0, "", 0, 0, None))


class Waiter:
    """A blocked thread, and the source bits it waits for. The shell wakes it up."""

    __slots__ = ("bits",)

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def wake(self) -> None:
        """Called when there is something for the thread in the buffers, or nothing to be waited for."""


class Inbox(Link):
    """A mule's session.

    Attributes:
        acks: what was finished and not reported yet.
        hands: of the threads that have ever got a message.
        news: whether there is something to report.

    Args:
        session: 16 random bytes.
        number: the mule's number, 0 for a free one.
        farms: names of the farms to join.
        program: what it runs, for status.
        pid: its process.
        token: the secret by which `zmuled` knows a mule that it started.
        role: `mule` or `worker`.
    """

    def __init__(
        self,
        session: bytes,
        *,
        number: int,
        farms: Iterable[str],
        program: str,
        pid: int,
        token: bytes,
        role: str = "mule",
    ) -> None:
        super().__init__(role, session, ping_after=3.0, give_up_after=10.0)
        self.number = number
        self.farms = tuple(farms)
        self.epoch = 0
        self.publish: tuple[tuple[str, str], ...] = ()
        self.stop_asked = False
        self.gone = False
        self.program = program
        self._pid, self._token = pid, token
        self._buffers: dict[str, deque[Arrival]] = {}
        self._sources: dict[int, list[deque[Arrival]]] = {}
        self._signals_last: dict[int, list[deque[Arrival]]] = {}
        self.waiters: dict[Waiter, None] = {}
        self.acks: deque[int] = deque()
        self._nacks: deque[tuple[int, int, float | None, bool]] = deque()
        self._returns: deque[tuple[int, int]] = deque()
        self._recalled = False
        self._received = dict.fromkeys(SOURCES, 0)
        self.news = False
        self._settled = self._settled_said = False
        self.hands: set[Hand] = set()
        self._now = 0.0
        self._leaving = self._left = False
        self.questions = Questions()
        self._wants: dict[tuple[Any, ...], None] = {}
        self._probes: dict[int, Waiter] = {}
        self._unprobed: list[int] = []
        self._probe = 0

    # What the mule's threads do.

    # Down to `give_back` they may be called by any thread, beside the one that does the rest: each step is a
    # single operation of a deque's or of an attribute's. A signal's handler may come between any two, look at
    # the hand, use it for something of its own, or raise: `put_down` then makes it good.

    def advance(self, hand: Hand, bits: int) -> Arrival | None:
        """Be done with what a hand had, and let it start on the next buffered message, if any.

        The time is that of the last exchange: near enough, and the clock costs.
        """
        last = hand.arrival
        if last is None or last is TAKING:
            self.news = True
        elif hand.verdict is not None:
            self.give_up(hand)
        elif last[2].epoch == self.epoch:
            self.acks.append(last[0])
        hand.arrival = TAKING
        hand.since = self._now
        for buffer in self._signals_last.get(bits, ()) if hand.signalled else self._sources.get(bits, ()):
            if buffer:
                try:
                    hand.peeked = buffer[0]
                    arrival = buffer.popleft()
                except IndexError:  # another thread was quicker
                    continue
                if hand.arrival is not TAKING:  # a get of a handler's, which is over
                    self.done(hand)
                hand.arrival = arrival
                hand.peeked = None
                hand.signalled = arrival[2].source == SIGNAL
                return arrival
        hand.arrival = hand.peeked = None
        return None

    def put_down(self, hand: Hand, last: Arrival | None) -> None:
        """Undo what a hand has taken since it held `last`: nobody has seen it."""
        arrival, peeked = hand.arrival, hand.peeked
        if arrival is not last or arrival is TAKING:
            hand.arrival = hand.peeked = None
            unseen = peeked if arrival is TAKING else arrival
            if unseen is not None and not self._elsewhere(unseen):
                self.give_back(unseen)

    def done(self, hand: Hand) -> bool:
        """Acknowledge what a hand has; return whether that was anything."""
        return self._empty(hand, self.finish)

    def give_up(self, hand: Hand) -> bool:
        """Let what a hand has be delivered again, as its verdict says; return whether it had anything."""
        delay, dead = hand.verdict or (None, False)
        had = self._empty(hand, lambda arrival: self.fail(arrival, delay=delay, dead=dead))
        hand.verdict = None
        return had

    def end(self, hand: Hand, *, failed: bool) -> bool:
        """Its thread is no more, and has failed or not; return whether it had a message."""
        if hand.arrival is TAKING:
            self.put_down(hand, None)
        return self.give_up(hand) if failed or hand.verdict else self.done(hand)

    def _empty(self, hand: Hand, how: Callable[[Arrival], None]) -> bool:
        arrival = hand.arrival
        if arrival is None or arrival is TAKING:
            return False
        how(arrival)  # first: to say it twice does no harm
        hand.arrival = None
        return True

    def finish(self, arrival: Arrival) -> None:
        """The work is done: acknowledge the message."""
        id, _, lot = arrival
        if lot.epoch == self.epoch:
            self.acks.append(id)
            self.news = True

    def fail(self, arrival: Arrival, *, delay: float | None = None, dead: bool = False) -> None:
        """The work came to nothing: let the message be delivered again.

        Args:
            arrival: the message.
            delay: after how many seconds, None for the broker's own pause.
            dead: whether to make a dead letter of it instead.
        """
        self._nacks.append((arrival[2].epoch, arrival[0], delay, dead))
        self.news = True

    def give_back(self, arrival: Arrival) -> None:
        """Nobody will work on a message that a thread was given."""
        self._returns.append((arrival[2].epoch, arrival[0]))
        self.news = True

    def wait(self, waiter: Waiter, *, probe: bool = False) -> None:
        """Let a thread wait, and wake it up when there is something for it: now, if that is so already.

        With `probe` it is woken up, too, when the broker has been asked and has nothing for it.
        """
        self._settled = self._settled or bool(self.program)
        self.waiters[waiter] = None
        self.news = True
        if self.holds(waiter.bits):
            self._wake(waiter)
        elif probe:
            self._probe += 1
            self._probes[self._probe] = waiter
            self._unprobed.append(self._probe)

    def _wake(self, waiter: Waiter) -> None:
        del self.waiters[waiter]
        waiter.wake()

    def holds(self, bits: int) -> bool:
        """Return whether a message from these sources is in the buffers."""
        return any(self._sources.get(bits, ()))

    def leave(self, waiter: Waiter) -> None:
        """The thread waits no longer."""
        if waiter in self.waiters:
            del self.waiters[waiter]
            self.news = True

    def ask(self, what: str, *arguments: Any) -> int:
        """Put a question to the broker; return the number of its answer in `questions`."""
        self.news = True
        return self.questions.ask(what, arguments)

    def tell(self, what: str, *arguments: Any) -> None:
        """Tell the broker something that replaces what it was told so before. Nobody waits for an answer."""
        self.news = True
        self.questions.tell(what, arguments)

    def want(self, what: str, *arguments: Any) -> None:
        """Have a question that was answered well put again at every new registration: a lasting wish."""
        self._wants[(what, *arguments)] = None

    def unwant(self, what: str, *arguments: Any) -> None:
        """Have it put no more. `arguments` may be just the first ones."""
        asked = (what, *arguments)
        self._wants = {want: None for want in self._wants if want[: len(asked)] != asked}

    def inherit(self, former: Inbox) -> None:
        """Want what another session wanted: that of a process that this one is a fork of."""
        self._wants = dict(former._wants)
        self._remind()

    def _remind(self) -> None:
        for what, *arguments in self._wants:
            self.questions.remind(what, tuple(arguments))
        self.news = True

    def settle(self) -> None:
        """What the mule runs is loaded: what reads messages in an application has begun to by now."""
        self._settled = self.news = True

    def bid_farewell(self) -> None:
        """Leave for good, and give back what no thread has started; `gone` tells when that is done."""
        self._leaving = self.news = True

    # What the link does.

    def details(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "farms": self.farms,
            "program": self.program,
            "pid": self._pid,
            "token": self._token,
        }

    def busy(self, now: float) -> float:
        return max(0.0, now - min((hand.since for hand in self.hands if hand.arrival), default=now))

    def welcomed(self, frame: Welcome) -> None:
        details = frame.details
        self.number = detail(details, "number", int)
        self.farms = detail(details, "farms", tuple)
        self.publish = detail(details, "publish", tuple)
        self.ping_after = span(details, "heartbeat")
        self.give_up_after = span(details, "heartbeat_timeout")
        if self.number < 1:
            raise ProtocolError(f"Welcome: there is no mule {self.number}")
        if not _texts(self.farms) or not all(_texts(pair) and len(pair) == 2 for pair in self.publish):
            raise ProtocolError("Welcome: farms or publish is not what it should be")
        self.epoch = frame.epoch
        self._buffers = {name: deque() for name in self._reads()}
        self._sources = {
            bits: [buffer for name, buffer in self._buffers.items() if source_of(name) & bits]
            for bits in range(1, EVERY_SOURCE + 1)
        }
        self._signals_last = {
            bits: [*buffers[1:], buffers[0]] if bits & SIGNAL else buffers
            for bits, buffers in self._sources.items()
        }
        self.acks.clear()
        self._nacks.clear()
        self._returns.clear()
        self._received = dict.fromkeys(SOURCES, 0)
        self._settled_said = self._left = False
        self._unprobed = list(self._probes)
        self.questions.again()
        self._remind()

    def lost(self) -> None:
        for buffer in self._buffers.values():  # the broker's to deliver again: not to be begun here
            buffer.clear()

    def work(self, now: float) -> list[Frame]:
        self._now = now
        if not (self.news or self.acks) or self._left:
            return []
        self.news = False
        frames: list[Frame] = [*self.questions.unsent()]
        frames += self._failures()
        if self._leaving:  # and gets nothing more, as it might for a report
            frames.append(self._bye())
            self._left = True
        else:
            frames += self._turn(now)
        self._recalled = False
        return frames

    def _reads(self) -> list[str]:
        """Return the queues that the mule reads, in order of preference; those of signals are one here."""
        return [SIGNAL_BUFFER, STRAY_QUEUE, mule_queue(self.number), ANY, *map(farm_queue, self.farms)]

    def _failures(self) -> list[Frame]:
        how: dict[tuple[float | None, bool], list[int]] = {}
        for epoch, id, delay, dead in taken(self._nacks, len(self._nacks)):
            if epoch == self.epoch:
                how.setdefault((delay, dead), []).append(id)
        return [Nack(self.epoch, tuple(ids), delay, dead) for (delay, dead), ids in how.items()]

    def _given_back(self) -> tuple[int, ...]:
        returns = taken(self._returns, len(self._returns))
        return tuple(id for epoch, id in returns if epoch == self.epoch)

    def _turn(self, now: float) -> list[Frame]:
        """Return what there is to tell, in the order in which it has to be known."""
        frames: list[Frame] = []
        if self._returns or self._recalled:
            frames.append(Return(self.epoch, self._given_back()))
        frames.append(self._report())
        if self._settled and not self._settled_said:
            self._settled_said = True
            if not (self.program and self.waiters):  # of which the report has told
                frames.append(Settled(self.epoch))
        frames.extend(Ping(number, self.busy(now)) for number in self._unprobed)
        self._unprobed.clear()
        return frames

    def _bye(self) -> Bye:
        self._give_back(inf)
        return Bye(self.epoch, self._finished(), self._given_back(), tuple(self._received.values()))

    def _finished(self) -> tuple[int, ...]:
        return tuple(taken(self.acks, len(self.acks)))

    def _report(self) -> Report:
        waits = Counter(waiter.bits for waiter in self.waiters)
        return Report(
            self.epoch,
            self._finished(),
            tuple(self._received.values()),
            tuple(waits.items()),
            self._unstarted(),
        )

    def take(self, frame: Frame) -> None:
        if isinstance(frame, Deliver):
            if frame.epoch == self.epoch and not self._left:
                for parcel in frame.parcels:
                    self._unpack(parcel)
        elif isinstance(frame, Recall):
            if frame.epoch == self.epoch:
                self._give_back(frame.most)
        elif isinstance(frame, Answer):
            self.questions.take(frame)
        elif isinstance(frame, Pong):
            waiter = self._probes.pop(frame.number, None)
            if waiter is not None:
                waiter.wake()
        elif isinstance(frame, Farewell):
            self.gone = True
        else:
            raise ProtocolError(f"{type(frame).__name__} is not for a mule")

    def broadcast(self, frame: Frame) -> None:
        """Take in a frame from the publish endpoint."""
        if not isinstance(frame, Broadcast):
            raise ProtocolError(f"{type(frame).__name__} is not for broadcast")
        if frame.what == "stop":
            self.stop_asked = True

    # Messages.

    def _unpack(self, parcel: Parcel) -> None:
        source = source_of(parcel.queue)
        buffer = self._buffers.get(SIGNAL_BUFFER if source == SIGNAL else parcel.queue)
        if buffer is None:
            raise ProtocolError(f"Deliver: this mule does not read {parcel.queue!r}")
        self._received[source] += len(parcel.ids)
        lot = Lot(self.epoch, parcel.queue, source, parcel.attempt, parcel.headers)
        buffer.extend(zip(parcel.ids, parcel.bodies, repeat(lot), strict=False))
        for _ in parcel.ids:
            waiter = self._match(source) if self.waiters else None
            if waiter is None:
                self.news = True
                return
            self._wake(waiter)

    def _match(self, source: int) -> Waiter | None:
        """Return the thread that has waited longest among the least choosy-to-spare: those that wait for
        this source and for the fewest others."""
        able = [waiter for waiter in self.waiters if waiter.bits & source]
        return min(able, key=lambda waiter: waiter.bits.bit_count(), default=None)

    def _unstarted(self) -> int:
        return sum(map(len, self._buffers.values()))

    def _elsewhere(self, arrival: Arrival) -> bool:
        """Whether a message that a thread was about to take is in its buffer yet, or another thread's."""
        buffers = self._sources.get(arrival[2].source, ())
        return any(buffer[0] is arrival for buffer in buffers if buffer) or any(
            hand.arrival is arrival or hand.peeked is arrival for hand in list(self.hands)
        )

    def _give_back(self, most: float) -> None:
        self._recalled = self.news = True
        for buffer in reversed(self._buffers.values()):
            with suppress(IndexError):  # when it is empty
                while len(self._returns) < most:
                    self._returns.append((self.epoch, buffer.pop()[0]))


def _texts(value: Any) -> bool:
    return type(value) is tuple and all(type(item) is str for item in value)
