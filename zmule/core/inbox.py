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
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, repeat
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
    """What one thread is working on, or `TAKING` while it looks for something, and since when."""

    __slots__ = ("arrival", "since")

    def __init__(self) -> None:
        self.arrival: Arrival | None = None
        self.since = 0.0


TAKING: Arrival = (0, b"", Lot(0, "", 0, 0, None))


class Waiter:
    """A blocked thread: the source bits it waits for, and what it was given. The shell wakes it up."""

    __slots__ = ("bits", "delivery")

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.delivery: Delivery | None = None

    def wake(self) -> None:
        """Called when `delivery` has been set."""


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
        self._waiters: dict[Waiter, None] = {}
        self.acks: deque[int] = deque()
        self._nacks: dict[tuple[float | None, bool], list[int]] = {}
        self._returns: list[int] = []
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

    def advance(self, hand: Hand, bits: int) -> Arrival | None:
        """Acknowledge what a hand has finished, and let it start on the next buffered message, if any.

        The one method that needs no mutex: each step is a single operation of a deque's. A signal's handler
        may look at the hand between any two, and find it at work, or raise: then `put_down` makes it good.
        The time is that of the last exchange: near enough, and the clock costs.
        """
        last = hand.arrival
        if last is None:
            hand.since = self._now
            hand.arrival = TAKING
            self.news = True
        elif last[2].epoch == self.epoch:
            self.acks.append(last[0])
        for buffer in self._sources.get(bits, ()):
            if buffer:
                try:
                    hand.since = self._now
                    hand.arrival = buffer[0]
                    hand.arrival = arrival = buffer.popleft()
                    return arrival
                except IndexError:  # another thread was quicker
                    continue
        hand.arrival = None
        return None

    def put_down(self, hand: Hand, last: Arrival | None) -> None:
        """Undo what a hand has taken since it held `last`: nobody has seen it."""
        arrival = hand.arrival
        if arrival is not last:
            hand.arrival = None
            if arrival and arrival is not TAKING and not self._buffered(arrival):
                self.give_back(arrival)

    def wait(self, waiter: Waiter, *, probe: bool = False) -> None:
        """Give the thread a buffered message, or let it wait for the next.

        With `probe` it is woken up, too, when the broker has been asked and has nothing for it.
        """
        waiter.delivery = self.next(waiter.bits)
        self._settled = self._settled or bool(self.program)
        if waiter.delivery is None:
            self._waiters[waiter] = None
            if probe:
                self._probe += 1
                self._probes[self._probe] = waiter
                self._unprobed.append(self._probe)
        self.news = True

    def next(self, bits: int) -> Delivery | None:
        """Return the next buffered message from these sources, if there is one."""
        for buffer in self._sources.get(bits, ()):
            with suppress(IndexError):  # when it is empty
                return Delivery(*buffer.popleft())
        return None

    def leave(self, waiter: Waiter) -> None:
        """The thread waits no longer."""
        if waiter in self._waiters:
            del self._waiters[waiter]
            self.news = True

    def give_back(self, arrival: Arrival) -> None:
        """Nobody will work on a message that a thread was given."""
        id, _, lot = arrival
        if lot.epoch == self.epoch:
            self._returns.append(id)
            self.news = True

    def finish(self, arrival: Arrival) -> None:
        """The work is done: acknowledge the message."""
        self._drop(arrival, self.acks)

    def fail(self, arrival: Arrival, *, delay: float | None = None, dead: bool = False) -> None:
        """The work came to nothing: let the message be delivered again.

        Args:
            delay: after how many seconds, None for the broker's own pause.
            dead: whether to make a dead letter of it instead.
        """
        self._drop(arrival, self._nacks.setdefault((delay, dead), []))

    def _drop(self, arrival: Arrival, ids: deque[int] | list[int]) -> None:
        id, _, lot = arrival
        if lot.epoch == self.epoch:
            ids.append(id)
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
        self.acks.clear()
        self._nacks, self._returns = {}, []
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
        self._nacks, self._returns = {}, []
        self._recalled = False
        return frames

    def _reads(self) -> list[str]:
        """Return the queues that the mule reads, in order of preference; those of signals are one here."""
        return [SIGNAL_BUFFER, STRAY_QUEUE, mule_queue(self.number), ANY, *map(farm_queue, self.farms)]

    def _failures(self) -> list[Frame]:
        return [Nack(self.epoch, tuple(ids), *how) for how, ids in self._nacks.items()]

    def _turn(self, now: float) -> list[Frame]:
        """Return what there is to tell, in the order in which it has to be known."""
        frames: list[Frame] = []
        if self._returns or self._recalled:
            frames.append(Return(self.epoch, tuple(self._returns)))
        frames.append(self._report())
        if self._settled and not self._settled_said:
            self._settled_said = True
            if not (self.program and self._waiters):  # of which the report has told
                frames.append(Settled(self.epoch))
        frames.extend(Ping(number, self.busy(now)) for number in self._unprobed)
        self._unprobed.clear()
        return frames

    def _bye(self) -> Bye:
        self._give_back(inf)
        return Bye(self.epoch, self._finished(), tuple(self._returns), tuple(self._received.values()))

    def _finished(self) -> tuple[int, ...]:
        return tuple(taken(self.acks, len(self.acks)))

    def _report(self) -> Report:
        waits = Counter(waiter.bits for waiter in self._waiters)
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
        arrivals = zip(parcel.ids, parcel.bodies, repeat(lot), strict=False)
        given = 0
        while self._waiters and (waiter := self._match(source)) is not None:
            arrival = next(arrivals, None)
            if arrival is None:
                return
            del self._waiters[waiter]
            waiter.delivery = Delivery(*arrival)
            waiter.wake()
            given += 1
        buffer.extend(arrivals)
        self.news = self.news or given < len(parcel.ids)

    def _match(self, source: int) -> Waiter | None:
        """Return the thread that has waited longest among the least choosy-to-spare: those that wait for
        this source and for the fewest others."""
        able = [waiter for waiter in self._waiters if waiter.bits & source]
        return min(able, key=lambda waiter: waiter.bits.bit_count(), default=None)

    def _unstarted(self) -> int:
        return sum(map(len, self._buffers.values()))

    def _buffered(self, arrival: Arrival) -> bool:
        return any(each is arrival for buffer in self._buffers.values() for each in islice(buffer, 1))

    def _give_back(self, most: float) -> None:
        self._recalled = self.news = True
        for buffer in reversed(self._buffers.values()):
            with suppress(IndexError):  # when it is empty
                while len(self._returns) < most:
                    self._returns.append(buffer.pop()[0])


def _texts(value: Any) -> bool:
    return type(value) is tuple and all(type(item) is str for item in value)
