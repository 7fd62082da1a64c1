"""How a queue gets rid of what nobody wants any more.

What has expired must not be delivered, which costs a look at each message that leaves; and it must not lie
about, which would cost a look at each that waits. If all messages of the queue have the same ttl, the oldest
expires first and a look at the head is enough. If some have one of their own, the whole queue is gone
through, so seldom that it takes little time.

Only queues with a ttl, or with a message that has one, have an `Expiry`: the others pay nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import inf

from zmule.core.queues import Message
from zmule.core.terms import expiry

SCANNED_A_SECOND = 50_000
"""Messages that may be gone through each second: some thousandths of its time."""


class Expiry:
    """When messages of a queue expire. All times are on the steady clock.

    Args:
        ttl: how long a message may wait in the queue, in seconds; 0 for ever.

    Attributes:
        next: when to call `sweep`.
    """

    __slots__ = ("_own", "_ttl", "next")

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._own = False
        self.next = inf

    def note(self, messages: Iterable[Message]) -> None:
        """Take note of messages that have come into the queue, wherever."""
        for message in messages:
            self._own = self._own or (message[6] is not None and message[6].expires is not None)
            self.next = min(self.next, self._of(message))

    def expired(self, message: Message, now: float) -> bool:
        """Return whether nobody wants the message any more."""
        return self._of(message) <= now

    def prune(self, ready: deque[Message], now: float) -> list[Message]:
        """Take what has expired off the head."""
        gone = []
        while ready and self._of(ready[0]) <= now:
            gone.append(ready.popleft())
        return gone

    def sweep(self, ready: deque[Message], now: float) -> list[Message]:
        """Take out what has expired, and say when to go on."""
        gone = self.prune(ready, now)
        if self._own:
            times = [self._of(message) for message in ready]
            soonest = min(times, default=inf)
            if soonest <= now:
                gone += [message for message, time in zip(ready, times, strict=True) if time <= now]
                left = [message for message, time in zip(ready, times, strict=True) if time > now]
                ready.clear()
                ready.extend(left)
                soonest = min((time for time in times if time > now), default=inf)
            self._own = any(message[6] and message[6].expires is not None for message in ready)
            self.next = max(soonest, now + len(ready) / SCANNED_A_SECOND)
        else:
            self.next = self._of(ready[0]) if ready else inf
        return gone

    def _of(self, message: Message) -> float:
        return expiry(message[6], message[4], self._ttl)
