"""Mules that hang, and are to be killed: of the configuration, since only these have somebody who can.

A mule that computes gives signs of life all the same. It hangs if it is **silent**: it was suspended, or
something in it holds the interpreter and never lets go. It hangs if it is **absent**: its process runs, but
has not registered, or not again after its connection was lost. And it may have said itself until when it
hangs if it is not done: its **deadline**, uWSGI's harakiri, which is kept here because a process that is
stuck cannot keep its own.

Time in which the broker itself stood still does not count: nobody could be heard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zmule.core.asking import Asked, arguments
from zmule.core.effects import KillMule, Note
from zmule.core.mules import Mule
from zmule.core.wire import MAX_SECONDS
from zmule.errors import NotPermitted, WrongValue

if TYPE_CHECKING:
    from zmule.core.broker import Broker

START_SECONDS = 60.0
"""How long a process may take to register: an interpreter starts, on a host that has much to do."""


class Hangs:
    """When mules hang, for a broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._absent: dict[int, float] = {}
        self._deadlines: dict[int, float] = {}

    def questions(self) -> dict[str, Callable[[Asked], Any]]:
        """Return the questions by name."""
        return {"set_deadline": self._set_deadline}

    # What happens to mules.

    def spawned(self, mule: Mule) -> None:
        """The process of a mule has been started, and has still to register."""
        patience = max(START_SECONDS, self._broker.limits.heartbeat_timeout)
        self._absent[mule.number] = self._broker.now.mono + patience

    def connected(self, mule: Mule) -> None:
        """A mule has registered."""
        self._absent.pop(mule.number, None)

    def lost(self, mule: Mule) -> None:
        """The connection of a mule is gone. If its process is not, it will be back."""
        if mule.token:
            self._absent[mule.number] = self._broker.now.mono + self._broker.limits.heartbeat_timeout

    def left(self, mule: Mule) -> None:
        """A mule has left in good order: what its process still does is its own affair."""
        self._absent.pop(mule.number, None)

    def exited(self, mule: Mule) -> None:
        """The process of a mule has ended."""
        self._absent.pop(mule.number, None)
        self._deadlines.pop(mule.number, None)

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
            self._deadlines[mule.number] = self._broker.now.mono + seconds
        else:
            self._deadlines.pop(mule.number, None)

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
        return min([*self._absent.values(), *self._deadlines.values()], default=None)

    def credit(self, seconds: float) -> None:
        """For so long nobody could be heard: everybody has as much more time."""
        for dues in (self._absent, self._deadlines):
            dues.update({number: due + seconds for number, due in dues.items()})

    def _over(self, dues: dict[int, float]) -> list[Mule]:
        over = [number for number, due in dues.items() if due <= self._broker.now.mono]
        for number in over:
            del dues[number]
        return [mule for mule in map(self._broker.roster.get, over) if mule is not None]

    def _kill(self, mule: Mule, why: str) -> None:
        self._broker.do(Note("warning", why, damped=False))
        self._broker.do(KillMule(mule.number))

    def validate(self) -> None:
        """Raise AssertionError if an invariant is broken."""
        for mule in self._broker.roster:
            if not mule.token:
                assert mule.number not in self._absent
                assert mule.number not in self._deadlines
            if mule.peer is not None:
                assert mule.number not in self._absent
