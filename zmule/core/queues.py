"""Queues of messages, and the mules that wait at them.

A message is a plain tuple, since there may be millions: nothing is built for one but that and its
number. Numbers grow with every message accepted, and a queue is always sorted by them: that is what
"first in, first out" and "back at the head" mean here, and it makes a redelivery a merge.

The mules that could take a message of the queue this instant stand in `idle`, the one that has waited
longest first. The invariant of the broker is that `ready` and `idle` are never both non-empty, except
for the time in which a message that must travel alone waits for a mule to have empty hands.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Set
from itertools import repeat, starmap
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from zmule.core.frames import DIRECT, FARM, SIGNAL, STRAY, Body, Headers
from zmule.core.terms import Terms
from zmule.errors import WrongValue

if TYPE_CHECKING:
    from zmule.core.expiry import Expiry
    from zmule.core.mules import Mule

Message = tuple[int, str, Body, int, float, Headers | None, Terms | None]
"""(id, queue's name, body, attempt that its next delivery is, when it was accepted on the steady clock of
`zmule.core.terms`, headers, terms of delivery)."""

ANY = "any"
LONG = 1000
"""Bodies up to about that length are counted quicker by joining them, longer ones one by one."""

OVERHEAD = 250
"""Bytes that the broker needs to keep a message, beside what is in it."""

A_QUEUE = 500
"""Bytes that it needs to keep a queue."""

A_HEADER = 150
"""Bytes that it needs to keep a header, beside its name and value."""

ASLEEP = 4
"""So many messages are in a queue at most that nobody has ever read, while it takes next to no room."""

FEW = 16
"""Up to so many messages find their places in a queue one by one, more by a merge."""


class Dead(NamedTuple):
    """A dead letter: the message, why it died, the last mule that had it (0: none), the wall clock then."""

    message: Message
    reason: str
    mule: int
    at: float


def mule_queue(number: int) -> str:
    """Return the name of a mule's own queue."""
    return f"mule:{number}"


def farm_queue(farm: str) -> str:
    """Return the name of a farm's queue."""
    return f"farm:{farm}"


STRAY_QUEUE = "signal:stray"

_READERS = r"any|mule:\d{1,10}|farm:.{1,100}"
_QUEUE = re.compile(
    rf"{_READERS}|signal:(stray(:\d{{1,3}})?|\d{{1,3}}(:-?\d{{1,10}})?)|call:\w{{1,80}}:({_READERS})",
    re.DOTALL,
)
"""What the names of queues look like."""


def is_queue(name: str) -> bool:
    """Return whether a queue may have that name."""
    return _QUEUE.fullmatch(name) is not None


def signal_queue(signal: int, mule: int = 0) -> str:
    """Return the queue of a signal: for one mule (a worker if negative), or the first available."""
    return f"signal:{signal}:{mule}" if mule else f"signal:{signal}"


def is_function(name: str) -> bool:
    """Return whether calls may be sent to a function of that name."""
    return name.isidentifier() and len(name) <= 80


def call_queues(function: str, mule: int, farms: Iterable[str]) -> list[str]:
    """Return the queues of calls of a function that a mule with that function reads."""
    return [
        f"call:{function}:mule:{mule}",
        f"call:{function}:any",
        *(f"call:{function}:farm:{farm}" for farm in farms),
    ]


LAST_SIGNAL = 255


def check_signal(number: object) -> int:
    """Return a signal's number.

    Raises:
        TypeError: it is no whole number.
        WrongValue: it is not from 0 to 255.
    """
    if type(number) is not int:
        raise TypeError(f"a signal's number is int, not {type(number).__name__}")
    if not 0 <= number <= LAST_SIGNAL:
        raise WrongValue(f"a signal's number is from 0 to {LAST_SIGNAL}, not {number}")
    return number


def source_of(name: str) -> int:
    """Return what a thread must wait for to get messages of that queue."""
    if name.startswith("farm:"):
        return FARM
    if name.startswith(("signal:", "call:")):
        return STRAY if name == STRAY_QUEUE else SIGNAL
    return DIRECT


def byte_size(bodies: Sequence[Body]) -> int:
    """Return how many bytes messages have on the wire: a text counts in UTF-8."""
    if len(bodies) > 1 and len(bodies[0]) <= LONG:
        empty = bodies[0][:0]
        try:
            return _size(empty.join(bodies))  # type: ignore[arg-type]
        except TypeError:  # there are both texts and bytes
            return sum(map(_size, bodies))
    return sum(map(_size, bodies))


def header_size(headers: Headers | None) -> int:
    """Return how many bytes headers take."""
    if not headers:
        return 0
    texts = [item for pair in headers.items() for item in pair if isinstance(item, (str, bytes))]
    return A_HEADER * len(headers) + sum(map(_size, texts))


