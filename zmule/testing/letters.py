"""What a ledger knows of one message, and how it says that a promise is broken."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from zmule.core.frames import Body, Options

SAFE = frozenset(("kept", "done", "dead", "rising", "dropping", "dropped", "raised", "wiped"))
"""Places of a message that was confirmed; one that was refused is in none of them, unless wiped."""

OVER = frozenset(("done", "dead", "dropped", "raised", "wiped"))
"""Places of a message that was confirmed, once all is quiet."""


class Violation(AssertionError):
    """A promise is broken."""


def claim(truth: object, what: str, *about: object) -> None:
    """Raise `Violation` unless it is true."""
    if not truth:
        raise Violation(": ".join([what, *map(repr, about)]))


class Hand(NamedTuple):
    """Whose hands a message was put into."""

    session: bytes
    epoch: int


class Letter:
    """A message of the ledger, or the raise of a signal, which makes messages without a sender.

    Attributes:
        order: grows with every message that its sender sends.
        patient: whether it may wait for room.
        place: where it is, as the disk has it: `nowhere`, `pending` (given to the store), `kept`, `lost`
            (the store could not write it), `done`, `dead`, `rising` (to be requeued), `dropping` (to be
            dropped), `dropped`, `raised` (a signal), or `wiped` (with a store that forgets).
        answer: what its sender has heard: None, `ok`, a code, or `abandoned` if it does not listen any more.
        id: the broker's number.
        next: the number that its next delivery has to bear.
        open: whether a delivery of it has come to no end yet.
        suspect: whether a mule has died with it, so that it must travel alone.
        hand: who has it since then.
        finished: whether that one has acknowledged it.
        rejected: whether a mule wants it dead.
        unordered: whether it is in no order of first deliveries, as it was held, moved or requeued.
        due, expires: between which it may be delivered, on the monotonic clock.
        at: before when it may not, on the wall clock.
    """

    __slots__ = (
        "answer",
        "at",
        "body",
        "delivered",
        "due",
        "early",
        "expires",
        "finished",
        "hand",
        "id",
        "next",
        "open",
        "options",
        "order",
        "patient",
        "place",
        "queue",
        "rejected",
        "sender",
        "started",
        "suspect",
        "unordered",
    )

    def __init__(
        self,
        body: Body,
        queue: str,
        sender: bytes = b"",
        order: int = 0,
        *,
        early: bool = False,
        options: Options | None = None,
        patient: bool = False,
    ) -> None:
        self.body = body
        self.queue = queue
        self.sender = sender
        self.order = order
        self.early = early
        self.options = options
        self.patient = patient
        self.place = "nowhere"
        self.answer: str | None = None
        self.id = 0
        self.delivered = False
        self.unordered = options is not None and (options.delay or options.at) is not None
        self.begin(1)

    def begin(self, attempt: int) -> None:
        """Begin anew: nobody has it, and its next delivery is that one."""
        self.next = attempt
        self.started = 0
        self.open = self.suspect = self.finished = self.rejected = False
        self.hand: Hand | None = None
        self.due: float | None = None
        self.at: float | None = None
        self.expires = inf

    def is_raise(self) -> bool:
        """Return whether it raises a signal."""
        return bool(self.sender) and self.queue.startswith("signal:")

    def __repr__(self) -> str:
        return f"{self.body!r} ({self.queue}, {self.place}, answer {self.answer}, delivery {self.next})"
