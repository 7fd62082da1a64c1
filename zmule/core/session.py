"""A peer's side of a session: greeting, heartbeats, and when to give a connection up.

`Link` is what clients and mules have in common; `core.outbox` and `core.inbox` build on it. The shell
around it owns the socket and does what the link says: send the frames of `outgoing`, hand in what
arrives to `receive`, and make a new socket when `broken`.

    down ──(connected: Hello)──► greeting ──(Welcome)──► up
     ▲                              │ (Refused)           │ (Reset, or the connection broke)
     └──────────────────────────────┼─────────────────────┘
                                    ▼
                                 refused

A broker that does not know the peer answers `Reset`, so a broker's restart needs no detection of its
own: the next frame finds out. Only silence does, and for that there are pings while an answer is due.

A frame that was not taken in to the end, since an exception has struck, is taken in once more. So whatever
takes one in does the same a second time without harm, and says last that it is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from math import floor
from typing import Any, TypeVar

from zmule.core.frames import PROTOCOL_VERSION, Frame, Hello, Ping, Refused, Reset, Welcome
from zmule.errors import ProtocolError, ZmuleError, from_code

T = TypeVar("T")

GREETING_SECONDS = (0.5, 5.0)
"""How long a Hello may go unanswered before another connection is tried: at first, and at most; doubled each
time."""

BACKOFF_SECONDS = (0.05, 0.3)
"""Shortest and longest pause between attempts; doubled each time."""

STEPS = 30
"""A ping may be sooner than asked for, by up to one of so many parts of the interval."""


class Link:
    """The life of one session over however many connections it takes.

    Args:
        role: `client` or `mule`.
        session: 16 random bytes that name the session; pauses between attempts are spread by them.
        ping_after: seconds without a word from the broker after which it is asked for one.
        give_up_after: seconds of silence after which the connection is given up.

    Attributes:
        doubts: whether to ask now whether the broker still knows the session.
    """

    redoes = False
    """Whether a frame may be taken in a second time, and `mend` sees to what may not have been sent."""

    def __init__(self, role: str, session: bytes, *, ping_after: float, give_up_after: float) -> None:
        self.role = role
        self.session = session
        self.state = "down"
        self.error: ZmuleError | None = None
        self.doubts = False
        self.ping_after = ping_after
        self.give_up_after = give_up_after
        self._attempts = 0
        self._greet_at = 0.0
        self._heard = 0.0
        self._said = 0.0
        self._pinged = 0.0
        self._at_rest = True

    # For the subclass.

    def details(self) -> dict[str, Any]:
        """Return the details of the Hello."""
        raise NotImplementedError

    def welcomed(self, frame: Welcome) -> None:
        """Take up the session that the broker has granted."""
        raise NotImplementedError

    def lost(self) -> None:
        """The session is down: what was in its pipes may be gone."""

    def work(self, now: float) -> list[Frame]:
        """Return the frames of the session proper."""
        raise NotImplementedError

    def take(self, frame: Frame) -> None:
        """Take in a frame of the session proper; raise ProtocolError if it is not for this role."""
        raise NotImplementedError

    def busy(self, now: float) -> float:
        """Return for how many seconds the longest piece of work has been going on."""
        return 0.0

    def mend(self) -> None:
        """Make good what an exception may have left half done, between any two lines of this session's."""

    def expecting(self) -> bool:
        """Return whether a word from the broker is due, so that silence means something."""
        return True

    # For the shell.

    def outgoing(self, now: float) -> list[Frame]:
        """Return what to send now that the connection takes frames."""
        if self.state == "down" and now >= self._greet_at:
            self.state = "greeting"
            self._heard = self._said = self._pinged = now
            return [Hello(PROTOCOL_VERSION, self.role, self.session, self.details())]
        if self.state != "up":
            return []
        frames = self.work(now)
        if frames:
            self._said = now
        if self.expecting():
            if self._at_rest:  # silence counts from here, not from before there was anything to say
                self._at_rest, self._heard = False, now
            if self.doubts or now >= self._ping_at():
                self._said = self._pinged = now
                self.doubts = False
                frames.append(Ping(0, self.busy(now)))
        return frames

    def _ping_at(self) -> float:
        """Return when to ping: each side must hear the other in time.

        Pings keep step with those of all other processes on the machine, which share the clock: so a broker
        of a thousand mules wakes up for many at a time.
        """
        step = self.ping_after / STEPS
        return floor((min(max(self._heard, self._pinged), self._said) + self.ping_after) / step) * step

    def receive(self, frame: Frame, now: float) -> None:
        """Take in a frame from the broker.

        Raises:
            ProtocolError: it is not one that the broker may send now.
        """
        self._heard = now
        if isinstance(frame, Welcome):
            if self.state == "greeting":
                self._attempts = 0
                self.welcomed(frame)
                self.state = "up"
        elif isinstance(frame, Refused):
            self.error = from_code(frame.code, frame.reason)
            self.state = "refused"
        elif isinstance(frame, Reset):
            self._reset(frame, now)
        elif self.state == "up":
            self.take(frame)
        self._at_rest = not self.expecting()

    def _reset(self, frame: Reset, now: float) -> None:
        if frame.code == ProtocolError.code:
            self.error = ProtocolError(frame.reason)
            self.state = "refused"
        elif self.state == "up":
            self.disconnected(now)
        elif self.state == "greeting" and frame.code == "stopping":
            self._retry(now)

    def doubt(self) -> None:
        """The connection takes frames again, which it did not: it may be another, to another broker.

        What was sent on the one before may be lost. If so, the answer to a ping says it at once.
        """
        self.doubts = self.state == "up" and self.expecting()

    def disconnected(self, now: float) -> None:
        """The connection, or the broker's knowledge of it, is gone: greet again on the next one."""
        if self.state in ("up", "greeting"):
            if self.state == "up":
                self.lost()
            self._retry(now)

    def _retry(self, now: float) -> None:
        least, most = BACKOFF_SECONDS
        pause = min(most, least * 2**self._attempts) if self._attempts else 0.0
        self._attempts = min(self._attempts + 1, 20)
        self._greet_at = now + pause * (0.5 + self.session[0] / 510)
        self.state = "down"
        self.doubts = False

    def _patience(self) -> float:
        """Return for how many seconds to wait for the answer to a Hello."""
        least, most = GREETING_SECONDS
        return min(most, least * 2.0**self._attempts)

    def broken(self, now: float) -> bool:
        """Return whether the connection is to be given up for a new one: the broker is silent on it."""
        limit = self._patience() if self.state == "greeting" else self.give_up_after
        waits = self.state == "greeting" or (self.state == "up" and not self._at_rest)
        return waits and now - self._heard >= limit

    def next_deadline(self, now: float) -> float | None:
        """Return when `outgoing` or `broken` has something new to say, if ever.

        Not when all that is missing is a connection.
        """
        if self.state == "down":
            return self._greet_at if self._greet_at > now else None
        if self.state == "greeting":
            return self._heard + self._patience()
        if self.state == "up" and self.expecting():
            return min(self._ping_at(), self._heard + self.give_up_after)
        return None


def taken(line: deque[T], count: int) -> Iterator[T]:
    """Yield so many of the first in line, each of which is taken out as it is asked for."""
    return islice(iter(line.popleft, None), count)
