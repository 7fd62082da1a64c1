"""Mules that hang, and are to be killed: of the configuration, since only these have somebody who can.

A mule that computes gives signs of life all the same. It hangs if it is **silent**: it was suspended, or
something in it holds the interpreter and never lets go. It hangs if it is **absent**: its process runs, but
has not registered, or not again after its connection was lost. And it may have said itself until when it
hangs if it is not done: its **deadline**, uWSGI's harakiri, which is kept here because a process that is
stuck cannot keep its own.

Who is found late may have been wronged: then it was the broker that stood still, and what would have said
otherwise waits to be read. So it gets a moment more. How silence is measured is the broker's affair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zmule.core.asking import Asked, arguments
from zmule.core.deadlines import Deadlines
from zmule.core.effects import KillMule, Note
from zmule.core.mules import Mule
from zmule.core.wire import MAX_SECONDS
from zmule.errors import NotPermitted, WrongValue

if TYPE_CHECKING:
    from zmule.core.broker import Broker

START_SECONDS = 60.0
"""How long a process may take to register: an interpreter starts, on a host that has much to do."""

LATE_SECONDS = 0.5
"""By how much a broker that stood still is late at the least."""

GRACE_SECONDS = 1.0
"""How long it takes then to read what has come meanwhile."""


class _Dues:
    """Until when something must have happened to mules, by their numbers, or they are killed."""

    def __init__(self) -> None:
        self._deadlines: Deadlines[int] = Deadlines()
        self._late: set[int] = set()

    def __contains__(self, number: int) -> bool:
        return number in self._deadlines

    def set(self, number: int, at: float) -> None:
        self._late.discard(number)
        self._deadlines.set(number, at)

    def discard(self, number: int) -> None:
        self._late.discard(number)
        self._deadlines.discard(number)

    def next(self) -> float | None:
        return self._deadlines.next()

    def over(self, now: float) -> list[int]:
        """Take out and return who is due; who is found late is due only a moment later, once."""
        due = self._deadlines.pop_due(now)
        late = {number for at, number in due if now - at > LATE_SECONDS} - self._late
        for number in late:
            self._deadlines.set(number, now + GRACE_SECONDS)
        self._late = self._late - {number for _, number in due} | late
        return [number for _, number in due if number not in late]

    def validate(self) -> None:
        self._deadlines.validate()
        assert all(number in self._deadlines for number in self._late)


class Hangs:
    """When mules hang, for a broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._absent = _Dues()
        self._deadlines = _Dues()

    def questions(self) -> dict[str, Callable[[Asked], Any]]:
        """Return the questions by name."""
        return {"set_deadline": self._set_deadline}

    # What happens to mules.

    def spawned(self, mule: Mule) -> None:
        """The process of a mule has been started, and has still to register."""
        patience = max(START_SECONDS, self._broker.limits.heartbeat_timeout)
        self._absent.set(mule.number, self._broker.now.mono + patience)

    def connected(self, mule: Mule) -> None:
        """A mule has registered."""
        self._absent.discard(mule.number)

    def lost(self, mule: Mule) -> None:
        """The connection of a mule is gone. If its process is not, it will be back."""
        if mule.token:
            self._absent.set(mule.number, self._broker.now.mono + self._broker.limits.heartbeat_timeout)

    def left(self, mule: Mule) -> None:
        """A mule has left in good order: what its process still does is its own affair."""
        self._absent.discard(mule.number)

    def exited(self, mule: Mule) -> None:
        """The process of a mule has ended."""
        self._absent.discard(mule.number)
        self._deadlines.discard(mule.number)

    def silent(self, mule: Mule) -> None:
        """A mule has not been heard of for too long."""
        silence = f"mule {mule.number} has been silent for {self._broker.limits.heartbeat_timeout:g} s"
        if mule.token:
            self._kill(mule, f"{silence}: killed, pid {mule.pid}")
        else:
            self._broker.note("warning", silence)

    def _set_deadline(self, asked: Asked) -> None:
        (seconds,) = arguments(asked, float)
        mule = self._broker.roster.at(asked.peer)
        if mule is None or not mule.token:
            raise NotPermitted("only a mule that zmuled has started can be killed by it")
        if not 0 <= seconds <= MAX_SECONDS:
            raise WrongValue(f"a deadline is a number of seconds from 0 to {MAX_SECONDS:.0f}")
        if seconds:
            self._deadlines.set(mule.number, self._broker.now.mono + seconds)
        else:
            self._deadlines.discard(mule.number)

    # Time.

    def tick(self) -> None:
        """Have those killed that hang."""
        for mule in self._over(self._absent):
            self._kill(mule, f"mule {mule.number} has not registered in time: killed, pid {mule.pid}")
        for mule in self._over(self._deadlines):
            mule.doom = "was killed with it (harakiri)"
            self._kill(mule, f"*** HARAKIRI ON MULE {mule.number} (pid: {mule.pid}) ***")

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do, on the monotonic clock."""
        dues = (self._absent.next(), self._deadlines.next())
        return min((due for due in dues if due is not None), default=None)

    def _over(self, dues: _Dues) -> list[Mule]:
        mules = map(self._broker.roster.get, dues.over(self._broker.now.mono))
        return [mule for mule in mules if mule is not None]

    def _kill(self, mule: Mule, why: str) -> None:
        self._broker.do(Note("warning", why, damped=False))
        self._broker.do(KillMule(mule.number))

    def validate(self) -> None:
        """Raise AssertionError if an invariant is broken."""
        self._absent.validate()
        self._deadlines.validate()
        for mule in self._broker.roster:
            if not mule.token:
                assert mule.number not in self._absent
                assert mule.number not in self._deadlines
            if mule.peer is not None:
                assert mule.number not in self._absent
