"""Locks for the peers of a broker: who holds one must go on showing that it lives.

A holder has a lease that every frame of its renews. One that is silent for `heartbeat_timeout` is taken for
dead, and its connection is given up, so that its locks are free and it is told when it wakes up. Who only
waits needs no lease: a lock that is granted to the dead expires in its turn.

Fencing tokens grow over restarts, also if the clock went back in between: they begin at the clock, in
microseconds, or where the store says that earlier ones may have got to, whichever is higher. The store is
told of so many at a time that it has long taken note when the first of them is given out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from zmule.core.asking import LATER, Asked, arguments
from zmule.core.effects import Changes
from zmule.core.events import Peer
from zmule.core.frames import Answer
from zmule.core.locks import Granted, Locks, Outcome, Owner, Refused, Released
from zmule.errors import UnknownLock

if TYPE_CHECKING:
    from zmule.core.broker import Broker


TOKEN_FACT = "lock token"
"""The fact up to where tokens may have been given out."""

LAST_TOKEN = 1 << 62

RESERVE = 1_000_000
"""Tokens that are left, at least, when the store is told of more: of twice as many."""

THREAD_BITS = 32
"""So many of a thread's number are the system's for it; those above tell it from earlier threads."""


class LockService:
    """The locks of a broker, and its questions about them."""

    def __init__(self, broker: Broker, numbered: int) -> None:
        self._broker = broker
        self._locks = Locks(numbered, first_token=max(1, int(broker.now.wall * 1_000_000)))
        self._reserved = 0
        self._leases: dict[Peer, float] = {}
        self._asked: dict[Peer, int] = {}

    def restore(self, facts: Mapping[str, bytes]) -> None:
        """Take up what the store has kept, before any lock is granted."""
        earlier = int(facts.get(TOKEN_FACT, b"0"))
        if not 0 <= earlier < LAST_TOKEN:
            raise ValueError(f"{TOKEN_FACT!r} cannot be {earlier:.3g}")
        self._locks.next_token = max(self._locks.next_token, earlier)
        self._reserve()

    def questions(self) -> dict[str, Callable[[Asked], Any]]:
        """Return the questions by name."""
        return {
            "lock": self._lock,
            "unlock": self._unlock,
            "give_up_lock": self._give_up,
            "is_locked": self._is_locked,
        }

    def _lock(self, asked: Asked) -> object:
        name, thread, timeout, blocking = arguments(asked, (int, str), int, float, bool)
        if asked.request <= self._asked.get(asked.peer, -1):  # said again by a peer that was interrupted
            return LATER
        self._asked[asked.peer] = asked.request
        limit = timeout if timeout >= 0 else None
        owner, now = Owner(asked.peer, thread), self._broker.now.mono
        self._tell(self._locks.acquire(name, owner, asked.request, now, limit, blocking))
        return LATER

    def _unlock(self, asked: Asked) -> object:
        name, thread = arguments(asked, (int, str), int)
        self._tell(self._locks.release(name, Owner(asked.peer, thread), asked.request))
        return LATER

    def _give_up(self, asked: Asked) -> None:
        thread, request = arguments(asked, int, int)
        self._tell(self._locks.cancel(Owner(asked.peer, thread), request))

    def _is_locked(self, asked: Asked) -> bool:
        (name,) = arguments(asked, (int, str))
        try:
            return self._locks.is_locked(name)
        except ValueError as error:
            raise UnknownLock(str(error)) from None

    def _tell(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            peer = outcome.owner.peer
            if isinstance(outcome, Granted):
                self._reserve()
                self._leases[peer] = self._lease_end()
                self._broker.send(peer, Answer(outcome.request, "", outcome.token))
            elif isinstance(outcome, Released):
                self._broker.send(peer, Answer(outcome.request, "", None))
            elif isinstance(outcome, Refused):
                self._broker.send(peer, Answer(outcome.request, outcome.code, outcome.reason))

    # Peers and time.

    def heard(self, peer: Peer) -> None:
        """A peer has shown that it lives."""
        if peer in self._leases:
            self._leases[peer] = self._lease_end()

    def credit(self, seconds: float) -> None:
        """For so long nobody could be heard: no lease has run."""
        self._leases = {peer: until + seconds for peer, until in self._leases.items()}

    def gone(self, peer: Peer) -> None:
        """A connection is gone: its locks are free."""
        self._leases.pop(peer, None)
        self._asked.pop(peer, None)
        self._tell(self._locks.vanish(peer))

    def tick(self) -> None:
        """Give up holders that are silent and refuse those who have waited in vain."""
        now = self._broker.now.mono
        for peer in [peer for peer, until in self._leases.items() if until <= now]:
            self._expire(peer)
        self._tell(self._locks.tick(now))

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do."""
        due = (self._locks.next_deadline(), min(self._leases.values(), default=None))
        return min((deadline for deadline in due if deadline is not None), default=None)

    def _reserve(self) -> None:
        """Have the store take note of tokens to come, if few are left of which it knows."""
        if self._locks.next_token + RESERVE > self._reserved:
            self._reserved = self._locks.next_token + 2 * RESERVE
            self._broker.do(Changes(facts={TOKEN_FACT: b"%d" % self._reserved}))

    def _lease_end(self) -> float:
        return self._broker.now.mono + self._broker.limits.heartbeat_timeout

    def _expire(self, peer: Peer) -> None:
        del self._leases[peer]
        if self._locks.has_claims(peer):
            self._broker.vanished(peer, "held a lock and was silent for too long")

    # Status.

    def status(self) -> list[dict[str, Any]]:
        """Return the locks for the status, with processes and threads in place of owners."""
        return [
            {
                **lock,
                "holder": lock["holder"] and self._process(lock["holder"]),
                "waiting": [self._process(owner) for owner in lock["waiting"]],
            }
            for lock in self._locks.status()
        ]

    def _process(self, owner: Owner) -> dict[str, int]:
        known = self._broker.senders.at(owner.peer) or self._broker.roster.at(owner.peer)
        return {"pid": known.pid if known else 0, "thread": owner.thread & ((1 << THREAD_BITS) - 1)}

    def validate(self) -> None:
        """Raise AssertionError if an invariant is broken."""
        self._locks.validate()
