"""A client's session: messages are numbered, kept until the broker has answered for them, and sent again.

What is in `_unsent` goes out in frames of many messages; what was sent stays in `_sent` until a
`Confirm` covers it. After a reconnect the broker's first word is a `Confirm` of all that it has, and the
rest is sent once more with the same numbers: nothing is lost and nothing counts twice.

A message that may wait for room in its queue can be refused several times, and gets another number each
time: see `zmule.core.lanes`. What names it here is its ticket; that of any other message is its number.
"""

from __future__ import annotations

from collections import deque
from itertools import groupby
from operator import itemgetter
from typing import Any

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
from zmule.core.session import Link
from zmule.core.wire import check_envelope, detail, span
from zmule.errors import ProtocolError, ZmuleError, from_code, too_large

FRAME_MESSAGES = 1000
FRAME_BYTES = 1 << 20
MAX_FAILURES = 1000
"""Refusals of messages that nobody waits for are kept for `flush` up to this many; the rest is counted."""

Entry = tuple[int, str, Body, Headers | None, int, Options | None, int]
"""(sequence number, queue, body, headers, size in bytes, options, up to where all was answered by then)"""


class Outbox(Link):
    """A client's session.

    Args:
        session: 16 random bytes.
        most_messages: how many messages may be unconfirmed.
        most_bytes: of how many bytes in all.
        pid: the client's process, for status.

    Attributes:
        holds: how many locks the client holds; while there are any, it must show that it lives.
    """

    def __init__(self, session: bytes, *, most_messages: int, most_bytes: int, pid: int = 0) -> None:
        super().__init__("client", session, ping_after=1.0, give_up_after=10.0)
        self.most_messages = most_messages
        self.most_bytes = most_bytes
        self._pid = pid
        self.max_message = 0
        self.confirmed = 0
        self.failures: deque[Refusal] = deque()
        self.failed = 0
        self._last = self._refused_last = 0
        self._bytes = 0
        self._unsent: deque[Entry] = deque()
        self._sent: deque[Entry] = deque()
        self._resuming = False
        self._awaited: set[int] = set()
        self._refused: dict[int, ZmuleError] = {}
        self.questions = Questions()
        self._lanes = Lanes(self.questions)
        self.holds = 0

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
        check_envelope(queue, headers)
        size = byte_size(body)
        if size > self.max_message:
            raise too_large(size, self.max_message)
        if until is None:
            ticket = self._number(queue, body, headers, size, options)
        else:
            ticket = self._lanes.ticket()
            self._line_up(Waiting(ticket, queue, body, headers, options, size, until))
        if awaited:
            self._awaited.add(ticket)
        return ticket

    def _number(
        self, queue: str, body: Body, headers: Headers | None, size: int, options: Options | None
    ) -> int:
        self._last += 1
        self._bytes += size
        self._unsent.append((self._last, queue, body, headers, size, options, self.confirmed))
        return self._last

    def _line_up(self, waiting: Waiting) -> None:
        if self._lanes.closed(waiting.queue):
            self._lanes.line_up(waiting)
        else:
            self._go(waiting)

    def _go(self, waiting: Waiting) -> None:
        _, queue, body, headers, options, size, _ = waiting
        self._lanes.sent(self._number(queue, body, headers, size, options), waiting)

    def fits(self) -> bool:
        """Return whether the outbox takes one more message."""
        size = self._bytes + self._lanes.bytes
        return self.unconfirmed() < self.most_messages and size < self.most_bytes

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

    def failures_since(self) -> tuple[int, list[Refusal]]:
        """Return, once, how many messages that nobody waited for were refused, and the first of them."""
        count, refusals = self.failed, list(self.failures)
        self.failed = 0
        self.failures.clear()
        return count, refusals

    def unconfirmed(self) -> int:
        """Return how many messages have no answer yet."""
        return len(self._unsent) + len(self._sent) + len(self._lanes)

    def unsent(self) -> int:
        """Return how many messages have not been sent on this connection."""
        return len(self._unsent)

    # What the link does.

    def details(self) -> dict[str, Any]:
        return {"floor": self.confirmed, "pid": self._pid}

    def expecting(self) -> bool:
        return bool(self._sent or self._unsent or self.questions or self.holds or self._lanes)

    def welcomed(self, frame: Welcome) -> None:
        self.max_message = detail(frame.details, "max_message", int)
        if self.max_message < 1:
            raise ProtocolError(f"Welcome: max_message is {self.max_message}")
        self.ping_after = min(self.ping_after, span(frame.details, "heartbeat"))
        self._resuming = True

    def lost(self) -> None:
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        self.questions.again()
        self.holds = 0

    def next_deadline(self, now: float) -> float | None:
        due, gives_up = super().next_deadline(now), self._lanes.next_deadline()
        return due if due is None or gives_up is None or self.state != "up" else min(due, gives_up)

    def work(self, now: float) -> list[Frame]:
        if self._lanes:
            for waiting in self._lanes.go(now):
                self._go(waiting)
            self._note_over()
        frames: list[Frame] = [*self.questions.unsent()]
        while self._unsent and not self._resuming:
            frames.append(self._frame())
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
        entries: list[Entry] = []
        size, floor = 0, self._unsent[0][6]
        knew = floor >= self._refused_last
        while self._unsent and len(entries) < FRAME_MESSAGES:
            size += self._unsent[0][4]
            if entries and (size > FRAME_BYTES or (self._unsent[0][6] >= self._refused_last) != knew):
                break
            entries.append(self._unsent.popleft())
        self._sent.extend(entries)
        return Put(entries[0][0], self.confirmed if knew else floor, tuple(_batches(entries)))

    def _confirm(self, frame: Confirm) -> None:
        patient = bool(self._lanes)
        for refusal in frame.refusals:
            self._refused_last = max(self._refused_last, refusal.sequence)
            if not (patient and self._lanes.refused(refusal)) and refusal.sequence > self.confirmed:
                self._note(refusal.sequence, refusal)
        for entries in (self._sent, self._unsent):
            while entries and entries[0][0] <= frame.upto:
                sequence, _, _, _, size, *_ = entries.popleft()
                self._bytes -= size
                if patient:
                    self._lanes.accepted(sequence)
        self.confirmed = max(self.confirmed, frame.upto)
        self._note_over()

    def _note_over(self) -> None:
        """Take note of messages that waited for room in vain."""
        for ticket, refusal in self._lanes.over:
            self._note(ticket, refusal)
        self._lanes.over.clear()

    def _note(self, ticket: int, refusal: Refusal) -> None:
        if ticket in self._awaited:
            self._refused[ticket] = from_code(refusal.code, refusal.reason)
            return
        self.failed += 1
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(refusal)


def byte_size(body: Body) -> int:
    """Return how many bytes a message has on the wire."""
    if isinstance(body, str) and not body.isascii():
        return len(body.encode())
    return len(body)


def _batches(entries: list[Entry]) -> list[Batch]:
    batches = []
    for (queue, _, options), run in groupby(entries, key=lambda entry: (entry[1], id(entry[3]), entry[5])):
        group = list(run)
        batches.append(Batch(queue, tuple(map(itemgetter(2), group)), group[0][3], options))
    return batches