def content_size(messages: Sequence[Message]) -> int:
    """Return how many bytes are in messages: their bodies, and the headers of each."""
    headers = list(map(headers_of, messages))
    more = 0 if headers.count(None) == len(headers) else sum(map(header_size, headers))
    return byte_size(list(map(body_of, messages))) + more


def _size(body: Body) -> int:
    return len(body) if isinstance(body, bytes) or body.isascii() else len(body.encode())


def again(message: Message) -> Message:
    """Return the message as it is to be delivered once more."""
    id, queue, body, attempt, born, headers, terms = message
    return id, queue, body, attempt + 1, born, headers, terms


def moved(message: Message, queue: str) -> Message:
    """Return the message as one of another queue."""
    id, _, body, attempt, born, headers, terms = message
    return id, queue, body, attempt, born, headers, terms


def by_death(message: Message, suspects: Set[int]) -> bool:
    """Return whether a mule died with the message, which therefore must travel alone."""
    return message[3] > 1 and message[0] in suspects


class Queue:
    """One queue: what is ready, how much of it is on the books, and who waits."""

    __slots__ = (
        "_suspects",
        "asleep",
        "bytes",
        "count",
        "early",
        "expiry",
        "hoarders",
        "idle",
        "name",
        "readers",
        "ready",
        "source",
        "unread_since",
    )

    def __init__(
        self, name: str, suspects: Set[int], *, early: bool = False, expiry: Expiry | None = None
    ) -> None:
        self.name = name
        self.expiry = expiry
        self.source = source_of(name)
        self.early = early
        self._suspects = suspects
        self.asleep = True
        self.ready: deque[Message] = ()  # type: ignore[assignment]
        self.count = 0
        self.bytes = 0
        self.idle: dict[Mule, None] = _NOBODY
        self.hoarders: dict[Mule, None] = _NOBODY
        self.readers = 0
        self.unread_since: float | None = None

    def __repr__(self) -> str:
        return f"<queue {self.name}: {len(self.ready)} of {self.count} ready>"

    def wake(self) -> None:
        """Get ready to be read: until then there may be very many queues, with a message or two in each."""
        if self.asleep:
            self.asleep = False
            self.ready = deque(self.ready)
            self.idle, self.hoarders = {}, {}

    def put(self, messages: list[Message]) -> None:
        """Put messages at the tail."""
        if self.asleep and len(self.ready) + len(messages) <= ASLEEP:
            self.ready = (*self.ready, *messages)  # type: ignore[assignment]
        else:
            self.wake()
            self.ready.extend(messages)

    def account(self, count: int, size: int) -> None:
        """Count messages, and their bytes, in (or, if negative, out) of the books."""
        self.count += count
        self.bytes += size

    def take(self, most: int, now: float) -> list[Message]:
        """Take up to `most` from the head, which has not expired. One that must travel alone comes alone."""
        if most == 1 or self.head_alone():
            return [self.ready.popleft()]
        ready, expiry = self.ready, self.expiry
        if not self._suspects and expiry is None:
            if most < len(ready):
                return list(starmap(ready.popleft, repeat((), most)))
            taken = list(ready)
            ready.clear()
            return taken
        taken = []
        for _ in range(min(most, len(ready))):
            if by_death(ready[0], self._suspects) or (expiry and expiry.expired(ready[0], now)):
                break
            taken.append(ready.popleft())
        return taken

    def head_alone(self) -> bool:
        """Return whether the message at the head must travel alone, since a mule died with it."""
        return bool(self.ready) and by_death(self.ready[0], self._suspects)

    def put_back(self, messages: Iterable[Message]) -> None:
        """Put messages where their numbers belong: most often at the head."""
        self.wake()
        back, ready = sorted(messages, key=number_of), self.ready
        if not ready or back[-1][0] < ready[0][0]:
            ready.extendleft(reversed(back))
        elif len(back) <= FEW:
            for message in back:
                ready.insert(bisect(ready, message[0], key=number_of), message)
        else:
            merged = sorted([*back, *ready], key=number_of)
            ready.clear()
            ready.extend(merged)


_NOBODY: dict[Mule, None] = {}
"""Who stands at a queue that is asleep."""

number_of: Callable[[Message], int] = itemgetter(0)
queue_of: Callable[[Message], str] = itemgetter(1)
body_of: Callable[[Message], Body] = itemgetter(2)
headers_of: Callable[[Message], Headers | None] = itemgetter(5)
attempt_of: Callable[[Message], int] = itemgetter(3)
"""Parts of messages, for `map`: there may be many, and a line of Python for each would take longest."""
