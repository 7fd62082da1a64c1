"""A client's session: messages are numbered, kept until the broker has answered for them, and sent again.

Messages that nobody waits for are posted: appended to `posted` by any thread, without a mutex, and
numbered by `absorb`, many at a time. What is numbered is in `_unsent` and goes out in frames of many
messages; a frame that was sent stays in `_sent` until a `Confirm` covers it. After a reconnect the
broker's first word is a `Confirm` of all that it has, and the rest is sent once more as the same frames:
nothing is lost and nothing counts twice.

A message that may wait for room in its queue can be refused several times, and gets another number each
time: see `zmule.core.lanes`. What names it here is its ticket; that of any other message is its number.

An exception may strike between any two lines in here, as that of a program's signal handler, and no message
may be lost or numbered twice by that. So messages and frames go from one place to the next within a single
call of a deque's. Whatever else is kept follows from where they are: after a strike, `mend` counts anew, and
has sent again what may not have left, which the broker knows by its numbers.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from itertools import chain, filterfalse, groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from zmule.core.frames import (
    Answer,
    Batch,
    Body,
    Confirm,
    Frame,
    Headers,
    Options,
    Pong,
    Put,
    Refusal,
    Welcome,
)
from zmule.core.lanes import Lanes, Waiting
from zmule.core.questions import Questions
from zmule.core.queues import byte_size, header_size
from zmule.core.session import Link, taken
from zmule.core.wire import check_envelope, detail, span
from zmule.errors import ProtocolError, QueueFull, ZmuleError, from_code, too_large

if TYPE_CHECKING:
    from collections.abc import Iterator

FRAME_MESSAGES = 1000
FRAME_BYTES = 1 << 20
MAX_FAILURES = 1000
"""Refusals of messages that nobody waits for are kept for `flush` up to this many; the rest is counted."""


class Envelope(NamedTuple):
    """What messages of one batch have in common."""

    queue: str
    headers: Headers | None = None
    options: Options | None = None


@lru_cache(maxsize=4096)
def plain(queue: str) -> Envelope:
    """Return the envelope of messages with nothing but a queue: always the same one.

    Raises:
        WrongValue: the queue's name cannot travel.
    """
    check_envelope(queue, None)
    return Envelope(queue)


def seal(queue: str, headers: Headers | None, options: Options | None) -> Envelope:
    """Return the envelope of messages.

    Raises:
        WrongValue: the queue's name or the headers cannot travel.
    """
    if headers is None and options is None:
        return plain(queue)
    check_envelope(queue, headers)
    return Envelope(queue, headers, options)


Entry = tuple[Envelope, Body, int, int]
"""(envelope, body, size in bytes, up to where all was answered by then)"""


class Outbox(Link):
    """A client's session.

    Args:
        session: 16 random bytes.
        most_messages: how many messages may be unconfirmed.
        most_bytes: of how many bytes in all.
        pid: the client's process, for status.

    Attributes:
        posted: messages that nobody waits for, in order; of `small` bytes at most, and `spare` at a time.
        confirmed: all up to that number are answered for.
        holds: how many locks the client holds; while there are any, it must show that it lives.
        held: the questions by which they were asked for.
        prompt: whether nothing is to be posted, since nobody will look after it: the process is at its end.
    """

    redoes = True

    def __init__(self, session: bytes, *, most_messages: int, most_bytes: int, pid: int = 0) -> None:
        super().__init__("client", session, ping_after=1.0, give_up_after=10.0)
        self.most_messages = most_messages
        self.most_bytes = most_bytes
        self._pid = pid
        self.max_message = 0
        self.confirmed = 0
        self._failures: dict[int, Refusal] = {}
        self._more_failed = 0
        self.posted: deque[Entry] = deque()
        self.small = self.spare = 0
        self._framed = self._refused_last = self._crowded = 0
        self._bytes = self._unsent_bytes = 0
        self._unsent: deque[Entry] = deque()
        self._again: deque[tuple[Put, int, int]] = deque()
        self._sent: deque[tuple[Put, int, int]] = deque()
        self._resuming = False
        self._awaited: set[int] = set()
        self._refused: dict[int, ZmuleError] = {}
        self.questions = Questions()
        self._lanes = Lanes(self.questions)
        self.holds = 0
        self.held: set[int] = set()
        self.prompt = False

    # What the caller does.

    def put(
        self,
        queue: str,
        body: Body,
        headers: Headers | None,
        *,
        awaited: bool,
        options: Options | None = None,
        until: float | None = None,
    ) -> int:
        """Take a message; return its ticket. Call only when `fits`.

        Args:
            awaited: whether somebody will ask for its `outcome`.
            options: when it may be delivered.
            until: how long it may wait for room in its queue, on the monotonic clock; None: not at all.

        Raises:
            MessageTooLarge: it is over the broker's limit.
            WrongValue: the queue's name or the headers cannot travel.
            UnicodeEncodeError: a text that UTF-8 cannot write.
        """
        envelope = seal(queue, headers, options)
        size = byte_size((body,))
        if size > self.max_message:
            raise too_large(size, self.max_message)
        return self.add(envelope, body, size, awaited=awaited, until=until)

    def add(self, envelope: Envelope, body: Body, size: int, *, awaited: bool, until: float | None) -> int:
        """Take a message of so many bytes that has been looked at; otherwise as `put`."""
        size += header_size(envelope.headers)
        self.absorb()
        if until is None:
            ticket = self._number((envelope, body, size, self.confirmed))
        else:
            ticket = self._lanes.ticket()
            queue, headers, options = envelope
            self._line_up(Waiting(ticket, queue, body, headers, options, size, until))
        if awaited:
            self._awaited.add(ticket)
        return ticket

    def absorb(self) -> bool:
        """Number what was posted; return whether there was something."""
        new = len(self.posted)
        if not new:
            return False
        self._unsent.extend(taken(self.posted, new))
        self._count(sum(map(itemgetter(2), islice(reversed(self._unsent), new))))
        self.see_to_spare()
        return True

    def see_to_spare(self) -> None:
        """Say how many messages may be posted from here on."""
        room = self.most_messages - self.unconfirmed() if self._fits_bytes() else 0
        self.spare = 0 if self.prompt else max(0, min(FRAME_MESSAGES, room))
        self.small = -1 if self.prompt else min(self.max_message, self.most_bytes // self.most_messages)

    @property
    def _last(self) -> int:
        """The number of the last message that has one."""
        return self._framed + len(self._unsent)

    def _number(self, entry: Entry) -> int:
        self._count(entry[2])
        self._unsent.append(entry)
        return self._last

    def _count(self, size: int) -> None:
        self._bytes += size
        self._unsent_bytes += size

    def fills_a_frame(self) -> bool:
        """Return whether what has not been sent is as much as a frame should carry."""
        return self._unsent_bytes >= FRAME_BYTES

    def _line_up(self, waiting: Waiting) -> None:
        if self._lanes.closed(waiting.queue):
            self._lanes.line_up(waiting)
        else:
            self._go(waiting)

    def _go(self, waiting: Waiting) -> None:
        _, queue, body, headers, options, size, _ = waiting
        entry = Envelope(queue, headers, options), body, size, self.confirmed
        self._lanes.sent(self._last + 1, waiting)  # before it has that number: it must not be refused unseen
        self._number(entry)

    def fits(self) -> bool:
        """Return whether the outbox takes one more message."""
        return self.unconfirmed() < self.most_messages and self._fits_bytes()

    def roomy(self) -> bool:
        """Return whether it takes a frame full: what to wait for once it was full, or each would be short."""
        spare = self.most_messages - self.unconfirmed()
        return spare >= min(FRAME_MESSAGES, self.most_messages // 2) and self.fits()

    def _fits_bytes(self) -> bool:
        return self._bytes + self._lanes.bytes < self.most_bytes

    def answered(self, ticket: int) -> bool:
        """Return whether a message has been answered for."""
        return ticket <= self.confirmed if ticket > 0 else not self._lanes.open(ticket)

    def outcome(self, ticket: int) -> ZmuleError | None:
        """Return, once, why an awaited message that has been answered for was refused, or None."""
        self._awaited.discard(ticket)
        return self._refused.pop(ticket, None)

    def abandon(self, ticket: int) -> ZmuleError | None:
        """Nobody waits for that message any longer.

        Returns the error if it waited for room: then it is gone. Otherwise None: it stays in the outbox and
        may still be accepted.
        """
        self._awaited.discard(ticket)
        self._refused.pop(ticket, None)
        return self._lanes.abandon(ticket)

    def waits_for_room(self) -> str | None:
        """Return why messages wait that could be sent, if any do: their queue is full."""
        return self._lanes.reason()

    def failures_since(self) -> tuple[int, dict[int, Refusal]]:
        """Return, once, how many messages that nobody waited for were refused, and the first of them."""
        count, refusals = self.failed, self._failures
        self._more_failed = 0
        self._failures = {}
        return count, refusals

    @property
    def failed(self) -> int:
        """How many messages that nobody waited for were refused since `failures_since`."""
        return len(self._failures) + self._more_failed

    @property
    def failures(self) -> list[Refusal]:
        """The first of them."""
        return list(self._failures.values())

    def unconfirmed(self) -> int:
        """Return how many messages have no answer yet."""
        return self._last - self.confirmed + len(self.posted) + len(self._lanes)

    # What the link does.

    def details(self) -> dict[str, Any]:
        return {"floor": self.confirmed, "crowded": self._crowded, "pid": self._pid}

    def expecting(self) -> bool:
        return bool(self._last > self.confirmed or self.questions or self.holds or self._lanes)

    def welcomed(self, frame: Welcome) -> None:
        self.max_message = detail(frame.details, "max_message", int)
        if self.max_message < 1:
            raise ProtocolError(f"Welcome: max_message is {self.max_message}")
        self.ping_after = min(self.ping_after, span(frame.details, "heartbeat"))
        self.see_to_spare()
        self._resuming = True

    def hold(self, request: int) -> None:
        """Show that the client lives from here on: that question has got it a lock."""
        self.held.add(request)
        self.holds = len(self.held)

    def let_go(self, request: int) -> None:
        """The lock of that question is not held any more."""
        self.held.discard(request)
        self.holds = min(self.holds, len(self.held))

    def lost(self) -> None:
        self.held.clear()
        self._send_again()
        self.questions.again()
        self.holds = 0

    def _send_again(self) -> None:
        self._again.extendleft(islice(iter(self._sent.pop, None), len(self._sent)))

    def mend(self) -> None:
        if self.state == "greeting":  # the Hello may not have left
            self._greet_at = 0.0
            self.state = "down"
        self._forget_confirmed()
        self._send_again()
        self._framed = self._again[-1][1] if self._again else self.confirmed
        self._unsent_bytes = sum(map(itemgetter(2), self._unsent))
        self._bytes = self._unsent_bytes + sum(map(itemgetter(2), self._again))
        self._lanes.mend(self._last, self._refused_last)
        self._awaited = {ticket for ticket in self._awaited if not self.answered(ticket)}
        self.questions.mend()
        self.see_to_spare()

    def next_deadline(self, now: float) -> float | None:
        due, gives_up = super().next_deadline(now), self._lanes.next_deadline()
        return due if due is None or gives_up is None or self.state != "up" else min(due, gives_up)

    def work(self, now: float) -> list[Frame]:
        if self._lanes:
            for waiting in self._lanes.go(now):
                self._go(waiting)
            self._note_over()
        frames: list[Frame] = [*self.questions.unsent()]
        if not self._resuming:
            if self._again:
                frames += [put for put, _, _ in self._again]
                self._sent.extend(taken(self._again, len(self._again)))
            while self._unsent:
                frames.append(self._frame())
            self._unsent_bytes = 0
        return frames

    def take(self, frame: Frame) -> None:
        if isinstance(frame, Confirm):
            self._resuming = False
            self._confirm(frame)
        elif isinstance(frame, Answer):
            self.questions.take(frame)
        elif not isinstance(frame, Pong):
            raise ProtocolError(f"{type(frame).__name__} is not for a client")

    def _frame(self) -> Put:
        """Return the next messages to send, as one frame.

        Its floor tells the broker what the sender knew when it numbered them: what it numbered before it
        knew of a refusal is sent apart from what it numbered afterwards.
        """
        entries = list(islice(self._unsent, FRAME_MESSAGES))
        envelopes, bodies, sizes, floors = zip(*entries, strict=True)
        floor = min(floors)
        if sum(sizes) > FRAME_BYTES or floor < self._refused_last:
            fits = self._fitting(sizes, floors)
            entries, envelopes, bodies = entries[:fits], envelopes[:fits], bodies[:fits]
            sizes, floor = sizes[:fits], min(floors[:fits])
        put = Put(
            self._framed + 1,
            floor if floor < self._refused_last else self.confirmed,
            _batches(envelopes, bodies),
        )
        last = self._framed + len(entries)
        framed: Iterator[Any] = filterfalse(None, taken(self._unsent, len(entries)))  # lets none through
        self._sent.extend(chain(((put, last, sum(sizes)),), framed))
        self._framed = last
        return put

    def _fitting(self, sizes: tuple[int, ...], floors: tuple[int, ...]) -> int:
        """Return how many messages go into one frame: in its size, and all with or without the knowledge."""
        size, knew = 0, floors[0] >= self._refused_last
        for place, (one, floor) in enumerate(zip(sizes, floors, strict=True)):
            size += one
            if place and (size > FRAME_BYTES or (floor >= self._refused_last) != knew):
                return place
        return len(sizes)

    def _confirm(self, frame: Confirm) -> None:
        patient = bool(self._lanes)
        for refusal in sorted(frame.refusals, key=_sequence):
            if refusal.sequence > self._refused_last:
                self._refuse(refusal, patient)
        if patient:
            self._lanes.accepted(frame.upto)
        self.confirmed = max(self.confirmed, frame.upto)
        self._forget_confirmed()
        self._note_over()

    def _refuse(self, refusal: Refusal, patient: bool) -> None:
        """Deal with a refusal, each of which has a higher number than those before."""
        sequence = refusal.sequence
        if refusal.code == QueueFull.code:
            self._crowded = sequence
        if not (patient and self._lanes.refused(refusal)) and sequence > self.confirmed:
            self._note(sequence, refusal)
        self._refused_last = sequence
        self._lanes.landed(sequence)

    def _forget_confirmed(self) -> None:
        for frames in (self._sent, self._again):
            while frames and frames[0][1] <= self.confirmed:
                self._bytes -= frames.popleft()[2]

    def _note_over(self) -> None:
        """Take note of messages that waited for room in vain."""
        over = self._lanes.over
        for ticket in list(over):
            self._note(ticket, over[ticket])
            del over[ticket]

    def _note(self, ticket: int, refusal: Refusal) -> None:
        if ticket in self._awaited:
            self._refused[ticket] = from_code(refusal.code, refusal.reason)
        elif len(self._failures) < MAX_FAILURES:
            self._failures[ticket] = refusal
        else:
            self._more_failed += 1


def _sequence(refusal: Refusal) -> int:
    return refusal.sequence


def _batches(envelopes: tuple[Envelope, ...], bodies: tuple[Body, ...]) -> tuple[Batch, ...]:
    first = envelopes[0]
    if first.headers is None and envelopes.count(first) == len(envelopes):  # as most often, and quick to tell
        return (Batch(first.queue, bodies, None, first.options),)
    batches = []
    for (queue, _, options), run in groupby(zip(envelopes, bodies, strict=True), key=_kind):
        (envelope, *_), group = zip(*run, strict=True)
        batches.append(Batch(queue, group, envelope.headers, options))
    return tuple(batches)


def _kind(item: tuple[Envelope, Body]) -> tuple[str, int, Options | None]:
    """What a run has in common; headers are compared by identity, for 1 and True are equal."""
    envelope = item[0]
    return envelope.queue, id(envelope.headers), envelope.options
